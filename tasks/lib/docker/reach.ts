// How a port that the engine publishes is reached from here: directly, or through ssh where the engine's
// client goes through ssh, too. So nothing but that one ssh login has to be open between the two machines.
import { probe } from '../command.ts';
import { session } from '../session.ts';
import { engineEndpoint, isLocalEndpoint } from './endpoint.ts';
import type { HealthAddress } from './health.ts';
import { openSshLine, type SshLine } from './ssh-line.ts';

let line: Promise<SshLine> | undefined;
const forwarded = new Map<number, Promise<string>>();
let users = 0;

async function addressOf(endpoint: string, port: number): Promise<HealthAddress> {
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
  if (session.dryRun || session.engineSocket || !endpoint.startsWith('ssh:')) return;
  const { forward, engineSocket } = await lineTo(new URL(endpoint));
  if (!engineSocket) return;
  const socket = await forward(engineSocket);
  const answer = await probe(['docker', '--host', `unix://${socket}`, 'version', '--format', 'ok']);
  if (answer.ok) session.engineSocket = socket;
}

export type Reach = (port: number) => Promise<HealthAddress>;

/** Runs `work` with a way to reach published ports; ways that are open already are shared and stay open. */
export async function withReach<T>(work: (reach: Reach, endpoint: string) => Promise<T>): Promise<T> {
  const endpoint = await engineEndpoint();
  users += 1;
  try {
    await useLineForEngine(endpoint);
    return await work((port) => addressOf(endpoint, port), endpoint);
  } finally {
    users -= 1;
    if (users === 0) await hangUp();
  }
}

async function hangUp(): Promise<void> {
  const open = line;
  line = undefined;
  session.engineSocket = undefined;
  forwarded.clear();
  await open?.then(({ close }) => close()).catch(() => {});
}
