// Asking a service how it is, and whether it is the one that was meant: an answer of 200 from the wrong
// version is a failure, too.
import { request } from 'node:http';
import { TaskError } from '../errors.ts';
import type { ProjectConfig } from '../project-schema.ts';
import { pause } from '../session.ts';

/** What /health must say. Versions are without the tag prefix; keys that release.toml does not name are not compared. */
export interface ExpectedHealth {
  env?: string | undefined;
  version?: string | undefined;
  revision?: string | undefined;
}

export interface HealthAnswer {
  /** HTTP status, or 0 when nobody answered. */
  status: number;
  body: Record<string, unknown>;
  error?: string;
}

/** Where to ask: by a URL, or with its connection going through a socket file (see reach.ts). */
export interface HealthAddress {
  url: string;
  socketPath?: string;
}

/**
 * One request; never throws. By node:http and not by fetch: fetch never settles (Node 20) when the other
 * side accepts and closes at once, which is just what a port does whose container is still starting.
 */
export function askHealth(
  where: string | HealthAddress,
  timeoutMs = 2000,
  signal?: AbortSignal,
): Promise<HealthAnswer> {
  const { url, socketPath }: HealthAddress = typeof where === 'string' ? { url: where } : where;
  return new Promise((resolve) => {
    const failed = (error: string) => resolve({ status: 0, body: {}, error });
    const options = {
      agent: false as const,
      ...(socketPath ? { socketPath } : {}),
      ...(signal ? { signal } : {}),
    };
    const outgoing = request(url, options, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('error', (error) => failed(error.message));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: parseObject(text) }));
    });
    outgoing.on('error', (error: NodeJS.ErrnoException) => failed(error.code ?? error.message));
    outgoing.on('close', () => clearTimeout(timer));
    const timer = setTimeout(() => outgoing.destroy(new Error(`nothing within ${timeoutMs} ms`)), timeoutMs);
    outgoing.end();
  });
}

function parseObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

/** Everything that is wrong with an answer, in words; empty when it is healthy and the right one. Pure. */
export function healthProblems(
  keys: ProjectConfig['health'],
  answer: HealthAnswer,
  expected: ExpectedHealth,
): string[] {
  if (answer.status === 0) return [`no answer (${answer.error ?? 'unknown'})`];
  if (answer.status !== 200) return [`answered ${answer.status}, expected 200`];
  return (['env', 'version', 'revision'] as const).flatMap((name) => {
    const key = keys[name];
    const wanted = expected[name];
    if (!key || wanted === undefined) return [];
    const found = answer.body[key];
    return found === wanted ? [] : [`reports ${name} ${JSON.stringify(found)}, expected "${wanted}"`];
  });
}

interface HealthWait extends HealthAddress {
  keys: ProjectConfig['health'];
  expected: ExpectedHealth;
  timeoutSeconds: number;
  /** Says why waiting longer is useless (the container died), or undefined. */
  givenUp: () => Promise<string | undefined>;
}

/** Waits until the service is healthy and the right one. @throws TaskError naming what it said last */
export async function waitForHealth(wait: HealthWait): Promise<HealthAnswer> {
  const deadline = Date.now() + wait.timeoutSeconds * 1000;
  const givenUp = atMostEvery(GIVE_UP_EVERY_MS, wait.givenUp);
  let delay = 20;
  for (;;) {
    const answer = await askHealth(wait);
    const problems = healthProblems(wait.keys, answer, wait.expected);
    if (problems.length === 0) return answer;
    // A service that answers well but is another one will not change its mind.
    const final = answer.status === 200 ? problems.join('; ') : await givenUp();
    if (final) throw unhealthy(wait.url, final);
    if (Date.now() > deadline) {
      throw unhealthy(wait.url, `${problems.join('; ')}, after ${wait.timeoutSeconds} s`);
    }
    await pause(delay);
    delay = Math.min(delay * 1.2, 500);
  }
}

/** Asking the engine costs a process, which a starting service on a small machine feels. */
const GIVE_UP_EVERY_MS = 300;

function atMostEvery<T>(ms: number, ask: () => Promise<T>): () => Promise<T | undefined> {
  let last = performance.now();
  return async () => {
    if (performance.now() - last < ms) return undefined;
    const answer = await ask();
    last = performance.now();
    return answer;
  };
}

function unhealthy(url: string, why: string): TaskError {
  return new TaskError(`Not healthy: ${url} ${why}`, { code: 'unhealthy' });
}
