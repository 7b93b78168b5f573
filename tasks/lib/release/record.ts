// What was released, and its image: an annotated version tag records it. A tag cannot be edited without everybody noticing,
// so images are compared with it, whoever builds them.

import { switchCommand } from '../active.ts';
import { read } from '../command.ts';
import { buildCommit, buildImage } from '../docker/build.ts';
import { candidateReference, removeCandidates, tryCandidate } from '../docker/candidate.ts';
import { type Image, inspectImage, tagImage } from '../docker/objects.ts';
import { CommandError, TaskError } from '../errors.ts';
import { makeDirectory, readIfPresent, statePath, writeFileAtomic } from '../files.ts';
import {
  commitTime,
  fileAt,
  type GitTag,
  git,
  mergedTags,
  readTags,
  resolveRevision,
  sourceUrl,
  workTree,
} from '../git.ts';
import { readHistory } from '../history.ts';
import { log } from '../log.ts';
import { imageReference, type Project, registryReference, variable } from '../project.ts';
import { session, uninterrupted } from '../session.ts';
import { withdrawnVersions } from './notes.ts';
import { isStable, parseTag, type VersionTag, versionTags } from './version.ts';

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
  baseImage?: string | undefined;
}

/** The tag's message: a title and one `Key: value` line each, like a commit's trailers. */
export function releaseTagMessage(tag: string, record: ReleaseRecord): string {
  const { image, digest, platforms, baseImage } = record;
  const perPlatform = Object.entries(platforms).map((entry) => `Platform-Digest: ${entry.join(' ')}`);
  const base = baseImage ? [`Base-Image: ${baseImage}`] : [];
  return [tag, '', `Image: ${image}`, `Image-Digest: ${digest}`, ...perPlatform, ...base, ''].join('\n');
}

export function parseReleaseTag(message: string): ReleaseRecord | undefined {
  const value = (key: string) => new RegExp(`^${key}: (.+)$`, 'm').exec(message)?.[1];
  const [image, digest, baseImage] = ['Image', 'Image-Digest', 'Base-Image'].map(value);
  const platforms = [...message.matchAll(/^Platform-Digest: (\S+) (\S+)$/gm)].map((found) => found.slice(1));
  if (!image || !digest) return undefined;
  return { image, digest, platforms: Object.fromEntries(platforms), baseImage };
}

/** A tag that is a version, as it is in the repository. */
export interface ReleaseTag extends VersionTag {
  oid: string;
  /** What its message records; undefined for a tag that is no release of this flow: it is history. */
  record: ReleaseRecord | undefined;
}

function asReleases(tags: readonly GitTag[], prefix: string): ReleaseTag[] {
  return versionTags(tags, prefix).map(({ message, ...tag }) => ({
    ...tag,
    record: message === undefined ? undefined : parseReleaseTag(message),
  }));
}

/** Every tag that is a version, highest first; none outside of a repository. */
export async function releaseTags(root: string, prefix: string): Promise<ReleaseTag[]> {
  try {
    return asReleases(await readTags(root), prefix);
  } catch (error) {
    if (error instanceof CommandError && /not a git repository/.test(error.stderr)) return [];
    throw error;
  }
}

/** A release, with what its tag records. */
type Release = ReleaseTag & { record: ReleaseRecord };

