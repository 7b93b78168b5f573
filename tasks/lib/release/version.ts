// Which version comes next, decided from tags alone: pure, so that every rule is one row of a test table.
// A release must never look older, or newer, than what somebody already runs.
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
 * `version-not-higher` or `tag-exists`, with the tag and its commit, for one that is too low.
 */
export function planVersion(request: VersionRequest): VersionPlan {
  const { tagPrefix = 'v', allowBackport = true } = request;
  const merged = knownTags(request.merged, tagPrefix);
  const everywhere = knownTags([...request.everywhere, ...request.merged], tagPrefix);
  const current = merged[0]?.version;
  const { next, bump } = nextVersion(
    request,
    current,
    merged.find(({ version }) => isStable(version))?.version,
  );
  const refuse = (code: string, fact: string, hint: string) => {
    throw new TaskError(`Cannot release ${tagPrefix}${next}: ${fact}`, { code, hint });
  };
  const taken = everywhere.find(({ version }) => version === next);
  if (taken) refuse('tag-exists', `tag exists at ${place(taken)}`, 'choose a higher version');
  const stable = everywhere.filter(({ version }) => isStable(version));
  const higher = stable.find(({ version }) => semver.gt(version, next));
  // A version below an existing release is right only on a maintenance branch, and only if it was named.
  const limit = higher ?? merged[0];
  const isLower = current ? semver.lte(next, current) : higher !== undefined;
  const fact = limit ? `it is not higher than ${limit.name} (${place(limit)})` : '';
  if (limit && isLower) refuse('version-not-higher', fact, `choose a version above ${limit.version}`);
  if (higher && (bump !== 'explicit' || !allowBackport)) {
    const hint = `merge ${higher.name} into this branch first; on a maintenance branch, name the version: ${next}`;
    refuse('version-not-higher', `${fact}, which this branch does not contain`, hint);
  }
  const isBetween = ({ version }: KnownTag) =>
    semver.gt(version, current ?? next) && semver.lt(version, next);
  const skipped = higher && stable.find(isBetween);
  if (skipped) {
    const between = `${skipped.name} (${place(skipped)}) lies between, and this branch does not contain it`;
    refuse('version-not-higher', between, `choose a version below ${skipped.version}`);
  }
  const isPrerelease = !isStable(next);
  const names = { current, next, tag: `${tagPrefix}${next}`, bump };
  return {
    ...names,
    isPrerelease,
    isBackport: higher !== undefined,
    isHighestStable: !isPrerelease && !higher,
  };
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

function place({ commit, where }: KnownTag): string {
  return `${commit.slice(0, 7)}${where === 'remote' ? ' on the remote' : ''}`;
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
 * Where the changes of a release begin: a prerelease lists what is new since the version before it, a stable
 * release everything since the last stable one. Undefined means from the first commit on.
 * `requested`: a word such as `patch`, or a version.
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

// From the request to a version number.

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
