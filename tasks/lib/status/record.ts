// One sample of how prod is, for cron: light (one connection to the engine, one question to /health) and complete
// (a sample is written whatever happens), because a minute without one is a minute that nobody knows of. And healing:
// a prod that is not well is restarted, once.
import { run } from '../command.ts';
import { docker, withEngine } from '../docker/engine.ts';
import { askHealth } from '../docker/health.ts';
import { type Container, projectContainers, usagesOf } from '../docker/objects.ts';
import { withReach } from '../docker/remote.ts';
import { errorSummary, TaskError } from '../errors.ts';
import { withHistory } from '../history.ts';
import { withLock } from '../lock.ts';
import { log, redact } from '../log.ts';
import { ENVIRONMENTS, type Project, portOf } from '../project.ts';
import { interruptSignal, pause, session, waitUntil } from '../session.ts';
import type { TaskResult } from '../task.ts';
import { appendSample, HOUR, readSamples, type Sample } from '../uptime.ts';
import { isActive } from './report.ts';

/** Takes a sample and writes it down; with `heal`, restarts a prod that is not well, once. */
export async function recordStatus(project: Project, heal: boolean, now = new Date()) {
  const { samples } = await readSamples(project.root);
  const { container, memory, why } = await lookAtProd(project).catch((error: unknown) => {
    if (error instanceof TaskError && error.code === 'interrupted') throw error;
    return { container: undefined, memory: {}, why: errorSummary(error) };
  });
  const prod = why === undefined ? 'up' : isActive(project, 'prod') ? 'down' : 'off';
  const sample: Sample = {
    ...{ at: now.toISOString(), prod, ...memory },
    ...(prod === 'down' && why ? { why } : {}),
  };
  const decision = heal ? decideHealing({ samples, sample, container }) : undefined;
  // Written before the restart: one that kills us must not be tried again in a minute.
  if (decision?.restart) sample.healed = true;
  await appendSample(project.root, sample);
  if (!decision?.restart || !container) return { sample, healing: decision?.reason };
  return { sample, healing: await restartProd(project, container, why ?? 'not well') };
}

/** Prod's container, what both environments use, and why prod is down; undefined: it is up. */
async function lookAtProd(project: Project) {
  return withEngine(async (ask) => {
    const containers = await projectContainers(project, ask);
    const container = containers.find(({ service }) => service === project.environments.prod.service);
    const [usages, why] = await Promise.all([
      usagesOf(ask, project, containers),
      downBecause(project, container),
    ]);
    const used = ENVIRONMENTS.flatMap((name) => (usages[name] ? [[name, usages[name].memory] as const] : []));
    return { container, why, memory: used.length > 0 ? { memory: Object.fromEntries(used) } : {} };
  });
}

async function downBecause(project: Project, container: Container | undefined): Promise<string | undefined> {
  if (!container) return 'it has no container';
  if (container.state !== 'running') return `its container is ${container.state}`;
  const { status, error } = await withReach(async (reach) => {
    const address = await reach(portOf(project, 'prod'));
    return askHealth({ ...address, url: address.url + project.environments.prod.health }, 5000);
  });
  if (status === 0) return `no answer (${error ?? 'unknown'})`;
  if (status !== 200) return `it answers ${status}`;
  return container.health === 'unhealthy' ? 'its container is unhealthy' : undefined;
}

/** @throws TaskError when another task is at work, which may have stopped prod on purpose */
async function restartProd(project: Project, container: Container, why: string): Promise<string> {
  log.warn(`prod is not well (${why}): restarting ${container.name}`);
  await withLock(project.root, 'status --heal', () =>
    withHistory(project.root, 'heal', { from: why, to: 'restart' }, async () => {
      await run(docker('restart', container.id));
      // A dry run has restarted nothing.
      if (!session.withheld) await waitUntilUp(project, container.name);
    }),
  );
  return `restarted ${container.name}: ${why}`;
}

async function waitUntilUp(project: Project, name: string): Promise<void> {
  const seconds = project.environments.prod.start_timeout;
  let why: string | undefined;
  const isUp = async () => {
    ({ why } = await lookAtProd(project));
    return why === undefined ? true : undefined;
  };
  if (await waitUntil(isUp, { withinMs: seconds * 1000 })) return;
  throw new TaskError(`Restarted ${name}, but prod is still not well after ${seconds} s: ${why}`, {
    code: 'not-healed',
    hint: `it is not restarted again until it was well; see why: docker logs --tail 50 ${name}`,
  });
}

/** One bad answer may be a busy moment; Docker's own verdict has had its retries. */
const BUSY_MS = 45_000;

interface HealingCase {
  /** What was recorded before, oldest first. */
  samples: readonly Sample[];
  /** How prod is now. */
  sample: Sample;
  container: Pick<Container, 'state' | 'health'> | undefined;
}

/**
 * Whether a prod that is not well is restarted: once until it has been well again, and never more than once an hour,
 * so that a service which dies of its data is not killed by its nurse. Undefined when prod is well, or not meant to
 * run. Pure.
 */
export function decideHealing({ samples, sample, container }: HealingCase) {
  if (sample.prod !== 'down') return undefined;
  const no = (reason: string) => ({ restart: false, reason });
  if (!container) return no('there is no container to restart');
  if (container.state === 'restarting') return no('Docker is restarting it already');
  if (container.health === 'starting') return no('it is still starting');
  const now = Date.parse(sample.at);
  const past = samples.filter(({ at }) => Date.parse(at) <= now);
  const bout = past.slice(past.findLastIndex(({ prod }) => prod !== 'down') + 1);
  if (bout.some(({ healed }) => healed)) return no('it was restarted before and has not been well since');
  if (past.some(({ at, healed }) => healed && Date.parse(at) > now - HOUR)) {
    return no('it was restarted less than an hour ago');
  }
  const isCertain = container.state !== 'running' || container.health === 'unhealthy';
  const since = Date.parse(bout[0]?.at ?? sample.at);
  if (!isCertain && now - since < BUSY_MS)
    return no('it may be a moment: restarted if it is so at the next sample');
  return { restart: true, reason: 'not well' };
}

/** Shows an answer again and again until Ctrl-C, which is how watching ends well; returns the last one. */
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
