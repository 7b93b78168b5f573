// Everything that can be known to fail is found before the first step, and told at once.

import { readFile, stat, statfs } from 'node:fs/promises';
import { createServer } from 'node:net';
import { freemem } from 'node:os';
import { join } from 'node:path';
import { probe, read, stream } from '../command.ts';
import { type ComposeService, FILES_LABEL, type PublishedPort } from '../docker/compose.ts';
import { docker, isLocalEndpoint, parseJson } from '../docker/engine.ts';
import type { Image } from '../docker/objects.ts';
import { verifyServiceConfig } from '../docker/service-config.ts';
import { combinedError, TaskError } from '../errors.ts';
import { dataDirectory, type EnvironmentName, type Project, variableName } from '../project.ts';
import { containersOfEnvironment, type EngineSnapshot } from './observe.ts';
import type { StartData } from './plan.ts';
import { environmentImage, type TargetCheck } from './target.ts';

/** @throws TaskError with every problem of the plan */
export async function verifySwitch(
  project: Project,
  snapshot: EngineSnapshot,
  check: TargetCheck,
  starts: readonly StartData[],
): Promise<void> {
  const found = await Promise.all([
    roomProblems(project, snapshot, starts),
    ...starts.map((step) => environmentProblems(project, snapshot, check, step)),
  ]);
  const problems = [...check.problems, ...found.flat()];
  if (problems.length === 0) return;
  throw combinedError(`Cannot switch to ${check.target.active}; nothing was changed:`, problems);
}

async function configProblems(project: Project, snapshot: EngineSnapshot, name: EnvironmentName) {
  return verifyServiceConfig(project, snapshot.model.services, [name]).then(
    () => [],
    (error) => [asProblem(error)],
  );
}

function asProblem(error: unknown): TaskError {
  if (error instanceof TaskError && error.code !== 'interrupted') return error;
  throw error;
}

function environmentProblems(
  project: Project,
  snapshot: EngineSnapshot,
  check: TargetCheck,
  step: StartData,
) {
  const service = snapshot.services[step.environment];
  return Promise.all([
    configProblems(project, snapshot, step.environment),
    portProblems(project, snapshot, step.environment, service),
    directoryProblems(project, snapshot, check, step.environment),
    volumeProblems(snapshot, step),
  ]).then((lists) => lists.flat());
}

/** A port must be free, or published by this very environment, which gives it up for its successor. */
async function portProblems(
  project: Project,
  snapshot: EngineSnapshot,
  name: EnvironmentName,
  service: ComposeService,
) {
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
    return [
      new TaskError(`Port ${port.published}, which ${name} needs, is taken by ${holder}`, {
        code: 'port-taken',
        hint: `stop it, or give ${name} another port: ${variableName(project, `${name.toUpperCase()}_PORT`)}=… in .env`,
      }),
    ];
  });
  return (await Promise.all(problems)).flat();
}

async function directoryProblems(
  project: Project,
  snapshot: EngineSnapshot,
  check: TargetCheck,
  name: EnvironmentName,
) {
  const path = dataDirectory(project);
  const service = snapshot.services[name];
  if (!service.binds.some(({ source }) => source === path)) return [];
  const image = check.target.images[name];
  const isLocal = isLocalEndpoint(snapshot.endpoint);
  // Without an image there is nothing to look through; that is a problem of its own, or fetched first.
  if (!isLocal && !image) return [];
  const reference = environmentImage(project, name, check.target.prodTag);
  const read = isLocal ? readLocalData(project, path) : readRemoteData(project, path, reference);
  const data = await read.catch(asProblem);
  if (data instanceof TaskError) return [data];
  // In Docker's own virtual machine (macOS) owners are translated.
  const user = isLocal && process.platform !== 'linux' ? undefined : service.user;
  return dataProblems(project, { environment: name, path, user, image }, data);
}

/** What lies in a volume without a name would stay with the replaced container, and go with it. */
function volumeProblems(snapshot: EngineSnapshot, step: StartData): TaskError[] {
  const container = snapshot.observed.environments[step.environment].container;
  if (step.how !== 'replace' || !container) return [];
  const ours = container.labels[FILES_LABEL]?.split(',') ?? [];
  return container.anonymousVolumes
    .filter((path) => !ours.includes(path))
    .map(
      (path) =>
        new TaskError(
          `${container.name} keeps ${path} in a volume without a name: a new container starts empty`,
          {
            code: 'anonymous-volume',
            hint: `give the volume a name in the compose file, or mount a tmpfs if its content may go`,
          },
        ),
    );
}

