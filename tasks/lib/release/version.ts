// Which version comes next, decided from tags alone: pure, so that every rule is one row of a test table.
// The rule behind the rules: a release must never look older, or newer, than what somebody already runs.
import semver from 'semver';
import { suggestion, TaskError, usageError } from '../errors.ts';

export interface VersionRequest {
  /** Tags reachable from the branch. */
  merged: readonly VersionTag[];
  /** All tags, local and remote. */
  everywhere: readonly VersionTag[];
  /** `patch`, `minor`, `major`, `prerelease`, `auto` or a version with or without a leading `v`. */
  requested: string;
  /** What `auto` means here: the bump of the changes since the last stable release on this branch. */
  changes?: { bump: StableBump } | undefined;
  preid?: string | undefined;
  /** May an explicit version lie below a release that this branch does not contain? Default true. */
  allowBackport?: boolean | undefined;
  tagPrefix?: string | undefined;
}

export interface VersionPlan {
  /** Highest version merged into the branch, prereleases included; undefined before the first release. */
  current: string | undefined;
  next: string;
  /** Tag name of `next`. */
  tag: string;
  bump: Bump;
  isPrerelease: boolean;
  isBackport: boolean;
  /** Only then may floating tags such as `latest` move to it. */
  isHighestStable: boolean;
}

interface VersionChoice {
  /** What to pass on as `requested`. */
  requested: (typeof BUMPS)[number];
  version: string;
  bump: Bump;
  isPrerelease: boolean;
  isRecommended: boolean;
}

/**
 * The next version. Throws a usage error (exit 2) for a request that is no version, and TaskError
 * `version-not-higher` or `tag-exists`, with the tag and its commit, for one that would go backwards.
 */
export function planVersion(request: VersionRequest): VersionPlan {
  const { tagPrefix = 'v' } = request;
  const merged = knownTags(request.merged, tagPrefix);
  const everywhere = knownTags([...request.everywhere, ...request.merged], tagPrefix);
  const current = merged[0]?.version;
  const { next, bump } = nextVersion(request, current, lastStable(merged));
  const taken = everywhere.find(({ version }) => version === next);
  if (taken)
    throw refusal('tag-exists', next, tagPrefix, `tag exists at ${place(taken)}`, 'choose a higher version');
  const higher = everywhere.filter(({ version }) => isStable(version) && semver.gt(version, next));
  const isBackport = higher.length > 0;
  if (isBackport) verifyBackport(request, { next, bump, higher, merged, everywhere });
  else verifyHigher(next, merged[0], tagPrefix);
  const isPrerelease = !isStable(next);
  const isHighestStable = !isPrerelease && !isBackport;
  return { current, next, tag: `${tagPrefix}${next}`, bump, isPrerelease, isBackport, isHighestStable };
}

/** What a person can choose on this branch, the recommended version first; what would be refused is left out. */
export function versionChoices(request: Omit<VersionRequest, 'requested'>): VersionChoice[] {
  const choices: VersionChoice[] = [];
  let refused: unknown;
  for (const requested of ['auto', ...BUMPS] as const) {
    try {
      const { next, bump, isPrerelease } = planVersion({ ...request, requested });
      if (choices.some(({ version }) => version === next)) continue;
      choices.push({ requested, version: next, bump, isPrerelease, isRecommended: requested === 'auto' });
    } catch (error) {
      refused ??= error;
    }
  }
  if (choices.length === 0) throw refused;
  return choices;
}

function verifyHigher(next: string, current: KnownTag | undefined, tagPrefix: string): void {
  if (!current || semver.gt(next, current.version)) return;
  const fact = `it is not higher than ${current.name} (${place(current)}) on this branch`;
  throw refusal('version-not-higher', next, tagPrefix, fact, `choose a version above ${current.version}`);
}

interface BackportFacts {
  next: string;
  bump: Bump;
  /** Stable releases above `next`, highest first. */
  higher: readonly KnownTag[];
  merged: readonly KnownTag[];
  everywhere: readonly KnownTag[];
}

/** A version below an existing release is right only on a maintenance branch, and only if it was named. */
function verifyBackport(
  request: VersionRequest,
  { next, bump, higher, merged, everywhere }: BackportFacts,
): void {
  const { tagPrefix = 'v', allowBackport = true } = request;
  const [highest] = higher as [KnownTag, ...KnownTag[]];
  const current = merged[0];
  const fact = `it is not higher than ${highest.name} (${place(highest)})`;
  const code = 'version-not-higher';
  if (!current || semver.lte(next, current.version)) {
    throw refusal(code, next, tagPrefix, fact, `choose a version above ${highest.version}`);
  }
  if (bump !== 'explicit' || !allowBackport) {
    const hint = `get the branch that has ${highest.name} first; on a maintenance branch, name the version: ${next}`;
    throw refusal(code, next, tagPrefix, `${fact}, which this branch does not contain`, hint);
  }
  const inBranch = new Set(merged.map(({ version }) => version));
  const skipped = everywhere.find(
    ({ version }) =>
      isStable(version) &&
      !inBranch.has(version) &&
      semver.gt(version, current.version) &&
      semver.lt(version, next),
  );
  if (!skipped) return;
  const missing = `${skipped.name} (${place(skipped)}) lies between, and this branch does not contain it`;
  throw refusal(code, next, tagPrefix, missing, `choose a version below ${skipped.version}`);
}

function lastStable(merged: readonly KnownTag[]): string | undefined {
  return merged.find(({ version }) => isStable(version))?.version;
}

function place({ commit, where }: KnownTag): string {
  return `${commit.slice(0, 7)}${where === 'remote' ? ' on the remote' : ''}`;
}

