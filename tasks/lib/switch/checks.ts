// What each environment shall run, and everything that can be known to fail: found before the first step, and reported
// together.

import { realpath, stat } from 'node:fs/promises';
import { createServer } from 'node:net';
import { freemem, hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { type ActiveEnvironment, environmentsOf } from '../active.ts';
import { probe, read, run } from '../command.ts';
import {
  CHECKOUT_LABEL,
  type ComposeService,
  DIGEST_LABEL,
  FILES_LABEL,
  type PublishedPort,
} from '../docker/compose.ts';
import { csvOption, docker, isLocalEndpoint } from '../docker/engine.ts';
import { type Container, type Image, inspectImage, tagImage } from '../docker/objects.ts';
import { verifyServiceConfig } from '../docker/service-config.ts';
import { combinedError, errorSummary, nearest, TaskError } from '../errors.ts';
import { formatBytes } from '../format.ts';
import { log } from '../log.ts';
import {
  dataDirectory,
  type EnvironmentName,
  imageReference,
  PROJECT_FILE,
  type Project,
  registryReference,
  variable,
  variableName,
} from '../project.ts';
import {
  buildRelease,
  newestRelease,
  releasedDigests,
  releaseOfTag,
  releasesToRun,
  verifyReleasedImage,
  versionOfTag,
} from '../release/record.ts';
import { dataDirectoryProblems, observeDataDirectory } from '../setup/data-directory.ts';
import { runOtherTask } from '../task.ts';
import { containersOfEnvironment, type EngineSnapshot } from './observe.ts';
import type { StartData, SwitchTarget } from './plan.ts';

export interface TargetCheck {
  target: SwitchTarget;
  problems: TaskError[];
}

/** What shall run, with the image of each environment looked up; problems are collected, not thrown. */
export async function checkTarget(
  project: Project,
  active: ActiveEnvironment,
  prodTag: string | undefined,
): Promise<TargetCheck> {
  const target: SwitchTarget = { active, prodTag, imageIds: {}, images: {} };
  const lookUp = async (name: EnvironmentName) => {
    const image = name === 'dev' ? await devImage(project) : await prodImage(project, prodTag, target);
    if (image) target.images[name] = image;
    if (image) target.imageIds[name] = image.id;
    return [];
  };
  const problems = await Promise.all(environmentsOf(active).map((name) => caught(lookUp(name))));
  return { target, problems: problems.flat() };
}

/** A check that throws has found that problem. */
function caught(found: Promise<TaskError[]>): Promise<TaskError[]> {
  return found.catch((error: unknown) => {
    if (error instanceof TaskError && !['interrupted', 'engine-down'].includes(error.code)) return [error];
    throw error;
  });
}

async function devImage(project: Project): Promise<Image> {
  const reference = imageReference(project, 'latest');
  const image = await inspectImage(reference);
  if (image) return image;
  const hint = 'build it: npm run build-push';
  throw new TaskError(`The image ${reference} is not on this machine`, { code: 'image-missing', hint });
}

/** The release's image, or undefined if the target now says how it is had. */
async function prodImage(project: Project, prodTag: string | undefined, target: SwitchTarget) {
  const hint = 'make one: npm run release';
  if (!prodTag) throw new TaskError('There is no release for prod yet', { code: 'no-release', hint });
  try {
    return await verifyReleasedImage(project, prodTag);
  } catch (error) {
    if (!(error instanceof TaskError)) throw error;
    if (error.code === 'not-released') throw await withSuggestion(project, prodTag, error);
    if (error.code !== 'image-missing') throw error;
    target.imageIds.prod = (await releaseOfTag(project, prodTag)).record.digest;
    target.fetch = registryReference(project, prodTag) ? 'pull' : 'build';
    return undefined;
  }
}

/** Names the release that was probably meant. */
async function withSuggestion(project: Project, tag: string, { message, code, hint }: TaskError) {
  const releases = await releasesToRun(project);
  const start = `${tag.replace(/^v/, '')}.`;
  const completed = releases.find((name) => versionOfTag(project, name)?.startsWith(start));
  const isLatest = tag === 'latest' && releases.length > 0;
  const meant = isLatest ? 'latest-release' : (completed ?? nearest(tag, releases));
  return new TaskError(message, { code, hint: meant ? `did you mean ${meant}?` : hint });
}

/** An environment's image by its digest in the registry, as every machine can pull it; undefined where it is in none. */
export function registryDigest(project: Project, name: EnvironmentName, { images, prodTag }: SwitchTarget) {
  const tag = name === 'dev' ? 'latest' : (prodTag ?? '');
  const repository = registryReference(project, tag)?.slice(0, -tag.length - 1);
  return images[name]?.repoDigests.find((digest) => repository && digest.startsWith(`${repository}@`));
}

/** Brings a release's image here and checks that it is the released one. @throws TaskError */
export async function fetchRelease(project: Project, tag: string): Promise<Image> {
  if (!(await pullRelease(project, tag))) await buildRelease(project, tag);
  return verifyReleasedImage(project, tag);
}

/** Makes sure that the images of prod and dev are here, dev's made from the work tree; returns prod's tag. */
export async function ensureImages(project: Project): Promise<string | undefined> {
  const tag = variable(project, 'PROD_TAG') ?? (await newestRelease(project));
  const isHere = (one: string) => inspectImage(imageReference(project, one));
  if (tag && !(await isHere(tag))) await fetchRelease(project, tag);
  if (!(await isHere('latest'))) await runOtherTask(project, 'build-push', 'latest', '--no-push');
  return tag;
}

/** By digest: a tag in a registry says nothing about what it was yesterday. False where no registry has it. */
async function pullRelease(project: Project, tag: string): Promise<boolean> {
  const repository = registryReference(project, tag)?.slice(0, -tag.length - 1);
  if (!repository) return false;
  for (const digest of releasedDigests((await releaseOfTag(project, tag)).record)) {
    const reference = `${repository}@${digest}`;
    try {
      await run(docker('pull', '--quiet', reference));
      await tagImage(reference, imageReference(project, tag));
      return true;
    } catch (error) {
      if (!(error instanceof TaskError) || error.code === 'interrupted') throw error;
      log.warn(`cannot pull ${reference}: ${errorSummary(error)}`);
    }
  }
  return false;
}

// The checks.

type Start = Pick<StartData, 'environment' | 'how'>;

/** @throws TaskError with every problem of the plan */
export async function verifySwitch(
  project: Project,
  snapshot: EngineSnapshot,
  check: TargetCheck,
  starts: readonly Start[],
): Promise<void> {
  const found = await Promise.all([
    checkoutProblems(project, snapshot.containers),
    memoryProblems(snapshot, starts),
    ...starts.flatMap((start) => {
      const { environment: name } = start;
      const service = snapshot.services[name];
      return [
        caught(verifyServiceConfig(project, snapshot.model.services, [name]).then(() => [])),
        portProblems(project, snapshot, name, service),
        caught(directoryProblems(project, snapshot, check, name)),
        volumeProblems(snapshot, start),
        exposureProblems(project, name, service),
      ];
    }),
  ]);
  const problems = [...check.problems, ...found.flat()];
  if (problems.length > 0)
    throw combinedError(`Cannot switch to ${check.target.active}; nothing was changed:`, problems);
}

/** Two checkouts of one compose project would replace each other's containers. One that is gone was moved. */
async function checkoutProblems(project: Project, containers: readonly Container[]): Promise<TaskError[]> {
  const own = await realpath(project.root);
  const folders = containers.flatMap(({ labels }) => {
    const [host, ...path] = labels[CHECKOUT_LABEL]?.split(':') ?? [];
    if (host !== undefined) return host === hostname() ? path.join(':') : [];
    // Made by compose itself, which writes down the folder of its file.
    return labels[DIGEST_LABEL] ? [] : (labels['com.docker.compose.project.working_dir'] ?? []);
  });
  const roots = await Promise.all([...new Set(folders)].map(checkoutAround));
  const other = roots.find((root) => root !== undefined && root !== own);
  if (!other) return [];
  const { name } = project.project;
  const message = `The containers of the compose project ${name} belong to another checkout: ${other}`;
  const hint = `switch there; or give this one a name and ports of its own ([project] name in ${PROJECT_FILE}); or take them over: remove them (docker ps --all --filter label=com.docker.compose.project=${name}), then switch here`;
  return [new TaskError(message, { code: 'other-checkout', hint })];
}

/** The project that a folder of this machine lies in; undefined if there is none (any more). */
async function checkoutAround(path: string): Promise<string | undefined> {
  for (let folder = path; ; folder = dirname(folder)) {
    if (await stat(join(folder, PROJECT_FILE)).catch(() => undefined)) return realpath(folder);
    if (folder === dirname(folder)) return undefined;
  }
}

/** A service that asks for a token must have one before the network can reach it. Pure. */
export function exposureProblems(
  project: Project,
  name: EnvironmentName,
  service: ComposeService,
): TaskError[] {
  const token = variableName(project, project.live?.token ?? 'TOKEN');
  const open = service.publishes.find(({ address }) => !/^(127\.|::1$|localhost$)/.test(address));
  if (!open || service.environment[token] !== '') return [];
  const address = open.address || '0.0.0.0';
  const message = `${name} is open to everybody who can reach ${address}:${open.published}: ${token} is not set`;
  const bind = variableName(project, 'BIND_ADDRESS');
  const hint = `open it with a token, in .env:\n${token}=$(openssl rand -hex 32)   (write what it prints)\n${bind}=${address}\nor keep it to this machine: ${bind}=127.0.0.1`;
  return [new TaskError(message, { code: 'exposed', hint })];
}

/** A port must be free, or published by this very environment, which gives it up for its successor. */
export async function portProblems(
  project: Project,
  snapshot: Pick<EngineSnapshot, 'containers' | 'endpoint'>,
  name: EnvironmentName,
  service: ComposeService,
): Promise<TaskError[]> {
  const own = containersOfEnvironment(project, snapshot.containers, name).filter(
    ({ state }) => state === 'running',
  );
  const isLocal = isLocalEndpoint(snapshot.endpoint);
  const swarmTasks = `${project.project.name}_${project.environments[name].service}.`;
  const problems = service.publishes.map(async (port): Promise<TaskError[]> => {
    if (own.some(({ publishedPorts }) => publishedPorts.includes(port.published))) return [];
    if (isLocal && (await isFree(port))) return [];
    const container = await publishingContainer(port.published);
    // A swarm's own container gives the port up for its successor, too.
    if (container?.startsWith(swarmTasks) || (!container && !isLocal)) return [];
    const holder = container ? `the container ${container}` : await listeningProcess(port.published);
    const message = `Port ${port.published}, which ${name} needs, is taken by ${holder}`;
    const variable = variableName(project, `${name.toUpperCase()}_PORT`);
    const hint = `stop it, or give ${name} another port: ${variable}=… in .env`;
    return [new TaskError(message, { code: 'port-taken', hint })];
  });
  return (await Promise.all(problems)).flat();
}

async function directoryProblems(
  project: Project,
  { services, endpoint }: EngineSnapshot,
  { target }: TargetCheck,
  name: EnvironmentName,
): Promise<TaskError[]> {
  const path = dataDirectory(project);
  const { binds, user } = services[name];
  const image = target.images[name];
  if (!binds.some(({ source }) => source === path)) return [];
  const variable = variableName(project, 'DATA_DIR');
  if (!isLocalEndpoint(endpoint)) return image ? remoteDirectoryProblems(image.id, path, variable) : [];
  const uid = /^\d+/.exec(user ?? '')?.[0];
  // In Docker's own virtual machine (macOS) owners are translated.
  const owner = uid !== undefined && process.platform === 'linux' ? { uid: Number(uid) } : undefined;
  const label = image?.labels[project.data.format_label ?? ''];
  const format = label === undefined ? undefined : Number(label);
  return dataDirectoryProblems(await observeDataDirectory(project), { path, variable, owner, format }).map(
    ({ message, ...options }) => new TaskError(message, options),
  );
}

/** Whether a directory is on the engine's machine, seen by a container that never starts: the engine would make it. */
async function remoteDirectoryProblems(image: string, path: string, variable: string): Promise<TaskError[]> {
  const mount = csvOption({ type: 'bind', source: path, target: '/looked-at', readonly: true });
  const made = await probe(docker('create', '--pull', 'never', '--mount', mount, image, 'never-started'));
  if (made.ok) await read(docker('rm', '--force', '--volumes', made.stdout.trim()));
  if (made.ok) return [];
  const isMissing = made.stderr.includes('does not exist');
  const problem = isMissing ? 'does not exist' : `cannot be used: ${made.stderr.trim()}`;
  const hint = `make it there, mode 0700, owned by the service's user; or name another one: ${variable}=… in .env`;
  return [new TaskError(`The data directory ${path} ${problem}`, { code: 'data-directory', hint })];
}

/** What starts beside what runs needs the memory that it reserves; another machine's cannot be asked. */
function memoryProblems({ services, endpoint }: EngineSnapshot, starts: readonly Start[]): TaskError[] {
  if (!isLocalEndpoint(endpoint) || process.platform !== 'linux') return [];
  const beside = starts.filter(({ how }) => how !== 'replace').map(({ environment }) => environment);
  const available = freemem();
  const needed = beside.reduce((sum, name) => sum + services[name].reservation, 0);
  if (needed <= available) return [];
  const message = `Not enough memory: ${formatBytes(available)} available, ${beside.join(' and ')} reserve ${formatBytes(needed)}`;
  return [new TaskError(message, { code: 'memory-short', hint: 'stop something, or lower the reservation' })];
}

/** What is in a volume without a name would be removed with the replaced container. */
function volumeProblems(snapshot: EngineSnapshot, { environment, how }: Start): TaskError[] {
  const { container } = snapshot.observed.environments[environment];
  if (how !== 'replace' || !container) return [];
  const ours = container.labels[FILES_LABEL]?.split(',') ?? [];
  const lost = container.anonymousVolumes.filter((path) => !ours.includes(path));
  const hint = 'give the volume a name in the compose file, or mount a tmpfs if its content may be lost';
  return lost.map((path) => {
    const message = `${container.name} keeps ${path} in a volume without a name: a new container starts empty`;
    return new TaskError(message, { code: 'anonymous-volume', hint });
  });
}

// Is a port free, or who has it? Named, so that nobody has to go looking.

/** Can this machine listen there now? */
function isFree({ published, address }: PublishedPort): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'EADDRINUSE'));
    server.listen({ port: published, host: address || '0.0.0.0', exclusive: true }, () =>
      server.close(() => resolve(true)),
    );
  });
}

/** The container that publishes a port, as the engine's machine has it: its name. */
async function publishingContainer(port: number): Promise<string | undefined> {
  const answer = await probe(docker('ps', '--filter', `publish=${port}`, '--format', '{{.Names}}'));
  return answer.stdout.split('\n', 1)[0] || undefined;
}

/** The process on this machine that listens there, as far as this user may know: `node (pid 12)`. */
async function listeningProcess(port: number): Promise<string> {
  const question = ['--no-header', '--listening', '--tcp', '--numeric', '--processes', `sport = :${port}`];
  const sockets = await probe(['ss', ...question]);
  const [, name, pid] = /users:\(\("([^"]+)",pid=(\d+)/.exec(sockets.stdout) ?? [];
  if (name && pid) return `${name} (pid ${pid})`;
  const files = await probe(['lsof', '-nP', '-Fcp', `-iTCP:${port}`, '-sTCP:LISTEN']);
  const [, number] = /^p(\d+)$/m.exec(files.stdout) ?? [];
  const [, command] = /^c(.+)$/m.exec(files.stdout) ?? [];
  return number && command ? `${command} (pid ${number})` : 'a process of another user';
}
