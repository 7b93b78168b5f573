// How a port that the engine publishes is reached from here: directly, or through ssh where the engine's
// client goes through ssh, too. So nothing but that one ssh login has to be open between the two machines.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Command, connect, probe, read } from '../command.ts';
import { TaskError } from '../errors.ts';
import type { HttpAddress } from '../http.ts';
import { session, uninterrupted } from '../session.ts';
import { engineEndpoint, isLocalEndpoint } from './engine.ts';

let line: Promise<SshLine> | undefined;
const forwarded = new Map<number, Promise<string>>();
let users = 0;

async function addressOf(endpoint: string, port: number): Promise<HttpAddress> {
  if (isLocalEndpoint(endpoint)) return { url: `http://127.0.0.1:${port}` };
  const url = new URL(endpoint);
  if (url.protocol !== 'ssh:') return { url: `http://${url.hostname}:${port}` };
  const { forward } = await lineTo(url);
  const socket = forwarded.get(port) ?? forward(`127.0.0.1:${port}`);
  forwarded.set(port, socket);
  return { url: `http://127.0.0.1:${port}`, socketPath: await socket };
}

function lineTo(url: URL): Promise<SshLine> {
  line ??= openSshLine(url);
  return line;
}

/** From now on every call of docker goes through the login as well, if its engine can be reached so. */
async function useLineForEngine(endpoint: string): Promise<void> {
  // A dry run prints commands that a person can type.
  if (session.engineSocket || !endpoint.startsWith('ssh:')) return;
  const { forward, engineSocket } = await lineTo(new URL(endpoint));
  if (!engineSocket) return;
  const socket = await forward(engineSocket);
  const answer = await probe(['docker', '--host', `unix://${socket}`, 'version', '--format', 'ok']);
  if (answer.ok) session.engineSocket = socket;
}

export type Reach = (port: number) => Promise<HttpAddress>;

/** Runs `work` with a way to reach published ports; ways that are open already are shared and stay open. */
export async function withReach<T>(work: (reach: Reach, endpoint: string) => Promise<T>): Promise<T> {
  const endpoint = await engineEndpoint();
  users += 1;
  try {
    await useLineForEngine(endpoint);
    return await work((port) => addressOf(endpoint, port), endpoint);
  } finally {
    users -= 1;
    if (users === 0) await closeConnection();
  }
}

async function closeConnection(): Promise<void> {
  const open = line;
  line = undefined;
  session.engineSocket = undefined;
  forwarded.clear();
  await open?.then(({ close }) => close()).catch(() => {});
}

// One ssh login to an engine's machine, over which everything goes while a task works there: its published
// ports, and the engine itself. The client would log in anew for every command, and the ports may answer
// nobody but that machine.

interface SshLine {
  /** A local socket that leads to `target` over there: `127.0.0.1:8002`, or the path of a socket. */
  forward: (target: string) => Promise<string>;
  /** Where the engine's socket is over there; undefined if it has none that can be forwarded. */
  engineSocket: string | undefined;
  close: () => Promise<void>;
}

/** How to name the machine of an `ssh://user@host:port` endpoint on ssh's command line. */
export function sshTarget(endpoint: URL): string[] {
  const user = endpoint.username ? ['-l', decodeURIComponent(endpoint.username)] : [];
  const port = endpoint.port ? ['-p', endpoint.port] : [];
  return [...user, ...port, '--', endpoint.hostname];
}

/** The login that the others go through; it ends when our end of its stdin closes, however we end. */
export function loginCommand(endpoint: URL, control: string): Command {
  const options = ['-o', 'ControlPersist=no', '-o', 'StreamLocalBindUnlink=yes', '-o', 'ConnectTimeout=30'];
  const remote = 'printenv DOCKER_HOST || echo unix:///var/run/docker.sock; exec cat';
  return ['ssh', '-M', '-S', control, ...options, ...sshTarget(endpoint), remote];
}

/** @throws TaskError when the machine lets nobody in */
async function openSshLine(endpoint: URL): Promise<SshLine> {
  const folder = await mkdtemp(join(tmpdir(), 'reach-'));
  const control = join(folder, 'control');
  const { stream, closed } = connect(loginCommand(endpoint, control), { lasting: true });
  stream.on('error', () => {});
  const close = async () => {
    stream.destroy();
    await rm(folder, { recursive: true, force: true });
  };
  const greeting = new Promise<string>((resolve) => stream.once('data', (data) => resolve(String(data))));
  const outcome = await Promise.race([greeting, closed]);
  if (typeof outcome !== 'string') {
    await close();
    throw new TaskError(`Cannot log in to ${endpoint.hostname}: ${outcome.stderr.trim()}`, {
      code: 'engine-unreachable',
      hint: `does this work?  ssh ${endpoint.hostname} true`,
    });
  }
  let count = 0;
  const forward = async (target: string) => {
    count += 1;
    const socket = join(folder, String(count));
    const request = ['-O', 'forward', '-S', control, '-L', `${socket}:${target}`] as const;
    await uninterrupted(() => read(['ssh', ...request, ...sshTarget(endpoint)]));
    return socket;
  };
  return { forward, engineSocket: /^unix:\/\/(\S+)$/.exec(outcome.trim())?.[1], close };
}
