// What an annotated version tag says about its image. The tag is the only place that cannot be edited later
// without everybody noticing, so it is what images are compared with.

import { join } from 'node:path';
import { read } from '../command.ts';
import type { BuiltImage } from '../docker/build.ts';
import { type Image, inspectImage } from '../docker/objects.ts';
import { TaskError } from '../errors.ts';
import { ensureStateDirectory, readIfPresent, replaceFile, statePath } from '../files.ts';
import { localTags, tagMessage } from '../git.ts';
import { readHistory } from '../history.ts';
import { log } from '../log.ts';
import { imageReference, type Project, registryReference, variable } from '../project.ts';
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

/** What was released under a tag, or undefined if the tag is missing or not a release of this flow. */
export async function readRelease(root: string, tag: string): Promise<ReleaseRecord | undefined> {
  const message = await tagMessage(root, tag);
  return message ? parseReleaseTag(message) : undefined;
}

/** Every digest under which an engine may know the released image. */
export function releasedDigests({ digest, platforms }: Pick<ReleaseRecord, 'digest' | 'platforms'>) {
  return [digest, ...Object.values(platforms)];
}

interface Built extends Pick<Image, 'id'> {
  platforms: Record<string, string>;
}

/**
 * Is a rebuilt image the released one? Either it is the very image, or every platform of it has the manifest
 * that was released for that platform. Pure.
 */
export function isReleasedImage(release: Pick<ReleaseRecord, 'digest' | 'platforms'>, built: Built): boolean {
  if (releasedDigests(release).includes(built.id)) return true;
  const platforms = Object.entries(built.platforms);
  return platforms.length > 0 && platforms.every(([name, digest]) => release.platforms[name] === digest);
}

// What was released: an annotated version tag says which image it stands for. `switch` and `status` compare
// what runs with that, and `build-push` refuses to overwrite it.

/** The released image, present and unchanged. @throws TaskError naming what differs */
export async function verifyReleasedImage(project: Project, tag: string): Promise<Image> {
  const reference = imageReference(project, tag);
  const release = await readRelease(project.root, tag);
  if (!release) {
    throw new TaskError(`${tag} is not a release of this project: no annotated git tag records its image`, {
      code: 'not-released',
      hint: 'see the releases: git tag --list; fetch them: git fetch --tags',
    });
  }
  const image = await inspectImage(reference);
  if (!image) {
    throw new TaskError(`The image ${reference} is not on this machine`, {
      code: 'image-missing',
      hint: `npm run build-push -- ${tag}   builds it again from its git tag`,
    });
  }
  if (releasedDigests(release).includes(image.id)) return image;
  const rebuild = await acceptedRebuild(project.root, tag, release.digest);
  if (rebuild?.digest === image.id) return image;
  throw new TaskError(
    `The image ${reference} is not the released one: it is ${image.id}, released was ${release.digest}`,
    {
      code: 'image-changed',
      hint: `somebody re-tagged it. Take the name away (docker image rm ${reference}) and rebuild it from its git tag: npm run build-push -- ${tag}`,
    },
  );
}

/** The tags of all releases, best first: stable before prereleases, high before low, none that was withdrawn. */
export async function releasesToRun(project: Project): Promise<string[]> {
  const tags = knownTags(await localTags(project.root), project.release.tag_prefix);
  const notes = (await readIfPresent(join(project.root, project.release.notes))) ?? '';
  const withdrawn = withdrawnVersions(notes);
  const offered = tags.filter(({ version }) => !withdrawn.has(version));
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
  throw new TaskError('There is no previous release: the history knows no other one that prod ran', {
    code: 'no-previous',
    hint: 'name it: npm run switch -- prod --version vX.Y.Z',
  });
}

/** The version that a tag of this project names. */
export function versionOfTag(project: Project, tag: string): string | undefined {
  return parseTag(project.release.tag_prefix, tag);
}

// All releases at once, by one call of git: what status and doctor compare images with. Apart from releases.ts,
// which asks for a single tag.

export interface ReleaseTag {
  name: string;
  /** Without prefix. */
  version: string;
  /** The commit that the tag names. */
  commit: string;
  /** What its message records; undefined for a tag that is no release of this flow. */
  record: ReleaseRecord | undefined;
}