function refusal(code: string, next: string, tagPrefix: string, fact: string, hint: string): TaskError {
  return new TaskError(`Cannot release ${tagPrefix}${next}: ${fact}`, { code, hint });
}

// Tags read as versions: which tags are versions, which is the highest, where do the notes of one begin.

/** A tag as git lists it; `commit` is what it points to, peeled. */
export interface VersionTag {
  name: string;
  commit: string;
  where?: 'local' | 'remote' | undefined;
}

interface KnownTag extends VersionTag {
  /** The version in the name, without prefix. */
  version: string;
}

/**
 * The version in a tag name, without prefix and build metadata, or undefined: `latest`, `v1.2` and tags of
 * another prefix are not versions.
 */
export function parseTag(tagPrefix: string, tagName: string): string | undefined {
  if (!tagName.startsWith(tagPrefix)) return undefined;
  const text = tagName.slice(tagPrefix.length);
  return /^\d/.test(text) ? (semver.parse(text)?.version ?? undefined) : undefined;
}

/** The tags that are versions, highest first. */
export function knownTags(tags: readonly VersionTag[], tagPrefix = 'v'): KnownTag[] {
  const known = tags.flatMap((tag) => {
    const version = parseTag(tagPrefix, tag.name);
    return version ? [{ ...tag, version }] : [];
  });
  const parsed = new Map(known.map(({ version }) => [version, new semver.SemVer(version)]));
  return known.sort((a, b) => semver.rcompare(parsed.get(a.version)!, parsed.get(b.version)!));
}

/** True for a version without a prerelease part. */
export function isStable(version: string): boolean {
  return semver.prerelease(version) === null;
}

/**
 * Where the changes of a release begin: a prerelease tells what is new since the version before it, a stable
 * release everything since the last stable one. Undefined means from the first commit on.
 * `requested` is what the user asked for, or a version.
 */
export function changesBase(
  merged: readonly VersionTag[],
  requested: string,
  tagPrefix = 'v',
): KnownTag | undefined {
  const known = knownTags(merged, tagPrefix);
  const asked = semver.parse(requested)?.version;
  const isPrerelease = asked ? !isStable(asked) : requested === 'prerelease';
  const candidates = isPrerelease ? known : known.filter(({ version }) => isStable(version));
  return candidates.find(({ version }) => !asked || semver.lt(version, asked));
}

// From what was asked for to a version number, as semver counts.

type StableBump = 'major' | 'minor' | 'patch';
export const BUMPS = ['patch', 'minor', 'major', 'prerelease', 'auto'] as const;

/** What a version came from. `first` is the first release of a branch without any. */
type Bump = StableBump | 'prerelease' | 'explicit' | 'first';

interface NextRequest {
  requested: string;
  preid?: string | undefined;
  /** What `auto` means here. */
  changes?: { bump: StableBump } | undefined;
}

/**
 * The version that `requested` leads to from `current` (the highest on the branch) and `stable` (the highest
 * without prerelease part). Throws a usage error for text that is no version and no known word.
 */
function nextVersion(request: NextRequest, current?: string, stable?: string): { next: string; bump: Bump } {
  const { requested, preid = 'rc', changes } = request;
  const word = BUMPS.find((bump) => bump === requested);
  if (!word) return { next: explicitVersion(requested), bump: 'explicit' };
  verifyPreid(preid);
  if (!current) return { next: word === 'prerelease' ? `1.0.0-${preid}.0` : '1.0.0', bump: 'first' };
  if (word !== 'auto') return { next: semver.inc(current, word, preid)!, bump: word };
  const bump = changes?.bump ?? 'patch';
  return { next: finishedVersion(current, stable, bump), bump };
}

/** Refuses what can be no version, before anything is looked at. @throws a usage error (exit 2) */
export function verifyRequested(requested: string | undefined, preid: string | undefined): void {
  const word = BUMPS.find((bump) => bump === requested);
  if (requested !== undefined && !word) explicitVersion(requested);
  if (preid === undefined) return;
  verifyPreid(preid);
  if (requested === undefined || word === 'prerelease') return;
  throw usageError(`--preid ${preid} names a prerelease, and "${requested}" makes none`, {
    hint: `npm run release -- prerelease --preid ${preid}`,
  });
}

function verifyPreid(preid: string): void {
  if (/^[a-z][0-9a-z-]*$/i.test(preid)) return;
  throw usageError(`--preid ${preid} cannot name a prerelease`, {
    hint: 'use a word such as rc, beta or alpha',
  });
}

/**
 * From a prerelease, `auto` completes it, unless the changes since the last stable release ask for more:
 * 1.0.0 → 1.1.0-rc.1 becomes 1.1.0, and with a breaking change 2.0.0.
 */
function finishedVersion(current: string, stable: string | undefined, bump: StableBump): string {
  if (isStable(current)) return semver.inc(current, bump)!;
  const completed = semver.inc(current, 'patch')!;
  const asked = stable ? semver.inc(stable, bump)! : completed;
  return semver.gt(asked, completed) ? asked : completed;
}

function explicitVersion(text: string): string {
  const parsed = /^v?\d/.test(text) ? semver.parse(text) : null;
  if (!parsed) {
    const hint = /^v?\d/.test(text)
      ? 'a version has three numbers, e.g. 1.4.0'
      : suggestion(text, [...BUMPS]);
    throw usageError(`"${text}" is neither a version nor one of ${BUMPS.join(', ')}`, { hint });
  }
  if (parsed.build.length > 0) {
    const hint = `an image tag cannot contain "+"; use ${parsed.version}`;
    throw usageError(`Version ${text} has build metadata`, { hint });
  }
  return parsed.version;
}
