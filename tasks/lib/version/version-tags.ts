// Tags read as versions. Apart from version.ts, which decides the next one, because notes, builds and status
// ask the same questions: which tags are versions, which is the highest, where do the notes of one begin.
import { semver } from '../libraries.ts';

/** A tag as git lists it; `commit` is what it points to, peeled. */
export interface VersionTag {
  name: string;
  commit: string;
  where?: 'local' | 'remote' | undefined;
}

export interface KnownTag extends VersionTag {
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