/** @throws TaskError if the tag is missing or not a release of this flow */
export async function releaseOfTag(project: Project, tag: string): Promise<Release> {
  const [found] = asReleases(await readTags(project.root, tag), project.release.tag_prefix);
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

/** A release's image on this machine; undefined if it is not here. @throws TaskError if another one has its name */
export async function releasedImage(
  project: Project,
  { name, record }: { name: string; record: Pick<ReleaseRecord, 'digest' | 'platforms'> },
): Promise<Image | undefined> {
  const reference = imageReference(project, name);
  const image = await inspectImage(reference);
  if (!image || releasedDigests(record).includes(image.id)) return image;
  if (image.id === (await acceptedDigest(project, name, record))) return image;
  throw imageDiffers(reference, name, image.id, record.digest);
}

// A released image that this machine had to build again and could not get byte for byte, because its base image or
// builder is another one, is accepted once, with a warning, and from then on counts as the release on this machine.

const rebuildPath = ({ root }: Project, tag: string) => statePath(root, 'rebuilds', tag);

/** Of the accepted build; a tag that moved since has none. */
async function acceptedDigest(project: Project, tag: string, { digest }: Pick<ReleaseRecord, 'digest'>) {
  const [released, here] = (await readIfPresent(rebuildPath(project, tag)))?.trim().split(' ') ?? [];
  return released === digest ? here : undefined;
}

/** A tag as this machine has it: with each digest that its image may have here; none if the tag records no image. */
export type ReleaseHere = ReleaseTag & { digests: string[]; isRebuilt: boolean };

/** Every tag that is a version, with the builds that this machine accepted. */
export async function releasesHere(project: Project): Promise<ReleaseHere[]> {
  const tags = await releaseTags(project.root, project.release.tag_prefix);
  const found = tags.map(async (tag) => {
    const { name, record } = tag;
    const rebuilt = record && (await acceptedDigest(project, name, record));
    const digests = record ? releasedDigests(record) : [];
    return { ...tag, isRebuilt: Boolean(rebuilt), digests: rebuilt ? [...digests, rebuilt] : digests };
  });
  return Promise.all(found);
}

function imageDiffers(reference: string, tag: string, found: string, released: string): TaskError {
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
  const offered = released.filter(({ version }) => !withdrawn.has(version));
  const [stable, prereleases] = [true, false].map((wanted) =>
    offered.filter(({ version }) => isStable(version) === wanted).map(({ name }) => name),
  );
  return [...stable!, ...prereleases!];
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

/** This machine's base image as `reference@id`; undefined when there is none. */
export async function baseImageOf(project: Project): Promise<string | undefined> {
  const reference = variable(project, 'BASE_IMAGE') ?? project.image.base_image;
  const present = reference ? await inspectImage(reference) : undefined;
  return present ? `${reference}@${present.id}` : undefined;
}

// The two builds that users ask for: `latest` from the working tree, a version from its git tag. Both are tried before they
// get their name.

interface BuildResult {
  digest: string;
  version: string;
  revision: string;
  /** False when the image was already there, unchanged. */
  built: boolean;
  /** Of a release: the digest that its tag records. */
  released?: string;
}

/** Builds `latest` from the working tree and moves the name to it once the image proved healthy. */
export async function buildLatest(project: Project, platforms: readonly string[]): Promise<BuildResult> {
  const { root, release } = project;
  const identity = await workTreeIdentity(project);
  const { version, revision } = identity;
  const candidate = candidateReference(project, revision);
  const reference = imageReference(project, 'latest');
  if (revision.endsWith('-dirty'))
    log.warn('the working tree has uncommitted changes: the revision ends in -dirty');
  return withCleanUp(project, async () => {
    log.step(`build ${reference} (${version})`);
    const source = await sourceUrl(root, release.remote);
    const request = { directory: root, tag: candidate, source, platforms, ...identity };
    const { id: digest } = await buildImage(project, request);
    const result = { digest, version, revision };
    if ((await inspectImage(reference))?.id === digest) return { ...result, built: false };
    await tryAndName(project, { candidate, reference, version, revision });
    return { ...result, built: true };
  });
}

/**
 * Makes sure that a release's image is here; builds it from its git tag only, and compares the digest.
 * @throws TaskError with `isExact` if it is another image; else that is a warning, and remembered
 */
export async function buildRelease(
  project: Project,
  tag: string,
  { platforms = [], isExact = false }: { platforms?: readonly string[]; isExact?: boolean } = {},
): Promise<BuildResult> {
  const release = await releaseOfTag(project, tag);
  const { commit: revision, version, record } = release;
  const reference = imageReference(project, tag);
  const result = { version, revision, released: record.digest };
  const present = await releasedImage(project, release);
  if (present) return { ...result, digest: present.id, built: false };
  const candidate = candidateReference(project, revision);
  return withCleanUp(project, async () => {
    log.step(`build ${reference} from git tag ${tag}`);
    const image = await buildCommit(project, { commit: revision, version, candidate, platforms });
    // A dry run has only a placeholder to compare.
    const isSame = releasedDigests(record).includes(image.id) || image.id.startsWith('<');
    if (!isSame && isExact) throw imageDiffers(candidate, tag, image.id, record.digest);
    if (!isSame) await acceptDiffering(project, release, image);
    await tryAndName(project, { candidate, reference, version, revision });
    return { ...result, digest: image.id, built: true };
  });
}

interface Candidate {
  candidate: string;
  /** The name that it gets once it proved healthy. */
  reference: string;
  version: string;
  revision: string;
}

async function tryAndName(project: Project, { candidate, reference, ...expected }: Candidate): Promise<void> {
  log.step('start it as prod would and check its health');
  await tryCandidate(project, { image: candidate, expected });
  await tagImage(candidate, reference);
}

/** Warns, and remembers that on this machine this image is the release. */
async function acceptDiffering(project: Project, release: Release, image: { id: string }): Promise<void> {
  const { name, record } = release;
  const here = await baseImageOf(project);
  const why =
    record.baseImage && record.baseImage !== here
      ? `the base image was ${record.baseImage}, here it is ${here ?? 'unknown'}`
      : 'its platform or the builder is another one';
  await makeDirectory(statePath(project.root, 'rebuilds'), 0o700);
  await writeFileAtomic(rebuildPath(project, name), `${record.digest} ${image.id}\n`, { mode: 0o600 });
  log.warn(`the rebuilt image of ${name} differs from the released one: ${why}`);
  log.info(`  released ${record.digest}\n  here     ${image.id}`);
  const registry = registryReference(project, name);
  const source = registry ? `docker pull ${registry}` : 'docker save on the other machine, docker load here';
  log.hint(`it is used here as ${imageReference(project, name)}; to get the released image: ${source}`);
}

/** Also removes the candidate that a killed build left: it has no owner any more. */
async function withCleanUp<T>(project: Project, work: () => Promise<T>): Promise<T> {
  const cleanUp = () => uninterrupted(() => removeCandidates(project));
  await cleanUp();
  try {
    return await work();
  } finally {
    await cleanUp();
  }
}

/**
 * How an image that is built from the working tree names itself. `version`: `1.2.0` exactly at a release, else
 * `1.2.0+3.gabc1234` (semver build metadata says "after this version" without claiming to be a later one), with `.dirty`
 * for uncommitted changes; `revision`: the commit, with `-dirty` then. @throws TaskError before the first commit
 */
async function workTreeIdentity({ root, release }: Project) {
  const { head, changes } = await workTree(root);
  if (!head) {
    throw new TaskError('Cannot build: the repository has no commits, so the image would have no revision', {
      code: 'no-commits',
      hint: 'git add --all && git commit -m "First commit"',
    });
  }
  const [tags, merged, epoch] = await Promise.all([
    releaseTags(root, release.tag_prefix),
    mergedTags(root),
    commitTime(root, head),
  ]);
  const latest = tags.find(({ name }) => merged.has(name));
  const range = latest ? `refs/tags/${latest.name}..HEAD` : 'HEAD';
  const commits = await read(git(root, 'rev-list', '--count', range));
  const isDirty = changes.length > 0;
  const distance = latest && commits === '0' ? [] : [commits, `g${head.slice(0, 7)}`];
  const metadata = [...distance, ...(isDirty ? ['dirty'] : [])].join('.');
  const version = `${latest?.version ?? '0.0.0'}${metadata ? `+${metadata}` : ''}`;
  return { version, revision: isDirty ? `${head}-dirty` : head, epoch };
}
