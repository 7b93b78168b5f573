// Everything that can stop a release before anything is written, found in one go. Each problem comes with
// its remedy; asking changes nothing.

import { statfs } from 'node:fs/promises';
import { probe } from '../command.ts';
import { composeServices, verifyCompose, verifyServices } from '../docker/compose.ts';
import { type EngineInfo, engineInfo } from '../docker/engine.ts';
import { type Image, inspectImage } from '../docker/objects.ts';
import { registryDigest } from '../docker/registry.ts';
import { verifyServiceConfig } from '../docker/service-config.ts';
import { combinedError, TaskError } from '../errors.ts';
import {
  type GitTag,
  git,
  hasRemote,
  isAncestor,
  isShallow,
  localTags,
  NO_PROMPT,
  type RemoteState,
  remoteState,
  shortHash,
  type WorkTree,
  workTree,
} from '../git.ts';
import { log } from '../log.ts';
import { imageReference, type Project, registryReference, variable } from '../project.ts';
import { session } from '../session.ts';
import {
  isReleaseBranch,
  planRelease,
  type ReleasePlan,
  type ReleaseRequest,
  type Repository,
} from './plan.ts';
import { parseTag } from './version.ts';

interface Preflight {
  plan: ReleasePlan;
  engine: EngineInfo;
}

/** Collects the problems of several checks; what is not a problem of the user's is thrown at once. */
class Problems {
  readonly found: TaskError[] = [];

  async of<T>(check: Promise<T>): Promise<T | undefined> {
    try {
      return await check;
    } catch (error) {
      if (!(error instanceof TaskError) || error.code === 'interrupted') throw error;
      this.found.push(error);
      return undefined;
    }
  }
}

/** Checks everything and plans the release. @throws TaskError listing every problem found */
export async function verifyReleasable(project: Project, request: ReleaseRequest): Promise<Preflight> {
  const problems = new Problems();
  const [repository, engine] = await Promise.all([
    checkRepository(project, request, problems),
    checkEngine(project, request, problems),
    problems.of(verifyConfiguration(project)),
  ]);
  // A choice is offered only when the answer can be followed.
  const canPlan = repository && (request.requested !== undefined || problems.found.length === 0);
  const plan = canPlan ? await problems.of(planRelease(project, repository, request)) : undefined;
  if (plan && engine) await checkNames(project, plan, request, problems);
  if (problems.found.length > 0 || !engine || !plan) {
    throw combinedError(`Cannot release: ${problems.found.length} things stand in the way`, problems.found);
  }
  return { plan, engine };
}

/** What is asked of git alone: for --notes-only, which needs neither an engine nor a clean tree. */
export async function readRepository(project: Project): Promise<Repository> {
  const problems = new Problems();
  const repository = await checkRepository(project, { push: false }, problems);
  if (repository) return repository;
  throw combinedError('Cannot read the repository', problems.found);
}

async function checkRepository(
  project: Project,
  { push }: Pick<ReleaseRequest, 'push'>,
  problems: Problems,
): Promise<Repository | undefined> {
  const [tree, , remote] = await Promise.all([
    workTree(project.root),
    problems.of(verifyCompleteHistory(project)),
    problems.of(askRemote(project, push)),
  ]);
  problems.found.push(...workTreeProblems(project, tree));
  if (!tree.head) return undefined;
  const repository = { head: tree.head, branch: tree.branch ?? project.release.branch, remote };
  const [tags] = await Promise.all([
    localTags(project.root),
    remote && problems.of(verifyNotBehind(project, repository, remote)),
    remote && push && problems.of(verifyPushAccess(project, repository.branch)),
  ]);
  if (remote) problems.found.push(...movedTags(project, tags, remote));
  return { ...repository, tags };
}

async function checkEngine(
  project: Project,
  { push }: ReleaseRequest,
  problems: Problems,
): Promise<EngineInfo | undefined> {
  const engine = await problems.of(engineInfo());
  if (!engine) return undefined;
  const latest = await inspectImage(imageReference(project, 'latest'));
  await problems.of(verifyDiskSpace(project, engine, latest?.size ?? 0));
  const { platforms, registry } = project.image;
  if (push && registry && platforms.length > 0 && !engine.containerdStore) {
    problems.found.push(
      new TaskError(`Cannot build ${platforms.join(', ')}: this engine's image store holds one platform`, {
        code: 'platforms-unsupported',
        hint: 'turn the containerd image store on: {"features":{"containerd-snapshotter":true}} in daemon.json',
      }),
    );
  }
  return engine;
}

