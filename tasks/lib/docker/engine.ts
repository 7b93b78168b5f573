// The one edge to the engine: acts go through its client `docker`, questions straight to its HTTP interface, where the
// client would need a process each. Also: which engine it is, and what it means when there is none.
import { AsyncLocalStorage } from 'node:async_hooks';
import { Agent } from 'node:http';
import { z } from 'zod';
import { type Command, connect, probe } from '../command.ts';
import { TaskError, usageError } from '../errors.ts';
import { parseJson } from '../files.ts';
import { type HttpResponse, request } from '../http.ts';
import { log } from '../log.ts';
import { session, throwIfInterrupted } from '../session.ts';

/** Every call of `docker` goes through here, so that `--context` reaches them all. */
export function docker(...argv: string[]): Command {
  const { context, engineSocket } = session;
  if (engineSocket) return ['docker', '--host', `unix://${engineSocket}`, ...argv];
  return ['docker', ...(context ? ['--context', context] : []), ...argv];
}

/** A value that docker reads as CSV (--mount, --output, --secret): any path may be in it. `true`: a name alone. */
export function csvOption(fields: Record<string, string | true>): string {
  const parts = Object.entries(fields).map(([name, value]) => (value === true ? name : `${name}=${value}`));
  return parts.map((part) => (/[",\n]/.test(part) ? `"${part.replaceAll('"', '""')}"` : part)).join(',');
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

/** By what was chosen: a process for each question would need longer than the question. */
const endpoints = new Map<string, string>();

/**
 * Where the client finds the engine, e.g. `unix:///var/run/docker.sock`, `ssh://me@pi`.
 * @throws TaskError; exit 2 when DOCKER_HOST is not an address, or there is no such context
 */
export async function engineEndpoint(): Promise<string> {
  const { DOCKER_HOST, DOCKER_CONTEXT } = process.env;
  const choice = session.context ?? `${DOCKER_HOST} ${DOCKER_CONTEXT}`;
  const endpoint = endpoints.get(choice) ?? (await askForEndpoint());
  endpoints.set(choice, endpoint);
  return endpoint;
}

async function askForEndpoint(): Promise<string> {
  const names = session.context ? [session.context] : [];
  const format = ['--format', '{{.Endpoints.docker.Host}}'];
  const { ok, stdout, stderr } = await probe(['docker', 'context', 'inspect', ...format, ...names]);
  const endpoint = stdout.trim();
  if (ok && URL.canParse(endpoint)) return endpoint;
  const [, name] = /context "(.*)": context not found/.exec(stderr) ?? [];
  if (name !== undefined) {
    throw usageError(`There is no Docker context "${name}"`, {
      hint: 'see which there are: docker context ls; make one: docker context create',
    });
  }
  if (!ok && !/invalid bind address/.test(stderr)) throw engineDown(stderr);
  const expected = 'expected an address like unix:///var/run/docker.sock or ssh://me@pi';
  throw usageError(`DOCKER_HOST is "${process.env.DOCKER_HOST}", ${expected}`, {
    hint: "unset DOCKER_HOST to use this machine's engine",
  });
}

/** True if the engine sees this machine's files and its published ports are ours. */
export function isLocalEndpoint(endpoint: string): boolean {
  return /^(unix|npipe|fd):/.test(endpoint);
}

/** Longer than any question here takes, also over ssh. */
const REQUEST_TIMEOUT_MS = 20_000;

interface Connection {
  agent: Agent;
  socketPath?: string;
  /** What a request without a response means. */
  explain: (error: NodeJS.ErrnoException) => TaskError | Promise<TaskError>;
  /** Settles when no request can be answered any more. */
  ended: Promise<unknown>;
  close: () => void;
}

/** The connection of the `withEngine` that the caller runs in. */
const shared = new AsyncLocalStorage<Connection>();

/**
 * Runs `work` with one connection for all its questions, which are answered one after another.
 * @throws TaskError when no engine responds
 */
export async function withEngine<T>(work: () => Promise<T>): Promise<T> {
  if (shared.getStore()) return work();
  throwIfInterrupted();
  const socketPath = await localSocket();
  const connection = socketPath ? connectToSocket(socketPath) : connectThroughClient();
  try {
    return await shared.run(connection, work);
  } finally {
    connection.close();
  }
}

/**
 * Asks for a path, e.g. `/containers/json?all=1`: the parsed answer, or undefined for 404.
 * @throws TaskError when no engine responds
 */
export function queryEngine(path: string): Promise<unknown> {
  return withEngine(() => query(shared.getStore()!, path));
}

/** Where the engine listens on this machine, or is forwarded to; undefined if only the client knows a way to it. */
async function localSocket(): Promise<string | undefined> {
  if (session.engineSocket) return session.engineSocket;
  const endpoint = await engineEndpoint();
  return endpoint.startsWith('unix://') ? endpoint.slice('unix://'.length) : undefined;
}

function connectToSocket(socketPath: string): Connection {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const explain = ({ code, message }: NodeJS.ErrnoException) => {
    if (code === 'EACCES')
      return engineDown(`permission denied while connecting to the Docker daemon at unix://${socketPath}`);
    const isMissing = code === 'ENOENT' || code === 'ECONNREFUSED';
    const why = isMissing ? 'cannot connect; is the Docker daemon running?' : message;
    return engineDown(`unix://${socketPath}: ${why}`);
  };
  return { agent, socketPath, explain, ended: new Promise(() => {}), close: () => agent.destroy() };
}

/** `docker system dial-stdio` reaches whatever engine the client would, by TLS or ssh. */
function connectThroughClient(): Connection {
  const { stream, closed } = connect(docker('system', 'dial-stdio'));
  // What node's HTTP client expects of a socket and a pair of pipes does not have.
  const names = ['setKeepAlive', 'setNoDelay', 'setTimeout', 'ref', 'unref'];
  const calls = Object.fromEntries(names.map((name) => [name, () => stream]));
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  Object.assign(agent, { createConnection: () => Object.assign(stream, calls) });
  stream.on('error', () => {});
  const explain = async () => {
    stream.destroy();
    return engineDown((await closed).stderr);
  };
  const close = () => {
    stream.destroy();
    agent.destroy();
  };
  return { agent, explain, ended: closed, close };
}

async function query(connection: Connection, path: string): Promise<unknown> {
  throwIfInterrupted();
  log.detail(`$ GET ${path}`);
  const { agent, socketPath } = connection;
  const address = { url: `http://docker${path}`, ...(socketPath ? { socketPath } : {}) };
  // A request that waits for its turn on a connection that has ended hears nothing of it by itself.
  const ended = connection.ended.then(
    (): HttpResponse => ({ status: 0, text: '', error: new Error('it ended') }),
  );
  const abort = new AbortController();
  const options = { agent, timeoutMs: REQUEST_TIMEOUT_MS, signal: abort.signal };
  const response = await Promise.race([request(address, options), ended]);
  if (response.error) {
    abort.abort();
    const error = await connection.explain(response.error);
    throwIfInterrupted();
    throw error;
  }
  if (response.status === 404) return undefined;
  const body = parseJson(response.text);
  if (response.status === 200) return body;
  const { message } = (body ?? {}) as { message?: string };
  const what = `The Docker engine answered ${response.status} to ${path}: ${message ?? response.text}`;
  throw new TaskError(what, { code: 'engine-answer' });
}

const flag = z.boolean().default(false);
const infoSchema = z
  .object({
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
  })
  .transform((info) => ({
    version: info.ServerVersion,
    /** Machine name as `uname -m` has it, e.g. `x86_64`, `aarch64`. */
    architecture: info.Architecture,
    cpus: info.NCPU,
    /** Bytes. */
    memory: info.MemTotal,
    /** `1` or `2`. */
    cgroup: info.CgroupVersion,
    /** What the kernel enforces of a container's limits. */
    limits: {
      memory: info.MemoryLimit,
      swap: info.SwapLimit,
      cpu: info.CpuCfsQuota,
      pids: info.PidsLimit,
    },
    /** What it would print under `docker info`. */
    warnings: info.Warnings ?? [],
    /** Images live in containerd: digests are real manifest digests and several platforms fit in one image. */
    containerdStore: (info.DriverStatus ?? []).some(([, value]) =>
      value?.startsWith('io.containerd.snapshotter'),
    ),
    /** Where it keeps its images, on its own machine. */
    dataRoot: info.DockerRootDir,
  }));

export type EngineInfo = z.output<typeof infoSchema>;

/** @throws TaskError when no engine answers */
export async function engineInfo(): Promise<EngineInfo> {
  return parseInfo(await queryEngine('/info'));
}

/** @throws TaskError when something else than an engine answered */
export function parseInfo(answer: unknown): EngineInfo {
  const info = infoSchema.safeParse(answer);
  if (!info.success) throw engineDown('what answers /info is none');
  return info.data;
}
