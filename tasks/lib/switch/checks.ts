// Everything that can be known to fail is found before the first step, and all of it is reported together.

import { realpath, stat, statfs } from 'node:fs/promises';
import { createServer } from 'node:net';
import { freemem, hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { probe, read, stream } from '../command.ts';
import {
  CHECKOUT_LABEL,
  type ComposeService,
  DIGEST_LABEL,
  FILES_LABEL,
  type PublishedPort,
} from '../docker/compose.ts';
import { csvOption, docker, isLocalEndpoint } from '../docker/engine.ts';
import type { Container } from '../docker/objects.ts';
import { verifyServiceConfig } from '../docker/service-config.ts';
import { combinedError, TaskError } from '../errors.ts';
import { formatBytes } from '../format.ts';
import { dataDirectory, type EnvironmentName, PROJECT_FILE, type Project, variableName } from '../project.ts';
import {
  type DirectoryState,
  dataDirectoryProblems,
  dataFormat,
  observeDataDirectory,
} from '../setup/data-directory.ts';
import { containersOfEnvironment, type EngineSnapshot } from './observe.ts';
import type { StartData } from './plan.ts';
import { environmentImage, type TargetCheck } from './target.ts';

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
    roomProblems(project, snapshot, starts),
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

/** A check that throws has found that problem. */
function caught(found: Promise<TaskError[]>): Promise<TaskError[]> {
  return found.catch((error: unknown) => {
    if (error instanceof TaskError && error.code !== 'interrupted') return [error];
    throw error;
  });
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
  snapshot: EngineSnapshot,
  { target }: TargetCheck,
  name: EnvironmentName,
): Promise<TaskError[]> {
  const path = dataDirectory(project);
  const { binds, user } = snapshot.services[name];
  const image = target.images[name];
  const isLocal = isLocalEndpoint(snapshot.endpoint);
  // Without an image there is nothing to look through; that is a problem of its own, or fetched first.
  if (!binds.some(({ source }) => source === path) || (!isLocal && !image)) return [];
  const state = await (isLocal
    ? observeDataDirectory(project)
    : observeRemoteDirectory(project, path, environmentImage(project, name, target.prodTag)));
  const uid = /^\d+/.exec(user ?? '')?.[0];
  // In Docker's own virtual machine (macOS) owners are translated.
  const hasOwners = uid !== undefined && !(isLocal && process.platform !== 'linux');
  const label = image?.labels[project.data.format_label ?? ''];
  return dataDirectoryProblems(state, {
    path,
    variable: variableName(project, 'DATA_DIR'),
    owner: hasOwners ? { uid: Number(uid) } : undefined,
    format: label === undefined ? undefined : Number(label),
  }).map(({ message, ...options }) => new TaskError(message, options));
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

/** Memory and disk of this machine; another one's cannot be asked through its engine. */
async function roomProblems(project: Project, snapshot: EngineSnapshot, starts: readonly Start[]) {
  if (starts.length === 0 || !isLocalEndpoint(snapshot.endpoint) || process.platform !== 'linux') return [];
  const beside = starts.filter(({ how }) => how !== 'replace').map(({ environment }) => environment);
  const reservation = (name: EnvironmentName) => snapshot.services[name].memory.reservation;
  const needed = beside.reduce((sum, name) => sum + reservation(name), 0);
  const problems: TaskError[] = [];
  if (needed > freemem()) {
    const message = `Not enough memory: ${formatBytes(freemem())} are available, ${beside.join(' and ')} reserve ${formatBytes(needed)}`;
    const hint = 'stop something, or lower the reservation';
    problems.push(new TaskError(message, { code: 'memory-short', hint }));
  }
  const { bavail, bsize } = await statfs(project.root);
  if (bavail * bsize < SPARE_BYTES) {
    const message = `The disk of ${project.root} is full: ${formatBytes(bavail * bsize)} free, at least ${formatBytes(SPARE_BYTES)} are needed`;
    const hint = 'free some space and run the same command again';
    problems.push(new TaskError(message, { code: 'disk-full', hint }));
  }
  return problems;
}

/** .env and the journal must be written. */
const SPARE_BYTES = 100e6;

// Is a port free, or who has it? Named, so that nobody has to go looking.

/** Can this machine listen there now? */
export function isFree({ published, address }: PublishedPort): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'EADDRINUSE'));
    server.listen({ port: published, host: address || '0.0.0.0', exclusive: true }, () =>
      server.close(() => resolve(true)),
    );
  });
}

/** The container that publishes a port, as the engine's machine has it: its name. */
export async function publishingContainer(port: number): Promise<string | undefined> {
  const answer = await probe(docker('ps', '--filter', `publish=${port}`, '--format', '{{.Names}}'));
  return answer.stdout.split('\n', 1)[0] || undefined;
}

/** The process on this machine that listens there, as far as this user may know: `node (pid 12)`. */
export async function listeningProcess(port: number): Promise<string> {
  const question = ['--no-header', '--listening', '--tcp', '--numeric', '--processes', `sport = :${port}`];
  const sockets = await probe(['ss', ...question]);
  const [, name, pid] = /users:\(\("([^"]+)",pid=(\d+)/.exec(sockets.stdout) ?? [];
  if (name && pid) return `${name} (pid ${pid})`;
  const files = await probe(['lsof', '-nP', '-Fcp', `-iTCP:${port}`, '-sTCP:LISTEN']);
  const [, number] = /^p(\d+)$/m.exec(files.stdout) ?? [];
  const [, command] = /^c(.+)$/m.exec(files.stdout) ?? [];
  return number && command ? `${command} (pid ${number})` : 'a process of another user';
}

/** The data directory on another machine, seen through a container that never starts. */
async function observeRemoteDirectory(
  project: Project,
  path: string,
  image: string,
): Promise<DirectoryState | undefined> {
  const mount = csvOption({ type: 'bind', source: path, target: '/looked-at', readonly: true });
  const made = await probe(docker('create', '--pull', 'never', '--mount', mount, image, 'never-started'));
  if (!made.ok) {
    if (/does not exist/.test(made.stderr)) return undefined;
    throw new TaskError(`Cannot look at ${path} on the engine's machine: ${made.stderr.trim()}`, {
      code: 'data-directory',
    });
  }
  const id = made.stdout.trim();
  try {
    const header = await firstBlock(docker('cp', `${id}:/looked-at`, '-'));
    const octal = (from: number, length: number) =>
      Number.parseInt(header.toString('ascii', from, from + length), 8);
    const text = await probe(docker('cp', `${id}:/looked-at/${project.data.format_file}`, '-'));
    // A tar of one small file: a block of header, then the text up to its padding.
    const content = text.ok ? text.stdout.slice(512).split('\0', 1)[0] : undefined;
    const [mode, uid, gid] = [octal(100, 7) & 0o777, octal(108, 7), octal(116, 7)];
    return { mode, uid, gid, format: dataFormat(project, content) };
  } finally {
    await read(docker('rm', '--force', '--volumes', id));
  }
}

/** The tar header of a directory, without reading what is in it. */
async function firstBlock(command: ReturnType<typeof docker>): Promise<Buffer> {
  let block = Buffer.alloc(0);
  for await (const chunk of stream(command)) {
    block = Buffer.concat([block, chunk]);
    if (block.length >= 512) break;
  }
  return block.subarray(0, 512);
}