async function checkNames(
  project: Project,
  plan: ReleasePlan,
  { push, edit }: ReleaseRequest,
  problems: Problems,
): Promise<void> {
  const { tag } = plan.version;
  await Promise.all([
    problems.of(verifyImageNameFree(project, tag)),
    push && problems.of(verifyRegistryNameFree(project, tag)),
  ]);
  if (!plan.isEmpty || edit) return;
  problems.found.push(
    new TaskError(`Cannot release ${tag}: its notes would be empty, no commit has anything to tell`, {
      code: 'notes-empty',
      hint: `write the entry yourself: --edit, or a "## [${tag}]" section in ${project.release.notes}`,
    }),
  );
}

async function verifyCompleteHistory(project: Project): Promise<void> {
  if (!(await isShallow(project.root))) return;
  throw new TaskError('Cannot release from a shallow clone: commits and tags are missing', {
    code: 'shallow-clone',
    hint: `git fetch --unshallow --tags ${project.release.remote}`,
  });
}

async function verifyConfiguration(project: Project): Promise<void> {
  try {
    const services = await composeServices(project, variable(project, 'PROD_TAG'));
    verifyServices(project, services);
    await verifyServiceConfig(project, services);
  } catch (error) {
    // Without compose nothing can be said about a compose file; asked only now, since it is rare.
    await verifyCompose();
    throw error;
  }
}

// Is the version's name still free wherever it will be written: in the local engine, in the registry? A name
// that something else has is never taken from it.

/** Before the build there is nothing that a present image could be equal to. @throws TaskError */
export async function verifyImageNameFree(project: Project, tag: string, built?: Image): Promise<void> {
  const reference = imageReference(project, tag);
  const present = await inspectImage(reference);
  if (!present || present.id === built?.id || (built && session.dryRun)) return;
  const revision = present.labels['org.opencontainers.image.revision'];
  const origin = revision ? `, built from commit ${revision.slice(0, 7)},` : '';
  const than = built ? `is not the one just built (${built.id})` : 'has no git tag';
  throw new TaskError(`Cannot release: the image ${reference} exists (${present.id})${origin} and ${than}`, {
    code: 'image-exists',
    hint: `if nobody needs it, take its name away: docker image rm ${reference}`,
  });
}

/** Also shows that the registry answers and lets us in. @throws TaskError */
async function verifyRegistryNameFree(project: Project, tag: string): Promise<void> {
  const reference = registryReference(project, tag);
  const present = reference ? await registryDigest(reference) : undefined;
  if (!present) return;
  throw new TaskError(`Cannot release: the registry has ${reference} already (${present})`, {
    code: 'image-exists',
    hint: 'somebody pushed that version: git fetch --tags, or choose a higher version',
  });
}

// What the git remote has to say before a release: what it has, whether it is ahead, whether a tag was moved,
// whether it would take a push. Without --push a remote that does not answer is only a warning.

/** undefined when there is no remote, or it does not answer. @throws TaskError with `push` */
export async function askRemote(project: Project, push: boolean): Promise<RemoteState | undefined> {
  const { remote } = project.release;
  if (!(await hasRemote(project.root, remote))) {
    if (push) throw noRemote(remote);
    log.detail(`no git remote named ${remote}: only local tags are looked at`);
    return undefined;
  }
  try {
    return await remoteState(project.root, remote);
  } catch (error) {
    if (error instanceof TaskError && error.code === 'interrupted') throw error;
    if (push) throw silentRemote(remote, error);
    log.warn(`${remote} does not answer; only local tags are looked at`);
    log.detail(String(error));
    return undefined;
  }
}

function noRemote(remote: string): TaskError {
  return new TaskError(`Cannot push: there is no git remote named ${remote}`, {
    code: 'no-remote',
    hint: `git remote add ${remote} URL, or set release.remote in configs/release.toml`,
  });
}

function silentRemote(remote: string, cause: unknown): TaskError {
  return new TaskError(`Cannot push: ${remote} does not answer: ${(cause as Error).message}`, {
    code: 'remote-unreachable',
    hint: `try it: git ls-remote ${remote}; or release without --push and publish later`,
    cause,
  });
}

/** @throws TaskError if the remote's branch has commits that HEAD does not contain */
async function verifyNotBehind(
  project: Project,
  { head, branch }: { head: string; branch: string },
  remote: RemoteState,
): Promise<void> {
  const { remote: name } = project.release;
  const theirs = remote.branches.get(branch);
  if (!theirs || theirs === head || (await isAncestor(project.root, theirs, head))) return;
  throw new TaskError(
    `Cannot release: ${name}/${branch} is at ${theirs.slice(0, 7)}, which ${branch} does not contain`,
    {
      code: 'behind-remote',
      hint: `git pull --no-rebase ${name} ${branch}`,
    },
  );
}

