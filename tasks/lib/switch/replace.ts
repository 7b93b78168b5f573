// One container of an environment and its successor. Compose replaces a container by removing it first; here the next
// one is made beside it, by compose itself (as if scaling up), and takes over its name and port. The old one is kept,
// stopped, until the new one has proven healthy.

import { type Command, run } from '../command.ts';
import { type ComposeModel, copyFilesInto, modelCommand } from '../docker/compose.ts';
import { docker, withEngine } from '../docker/engine.ts';
import { type ExpectedHealth, queryHealth, waitForHealth } from '../docker/health.ts';
import {
  type Container,
  type Image,
  inspectContainers,
  lastLogLines,
  projectContainers,
} from '../docker/objects.ts';
import { TaskError } from '../errors.ts';
import { seconds } from '../format.ts';
import type { HttpAddress } from '../http.ts';
import { log } from '../log.ts';
import type { EnvironmentName, Project } from '../project.ts';
import { throwIfInterrupted, uninterrupted, waitUntil } from '../session.ts';
import type { Step } from '../steps.ts';
import { containersOfEnvironment, isOneOff, withHealthAddress } from './observe.ts';
import type { ContainerBefore, StartData, SwitchData } from './plan.ts';

/** A single act on the engine is never cut in half: a signal takes effect after it. */
function runUninterrupted(command: Command, options: Parameters<typeof run>[1] = {}): Promise<string> {
  throwIfInterrupted();
  return uninterrupted(() => run(command, options));
}

const rename = (id: string, name: string) => runUninterrupted(docker('rename', id, name));
/** What the engine does with a container when it or the machine starts again. */
export const setRestartPolicy = (id: string, policy: string) =>
  runUninterrupted(docker('update', '--restart', policy, id));
export const startContainer = (id: string) => runUninterrupted(docker('start', id));
/** Within the grace period that compose gave the container, or `limit`. */
export const stopContainer = (id: string, ...limit: ['--time', string] | []) =>
  runUninterrupted(docker('stop', ...limit, id));
/** With the volumes that belong to it alone. */
export const removeContainer = (id: string) => runUninterrupted(docker('rm', '--force', '--volumes', id));

async function ensurePolicy({ id, restartPolicy }: Container, policy: string): Promise<void> {
  if (restartPolicy !== policy) await setRestartPolicy(id, policy);
}

const find = async (id: string): Promise<Container | undefined> => (await inspectContainers([id]))[0];

/** The name of a container that was replaced and is kept for now. */
const retiredName = (containerName: string) => `${containerName}.before`;

/** The steps that start one environment: by its own container again, or by a new one. */
export function startSteps(
  project: Project,
  model: () => Promise<ComposeModel>,
  { environment: name, how, reason, old, restartPolicy }: StartData,
): Step<SwitchData>[] {
  type Work = (start: StartData, data: SwitchData) => Promise<unknown>;
  const step = (verb: string, title: string, apply: Work, undo?: Work): Step<SwitchData> => {
    const own = (work: Work) => (data: SwitchData) =>
      work(data.starts.find(({ environment }) => environment === name)!, data);
    return { name: `${verb}-${name}`, title, apply: own(apply), ...(undo ? { undo: own(undo) } : {}) };
  };
  const start: Work = ({ next }) => withStartFailure(name, next, () => startContainer(next!));
  const create: Work = (own, data) =>
    withStartFailure(name, null, async () => createSuccessor(project, await model(), data, own));
  const discard: Work = (_, data) => removeSuccessors(project, data, name);
  const restore: Work = async (_, data) => {
    await removeSuccessors(project, data, name);
    await bringBack(project, name, old!);
  };
  const kept = `${old?.up ? 'stop' : 'rename'} the old container of ${name}; it is kept until the new one is healthy`;
  const resume = [step('start', `start ${name}: ${reason}`, start, () => bringBack(project, name, old!))];
  const begin = [
    step('create', `${how} ${name}: ${reason}`, create, discard),
    ...(old ? [step('retire', kept, retireOld, restore)] : []),
    step('start', `start the new container of ${name}`, start),
  ];
  return [
    ...(how === 'resume' ? resume : begin),
    step('prove', `wait until ${name} is healthy and the right one`, (own, data) =>
      withStartFailure(name, own.next, () =>
        proveHealthy(project, name, own.next!, data.images[name]!, data.waitSeconds),
      ),
    ),
    step('take-over', `restart policy of ${name}: ${restartPolicy}`, takeOverPolicy),
  ];
}

