// Everything that can stop a release before anything is written, found in one go. Each problem comes with its remedy.

import { statfs } from 'node:fs/promises';
import { join, posix } from 'node:path';
import { read } from '../command.ts';
import {
  parseServices,
  type ResolvedModel,
  resolvedModel,
  verifyCompose,
  verifyServices,
} from '../docker/compose.ts';
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
  mergedTags,
  shortHash,
  treeEntries,
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
import { releaseTags } from './record.ts';

type ProblemRow = [isProblem: boolean, code: string, message: string, hint: string];

/** The problems of a table. Pure. */
export function problemsIn(rows: readonly ProblemRow[]): TaskError[] {
  const found = rows.filter(([isProblem]) => isProblem);
  return found.map(([, code, message, hint]) => new TaskError(message, { code, hint }));
}

/** Collects the problems of several checks; unexpected errors are thrown at once. */
class Problems {
  readonly found: TaskError[] = [];

  add(...rows: ProblemRow[]): void {
    this.found.push(...problemsIn(rows));
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

/** Checks everything, plans the release, resolves the compose files. @throws TaskError listing every problem found */
export async function verifyReleasable(project: Project, request: ReleaseRequest) {
  const problems = new Problems();
  const checkHead = (head: string) => checkCommit(project, head, problems);
  const [repository, engine, model] = await Promise.all([
    checkRepository(project, request.push, problems, checkHead),
    problems.of(engineInfo()),
    problems.of(verifyConfiguration(project)),
  ]);
  if (engine) await checkEngine(project, request, engine, problems);
  // A choice is offered only when the answer can be followed.
  const canPlan = repository && (request.requested !== undefined || problems.found.length === 0);
  const plan = canPlan ? await problems.of(planRelease(project, repository, request)) : undefined;
  if (plan && engine) await checkNames(project, plan, request, problems);
  if (problems.found.length === 0 && plan && model) return { plan, model };
  throw combinedError(`Cannot release: ${problems.found.length} problems`, problems.found);
}

/** The checks of git alone: for --notes-only, which needs neither an engine nor a clean tree. */
export async function readRepository(project: Project): Promise<Repository> {
  const problems = new Problems();
  const repository = await checkRepository(project, false, problems, async () => {});
  if (repository) return repository;
  throw combinedError('Cannot read the repository', problems.found);
}

async function checkRepository(
  project: Project,
  push: boolean,
  problems: Problems,
  checkHead: (head: string) => Promise<void>,
): Promise<Repository | undefined> {
  const { root, release } = project;
  // Alone: it says by name where there is no repository, which the others need.
  const tree = await workTree(root);
  const [hasGaps, remote] = await Promise.all([isShallow(root), problems.of(queryRemote(project, push))]);
  problems.found.push(...workTreeProblems(project, tree));
  const shallow = 'Cannot release from a shallow clone: commits and tags are missing';
  problems.add([hasGaps, 'shallow-clone', shallow, `git fetch --unshallow --tags ${release.remote}`]);
  const { head, branch = release.branch } = tree;
  if (!head) return undefined;
  const [tags, merged] = await Promise.all([
    releaseTags(root, release.tag_prefix),
    mergedTags(root),
    remote && problems.of(verifyNotBehind(project, 'Cannot release', { head, branch }, remote)),
    remote && push && problems.of(verifyPushAccess(project, branch)),
    checkHead(head),
  ]);
  if (remote) problems.found.push(...movedTags(project, tags, remote));
  return { head, branch, remote, tags, merged: tags.filter(({ name }) => merged.has(name)) };
}

/** Is this a branch that is released, and is everything committed? Pure. */
export function workTreeProblems(project: Pick<Project, 'release'>, tree: WorkTree): TaskError[] {
  const { branch, maintenance } = project.release;
  const others = maintenance.length > 0 ? `, older versions from ${maintenance.join(', ')}` : '';
  const here = tree.branch ? `branch ${tree.branch}` : 'a detached HEAD';
  const shown = tree.changes.slice(0, 5).join(', ');
  const more = tree.changes.length > 5 ? ` and ${tree.changes.length - 5} more` : '';
  return problemsIn([
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
  ]);
}

/** What the commit holds must be buildable, git must be free to write it, and able to sign it. */
async function checkCommit({ root, image }: Project, head: string, problems: Problems): Promise<void> {
  const [[lock], identity] = await Promise.all([
    gitLocks(root),
    releaseIdentity(root),
    problems.of(verifyBuildInputs(root, head, image)),
    problems.of(verifySigning(root, head)),
  ]);
  problems.add([
    lock !== undefined,
    'git-locked',
    `Cannot release: another git process is running here: ${lock?.path} exists`,
    `wait until it has ended; if there is none (ps -e | grep git), it was killed: rm ${lock?.path}`,
  ]);
  if (Object.keys(identity).length === 0) return;
  log.warn(`git has no identity here; the author of the release is ${FALLBACK.name} <${FALLBACK.email}>`);
  log.hint('git config user.name "…" && git config user.email "…"');
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
  const file = posix.normalize(dockerfile);
  const [entries, text = ''] = await Promise.all([treeEntries(root, head), fileAt(root, head, file)]);
  const types = new Map(entries.map(({ path, type }) => [path, type]));
  const copied = copiedPaths(text).map((one) => posix.join(context, one).replace(/^\/|\/$/g, ''));
  const wanted = [...new Set([file, ...copied])].filter((path) => path !== '.');
  const hasAttributes = entries.some(({ path }) => posix.basename(path) === '.gitattributes');
  const ignored = hasAttributes ? await exportIgnored(root, wanted) : new Set();
  const missing = wanted.flatMap((path) => {
    const folders = withFolders(path);
    if (folders.some((one) => ignored.has(one)))
      return [`${path} (export-ignore in .gitattributes leaves it out)`];
    const isThere = types.has(path) || folders.some((one) => types.get(one) === 'commit');
    return isThere ? [] : [`${path} (it is not committed)`];
  });
  for (const { type, path, oid } of entries)
    if (type === 'commit' && !(await hasObject(join(root, path), oid)))
      missing.push(`${path} (a submodule that is not checked out: git submodule update --init ${path})`);
  if (missing.length === 0) return;
  throw new TaskError(`Cannot build the image: the commit has no ${missing.join(', ')}`, {
    code: 'build-input-missing',
    hint: `the image is built from the commit alone; see what it contains: git archive ${shortHash(head)} | tar -t`,
  });
}

/** The path and every folder that it is in. */
function withFolders(path: string): string[] {
  return path.split('/').map((_, index, parts) => parts.slice(0, index + 1).join('/'));
}

/** Those of the paths, and of the folders that they are in, that `git archive` leaves out. */
async function exportIgnored(root: string, paths: readonly string[]): Promise<Set<string>> {
  const inside = paths.filter((path) => !path.startsWith('..')).flatMap(withFolders);
  const command = git(root, 'check-attr', '--cached', '-z', '--stdin', 'export-ignore');
  const fields = (await read(command, { input: inside.map((path) => `${path}\0`).join('') })).split('\0');
  return new Set(fields.filter((_, index) => index % 3 === 0 && fields[index + 2] === 'set'));
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

async function verifyConfiguration(project: Project): Promise<ResolvedModel> {
  try {
    const model = await resolvedModel(project, variable(project, 'PROD_TAG'));
    const services = parseServices(model);
    verifyServices(project, services);
    await verifyServiceConfig(project, services);
    return model;
  } catch (error) {
    // A missing compose is the cause of any error before; checked only now, since it is rare.
    await verifyCompose();
    throw error;
  }
}

async function checkEngine(
  project: Project,
  { push }: ReleaseRequest,
  engine: EngineInfo,
  problems: Problems,
): Promise<void> {
  const { platforms, registry } = project.image;
  problems.add([
    push && registry !== undefined && platforms.length > 0 && !engine.containerdStore,
    'platforms-unsupported',
    `Cannot build ${platforms.join(', ')}: this needs the engine's containerd image store`,
    'turn it on in daemon.json: {"features":{"containerd-snapshotter":true}}',
  ]);
  const latest = await inspectImage(imageReference(project, 'latest'));
  const needed = spaceNeeded(latest?.size ?? 0);
  const places = [[project.root, 'for the tree and the image archive']];
  // The directory of an engine on another machine is not here; that of one in a virtual machine does not exist.
  if (isLocalEndpoint(await engineEndpoint())) places.push([engine.dataRoot, "in the engine's storage"]);
  for (const [path = '', what] of places) {
    const found = await statfs(path).catch(() => undefined);
    const free = found ? found.bavail * found.bsize : needed;
    const sizes = `${path} has ${formatBytes(free)}, needed ${formatBytes(needed)}`;
    const hint = 'make room, e.g. docker builder prune and docker image prune';
    problems.add([free < needed, 'disk-full', `Not enough disk space ${what}: ${sizes}`, hint]);
  }
}

/**
 * Bytes that should be free, from the size of the image that was built last (bytes; 0: none yet): a build that runs out of
 * space costs minutes and reports it badly. Pure.
 */
export function spaceNeeded(imageSize: number): number {
  return Math.max(64e6, Math.ceil(imageSize * 1.5));
}

async function checkNames(
  project: Project,
  { data: { tag, previous }, isEmpty, commits }: ReleasePlan,
  { push, edit }: ReleaseRequest,
  problems: Problems,
): Promise<void> {
  problems.found.push(...((await problems.of(takenNames(project, tag, push))) ?? []));
  if (!isEmpty || edit) return;
  if (commits === 0)
    problems.found.push(nothingToRelease(previous, 'commit something, or write the entry yourself: --edit'));
  problems.add([
    commits > 0,
    'notes-empty',
    `Cannot release ${tag}: its notes would be empty, there are only merge and release commits`,
    `write the entry yourself: --edit, or a "## [${tag}]" section in ${project.release.notes}`,
  ]);
}

/** Other images that have the version's name, here or, with `push`, in the registry; so it must answer and let us in. */
async function takenNames(project: Project, tag: string, push: boolean): Promise<TaskError[]> {
  const local = imageReference(project, tag);
  const remote = push ? registryReference(project, tag) : undefined;
  const here = await inspectImage(local);
  const there = remote && (await registryDigest(remote));
  const revision = here?.labels['org.opencontainers.image.revision'];
  const origin = revision ? `, built from commit ${shortHash(revision)},` : '';
  return problemsIn([
    [
      here !== undefined,
      'image-exists',
      `Cannot release: the image ${local} exists (${here?.id})${origin} and has no git tag`,
      `if nobody needs it, remove the tag: docker image rm ${local}`,
    ],
    [
      Boolean(there),
      'image-exists',
      `Cannot release: the registry already has ${remote} (${there})`,
      'somebody pushed that version: git fetch --tags, or choose a higher version',
    ],
  ]);
}

/** @throws TaskError if another image has the version's name by now */
export async function verifyNameFree(project: Project, tag: string, push: boolean): Promise<void> {
  const [taken] = await takenNames(project, tag, push);
  if (taken) throw taken;
}