/** Version tags that name one commit here and another one there. Pure. */
export function movedTags(project: Project, tags: readonly GitTag[], remote: RemoteState): TaskError[] {
  return tags.flatMap(({ name, commit }) => {
    const theirs = remote.tags.get(name);
    const isMoved = theirs !== undefined && theirs !== commit && parseTag(project.release.tag_prefix, name);
    return isMoved ? [tagDiffers(project, name, commit, theirs)] : [];
  });
}

/** Asks the remote whether it would take this push, without pushing. @throws TaskError */
async function verifyPushAccess(project: Project, branch: string): Promise<void> {
  const { root, release } = project;
  const push = git(
    root,
    'push',
    '--dry-run',
    '--no-verify',
    '--porcelain',
    release.remote,
    `HEAD:refs/heads/${branch}`,
  );
  const answer = await probe(push, { env: NO_PROMPT, timeoutMs: 60_000 });
  if (answer.ok) return;
  // What git advises is for a person who types the push; the remedy here is another.
  const reason = (answer.stderr.trim() || answer.stdout.trim()).replace(/^hint: .*\n?/gm, '').trim();
  throw new TaskError(`Cannot push to ${release.remote}: ${reason}`, {
    code: 'no-push-access',
    hint: `see what it says: git push --dry-run ${release.remote} HEAD:refs/heads/${branch}`,
  });
}

// Is there room for a release: the exported tree and the image archive below the project, the image in the
// engine's storage? A build that runs out of space half-way costs minutes and says so badly.

/** What a release needs at most for images that are small; a larger one in use raises it. */
const LEAST = 64 * 2 ** 20;

/** Bytes that should be free, from the size of the image that was built last (bytes; 0: none yet). Pure. */
export function spaceNeeded(imageSize: number): number {
  return Math.max(LEAST, Math.ceil(imageSize * 1.5));
}

/** @throws TaskError naming the place that is full */
async function verifyDiskSpace(project: Project, engine: EngineInfo, imageSize: number) {
  const needed = spaceNeeded(imageSize);
  const places = [
    { path: project.root, what: 'for the tree and the image archive' },
    ...(isLocalEngine() ? [{ path: engine.dataRoot, what: "in the engine's storage" }] : []),
  ];
  for (const { path, what } of places) {
    const free = await statfs(path).then(
      ({ bavail, bsize }) => bavail * bsize,
      () => undefined,
    );
    if (free === undefined || free >= needed) continue;
    throw new TaskError(
      `Not enough disk space ${what}: ${path} has ${mebibytes(free)}, needed ${mebibytes(needed)}`,
      {
        code: 'disk-full',
        hint: 'make room, e.g. docker builder prune and docker image prune',
      },
    );
  }
}

/** Of an engine on another machine the directory is not here to be asked; in a virtual one it does not exist. */
function isLocalEngine(): boolean {
  return !session.context && (process.env.DOCKER_HOST ?? 'unix:').startsWith('unix:');
}

function mebibytes(bytes: number): string {
  return `${Math.round(bytes / 2 ** 20)} MiB`;
}

// Is this a branch that is released, and is everything committed? Pure: what git said goes in, problems with
// their remedies come out.

export function workTreeProblems(project: Pick<Project, 'release'>, tree: WorkTree): TaskError[] {
  const problems: TaskError[] = [];
  const { branch, maintenance } = project.release;
  if (!tree.head) {
    problems.push(
      new TaskError('Cannot release: the repository has no commits', {
        code: 'no-commits',
        hint: 'commit first',
      }),
    );
  }
  if (!tree.branch || !isReleaseBranch(project, tree.branch)) {
    const others = maintenance.length > 0 ? `, older versions from ${maintenance.join(', ')}` : '';
    problems.push(
      new TaskError(
        `Cannot release from ${tree.branch ? `branch ${tree.branch}` : 'a detached HEAD'}: releases are made from ${branch}${others}`,
        {
          code: 'wrong-branch',
          hint: `git switch ${branch}, or set release.branch in configs/release.toml`,
        },
      ),
    );
  }
  if (tree.changes.length > 0) {
    const shown = tree.changes.slice(0, 5).join(', ');
    const more = tree.changes.length > 5 ? ` and ${tree.changes.length - 5} more` : '';
    problems.push(
      new TaskError(`Cannot release: uncommitted changes in ${shown}${more}`, {
        code: 'dirty-tree',
        hint: 'commit them, or put them aside: git stash --include-untracked',
      }),
    );
  }
  return problems;
}

/** The tag on one commit here and on another there. */
export function tagDiffers(project: Project, tag: string, here: string, there: string): TaskError {
  const { remote } = project.release;
  return new TaskError(
    `The tag ${tag} is at ${shortHash(here)} here and at ${shortHash(there)} on ${remote}: one was moved`,
    {
      code: 'tag-differs',
      hint: `find out which is right; to take the remote's: git tag --delete ${tag} && git fetch ${remote} tag ${tag}`,
    },
  );
}
