// What was released: an annotated version tag records its image. A tag cannot be edited without everybody noticing,
// so images are compared with it.

import { z } from 'zod';
import { switchCommand } from '../active.ts';
import { type Image, inspectImage } from '../docker/objects.ts';
import { CommandError, TaskError } from '../errors.ts';
import { readIfPresent, statePath, writeFileAtomic } from '../files.ts';
import { fileAt, readTags, resolveRevision, type TagObject } from '../git.ts';
import { readHistory } from '../history.ts';
import { imageReference, type Project, variable } from '../project.ts';
import { session } from '../session.ts';
import { withdrawnVersions } from './notes.ts';
import { isStable, knownTags, parseTag } from './version.ts';

/** What a release tag's message records about its image. */
export interface ReleaseRecord {
  image: string;
  /** `Image.id` of the image that was health-checked; of a multi-platform image the index's digest. */
  digest: string;
  /**
   * `linux/amd64` → manifest digest: what the same commit gives again wherever it is built, while an index
   * with provenance is another one each time.
   */
  platforms: Record<string, string>;
  /** Base image reference and id, to explain why a rebuild differs. */
  baseImage?: string;
}

/** The tag's message: a title and one `Key: value` line each, like a commit's trailers. */
export function releaseTagMessage(tag: string, record: ReleaseRecord): string {
  const base = record.baseImage ? [`Base-Image: ${record.baseImage}`] : [];
  const platforms = Object.entries(record.platforms).map(
    ([platform, digest]) => `Platform-Digest: ${platform} ${digest}`,
  );
  const lines = [`Image: ${record.image}`, `Image-Digest: ${record.digest}`, ...platforms, ...base];
  return [tag, '', ...lines, ''].join('\n');
}

export function parseReleaseTag(message: string): ReleaseRecord | undefined {
  const value = (key: string) => new RegExp(`^${key}: (.+)$`, 'm').exec(message)?.[1];
  const image = value('Image');
  const digest = value('Image-Digest');
  const baseImage = value('Base-Image');
  const platforms = [...message.matchAll(/^Platform-Digest: (\S+) (\S+)$/gm)].map(([, platform, id]) => [
    platform,
    id,
  ]);
  if (!image || !digest) return undefined;
  return { image, digest, platforms: Object.fromEntries(platforms), ...(baseImage ? { baseImage } : {}) };
}

/** A tag that is a version, as it is in the repository. */
export interface ReleaseTag {
  name: string;
  /** Without prefix. */
  version: string;
  /** The commit that the tag names. */
  commit: string;
  /** What its message records; undefined for a tag that is no release of this flow: it is history. */
  record: ReleaseRecord | undefined;
}

function asRelease(prefix: string, { name, target, isCommit, message }: TagObject): ReleaseTag[] {
  const version = parseTag(prefix, name);
  if (version === undefined || !isCommit) return [];
  return [{ name, version, commit: target, record: message ? parseReleaseTag(message) : undefined }];
}

/** Every tag that is a version; none outside of a repository. */
export async function releaseTags(root: string, prefix: string): Promise<ReleaseTag[]> {
  try {
    return (await readTags(root)).flatMap((tag) => asRelease(prefix, tag));
  } catch (error) {
    if (error instanceof CommandError && /not a git repository/.test(error.stderr)) return [];
    throw error;
  }
}

/** What was released under a tag, or undefined if the tag is missing or not a release of this flow. */
export async function readRelease(root: string, tag: string): Promise<ReleaseRecord | undefined> {
  const [found] = await readTags(root, tag);
  return found?.message ? parseReleaseTag(found.message) : undefined;
}

/** A release, with what its tag records. */
export type Release = ReleaseTag & { record: ReleaseRecord };

