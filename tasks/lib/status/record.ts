// One sample of prod's health, for cron: light (one connection to the engine, one request to /health) and written
// whatever happens, because a minute without one is unknown. And healing: an unhealthy prod is restarted, once.
import { isActive } from '../active.ts';
import { run } from '../command.ts';
import { docker, withEngine } from '../docker/engine.ts';
import { queryHealth } from '../docker/health.ts';
import { type Container, projectContainers, usagesOf } from '../docker/objects.ts';
import { errorSummary, TaskError } from '../errors.ts';
import { withHistory } from '../history.ts';
import { withLock } from '../lock.ts';
import { log, redact } from '../log.ts';
import type { Project } from '../project.ts';
import { interruptSignal, pause, session, waitUntil } from '../session.ts';
import { unhealthyReason, withHealthAddress } from '../switch/observe.ts';
import type { TaskResult } from '../task.ts';
import { appendSample, HOUR, readSamples, type Sample } from '../uptime.ts';

/** Takes a sample and records it; with `heal`, restarts an unhealthy prod, once. */
export async function recordStatus(project: Project, heal: boolean, now = new Date()) {
  const { samples } = await readSamples(project.root);
  const { container, memory, why } = await lookAtProd(project).catch((error: unknown) => {
    if (error instanceof TaskError && error.code === 'interrupted') throw error;
    return { container: undefined, memory: undefined, why: errorSummary(error) };
  });
  const prod = why === undefined ? 'up' : isActive(project, 'prod') ? 'down' : 'off';
  const sample: Sample = {
    ...{ at: now.toISOString(), prod, memory },
    ...(prod === 'down' && why ? { why } : {}),
  };
  const decision = heal ? decideHealing(samples, sample, container) : undefined;
  // Written before the restart: one that kills us must not be tried again in a minute.
  if (decision?.restart) sample.healed = true;
  await appendSample(project.root, sample);
  if (!decision?.restart || !container) return { sample, healing: decision?.reason };
  return { sample, healing: await restartProd(project, container, why ?? 'unhealthy') };
}

/** Prod's container, what both environments use, and why prod is down; undefined: it is up. */
async function lookAtProd(project: Project) {
  return withEngine(async () => {
    const containers = await projectContainers(project);
    const container = containers.find(({ service }) => service === project.environments.prod.service);
    const { dev, prod } = await usagesOf(project, containers);
    const askHealth = () => withHealthAddress(project, 'prod', (address) => queryHealth(address, 5000));
    const health = container?.state === 'running' ? await askHealth() : undefined;
    const memory = { dev: dev?.memory, prod: prod?.memory };
    return { container, memory, why: unhealthyReason({ container, health }) };
  });
}

/** @throws TaskError when another task is at work, which may have stopped prod on purpose */
async function restartProd(project: Project, { id, name }: Container, why: string): Promise<string> {
  log.warn(`prod is unhealthy (${why}): restarting ${name}`);
  const withinMs = project.environments.prod.start_timeout * 1000;
  let last: string | undefined;
  const isUp = async () => {
    last = (await lookAtProd(project)).why;
    return last === undefined || undefined;
  };
  const restart = async () => {
    await run(docker('restart', id));
    // A dry run has restarted nothing.
    if (session.withheld || (await waitUntil(isUp, { withinMs }))) return;
    throw new TaskError(
      `Restarted ${name}, but prod is still unhealthy after ${withinMs / 1000} s: ${last}`,
      {
        code: 'not-healed',
        hint: `it is not restarted again until it was healthy; see why: docker logs --tail 50 ${name}`,
      },
    );
  };
  await withLock(project.root, 'status --heal', () =>
    withHistory(project.root, 'heal', { from: why, to: 'restart' }, restart),
  );
  return `restarted ${name}: ${why}`;
}

/** One bad answer may come from a busy service; Docker's own health check has had its retries. */
const BUSY_MS = 45_000;

/**
 * Whether an unhealthy prod is restarted, by the samples so far: once until it was healthy again, and once an hour at
 * most, so that a service with broken data is not restarted for ever. Undefined where prod is healthy or not active. Pure.
 */
export function decideHealing(
  samples: readonly Sample[],
  sample: Sample,
  container: Pick<Container, 'state' | 'health'> | undefined,
) {
  if (sample.prod !== 'down') return undefined;
  const no = (reason: string) => ({ restart: false, reason });
  if (!container) return no('there is no container to restart');
  if (container.state === 'restarting') return no('Docker is restarting it already');
  if (container.health === 'starting') return no('it is still starting');
  const now = Date.parse(sample.at);
  const past = samples.filter(({ at }) => Date.parse(at) <= now);
  const bout = past.slice(past.findLastIndex(({ prod }) => prod !== 'down') + 1);
  if (bout.some(({ healed }) => healed)) return no('it was restarted before and has not been healthy since');
  if (past.some(({ at, healed }) => healed && Date.parse(at) > now - HOUR)) {
    return no('it was restarted less than an hour ago');
  }
  const isCertain = container.state !== 'running' || container.health === 'unhealthy';
  const since = Date.parse(bout[0]?.at ?? sample.at);
  if (!isCertain && now - since < BUSY_MS)
    return no('it may only be busy; it is restarted if the next sample says the same');
  return { restart: true, reason: 'unhealthy' };
}

/** Shows an answer again and again until Ctrl-C; returns the last one. */
export async function watch(look: () => Promise<TaskResult>): Promise<TaskResult> {
  // Cursor home; clear from the cursor to the end of the screen.
  const [before, after] = process.stdout.isTTY ? ['\u001b[H\u001b[J', ''] : ['', '\n'];
  let last: TaskResult = {};
  while (!interruptSignal()?.aborted) {
    try {
      last = await look();
      process.stdout.write(`${before}${redact(last.text ?? '')}\n${after}`);
      await pause(WATCH_MS);
    } catch (error) {
      if ((error as { code?: string }).code !== 'interrupted') throw error;
    }
  }
  return { ...last, text: '' };
}

export const WATCH_MS = 2000;
