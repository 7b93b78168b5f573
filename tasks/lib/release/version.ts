// Which version comes next, decided from tags alone: pure, so that every rule is one row of a test table.
// A release must never look older, or newer, than what somebody already runs.
import semver from 'semver';
import { suggestion, TaskError, usageError } from '../errors.ts';

/** A tag whose name is a version. */
export interface VersionTag {
  name: string;
  /** Without prefix and build metadata. */
  version: string;
  /** What the tag names in the end. */
  commit: string;
  where?: 'remote' | undefined;
}

/** The version in a tag name; undefined for `latest`, `v1.2` and tags of another prefix. */
export function parseTag(tagPrefix: string, tagName: string): string | undefined {
  if (!tagName.startsWith(tagPrefix)) return undefined;
  const text = tagName.slice(tagPrefix.length);
  return /^\d/.test(text) ? (semver.parse(text)?.version ?? undefined) : undefined;
}

/** The tags that are versions, highest first. */
export function versionTags<T extends { name: string }>(tags: readonly T[], tagPrefix: string) {
  const known = tags.flatMap((tag) => {
    const parsed = semver.parse(parseTag(tagPrefix, tag.name));
    return parsed ? [{ parsed, tag: { ...tag, version: parsed.version } }] : [];
  });
  return known.sort((a, b) => b.parsed.compare(a.parsed)).map(({ tag }) => tag);
}

/** True for a version without a prerelease part. */
export function isStable(version: string): boolean {
  return semver.prerelease(version) === null;
}

type StableBump = 'major' | 'minor' | 'patch';
export const BUMPS = ['patch', 'minor', 'major', 'prerelease', 'auto'] as const;

export interface VersionRequest {
  /** Tags reachable from the branch, highest first. */
  merged: readonly VersionTag[];
  /** All tags, local and remote, highest first. */
  everywhere: readonly VersionTag[];
  /** One of BUMPS, or a version with or without a leading `v`. */
  requested: string;
  /** What the changes since the last stable release on this branch ask for. */
  bump: StableBump;
  preid?: string | undefined;
  /** May a version that is named lie below a release that this branch does not contain? */
  allowBackport: boolean;
  tagPrefix: string;
}

export interface VersionPlan {
  /** Highest version merged into the branch, prereleases included; undefined before the first release. */
  current: string | undefined;
  next: string;
  /** Tag name of `next`. */
  tag: string;
  /** Only then may floating tags such as `latest` move to it. */
  isHighestStable: boolean;
}

/**
 * The next version. Throws a usage error (exit 2) for a request that is no version, and TaskError
 * `version-not-higher` or `tag-exists`, with the tag and its commit, for one that is too low.
 */
export function planVersion(request: VersionRequest): VersionPlan {
  const { merged, everywhere, requested, allowBackport, tagPrefix } = request;
  const current = merged[0]?.version;
  const next = nextVersion(request);
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
  if (higher && (isBump(requested) || !allowBackport)) {
    const hint = `merge ${higher.name} into this branch first; on a maintenance branch, name the version: ${next}`;
    refuse('version-not-higher', `${fact}, which this branch does not contain`, hint);
  }
  const skipped =
    higher && stable.find(({ version }) => semver.gt(version, current ?? next) && semver.lt(version, next));
  if (skipped) {
    const between = `${skipped.name} (${place(skipped)}) lies between, and this branch does not contain it`;
    refuse('version-not-higher', between, `choose a version below ${skipped.version}`);
  }
  return { current, next, tag: `${tagPrefix}${next}`, isHighestStable: isStable(next) && !higher };
}

function place({ commit, where }: VersionTag): string {
  return `${commit.slice(0, 7)}${where === 'remote' ? ' on the remote' : ''}`;
}

/** What a person can choose on this branch, the recommended version first; what would be refused is left out. */
export function versionChoices(request: Omit<VersionRequest, 'requested'>) {
  const choices = new Map<string, { value: string; label: string; hint: string }>();
  let refused: unknown;
  for (const requested of ['auto', ...BUMPS] as const) {
    try {
      const { current, next } = planVersion({ ...request, requested });
      const automatic = current ? request.bump : 'first';
      const label = `${requested === 'auto' ? automatic : requested} → ${next}`;
      const hint = requested === 'auto' ? 'recommended by the commits' : '';
      if (!choices.has(next)) choices.set(next, { value: requested, label, hint });
    } catch (error) {
      refused ??= error;
    }
  }
  if (choices.size === 0) throw refused;
  return [...choices.values()];
}

/**
 * Where the changes of a release begin: a prerelease lists what is new since the version before it, a stable
 * release everything since the last stable one. Undefined means from the first commit on.
 * `requested`: a word such as `patch`, or a version.
 */
export function changesBase<T extends VersionTag>(merged: readonly T[], requested: string): T | undefined {
  const asked = semver.parse(requested)?.version;
  const isPrerelease = asked ? !isStable(asked) : requested === 'prerelease';
  const candidates = isPrerelease ? merged : merged.filter(({ version }) => isStable(version));
  return candidates.find(({ version }) => !asked || semver.lt(version, asked));
}

// From the request to a version number.

function isBump(requested: string): requested is (typeof BUMPS)[number] {
  return (BUMPS as readonly string[]).includes(requested);
}

function nextVersion({ merged, requested, bump, preid = 'rc' }: VersionRequest): string {
  const current = merged[0]?.version;
  if (!isBump(requested)) return explicitVersion(requested);
  verifyPreid(preid);
  if (!current) return requested === 'prerelease' ? `1.0.0-${preid}.0` : '1.0.0';
  if (requested !== 'auto') return semver.inc(current, requested, preid)!;
  if (isStable(current)) return semver.inc(current, bump)!;
  // `auto` completes a prerelease, unless the changes since the last stable release ask for more: from 1.0.0 and
  // 1.1.0-rc.1 it goes to 1.1.0, and with a breaking change to 2.0.0.
  const completed = semver.inc(current, 'patch')!;
  const stable = merged.find(({ version }) => isStable(version));
  const asked = stable ? semver.inc(stable.version, bump)! : completed;
  return semver.gt(asked, completed) ? asked : completed;
}

/** Refuses what can be no version, before anything is looked at. @throws a usage error (exit 2) */
export function verifyRequested(requested: string | undefined, preid: string | undefined): void {
  if (requested !== undefined && !isBump(requested)) explicitVersion(requested);
  if (preid === undefined) return;
  verifyPreid(preid);
  if (requested === undefined || requested === 'prerelease') return;
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

function explicitVersion(text: string): string {
  const isNumber = /^v?\d/.test(text);
  const parsed = isNumber ? semver.parse(text) : null;
  if (!parsed) {
    const hint = isNumber ? 'a version has three numbers, e.g. 1.4.0' : suggestion(text, BUMPS);
    throw usageError(`"${text}" is neither a version nor one of ${BUMPS.join(', ')}`, { hint });
  }
  if (parsed.build.length === 0) return parsed.version;
  throw usageError(`Version ${text} has build metadata`, {
    hint: `an image tag cannot contain "+"; use ${parsed.version}`,
  });
}
