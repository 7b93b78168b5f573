// Where the engine is that the client would talk to.
import { homedir } from 'node:os';
import { join } from 'node:path';
import { read } from '../command.ts';
import { readIfPresent } from '../files.ts';
import { session } from '../session.ts';
import { docker } from './client.ts';

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