/** Memory and disk of this machine; another one's cannot be asked through its engine. */
async function roomProblems(
  project: Project,
  snapshot: EngineSnapshot,
  starts: readonly StartData[],
): Promise<TaskError[]> {
  if (starts.length === 0 || !isLocalEndpoint(snapshot.endpoint) || process.platform !== 'linux') return [];
  const beside = starts.filter(({ how }) => how !== 'replace');
  const needed = beside.reduce(
    (sum, { environment }) => sum + snapshot.services[environment].memory.reservation,
    0,
  );
  const problems: TaskError[] = [];
  if (needed > freemem()) {
    const message = `Not enough memory: ${megabytes(freemem())} are available, ${beside.map((step) => step.environment).join(' and ')} reserve ${megabytes(needed)}`;
    problems.push(
      new TaskError(message, { code: 'memory-short', hint: 'stop something, or lower the reservation' }),
    );
  }
  const { bavail, bsize } = await statfs(project.root);
  if (bavail * bsize < SPARE_BYTES) {
    const message = `The disk of ${project.root} is full: ${megabytes(bavail * bsize)} free, at least ${megabytes(SPARE_BYTES)} are needed`;
    problems.push(new TaskError(message, { code: 'disk-full', hint: 'make room, then switch again' }));
  }
  return problems;
}

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

// The data directory as the engine's machine has it: there, private, writable by the container's user, and in
// a format that the image can read. On another machine it is read through a container that never starts.

export interface DataDirectory {
  mode: number;
  uid: number;
  gid: number;
  /** The number in its format file; undefined if there is none. */
  format: number | undefined;
  /** Bytes; undefined where it cannot be asked. */
  free: number | undefined;
}

/** Below this a service soon cannot write. */
const SPARE_BYTES = 100 * 2 ** 20;

async function formatOf(project: Project, text: string | undefined): Promise<number | undefined> {
  const value = parseJson(text ?? '');
  const number = (value as Record<string, unknown> | undefined)?.[project.data.format_key];
  return typeof number === 'number' ? number : undefined;
}

/** Undefined if there is no such directory. */
async function readLocalData(project: Project, path: string): Promise<DataDirectory | undefined> {
  const found = await stat(path).catch(() => undefined);
  if (!found?.isDirectory()) return undefined;
  const [text, space] = await Promise.all([
    readFile(join(path, project.data.format_file), 'utf8').catch(() => undefined),
    statfs(path),
  ]);
  const { mode, uid, gid } = found;
  return {
    mode: mode & 0o777,
    uid,
    gid,
    format: await formatOf(project, text),
    free: space.bavail * space.bsize,
  };
}

/** The same on the engine's own machine; needs no program in the image, only its name. */
async function readRemoteData(project: Project, path: string, image: string) {
  const mount = `type=bind,source=${path},target=/looked-at,readonly`;
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
    return { mode, uid, gid, format: await formatOf(project, content), free: undefined };
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

/** Everything that speaks against starting `service` on this directory. Pure. */
export function dataProblems(
  project: Project,
  subject: { environment: EnvironmentName; path: string; user: string | undefined; image: Image | undefined },
  data: DataDirectory | undefined,
): TaskError[] {
  const { environment, path, user, image } = subject;
  const problem = (message: string, hint: string) => new TaskError(message, { code: 'data-directory', hint });
  if (!data) {
    const elsewhere = `or name another: ${variableName(project, 'DATA_DIR')}=… in .env`;
    return [problem(`The data directory ${path} is not there`, `npm run setup makes it; ${elsewhere}`)];
  }
  const problems: TaskError[] = [];
  if (data.mode !== 0o700) {
    const mode = data.mode.toString(8).padStart(4, '0');
    problems.push(
      problem(`The data directory ${path} has mode ${mode}, expected 0700`, `chmod 0700 ${path}`),
    );
  }
  const uid = /^\d+/.exec(user ?? '')?.[0];
  if (uid !== undefined && uid !== '0' && Number(uid) !== data.uid) {
    const message = `The data directory ${path} belongs to ${data.uid}:${data.gid}, but ${environment} runs as ${user}: it could not write`;
    problems.push(problem(message, `npm run setup, or: chown -R ${user} ${path}`));
  }
  const label = project.data.format_label;
  const readable = Number(image?.labels[label ?? ''] ?? Number.NaN);
  if (data.format !== undefined && readable < data.format) {
    problems.push(
      new TaskError(
        `The data in ${path} has format ${data.format}; the image of ${environment} reads up to ${readable}`,
        {
          code: 'data-format',
          hint: 'run a newer version, or restore a backup from before the newer one ran: npm run backup -- restore',
        },
      ),
    );
  }
  if (data.free !== undefined && data.free < SPARE_BYTES) {
    const message = `The disk of the data directory ${path} is full: ${megabytes(data.free)} free, at least ${megabytes(SPARE_BYTES)} are needed`;
    problems.push(new TaskError(message, { code: 'disk-full', hint: 'make room, then switch again' }));
  }
  return problems;
}

function megabytes(bytes: number): string {
  return `${Math.round(bytes / 2 ** 20)} MB`;
}
