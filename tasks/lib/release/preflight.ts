// Everything that can stop a release before anything is written, found in one go. Each problem comes with its remedy.

import { statfs } from 'node:fs/promises';
import { join, posix } from 'node:path';
import { read } from '../command.ts';
import { composeServices, verifyCompose, verifyServices } from '../docker/compose.ts';
import { type EngineInfo, engineEndpoint, engineInfo, isLocalEndpoint } from '../docker/engine.ts';
import { inspectImage } from '../docker/objects.ts';
import { registryDigest } from '../docker/registry.ts';
import { verifyServiceConfig } from '../docker/service-config.ts';
import { combinedError, TaskError } from '../errors.ts';
import { formatBytes } from '../format.ts';
import {
  fileAt,
  git,
  hasObject,
  isShallow,
  localTags,
  shortHash,
  submodules,
  type WorkTree,
  workTree,
} from '../git.ts';
import { log } from '../log.ts';
import { imageReference, type Project, registryReference, variable } from '../project.ts';
import { FALLBACK, gitLocks, releaseIdentity, verifySigning } from './git-write.ts';
import {
  isReleaseBranch,
  nothingToRelease,
  planRelease,
  type ReleasePlan,
  type ReleaseRequest,
  type Repository,
} from './plan.ts';
import { movedTags, queryRemote, verifyNotBehind, verifyPushAccess } from './publish.ts';

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
export async function verifyReleasable(project: Project, request: ReleaseRequest): Promise<ReleasePlan> {
  const problems = new Problems();
  const [repository, engine] = await Promise.all([
    checkRepository(project, request, problems),
    checkEngine(project, request, problems),
    problems.of(verifyConfiguration(project)),
  ]);
  // A choice is offered only when the answer can be followed.
  const canPlan = repository && (request.requested !== undefined || problems.found.length === 0);
  if (repository) await checkCommit(project, repository.head, problems);
  const plan = canPlan ? await problems.of(planRelease(project, repository, request)) : undefined;
  if (plan && engine) await checkNames(project, plan, request, problems);
  if (problems.found.length > 0 || !engine || !plan) {
    throw combinedError(`Cannot release: ${problems.found.length} problems`, problems.found);
  }
  return plan;
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
  const { root } = project;
  const [tree, , remote] = await Promise.all([
    workTree(root),
    problems.of(verifyCompleteHistory(project)),
    problems.of(queryRemote(project, push)),
  ]);
  problems.found.push(...workTreeProblems(project, tree));
  if (!tree.head) return undefined;
  const repository = { head: tree.head, branch: tree.branch ?? project.release.branch, remote };
  const [tags] = await Promise.all([
    localTags(root),
    remote && problems.of(verifyNotBehind(project, repository, remote)),
    remote && push && problems.of(verifyPushAccess(project, repository.branch)),
  ]);
  if (remote) problems.found.push(...movedTags(project, tags, remote));
  return { ...repository, tags };
}

