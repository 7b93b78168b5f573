// Asking a service how it is, and whether it is the one that was meant: an answer of 200 from the wrong
// version is a failure, too.

import { TaskError } from '../errors.ts';
import { parseJson } from '../files.ts';
import { type HttpAddress, request } from '../http.ts';
import { log } from '../log.ts';
import type { ProjectConfig } from '../project-schema.ts';
import { waitUntil } from '../session.ts';

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

/** Asks once; never throws. */
export async function queryHealth(
  where: string | HttpAddress,
  timeoutMs = 2000,
  signal?: AbortSignal,
): Promise<HealthAnswer> {
  const address = typeof where === 'string' ? { url: where } : where;
  const { status, text, error } = await request(address, { timeoutMs, signal });
  if (error) return { status, body: {}, error: error.code ?? error.message };
  const body = parseJson(text);
  return { status, body: typeof body === 'object' && body !== null ? (body as HealthAnswer['body']) : {} };
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

interface HealthWait extends HttpAddress {
  keys: ProjectConfig['health'];
  expected: ExpectedHealth;
  timeoutSeconds: number;
  /** Says why waiting longer is useless (the container died), or undefined. */
  givenUp: () => Promise<string | undefined>;
}

/** How often the engine is asked whether the container still runs: a starting service on a small machine feels each. */
const GIVE_UP_EVERY_MS = 300;

/** Waits until the service is healthy and the right one. @throws TaskError naming what it said last */
export async function waitForHealth(wait: HealthWait): Promise<HealthAnswer> {
  let problems: string[] = [];
  let askedEngine = performance.now();
  const healthy = await waitUntil(
    async () => {
      const answer = await queryHealth(wait);
      problems = healthProblems(wait.keys, answer, wait.expected);
      if (problems.length === 0) return answer;
      log.progress(`health: ${problems.join('; ')} (limit ${wait.timeoutSeconds} s)`);
      // A service that answers well but is another one will not change its mind.
      if (answer.status === 200) throw unhealthy(wait.url, problems.join('; '));
      if (performance.now() - askedEngine < GIVE_UP_EVERY_MS) return undefined;
      const why = await wait.givenUp();
      askedEngine = performance.now();
      if (why) throw unhealthy(wait.url, why);
      return undefined;
    },
    { withinMs: wait.timeoutSeconds * 1000, everyMs: 20 },
  );
  if (healthy) return healthy;
  throw unhealthy(wait.url, `${problems.join('; ')}, after ${wait.timeoutSeconds} s`);
}

function unhealthy(url: string, why: string): TaskError {
  return new TaskError(`Not healthy: ${url} ${why}`, { code: 'unhealthy' });
}