/** @throws TaskError if the tag is missing or not a release of this flow */
export async function releaseOfTag(project: Project, tag: string): Promise<Release> {
  const [found] = (await readTags(project.root, tag)).flatMap((one) =>
    asRelease(project.release.tag_prefix, one),
  );
  if (found?.record) return { ...found, record: found.record };
  const why = found ? 'its git tag records no image' : 'there is no such git tag';
  throw new TaskError(`${tag} is not a release of this project: ${why}`, {
    code: 'not-released',
    hint: 'see the releases: git tag --list; fetch them: git fetch --tags; make one: npm run release',
  });
}

/** Every digest under which an engine may know the released image. */
export function releasedDigests({ digest, platforms }: Pick<ReleaseRecord, 'digest' | 'platforms'>) {
  return [digest, ...Object.values(platforms)];
}

/**
 * Is a rebuilt image the released one? Either it is the very image, or every platform of it has the manifest
 * that was released for that platform. Pure.
 */
export function isReleasedImage(
  release: Pick<ReleaseRecord, 'digest' | 'platforms'>,
  built: { id: string; platforms: Record<string, string> },
): boolean {
  if (releasedDigests(release).includes(built.id)) return true;
  const platforms = Object.entries(built.platforms);
  return platforms.length > 0 && platforms.every(([name, digest]) => release.platforms[name] === digest);
}

/** A release's image on this machine; undefined if it is not here. @throws TaskError if another one has its name */
export async function releasedImage(
  project: Project,
  { name, record }: { name: string; record: Pick<ReleaseRecord, 'digest' | 'platforms'> },
): Promise<Image | undefined> {
  const reference = imageReference(project, name);
  const image = await inspectImage(reference);
  if (!image || releasedDigests(record).includes(image.id)) return image;
  const rebuild = (await readRebuilds(project.root))[name];
  if (rebuild?.released === record.digest && rebuild.digest === image.id) return image;
  throw imageDiffers(reference, name, image.id, record.digest);
}

export function imageDiffers(reference: string, tag: string, found: string, released: string): TaskError {
  return new TaskError(
    `The image ${reference} is not the released one: it is ${found}, released was ${released}`,
    {
      code: 'image-changed',
      hint: `somebody moved the tag. Remove it (docker image rm ${reference}) and rebuild it from its git tag: npm run build-push -- ${tag}`,
    },
  );
}

/** The released image, present and unchanged. @throws TaskError naming what differs */
export async function verifyReleasedImage(project: Project, tag: string): Promise<Image> {
  const image = await releasedImage(project, await releaseOfTag(project, tag));
  if (image) return image;
  throw new TaskError(`The image ${imageReference(project, tag)} is not on this machine`, {
    code: 'image-missing',
    hint: `npm run build-push -- ${tag}   builds it again from its git tag`,
  });
}

/** The tags of all releases, best first: stable before prereleases, high before low, none that was withdrawn. */
export async function releasesToRun({ root, release }: Project): Promise<string[]> {
  const released = (await releaseTags(root, release.tag_prefix)).filter(({ record }) => record);
  if (released.length === 0) return [];
  const head = await resolveRevision(root, 'HEAD');
  const withdrawn = withdrawnVersions((head && (await fileAt(root, head, release.notes))) ?? '');
  const offered = knownTags(released, release.tag_prefix).filter(({ version }) => !withdrawn.has(version));
  const stable = offered.filter(({ version }) => isStable(version));
  return [...stable, ...offered.filter((tag) => !stable.includes(tag))].map(({ name }) => name);
}

/** The tag of the highest stable release, else of the highest prerelease; undefined before the first. */
export async function newestRelease(project: Project): Promise<string | undefined> {
  return (await releasesToRun(project))[0];
}

/** The release that prod ran before the present one, from the history. @throws TaskError if there is none */
export async function previousRelease(project: Project, present: string | undefined): Promise<string> {
  const switches = (await readHistory(project.root)).filter(
    // Of this very engine: another machine's history is beside it in the same file.
    ({ task, outcome, context }) => task === 'switch' && outcome === 'done' && context === session.context,
  );
  const previous = switches.map(({ prod }) => prod).findLast((tag) => tag && tag !== present);
  if (previous) return previous;
  throw new TaskError('There is no previous release: no earlier version of prod in the history', {
    code: 'no-previous',
    hint: `name it: ${switchCommand(project, 'prod', { version: 'vX.Y.Z' })}`,
  });
}