/** The next container, complete but not started, and without restarts until it has proven itself. */
async function createSuccessor(project: Project, model: ComposeModel, data: SwitchData, start: StartData) {
  const { environment: name, old, containerName } = start;
  const { service } = project.environments[name];
  const present = await removeLeftovers(project, data, start);
  // How compose calls a service's next container: by the number after the highest one in use.
  const numbers = present.map(({ labels }) => Number(labels['com.docker.compose.container-number'] ?? 0));
  const made = `${project.project.name}-${service}-${Math.max(0, ...numbers) + 1}`;
  const scale = `${service}=${present.length + 1}`;
  const up = ['up', '--no-start', '--no-deps', '--no-build', '--no-recreate', '--scale', scale, service];
  await runUninterrupted(modelCommand(project, ...up), { input: model.input });
  start.next = made;
  await uninterrupted(() => copyFilesInto(made, model.files[service] ?? []));
  if (start.restartPolicy !== 'no') await setRestartPolicy(made, 'no');
  start.next = (await find(made))?.id ?? made;
  if (!old && made !== containerName) await rename(start.next, containerName);
}

/** Removes what an earlier run left of this environment; returns the containers that stay, without one-off ones. */
async function removeLeftovers(
  project: Project,
  { containers }: SwitchData,
  { environment, old, containerName }: StartData,
) {
  const own = containersOfEnvironment(project, await projectContainers(project), environment);
  const services = own.filter((one) => !isOneOff(one));
  const isLeftover = ({ id, name, state }: Container) =>
    id !== old?.id &&
    (state === 'created' ||
      (state === 'exited' && [containerName, retiredName(containerName)].includes(name)));
  for (const { id } of services.filter(isLeftover)) await removeContainer(id);
  const left = services.filter((one) => !isLeftover(one));
  containers.push(...left.map(({ id }) => id).filter((id) => !containers.includes(id)));
  return left;
}

/** The old container gives name and port to the new one. Renames come first: nobody answers after the stop. */
async function retireOld({ old, next, containerName }: StartData): Promise<void> {
  const now = await find(old!.id);
  const aside = retiredName(containerName);
  if (now && now.name !== aside) await rename(old!.id, aside);
  if ((await find(next!))?.name !== containerName) await rename(next!, containerName);
  if (now && old!.up) await stopContainer(old!.id);
}

/** The new container has proven itself: from now on it alone comes back when the engine starts again. */
async function takeOverPolicy({ old, next, restartPolicy }: StartData): Promise<void> {
  const [now, before] = [await find(next!), old && old.id !== next ? await find(old.id) : undefined];
  if (now) await ensurePolicy(now, restartPolicy);
  if (before) await ensurePolicy(before, 'no');
}

/** Stops an environment for good: neither the engine nor the machine brings it back. */
export function stopStep(
  project: Project,
  { environment: name, old }: SwitchData['stops'][number],
): Step<SwitchData> {
  return {
    name: `stop-${name}`,
    title: old.up ? `stop ${name}` : `keep ${name} stopped when the engine starts again`,
    apply: async () => {
      const now = await find(old.id);
      if (now) await ensurePolicy(now, 'no');
      if (now && old.up) await stopContainer(old.id);
    },
    undo: () => bringBack(project, name, old),
  };
}

/** Removes what was kept in case of a failure. */
export function removeStep({ environment: name, old }: StartData): Step<SwitchData> {
  return {
    name: `remove-${name}`,
    title: `remove the old container of ${name}`,
    apply: async () => {
      try {
        if (await find(old!.id)) await removeContainer(old!.id);
      } catch (error) {
        if (!(error instanceof TaskError) || error.code === 'interrupted') throw error;
        const message = `The switch is done, but the old container of ${name} could not be removed: ${error.message}`;
        throw new TaskError(message, { code: error.code, hint: 'the next switch removes it', cause: error });
      }
    },
  };
}

// Rolling back. A step may have stopped at any point, in another process, and the engine may have been restarted since.

/** A container that failed gets this long to stop; its data survives a kill, the outage should not be long. */
const STOP_AT_ONCE = ['--time', '3'] as const;
const ANSWER_WITHIN_MS = 20_000;

/** What this switch made for an environment: every container of it that was not there before. */
async function removeSuccessors(project: Project, data: SwitchData, name: EnvironmentName): Promise<void> {
  const own = containersOfEnvironment(project, await projectContainers(project), name);
  for (const { id, state } of own.filter((one) => !data.containers.includes(one.id))) {
    if (state === 'running') await stopContainer(id, ...STOP_AT_ONCE);
    await removeContainer(id);
  }
}

/** Name, restart policy and state as before; waits until it answers where it answered. */
async function bringBack(project: Project, name: EnvironmentName, old: ContainerBefore): Promise<void> {
  const now = await find(old.id);
  // Only what did not run can be gone here: see canUndo in run.ts.
  if (!now) return;
  const isUntouched =
    now.state === 'running' && now.name === old.name && now.restartPolicy === old.restartPolicy;
  if (now.name !== old.name) await rename(old.id, old.name);
  await ensurePolicy(now, old.restartPolicy);
  if (old.up && isUntouched && old.restartPolicy !== 'no') return;
  // A stop that was asked for goes on in the engine after its asker died: wait for it, or it hits the start.
  if (now.state === 'running') await stopContainer(old.id);
  if (!old.up) return;
  log.step(`roll ${name} back to its previous container`);
  await startContainer(old.id);
  if (old.answered) await waitForAnswer(project, name);
}

