// The engine's client, `docker`: how it is called, and what it means when it finds no engine.
import { Agent, request } from 'node:http';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { type Command, connect, read } from '../command.ts';
import { TaskError } from '../errors.ts';
import { readIfPresent } from '../files.ts';
import { log } from '../log.ts';
import { session, throwIfInterrupted } from '../session.ts';

/** Every call of `docker` goes through here, so that `--context` reaches them all. */
export function docker(...argv: string[]): Command {
  const { context, engineSocket } = session;
  if (engineSocket) return ['docker', '--host', `unix://${engineSocket}`, ...argv];
  return ['docker', ...(context ? ['--context', context] : []), ...argv];
}

export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The error of a task that needs an engine and has none. */
function engineDown(stderr: string): TaskError {
  const reason = stderr.trim().split('\n').at(-1) ?? '';
  return new TaskError(`No Docker engine answers${reason ? `: ${reason}` : ''}`, {
    code: 'engine-down',
    hint: howToReach(reason),
  });
}

function howToReach(reason: string): string {
  const host = process.env.DOCKER_HOST;
  if (/permission denied/i.test(reason))
    return 'this user may not use it: sudo usermod -aG docker "$USER", then log in again';
  if (host)
    return `DOCKER_HOST names the engine at ${host}: start that one, or unset DOCKER_HOST to use this machine's`;
  return 'start Docker, or let `npm run setup` install and start it (Debian, Raspberry Pi OS)';
}

// Where the engine is that the client would talk to.

/** Where the client finds the engine, e.g. `unix:///var/run/docker.sock`, `ssh://me@pi`. */
export async function engineEndpoint(): Promise<string> {
  if (!session.context && process.env.DOCKER_HOST) return process.env.DOCKER_HOST;
  if (!session.context && (await isDefaultContext())) return DEFAULT_ENDPOINT;
  return endpointOf(session.context ?? '');
}

const named = new Map<string, Promise<string>>();

/** Asked once: a process of its own for each question would need longer than the question. */
function endpointOf(context: string): Promise<string> {
  const names = context ? [context] : [];
  const endpoint =
    named.get(context) ??
    read(docker('context', 'inspect', '--format', '{{.Endpoints.docker.Host}}', ...names));
  named.set(context, endpoint);
  return endpoint;
}

const DEFAULT_ENDPOINT = 'unix:///var/run/docker.sock';

/** Spares a process in the most common case: nobody ever chose another context. */
async function isDefaultContext(): Promise<boolean> {
  if (process.platform !== 'linux' || process.env.DOCKER_CONTEXT) return false;
  const folder = process.env.DOCKER_CONFIG ?? join(homedir(), '.docker');
  const text = await readIfPresent(join(folder, 'config.json'));
  return text === undefined || !text.includes('"currentContext"');
}

/** True if the engine sees this machine's files and its published ports are ours. */
export function isLocalEndpoint(endpoint: string): boolean {
  return /^(unix|npipe|fd):/.test(endpoint);
}

// The engine's own HTTP interface, for questions: the client answers them slowly, or by one process each. Straight to
// its socket where that is on this machine; else through `docker system dial-stdio`, which reaches whatever engine the
// client would, by TLS or ssh.

/** Asks for a path, e.g. `/containers/json?all=1`: the parsed answer, or undefined for 404. */
export type AskEngine = (path: string) => Promise<unknown>;

/** Longer than any question here takes, also over ssh. */
const PATIENCE_MS = 20_000;

interface Line {
  agent: Agent;
  socketPath?: string;
  /** Rejects when no question can be answered any more; else never settles. */
  died: Promise<never>;
  /** What a question without an answer means. */
  explain: (error: NodeJS.ErrnoException) => Promise<TaskError>;
  hangUp: () => void;
}

/**
 * Runs `work` over one connection, on which the questions are answered one after another.
 * @throws TaskError when no engine answers
 */
export async function withEngine<T>(work: (ask: AskEngine) => Promise<T>): Promise<T> {
  throwIfInterrupted();
  const socketPath = await localSocket();
  const line = socketPath ? lineToSocket(socketPath) : lineThroughClient();
  try {
    return await work((path) => askOne(line, path));
  } finally {
    line.hangUp();
  }
}

/** One question. @throws TaskError when no engine answers */
export const askEngine: AskEngine = (path) => withEngine((ask) => ask(path));

/** Where the engine listens on this machine, or is forwarded to; undefined if only the client knows a way to it. */
async function localSocket(): Promise<string | undefined> {
  if (session.engineSocket) return session.engineSocket;
  // What is wrong with a context the client says best.
  const endpoint = await engineEndpoint().catch(() => '');
  return endpoint.startsWith('unix://') ? endpoint.slice('unix://'.length) : undefined;
}

