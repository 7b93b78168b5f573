// One container of an environment and its successor. Compose replaces a container by removing it first; here the next
// one is made beside it, by compose itself (as if scaling up), and takes over its name and port. The old one is kept,
// stopped, until the new one is healthy.

import { type Command, run } from '../command.ts';
import { type ComposeModel, copyFilesInto, modelCommand } from '../docker/compose.ts';
import { docker } from '../docker/engine.ts';
import { queryHealth } from '../docker/health.ts';
import { type Container, inspectContainers, projectContainers } from '../docker/objects.ts';
import { withReach } from '../docker/remote.ts';
import { allOrThrow, TaskError } from '../errors.ts';
import { log } from '../log.ts';
import type { EnvironmentName, Project } from '../project.ts';
import { throwIfInterrupted, uninterrupted, waitUntil } from '../session.ts';
import type { Step } from '../steps.ts';
import { containersOfEnvironment, healthAddress, isOneOff } from './observe.ts';
import type { ContainerBefore, StartData, SwitchData } from './plan.ts';
import { proveHealthy, withStartFailure } from './prove.ts';

/** A single act on the engine is never cut in half: a signal takes effect after it. */
function runUninterrupted(command: Command, options: Parameters<typeof run>[1] = {}): Promise<string> {
  throwIfInterrupted();
  return uninterrupted(() => run(command, options));
}

/** The name of a container that was replaced and is kept for now. */
function retiredName(containerName: string): string {
  return `${containerName}.before`;
}

async function rename(id: string, name: string): Promise<void> {
  await runUninterrupted(docker('rename', id, name));
}

/** What the engine does with a container when it or the machine starts again. */
export async function setRestartPolicy(id: string, policy: string): Promise<void> {
  await runUninterrupted(docker('update', '--restart', policy, id));
}

export async function startContainer(id: string): Promise<void> {
  await runUninterrupted(docker('start', id));
}

/** Stops within the grace period that compose gave the container, or `seconds`. */
export async function stopContainer(id: string, seconds?: number): Promise<void> {
  await runUninterrupted(docker('stop', ...(seconds === undefined ? [] : ['--time', String(seconds)]), id));
}

/** Removes a container with the volumes that belong to it alone. */
export async function removeContainer(id: string): Promise<void> {
  await runUninterrupted(docker('rm', '--force', '--volumes', id));
}

async function find(id: string): Promise<Container | undefined> {
  return (await inspectContainers([id]))[0];
}

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
  const resume: Work = async (own, data) => {
    own.next = own.old!.id;
    await start(own, data);
  };
  const create: Work = (own, data) =>
    withStartFailure(name, null, async () => createSuccessor(project, await model(), data, own));
  const discard: Work = (_, data) => removeSuccessors(project, data, name);
  const restore: Work = async (own, data) => {
    await removeSuccessors(project, data, name);
    await bringBack(project, name, own.old!);
  };
  const kept = `${old?.up ? 'stop' : 'rename'} the old container of ${name}; it is kept until the new one is healthy`;
  const begin = [
    step('create', `${how} ${name}: ${reason}`, create, discard),
    ...(old ? [step('retire', kept, retireOld, restore)] : []),
    step('start', `start the new container of ${name}`, start),
  ];
  return [
    ...(how === 'resume'
      ? [step('start', `start ${name}: ${reason}`, resume, (own) => stopAgain(own.old!))]
      : begin),
    step('prove', `wait until ${name} is healthy and the right one`, (own, data) =>
      withStartFailure(name, own.next, () => prove(project, data, own)),
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
  await allOrThrow(
    uninterrupted(() => copyFilesInto(made, model.files[service] ?? [])),
    start.restartPolicy === 'no' ? undefined : setRestartPolicy(made, 'no'),
  );
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
  const now = await find(next!);
  if ((now?.restartPolicy ?? 'no') !== restartPolicy) await setRestartPolicy(next!, restartPolicy);
  if (!old || old.id === next || old.restartPolicy === 'no' || !(await find(old.id))) return;
  await setRestartPolicy(old.id, 'no');
}

async function prove(project: Project, data: SwitchData, start: StartData): Promise<void> {
  const { environment: name, next } = start;
  const seconds = data.waitSeconds ?? project.environments[name].start_timeout;
  const began = performance.now();
  await withReach(async (reach) => {
    const address = await healthAddress(project, name, reach);
    await proveHealthy(project, {
      environment: name,
      container: next!,
      address,
      image: data.images[name]!,
      seconds,
    });
  });
  log.done(`${name} is healthy after ${((performance.now() - began) / 1000).toFixed(1)} s`);
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
      if (!now) return;
      if (now.restartPolicy !== 'no') await setRestartPolicy(old.id, 'no');
      if (old.up) await stopContainer(old.id);
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
const STOP_SECONDS = 3;
const ANSWER_WITHIN_MS = 20_000;

/** What this switch made for an environment: every container of it that was not there before. */
async function removeSuccessors(project: Project, data: SwitchData, name: EnvironmentName): Promise<void> {
  const own = containersOfEnvironment(project, await projectContainers(project), name);
  for (const { id, state } of own.filter((one) => !data.containers.includes(one.id))) {
    if (state === 'running') await stopContainer(id, STOP_SECONDS);
    await removeContainer(id);
  }
}

async function stopAgain(old: ContainerBefore): Promise<void> {
  const now = await find(old.id);
  if (!now) return;
  if (now.state === 'running') await stopContainer(old.id);
  if (now.restartPolicy !== old.restartPolicy) await setRestartPolicy(old.id, old.restartPolicy);
}

/** Name, restart policy and state as before; waits until it answers where it answered. */
async function bringBack(project: Project, name: EnvironmentName, old: ContainerBefore): Promise<void> {
  const now = await find(old.id);
  // Only what did not run can be gone here: see canUndo in run.ts.
  if (!now) return;
  const isUntouched =
    now.state === 'running' && now.name === old.name && now.restartPolicy === old.restartPolicy;
  if (now.name !== old.name) await rename(old.id, old.name);
  if (now.restartPolicy !== old.restartPolicy) await setRestartPolicy(old.id, old.restartPolicy);
  if (!old.up || (isUntouched && old.restartPolicy !== 'no')) return;
  log.step(`roll ${name} back to its previous container`);
  // A stop that was asked for goes on in the engine after its asker died: wait for it, or it hits the start.
  if (now.state === 'running') await stopContainer(old.id);
  await startContainer(old.id);
  if (old.answered) await waitForAnswer(project, name);
}

export async function waitForAnswer(project: Project, name: EnvironmentName): Promise<void> {
  await withReach(async (reach) => {
    const address = await healthAddress(project, name, reach);
    const answers = async () => ((await queryHealth(address)).status === 200 ? true : undefined);
    if (await waitUntil(answers, { withinMs: ANSWER_WITHIN_MS })) return log.done(`${name} responds again`);
    // It runs as it did before; a run that cannot end would keep every later switch from starting.
    log.warn(`${name} runs again, but ${address.url} does not answer 200`);
  });
}