async function waitForAnswer(project: Project, name: EnvironmentName): Promise<void> {
  await withHealthAddress(project, name, async (address) => {
    const answers = async () => (await queryHealth(address)).status === 200 || undefined;
    if (await waitUntil(answers, { withinMs: ANSWER_WITHIN_MS })) return log.done(`${name} responds again`);
    // It runs as it did before; a run that cannot end would keep every later switch from starting.
    log.warn(`${name} runs again, but ${address.url} does not answer 200`);
  });
}

// Proof: the container runs the image that was meant and is healthy, and its /health comes from the environment, version
// and commit that were meant.

type ProvenImage = Pick<Image, 'id' | 'labels'>;

export function expectedHealth(env: EnvironmentName, image: ProvenImage | undefined): ExpectedHealth {
  const label = (name: string) => image?.labels[`org.opencontainers.image.${name}`];
  return { env, version: label('version'), revision: label('revision') };
}

/** Waits until the container and its /health are both well, and the right ones. @throws TaskError */
export async function proveHealthy(
  project: Project,
  name: EnvironmentName,
  id: string,
  image: ProvenImage,
  limit: number | null = null,
): Promise<void> {
  const began = performance.now();
  const timeoutSeconds = limit ?? project.environments[name].start_timeout;
  const givenUp = async () => causeOfDeath(await find(id));
  verifyImage(await find(id), image);
  const work = async (address: HttpAddress) => {
    const expected = expectedHealth(name, image);
    await waitForHealth({ ...address, keys: project.health, expected, timeoutSeconds, givenUp });
    // /health is well; the engine's own check may still have to come to the same result.
    const settled = async () => ((await find(id))?.health === 'starting' ? undefined : true);
    const isSettled = await waitUntil(settled, { withinMs: timeoutSeconds * 1000, everyMs: 50 });
    const why = isSettled ? await givenUp() : `its health check has not passed after ${timeoutSeconds} s`;
    if (why) throw new TaskError(`Not healthy: ${address.url} ${why}`, { code: 'unhealthy' });
  };
  // One connection for all the questions, which would slow down the very start that is waited for.
  await withHealthAddress(project, name, (address) => withEngine(() => work(address)));
  log.done(`${name} is healthy after ${seconds(began).toFixed(1)} s`);
}

function causeOfDeath(container: Container | undefined): string | undefined {
  if (!container) return 'its container is gone';
  if (container.state === 'exited' || container.restarts > 0)
    return `container exited with code ${container.exitCode}`;
  return container.health === 'unhealthy' ? 'its container is unhealthy' : undefined;
}

/** Somebody may have re-tagged the image between the check and now. */
function verifyImage(container: Container | undefined, image: ProvenImage): void {
  if (!container || container.imageId === image.id) return;
  throw new TaskError(
    `The image ${container.image} changed during the switch: the container runs ${container.imageId}, expected ${image.id}`,
    { code: 'image-changed', hint: 'somebody built or re-tagged it at the same time; switch again' },
  );
}

/** Runs a step of starting an environment; a failure names its cause first, then what the container logged last. */
export async function withStartFailure<T>(
  name: EnvironmentName,
  container: string | null,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof TaskError) || error.code === 'interrupted') throw error;
    const cause = container ? await uninterrupted(() => causeAndLog(container, error)) : error.message;
    const wasSlow = / after \d+ s$/.test(error.message)
      ? '; if it needs longer to start: --wait SECONDS'
      : '';
    throw new TaskError(`Cannot start ${name}: ${cause}`, {
      code: error.code,
      hint: error.hint ?? `the previous state was restored, .env is unchanged${wasSlow}`,
      cause: error,
    });
  }
}

const LOG_LINES = 5;

async function causeAndLog(id: string, error: TaskError): Promise<string> {
  const container = await find(id).catch(() => undefined);
  const lines = (await lastLogLines(id).catch(() => '')).split('\n').filter(Boolean);
  const died = container && causeOfDeath({ ...container, health: undefined });
  const said = died && (lines.findLast((line) => /error|fatal|panic/i.test(line)) ?? lines.at(-1));
  const cause = died ? `${died}${said ? `: ${said.trim()}` : ''}` : error.message;
  const shown = lines.filter((line) => line !== said).slice(-LOG_LINES);
  return [
    cause,
    ...(shown.length > 0 ? ['Last log lines:', ...shown.map((line) => `    ${line}`)] : []),
  ].join('\n');
}
