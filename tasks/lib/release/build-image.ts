// The two builds that users ask for: `latest` from the working tree, a version from its git tag. Both are
// tried before they get their name.

import { read } from '../command.ts';
import { type BuiltImage, buildCommit, buildImage } from '../docker/build.ts';
import { candidateReference, removeCandidates, tryCandidate } from '../docker/candidate.ts';
import type { EngineInfo } from '../docker/engine.ts';
import { inspectImage, tagImage } from '../docker/objects.ts';
import { TaskError } from '../errors.ts';
import { commitTime, git, localTags, sourceUrl, workTree } from '../git.ts';
import { log } from '../log.ts';
import { imageReference, type Project, registryReference } from '../project.ts';
import { uninterrupted } from '../session.ts';
import {
  acceptRebuild,
  baseImageOf,
  imageDiffers,
  isReleasedImage,
  type Release,
  rebuildDifference,
  releasedDigests,
  releasedImage,
  releaseOfTag,
} from './record.ts';
import { knownTags } from './version.ts';

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
export async function buildLatest(
  project: Project,
  engine: EngineInfo,
  platforms: readonly string[],
): Promise<BuildResult> {
  const identity = await workTreeIdentity(project);
  const candidate = candidateReference(project, identity.revision);
  const { version, revision } = identity;
  const reference = imageReference(project, 'latest');
  if (revision.endsWith('-dirty'))
    log.warn('the working tree has uncommitted changes: the revision ends in -dirty');
  return withCleanUp(project, async () => {
    log.step(`build ${reference} (${version})`);
    const image = await buildImage(project, engine, {
      directory: project.root,
      tag: candidate,
      source: await sourceUrl(project.root, project.release.remote),
      platforms,
      attest: platforms.length > 0,
      ...identity,
    });
    const before = await inspectImage(reference);
    if (before?.id === image.id) return { digest: image.id, version, revision, built: false };
    log.step('start it as prod would and check its health');
    await tryCandidate(project, { image: candidate, expected: { version, revision } });
    await tagImage(candidate, reference);
    return { digest: image.id, version, revision, built: true };
  });
}

/**
 * Makes sure that a release's image is here; builds it from its git tag only, and compares the digest.
 * @throws TaskError with `isExact` if it is another image; else that is a warning, and remembered
 */
export async function buildRelease(
  project: Project,
  engine: EngineInfo,
  tag: string,
  { platforms = [], isExact = false }: { platforms?: readonly string[]; isExact?: boolean } = {},
): Promise<BuildResult> {
  const release = await releaseOfTag(project, tag);
  const { commit, version, record } = release;
  const reference = imageReference(project, tag);
  const result = { version, revision: commit, released: record.digest };
  const present = await releasedImage(project, release);
  if (present) return { ...result, digest: present.id, built: false };
  const candidate = candidateReference(project, commit);
  return withCleanUp(project, async () => {
    log.step(`build ${reference} from git tag ${tag}`);
    const image = await buildCommit(project, engine, { commit, version, candidate, platforms });
    // A dry run has only a placeholder to compare.
    const isSame = releasedDigests(record).includes(image.id) || image.id.startsWith('<');
    if (isExact && !isReleasedImage(record, image))
      throw imageDiffers(candidate, tag, image.id, record.digest);
    if (!isSame) await acceptDiffering(project, release, image);
    log.step('start it as prod would and check its health');
    await tryCandidate(project, { image: candidate, expected: { version, revision: commit } });
    await tagImage(candidate, reference);
    return { ...result, digest: image.id, built: true };
  });
}

/** Warns, and remembers that on this machine this image is the release. */
async function acceptDiffering(
  project: Project,
  { name, record }: Release,
  image: BuiltImage,
): Promise<void> {
  const why = rebuildDifference(record, image, await baseImageOf(project));
  const accepted = { digest: image.id, released: record.digest, why };
  await acceptRebuild(project, name, accepted);
  log.warn(`the rebuilt image of ${name} differs from the released one: ${why}`);
  log.info(`  released ${record.digest}\n  here     ${image.id}`);
  const registry = registryReference(project, name);
  const source = registry ? `docker pull ${registry}` : 'docker save on the other machine, docker load here';
  const reference = imageReference(project, name);
  log.hint(`it is used on this machine as ${reference}; to get the released image: ${source}`);
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

// How an image that was built from the working tree names itself: which release it follows, how far it is
// from it, and whether it holds changes that no commit has.

interface WorkTreeIdentity {
  /** `1.2.0` exactly at a release, else `1.2.0+3.gabc1234`, with `.dirty` for uncommitted changes. */
  version: string;
  /** The commit, with `-dirty` for uncommitted changes. */
  revision: string;
  /** Seconds since 1970 of the commit. */
  epoch: number;
}

/** Pure: semver build metadata says "after this version" without claiming to be a later one. */
function workTreeVersion(base: string | undefined, commits: number, head: string, dirty: boolean): string {
  const parts = commits > 0 || !base ? [String(commits), `g${head.slice(0, 7)}`] : [];
  if (dirty) parts.push('dirty');
  return `${base ?? '0.0.0'}${parts.length > 0 ? `+${parts.join('.')}` : ''}`;
}

/** @throws TaskError before the first commit */
async function workTreeIdentity(project: Project): Promise<WorkTreeIdentity> {
  const { head, changes } = await workTree(project.root);
  if (!head) {
    throw new TaskError('Cannot build: the repository has no commits, so the image would have no revision', {
      code: 'no-commits',
      hint: 'git add --all && git commit -m "First commit"',
    });
  }
  const tags = (await localTags(project.root)).filter((tag) => tag.merged);
  const [latest] = knownTags(tags, project.release.tag_prefix);
  const range = latest ? `refs/tags/${latest.name}..HEAD` : 'HEAD';
  const commits = Number(await read(git(project.root, 'rev-list', '--count', range)));
  const dirty = changes.length > 0;
  return {
    version: workTreeVersion(latest?.version, commits, head, dirty),
    revision: dirty ? `${head}-dirty` : head,
    epoch: await commitTime(project.root, head),
  };
}