/** The version that a tag of this project names. */
export function versionOfTag(project: Project, tag: string): string | undefined {
  return parseTag(project.release.tag_prefix, tag);
}

// Released images that this machine had to build again and could not get byte for byte, because its base image or builder
// is another one. Such a build is accepted once, with a warning, and from then on counts as the release on this machine.

const rebuildSchema = z.strictObject({
  /** `Image.id` of the local build. */
  digest: z.string(),
  /** What the tag records; a tag that moved since has no rebuild. */
  released: z.string(),
  /** What differs, in words. */
  why: z.string(),
  /** ISO 8601, UTC. */
  at: z.string(),
});
type Rebuilds = Record<string, z.output<typeof rebuildSchema>>;

async function readRebuilds(root: string): Promise<Rebuilds> {
  const path = statePath(root, 'rebuilds.json');
  const text = await readIfPresent(path);
  try {
    return text ? z.record(z.string(), rebuildSchema).parse(JSON.parse(text)) : {};
  } catch (cause) {
    throw new TaskError(`Cannot read the accepted rebuilds: ${path} is damaged`, {
      code: 'rebuilds-unreadable',
      hint: `rm ${path}   (a rebuilt image is then compared, and built, again)`,
      cause,
    });
  }
}

/** A tag as this machine has it: with each digest that its image may have here; none if the tag records no image. */
export type ReleaseHere = ReleaseTag & { digests: string[]; isRebuilt: boolean };

/** Every tag that is a version, with the builds that this machine accepted. */
export async function releasesHere({ root, release }: Project): Promise<ReleaseHere[]> {
  const [tags, rebuilds] = await Promise.all([releaseTags(root, release.tag_prefix), readRebuilds(root)]);
  return tags.map((tag) => {
    const rebuild = rebuilds[tag.name];
    const isRebuilt = rebuild !== undefined && rebuild.released === tag.record?.digest;
    const digests = tag.record ? releasedDigests(tag.record) : [];
    return { ...tag, isRebuilt, digests: isRebuilt ? [...digests, rebuild.digest] : digests };
  });
}

/** From now on this image is the release on this machine. */
export async function acceptRebuild(
  { root }: Project,
  tag: string,
  { digest, released, why }: { digest: string; released: string; why: string },
): Promise<void> {
  const rebuild = { digest, released, why, at: new Date().toISOString() };
  const text = `${JSON.stringify({ ...(await readRebuilds(root)), [tag]: rebuild }, null, 2)}\n`;
  await writeFileAtomic(statePath(root, 'rebuilds.json'), text, { mode: 0o600 });
}

/** Why the same commit gave another image here. `baseImage`: this machine's, as `reference@id`. Pure. */
export function rebuildDifference(
  record: ReleaseRecord,
  image: { id: string; platforms: Record<string, string> },
  baseImage: string | undefined,
): string {
  if (isReleasedImage(record, image)) return 'same platforms, new provenance';
  const others = Object.keys(image.platforms).filter((name) => !(name in record.platforms));
  const released = Object.keys(record.platforms);
  if (released.length > 0 && others.length > 0)
    return `it was released for ${released.join(', ')} and this is ${others.join(', ')}`;
  if (record.baseImage && record.baseImage !== baseImage)
    return `the base image was ${record.baseImage}, here it is ${baseImage ?? 'unknown'}`;
  return 'same commit and base image, so the builder differs (its version, secrets or build arguments)';
}

/** This machine's base image as `reference@id`; undefined when there is none. */
export async function baseImageOf(project: Project): Promise<string | undefined> {
  const reference = variable(project, 'BASE_IMAGE') ?? project.image.base_image;
  const present = reference ? await inspectImage(reference) : undefined;
  return present ? `${reference}@${present.id}` : undefined;
}
