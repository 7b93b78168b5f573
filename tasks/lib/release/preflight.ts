// Everything that can stop a release before anything is written, found in one go. Each problem comes with its remedy.

import { statfs } from 'node:fs/promises';
import { join, posix } from 'node:path';
import { read } from '../command.ts';
import { parseServices, resolvedModel, verifyCompose, verifyServices } from '../docker/compose.ts';
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

/** Collects the problems of several checks; unexpected errors are thrown at once. */
class Problems {
  readonly found: TaskError[] = [];

  add(code: string, message: string, hint: string): void {
    this.found.push(new TaskError(message, { code, hint }));
  }

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

/** The checks of git alone: for --notes-only, which needs neither an engine nor a clean tree. */
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
  const [lock] = await gitLocks(root);
  if (lock) {
    const hint = `wait until it has ended; if there is none (ps -e | grep git), it was killed: rm ${lock.path}`;
    problems.add(
      'git-locked',
      `Cannot release: another git process is running here: ${lock.path} exists`,
      hint,
    );
  }
  await Promise.all([
    problems.of(verifyBuildInputs(root, head, image)),
    problems.of(verifySigning(root, head)),
  ]);
  const { env } = await releaseIdentity(root);
  if (Object.keys(env).length === 0) return;
  log.warn(`git has no identity here; the author of the release is ${FALLBACK.name} <${FALLBACK.email}>`);
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
    const hint = 'turn it on in daemon.json: {"features":{"containerd-snapshotter":true}}';
    const message = `Cannot build ${platforms.join(', ')}: this needs the engine's containerd image store`;
    problems.add('platforms-unsupported', message, hint);
  }
  return engine;
}

async function checkNames(
  project: Project,
  { version: { tag }, isEmpty, changes, previousTag }: ReleasePlan,
  { push, edit }: ReleaseRequest,
  problems: Problems,
): Promise<void> {
  await Promise.all([
    problems.of(verifyImageNameFree(project, tag)),
    push && problems.of(verifyRegistryNameFree(project, tag)),
  ]);
  if (!isEmpty || edit) return;
  if (changes.commits === 0) {
    const hint = 'commit something, or write the entry yourself: --edit';
    problems.found.push(nothingToRelease(previousTag, hint));
  } else {
    const message = `Cannot release ${tag}: its notes would be empty, there are only merge and release commits`;
    const hint = `write the entry yourself: --edit, or a "## [${tag}]" section in ${project.release.notes}`;
    problems.add('notes-empty', message, hint);
  }
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
    const services = parseServices(await resolvedModel(project, variable(project, 'PROD_TAG')));
    verifyServices(project, services);
    await verifyServiceConfig(project, services);
  } catch (error) {
    // A missing compose is the cause of any error before; checked only now, since it is rare.
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
  const message = `Cannot release: the image ${reference} exists (${present.id})${origin} and has no git tag`;
  const hint = `if nobody needs it, remove the tag: docker image rm ${reference}`;
  throw new TaskError(message, { code: 'image-exists', hint });
}