/** What the commit holds must be buildable, git must be free to write it, and able to sign it. */
async function checkCommit({ root, image }: Project, head: string, problems: Problems): Promise<void> {
  const locks = await gitLocks(root);
  const lock = locks[0]?.path;
  if (lock) {
    problems.found.push(
      new TaskError(`Cannot release: another git works in this project, ${lock} is there`, {
        code: 'git-locked',
        hint: `wait until it has ended; if no git runs (ps -e | grep git), it was killed: rm ${lock}`,
      }),
    );
  }
  await Promise.all([
    problems.of(verifyBuildInputs(root, head, image)),
    problems.of(verifySigning(root, head)),
  ]);
  const { env } = await releaseIdentity(root);
  if (Object.keys(env).length === 0) return;
  log.warn(`git has no identity here; the release is signed as ${FALLBACK.name} <${FALLBACK.email}>`);
  log.hint('git config user.name "…" && git config user.email "…"');
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
  if (plan.changes.commits === 0)
    problems.found.push(
      nothingToRelease(plan.previousTag, 'commit something, or write the entry yourself: --edit'),
    );
  else
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

/** No other image has the version's name, here or, with `push`, in the registry. @throws TaskError */
export async function verifyNameFree(project: Project, tag: string, push: boolean): Promise<void> {
  await verifyImageNameFree(project, tag);
  if (push) await verifyRegistryNameFree(project, tag);
}

async function verifyImageNameFree(project: Project, tag: string): Promise<void> {
  const reference = imageReference(project, tag);
  const present = await inspectImage(reference);
  if (!present) return;
  const revision = present.labels['org.opencontainers.image.revision'];
  const origin = revision ? `, built from commit ${revision.slice(0, 7)},` : '';
  throw new TaskError(
    `Cannot release: the image ${reference} exists (${present.id})${origin} and has no git tag`,
    {
      code: 'image-exists',
      hint: `if nobody needs it, remove the tag: docker image rm ${reference}`,
    },
  );
}

/** Also shows that the registry answers and lets us in. */
async function verifyRegistryNameFree(project: Project, tag: string): Promise<void> {
  const reference = registryReference(project, tag);
  const present = reference ? await registryDigest(reference) : undefined;
  if (!present) return;
  throw new TaskError(`Cannot release: the registry has ${reference} already (${present})`, {
    code: 'image-exists',
    hint: 'somebody pushed that version: git fetch --tags, or choose a higher version',
  });
}

/**
 * The image is built from the commit, by `git archive`: a file may be in the folder and yet not in there.
 * @throws TaskError if the Dockerfile, or what it copies, is missing, or a submodule
 */
export async function verifyBuildInputs(
  root: string,
  head: string,
  image: Pick<Project['image'], 'dockerfile' | 'context'>,
): Promise<void> {
  const [listed, parts] = await Promise.all([
    read(git(root, 'ls-tree', '--full-tree', '-r', '-t', '-z', '--name-only', head)),
    submodules(root, head),
  ]);
  const attributes = git(root, 'check-attr', '--cached', '-z', '--stdin', 'export-ignore');
  const fields = (await read(attributes, { input: listed })).split('\0');
  const ignored = fields.filter((_, index) => index % 3 === 0 && fields[index + 2] === 'set');
  const paths = new Set(listed.split('\0'));
  const isWithin = (path: string, folders: readonly string[]) =>
    folders.some((folder) => path === folder || path.startsWith(`${folder}/`));
  const missing: string[] = [];
  for (const { path, commit } of parts)
    if (!(await hasObject(join(root, path), commit)))
      missing.push(`${path} (a submodule that is not checked out: git submodule update --init ${path})`);
  const dockerfile = posix.normalize(image.dockerfile);
  const text = (await fileAt(root, head, dockerfile)) ?? '';
  const sources = copiedPaths(text).map((path) => posix.join(image.context, path).replace(/^\/|\/$/g, ''));
  for (const path of new Set([dockerfile, ...sources])) {
    const isThere =
      path === '.' ||
      paths.has(path) ||
      isWithin(
        path,
        parts.map((part) => part.path),
      );
    if (isWithin(path, ignored)) missing.push(`${path} (export-ignore in .gitattributes leaves it out)`);
    else if (!isThere) missing.push(`${path} (it is not committed)`);
  }
  if (missing.length === 0) return;
  throw new TaskError(`Cannot build the image: what it is built from has no ${missing.join(', ')}`, {
    code: 'build-input-missing',
    hint: `the image is built from the commit alone; what that holds: git archive ${shortHash(head)} | tar -t`,
  });
}

/** The paths that COPY and ADD take from the build context, without patterns. Pure. */
export function copiedPaths(dockerfile: string): string[] {
  const instructions = dockerfile.replace(/\\\r?\n/g, ' ').split(/\r?\n/);
  return instructions.flatMap((line) => {
    const [, words = ''] = /^\s*(?:COPY|ADD)\s+(.*)$/i.exec(line) ?? [];
    if (/--from=/.test(words)) return [];
    const parts = words.trim().startsWith('[')
      ? [...words.matchAll(/"([^"]*)"/g)].map((match) => match[1]!)
      : words.split(/\s+/).filter((word) => word && !word.startsWith('--'));
    return parts.slice(0, -1).filter((path) => !/[*?[$]|^<<|^https?:|^git@/.test(path));
  });
}

// Is there room for a release: the exported tree and the image archive below the project, the image in the
// engine's storage? A build that runs out of space half-way costs minutes and says so badly.

/** What a release needs at most for images that are small; a larger one in use raises it. */
const LEAST = 64e6;

/** Bytes that should be free, from the size of the image that was built last (bytes; 0: none yet). Pure. */
export function spaceNeeded(imageSize: number): number {
  return Math.max(LEAST, Math.ceil(imageSize * 1.5));
}

/** @throws TaskError naming the place that is full */
async function verifyDiskSpace(project: Project, engine: EngineInfo, imageSize: number) {
  const needed = spaceNeeded(imageSize);
  // Of an engine on another machine the directory is not here to be looked at; in a virtual one it does not exist.
  const isHere = isLocalEndpoint(await engineEndpoint());
  const places = [
    { path: project.root, what: 'for the tree and the image archive' },
    ...(isHere ? [{ path: engine.dataRoot, what: "in the engine's storage" }] : []),
  ];
  for (const { path, what } of places) {
    const free = await statfs(path).then(
      ({ bavail, bsize }) => bavail * bsize,
      () => undefined,
    );
    if (free === undefined || free >= needed) continue;
    throw new TaskError(
      `Not enough disk space ${what}: ${path} has ${formatBytes(free)}, needed ${formatBytes(needed)}`,
      {
        code: 'disk-full',
        hint: 'make room, e.g. docker builder prune and docker image prune',
      },
    );
  }
}

/** Is this a branch that is released, and is everything committed? Pure. */
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