function lineToSocket(socketPath: string): Line {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const explain = async ({ code, message }: NodeJS.ErrnoException) => {
    const words = {
      EACCES: `permission denied while trying to connect to the Docker daemon socket at unix://${socketPath}`,
      ENOENT: `Cannot connect to the Docker daemon at unix://${socketPath}. Is the docker daemon running?`,
      ECONNREFUSED: `Cannot connect to the Docker daemon at unix://${socketPath}. Is the docker daemon running?`,
    }[code ?? ''];
    return engineDown(words ?? `unix://${socketPath}: ${message}`);
  };
  return { agent, socketPath, died: new Promise(() => {}), explain, hangUp: () => agent.destroy() };
}

function lineThroughClient(): Line {
  const { stream, closed } = connect(docker('system', 'dial-stdio'));
  // What node's HTTP client expects of a socket and a pair of pipes does not have.
  const nothing = () => stream;
  const socket = Object.assign(stream, { setKeepAlive: nothing, setNoDelay: nothing, setTimeout: nothing });
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  Object.assign(agent, { createConnection: () => Object.assign(socket, { ref: nothing, unref: nothing }) });
  const failure = closed.then(({ stderr }) => engineDown(stderr));
  const died = failure.then((error) => Promise.reject(error));
  // The process's end is noticed through the requests; nobody may be listening to it by then.
  died.catch(() => {});
  stream.on('error', () => {});
  const hangUp = () => {
    stream.destroy();
    agent.destroy();
  };
  const explain = () => {
    stream.destroy();
    return failure;
  };
  return { agent, died, explain, hangUp };
}

async function askOne(line: Line, path: string): Promise<unknown> {
  throwIfInterrupted();
  log.detail(`$ GET ${path}`);
  // A question that waits for its turn on a line that has died hears nothing of it by itself.
  const answer = await Promise.race([get(line, path), line.died]).catch(async (cause: Error) => {
    const error = await line.explain(cause);
    throwIfInterrupted();
    throw error;
  });
  if (answer.status === 404) return undefined;
  const body = parseJson(answer.text);
  if (answer.status === 200) return body;
  const { message } = (body ?? {}) as { message?: string };
  throw new TaskError(`The Docker engine answered ${answer.status} to ${path}: ${message ?? answer.text}`, {
    code: 'engine-answer',
  });
}

function get(line: Line, path: string): Promise<{ status: number; text: string }> {
  const { agent, socketPath, died } = line;
  const place = socketPath ? { socketPath } : { host: 'docker' };
  return new Promise((resolve, reject) => {
    const outgoing = request({ agent, ...place, path }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('error', reject);
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
    });
    const timer = setTimeout(() => outgoing.destroy(new Error('no answer')), PATIENCE_MS);
    // A question that never got onto the line is never closed: the task would outlive its end by the patience.
    died.catch(() => clearTimeout(timer));
    outgoing.on('error', reject);
    outgoing.on('close', () => {
      clearTimeout(timer);
      reject(new Error('closed without an answer'));
    });
    outgoing.end();
  });
}

// What the engine says of itself and its machine. By its own interface: `docker info` asks each plugin of the client
// for its description as well, which takes longer than all the rest.

export interface EngineInfo {
  version: string;
  /** Machine name as `uname -m` has it, e.g. `x86_64`, `aarch64`. */
  architecture: string;
  cpus: number;
  /** Bytes. */
  memory: number;
  /** `1` or `2`. */
  cgroup: string;
  /** What the kernel enforces of a container's limits. */
  limits: { memory: boolean; swap: boolean; cpu: boolean; pids: boolean };
  /** What it would print under `docker info`. */
  warnings: string[];
  /** Images live in containerd: digests are real manifest digests and several platforms fit in one image. */
  containerdStore: boolean;
  /** Where it keeps its images, on its own machine. */
  dataRoot: string;
}

/** @throws TaskError when no engine answers */
export function engineInfo(): Promise<EngineInfo> {
  return withEngine(readInfo);
}

/** @throws TaskError when no engine answers, or something else does */
export async function readInfo(ask: AskEngine): Promise<EngineInfo> {
  const flag = z.boolean().default(false);
  const schema = z.object({
    ServerVersion: z.string().min(1),
    Architecture: z.string(),
    NCPU: z.number(),
    MemTotal: z.number(),
    CgroupVersion: z.string().default('1'),
    MemoryLimit: flag,
    SwapLimit: flag,
    CpuCfsQuota: flag,
    PidsLimit: flag,
    Warnings: z.array(z.string()).nullish(),
    DriverStatus: z.array(z.array(z.string())).nullish(),
    DockerRootDir: z.string().default(''),
  });
  const answer = schema.safeParse(await ask('/info'));
  if (!answer.success) throw engineDown('what answers /info is none');
  const { MemoryLimit: memory, SwapLimit: swap, CpuCfsQuota: cpu, PidsLimit: pids, ...info } = answer.data;
  return {
    version: info.ServerVersion,
    architecture: info.Architecture,
    cpus: info.NCPU,
    memory: info.MemTotal,
    cgroup: info.CgroupVersion,
    limits: { memory, swap, cpu, pids },
    warnings: info.Warnings ?? [],
    containerdStore:
      info.DriverStatus?.some(([, value]) => value?.startsWith('io.containerd.snapshotter')) ?? false,
    dataRoot: info.DockerRootDir,
  };
}
