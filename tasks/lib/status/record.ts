// One sample of how prod is, for cron: light (one connection to the engine, one question to /health) and complete
// (a sample is written whatever happens), because a minute without one is a minute that nobody knows of.

import { run } from '../command.ts';
import { docker, withEngine } from '../docker/engine.ts';
import { askHealth, type HealthAnswer } from '../docker/health.ts';
import { type Container, projectContainers, type Usages, usagesOf } from '../docker/objects.ts';
import { withReach } from '../docker/remote.ts';
import { errorSummary, TaskError } from '../errors.ts';
import { withHistory } from '../history.ts';
import { withLock } from '../lock.ts';
import { log, redact } from '../log.ts';
import { ENVIRONMENTS, type EnvironmentName, type Project, portOf } from '../project.ts';
import { interruptSignal, pause, session } from '../session.ts';
import { activeEnvironment } from '../switch/observe.ts';
import type { TaskResult } from '../task.ts';
import { appendSample, readSamples, type Sample } from '../uptime.ts';
import { isActive } from './report.ts';

interface Look {
  container: Container | undefined;
  health: HealthAnswer | undefined;
  usages: Usages;
}

async function lookAtProd(project: Project): Promise<Look> {
  return withEngine(async (ask) => {
    const containers = await projectContainers(project, ask);
    const container = containers.find(({ service }) => service === project.environments.prod.service);
    const running = container?.state === 'running';
    const [usages, health] = await Promise.all([
      usagesOf(ask, project, containers),
      running ? askProd(project) : undefined,
    ]);
    return { container, health, usages };
  });
}

async function askProd(project: Project): Promise<HealthAnswer> {
  return withReach(async (reach) => {
    const address = await reach(portOf(project, 'prod'));
    return askHealth({ ...address, url: address.url + project.environments.prod.health }, 5000);
  });
}

/** Why prod is down, or undefined when it is up. Pure. */
function downBecause({ container, health }: Pick<Look, 'container' | 'health'>): string | undefined {
  if (!container) return 'it has no container';
  if (container.state !== 'running') return `its container is ${container.state}`;
  if (health?.status === 0) return `no answer (${health.error ?? 'unknown'})`;
  if (health?.status !== 200) return `it answers ${health?.status}`;
  return container.health === 'unhealthy' ? 'its container is unhealthy' : undefined;
}

function memoryOf(usages: Usages): Pick<Sample, 'memory'> {
  const known = ENVIRONMENTS.flatMap((name): [EnvironmentName, number][] => {
    const usage = usages[name];
    return usage ? [[name, usage.memory]] : [];
  });
  return known.length > 0 ? { memory: Object.fromEntries(known) } : {};
}

interface Recorded {
  sample: Sample;
  /** What `--heal` did, or why it did nothing; undefined when there was nothing to heal. */
  healing: string | undefined;
}

/** Takes a sample and writes it down; with `heal`, restarts a prod that is not well, once. */
export async function recordStatus(project: Project, heal: boolean, now = new Date()): Promise<Recorded> {
  const before = await readSamples(project.root);
  const look = await lookAtProd(project).catch((error: unknown): Error => {
    if (error instanceof TaskError && error.code === 'interrupted') throw error;
    return error as Error;
  });
  const wanted = isActive({ active: activeEnvironment(project) }, 'prod');
  const why = look instanceof Error ? errorSummary(look) : downBecause(look);
  const prod = why === undefined ? 'up' : wanted ? 'down' : 'off';
  const sample: Sample = {
    at: now.toISOString(),
    prod,
    ...(prod === 'down' && why ? { why } : {}),
    ...(look instanceof Error ? {} : memoryOf(look.usages)),
  };
  const container = look instanceof Error ? undefined : look.container;
  const decision = heal ? decideHealing({ samples: before.samples, sample, container }) : undefined;
  const healed = decision?.restart === true && container !== undefined;
  // Written before the restart: one that kills us must not be tried again in a minute.
  await appendSample(project.root, { ...sample, ...(healed ? { healed } : {}) });
  if (!healed) return { sample, healing: decision?.reason };
  return { sample: { ...sample, healed }, healing: await restartProd(project, container, why ?? 'not well') };
}

/** @throws TaskError when another task is at work, which may have stopped prod on purpose */
async function restartProd(project: Project, container: Container, why: string): Promise<string> {
  log.warn(`prod is not well (${why}): restarting ${container.name}`);
  await withLock(project.root, 'status --heal', () =>
    withHistory(project.root, 'heal', { from: why, to: 'restart' }, async () => {
      await run(docker('restart', container.id));
      if (!session.dryRun) await waitUntilUp(project, container.name);
    }),
  );
  return `restarted ${container.name}: ${why}`;
}

async function waitUntilUp(project: Project, name: string): Promise<void> {
  const seconds = project.environments.prod.start_timeout;
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const why = downBecause(await lookAtProd(project));
    if (why === undefined) return;
    if (Date.now() > deadline) {
      throw new TaskError(`Restarted ${name}, but prod is still not well after ${seconds} s: ${why}`, {
        code: 'not-healed',
        hint: `it is not restarted again until it was well; see why: docker logs --tail 50 ${name}`,
      });
    }
    await pause(500);
  }
}

// Whether a prod that is not well is restarted: once in a bout of illness, and never more than once an hour, so
// that a service which dies of its data is not killed by its nurse. Pure.

const SECOND = 1000;
const HOUR = 3600 * SECOND;
/** One bad answer may be a busy moment; Docker's own verdict has had its retries. */
const PATIENCE = 45 * SECOND;

interface HealingCase {
  /** What was recorded before, oldest first. */
  samples: readonly Sample[];
  /** How prod is now. */
  sample: Sample;
  container: Pick<Container, 'state' | 'health'> | undefined;
}

/** Undefined when prod is well, or not meant to run. */
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
  const certain = container.state !== 'running' || container.health === 'unhealthy';
  const since = Date.parse(bout[0]?.at ?? sample.at);
  if (!certain && now - since < PATIENCE)
    return no('it may be a moment: restarted if it is so at the next sample');
  return { restart: true, reason: 'not well' };
}

// Showing an answer again and again on the same screen, until Ctrl-C.

const PAUSE_MS = 2000;
/** Cursor home; clear from the cursor to the end of the screen. */
const [HOME, CLEAR] = ['\u001b[H', '\u001b[J'];

/** The last answer, once Ctrl-C ends it: being stopped is how watching ends well. */
export async function watch(look: () => Promise<TaskResult>): Promise<TaskResult> {
  let last: TaskResult = {};
  while (!interruptSignal()?.aborted) {
    try {
      last = await look();
      show(last.text ?? '');
      await pause(PAUSE_MS);
    } catch (error) {
      if ((error as { code?: string }).code !== 'interrupted') throw error;
    }
  }
  return { ...last, text: '' };
}

function show(text: string): void {
  const screen = process.stdout.isTTY ? `${HOME}${CLEAR}` : '';
  process.stdout.write(`${screen}${redact(text)}\n${process.stdout.isTTY ? '' : '\n'}`);
}