/** Every tag that is a version, as it is in the repository; none outside of one. */
export async function releaseTags(root: string, prefix: string): Promise<ReleaseTag[]> {
  // %01 cannot be in a tag's message.
  const format = '%(refname:strip=2)%00%(objecttype)%00%(objectname)%00%(*objectname)%00%(contents)%01';
  const output = await read(['git', '-C', root, 'for-each-ref', `--format=${format}`, 'refs/tags'], {
    okExitCodes: [128],
  });
  return output.split('\u0001').flatMap((entry) => {
    const [name = '', type, oid = '', peeled = '', message = ''] = entry.replace(/^\n/, '').split('\0');
    const version = parseTag(prefix, name);
    if (version === undefined) return [];
    const record = type === 'tag' ? parseReleaseTag(message) : undefined;
    return [{ name, version, commit: peeled || oid, record }];
  });
}

// Released images that this machine had to build again and could not get byte for byte, because its base
// image or builder is another one. Such a build is accepted once, with a warning, and from then on exactly
// that image counts as the release on this machine.

interface Rebuild {
  /** `Image.id` of the local build. */
  digest: string;
  /** What the tag records. */
  released: string;
  /** What differs, in words. */
  why: string;
  /** ISO 8601, UTC. */
  at: string;
}

const FILE = 'rebuilds.json';

async function readRebuilds(root: string): Promise<Record<string, Rebuild>> {
  const text = await readIfPresent(statePath(root, FILE));
  return text ? (JSON.parse(text) as Record<string, Rebuild>) : {};
}

/** The accepted rebuild of a release whose tag records `released`; a tag that moved since has none. */
export async function acceptedRebuild(root: string, tag: string, released: string) {
  const rebuild = (await readRebuilds(root))[tag];
  return rebuild?.released === released ? rebuild : undefined;
}

export async function acceptRebuild(root: string, tag: string, rebuild: Rebuild): Promise<void> {
  if (session.dryRun) return;
  await ensureStateDirectory(root);
  const rebuilds = { ...(await readRebuilds(root)), [tag]: rebuild };
  await replaceFile(statePath(root, FILE), `${JSON.stringify(rebuilds, null, 2)}\n`, { mode: 0o600 });
}

// A released image that was built again and came out different: what differs in words, and the note that this
// machine runs it nevertheless. The commit is the same; base image, builder or platform are not.

interface Difference {
  record: ReleaseRecord;
  image: Pick<BuiltImage, 'id' | 'platforms'>;
  /** This machine's base image as `reference@id`; undefined when there is none. */
  baseImage: string | undefined;
}

/** Why the same commit gave another image here. Pure. */
export function rebuildDifference({ record, image, baseImage }: Difference): string {
  if (isReleasedImage(record, image)) return 'the platforms are the released ones, the provenance is new';
  const others = Object.keys(image.platforms).filter((name) => !(name in record.platforms));
  const released = Object.keys(record.platforms);
  if (released.length > 0 && others.length > 0)
    return `it was released for ${released.join(', ')} and this is ${others.join(', ')}`;
  if (record.baseImage && record.baseImage !== baseImage)
    return `the base image was ${record.baseImage}, here it is ${baseImage ?? 'another one'}`;
  return 'commit and base image are the same, so the builder differs (its version, or secrets and arguments)';
}

/** Warns, and remembers that on this machine this image is the release. */
export async function acceptDifferingRebuild(
  project: Project,
  tag: string,
  record: ReleaseRecord,
  image: BuiltImage,
): Promise<void> {
  const reference = variable(project, 'BASE_IMAGE') ?? project.image.base_image;
  const present = reference ? await inspectImage(reference) : undefined;
  const baseImage = present ? `${reference}@${present.id}` : undefined;
  const why = rebuildDifference({ record, image, baseImage });
  log.warn(`the rebuilt image of ${tag} is not byte for byte the released one: ${why}`);
  log.info(`  released ${record.digest}\n  here     ${image.id}`);
  const registry = registryReference(project, tag);
  const source = registry ? `docker pull ${registry}` : 'docker save on the other machine, docker load here';
  log.info(
    `  hint: it runs on this machine as ${imageReference(project, tag)}; for the very image: ${source}`,
  );
  await acceptRebuild(project.root, tag, {
    digest: image.id,
    released: record.digest,
    why,
    at: new Date().toISOString(),
  });
}

export interface PreparedRelease {
  tag: string;
  /** Without prefix. */
  version: string;
  branch: string;
  /** The branch's commit before and after. */
  from: string;
  commit: string;
  tagObject: string;
  /** `Image.id` of the image that was tried. */
  digest: string;
  platforms: Record<string, string>;
  /** The tag released before on this branch. */
  previous: string | null;
  /** `latest` shall follow. */
  movesLatest: boolean;
  /** Publish it: image to the registry if one is set, branch and tag to the remote. */
  push: boolean;
  /** Switch prod to it at the end. */
  deploy: boolean;
  /** The commit that joins the release with what others pushed meanwhile; see publish.ts. */
  merge?: { from: string; to: string };
}