/** Also shows that the registry answers and lets us in. */
async function verifyRegistryNameFree(project: Project, tag: string): Promise<void> {
  const reference = registryReference(project, tag);
  const present = reference ? await registryDigest(reference) : undefined;
  if (!present) return;
  throw new TaskError(`Cannot release: the registry already has ${reference} (${present})`, {
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
  { dockerfile, context }: Pick<Project['image'], 'dockerfile' | 'context'>,
): Promise<void> {
  const [listed, parts] = await Promise.all([
    read(git(root, 'ls-tree', '--full-tree', '-r', '-t', '-z', '--name-only', head)),
    submodules(root, head),
  ]);
  const attributes = git(root, 'check-attr', '--cached', '-z', '--stdin', 'export-ignore');
  const fields = (await read(attributes, { input: listed })).split('\0');
  const ignored = fields.filter((_, index) => index % 3 === 0 && fields[index + 2] === 'set');
  const committed = new Set(['.', ...listed.split('\0')]);
  const isIn = (path: string, folders: readonly string[]) =>
    folders.some((folder) => path === folder || path.startsWith(`${folder}/`));
  const missing: string[] = [];
  for (const { path, commit } of parts)
    if (!(await hasObject(join(root, path), commit)))
      missing.push(`${path} (a submodule that is not checked out: git submodule update --init ${path})`);
  const folders = parts.map(({ path }) => path);
  const file = posix.normalize(dockerfile);
  const copied = copiedPaths((await fileAt(root, head, file)) ?? '');
  for (const path of new Set([
    file,
    ...copied.map((one) => posix.join(context, one).replace(/^\/|\/$/g, '')),
  ])) {
    if (isIn(path, ignored)) missing.push(`${path} (export-ignore in .gitattributes leaves it out)`);
    else if (!committed.has(path) && !isIn(path, folders)) missing.push(`${path} (it is not committed)`);
  }
  if (missing.length === 0) return;
  throw new TaskError(`Cannot build the image: the commit has no ${missing.join(', ')}`, {
    code: 'build-input-missing',
    hint: `the image is built from the commit alone; see what it contains: git archive ${shortHash(head)} | tar -t`,
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
// engine's storage? A build that runs out of space costs minutes and reports it badly.

/** What a release needs at most for images that are small; a larger one in use raises it. */
const LEAST = 64e6;

/** Bytes that should be free, from the size of the image that was built last (bytes; 0: none yet). Pure. */
export function spaceNeeded(imageSize: number): number {
  return Math.max(LEAST, Math.ceil(imageSize * 1.5));
}

/** @throws TaskError naming the place that is full */
async function verifyDiskSpace(project: Project, engine: EngineInfo, imageSize: number) {
  const needed = spaceNeeded(imageSize);
  // The directory of an engine on another machine is not here; that of one in a virtual machine does not exist.
  const isHere = isLocalEndpoint(await engineEndpoint());
  const places = [[project.root, 'for the tree and the image archive']];
  if (isHere) places.push([engine.dataRoot, "in the engine's storage"]);
  for (const [path = '', what] of places) {
    const found = await statfs(path).catch(() => undefined);
    const free = found ? found.bavail * found.bsize : needed;
    if (free >= needed) continue;
    const message = `Not enough disk space ${what}: ${path} has ${formatBytes(free)}, needed ${formatBytes(needed)}`;
    const hint = 'make room, e.g. docker builder prune and docker image prune';
    throw new TaskError(message, { code: 'disk-full', hint });
  }
}

/** Is this a branch that is released, and is everything committed? Pure. */
export function workTreeProblems(project: Pick<Project, 'release'>, tree: WorkTree): TaskError[] {
  const { branch, maintenance } = project.release;
  const others = maintenance.length > 0 ? `, older versions from ${maintenance.join(', ')}` : '';
  const here = tree.branch ? `branch ${tree.branch}` : 'a detached HEAD';
  const shown = tree.changes.slice(0, 5).join(', ');
  const more = tree.changes.length > 5 ? ` and ${tree.changes.length - 5} more` : '';
  const rows: [isProblem: boolean, code: string, message: string, hint: string][] = [
    [!tree.head, 'no-commits', 'Cannot release: the repository has no commits', 'commit first'],
    [
      !tree.branch || !isReleaseBranch(project, tree.branch),
      'wrong-branch',
      `Cannot release from ${here}: releases are made from ${branch}${others}`,
      `git switch ${branch}, or set release.branch in configs/release.toml`,
    ],
    [
      tree.changes.length > 0,
      'dirty-tree',
      `Cannot release: uncommitted changes in ${shown}${more}`,
      'commit them, or stash them: git stash --include-untracked',
    ],
  ];
  return rows.flatMap(([isProblem, code, message, hint]) =>
    isProblem ? [new TaskError(message, { code, hint })] : [],
  );
}
