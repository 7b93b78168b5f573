// Which version comes next, decided from tags alone: pure, so that every rule is one row of a test table.
// The rule behind the rules: a release must never look older, or newer, than what somebody already runs.

import { TaskError } from '../errors.ts';
import { semver } from '../libraries.ts';
import { BUMPS, type Bump, nextVersion, type StableBump } from './next-version.ts';
import { isStable, type KnownTag, knownTags, type VersionTag } from './version-tags.ts';

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

export interface VersionChoice {
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
