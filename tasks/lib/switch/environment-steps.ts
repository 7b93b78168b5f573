// The two steps of a switch that touch containers: start an environment (its successor taking over the name
// and the port of the present container), and stop one.
import type { Container } from '../docker/containers.ts';
import { log } from '../log.ts';
import { timed } from '../phases.ts';
import type { EnvironmentName } from '../project.ts';
import { session } from '../session.ts';
import { together } from '../together.ts';
import { containersOfEnvironment } from './environments.ts';
import type { SwitchStep } from './plan.ts';
import { proveHealthy, startFailure } from './start.ts';
import {
  createContainer,
  injectFiles,
  nameAside,
  nextName,
  removeContainer,
  renameContainer,
  setRestartPolicy,
  startContainer,
  stopContainer,
} from './successor.ts';
import type { Switching } from './switching.ts';

type StartStep = Extract<SwitchStep, { kind: 'start' }>;

/** Starts an environment and waits until it is healthy and the right one. @throws TaskError with log lines */
export async function startStep(switching: Switching, step: StartStep): Promise<void> {
  const name = step.environment;
  const present = switching.scene.observed.environments[name].container;
  let id = '';
  try {
    if (step.how === 'resume') id = await resume(switching, name, present!);
    else id = await startSuccessor(switching, name, present);
    if (!session.dryRun) await prove(switching, name, id);
    if (step.how !== 'resume') await completeSuccessor(switching, name, id, present);
  } catch (error) {
    throw await startFailure(name, id, error);
  }
}

async function resume(switching: Switching, name: EnvironmentName, { id }: Container): Promise<string> {
  const { journal, record, phases } = switching;
  await journal.record(`start-${name}`, record);
  await timed(phases, `start ${name}`, () => startContainer(id));
  return id;
}

async function startSuccessor(
  switching: Switching,
  name: EnvironmentName,
  present: Container | undefined,
): Promise<string> {
  const { journal, record, phases } = switching;
  await journal.record(`create-${name}`, record);
  const id = await timed(phases, `create ${name}`, () => prepareSuccessor(switching, name, present));
  if (present && isUp(present)) {
    record.stopping.push(name);
    await journal.record(`replace-${name}`, record);
    await timed(phases, `stop old ${name}`, () => stopContainer(present.id));
  }
  await timed(phases, `start ${name}`, () => startContainer(id));
  await journal.record(`prove-${name}`, record);
  return id;
}

function isUp({ state }: Container): boolean {
  return ['running', 'restarting', 'paused'].includes(state);
}

/** The next container, complete but not started, under the environment's name; the present one steps aside. */
async function prepareSuccessor(
  switching: Switching,
  name: EnvironmentName,
  present: Container | undefined,
): Promise<string> {
  const { project, scene } = switching;
  const { service, containerName } = scene.observed.environments[name];
  await removeLeftOvers(switching, name, present);
  const own = containersOfEnvironment(project, scene.containers, name);
  const made = nextName(project, service, own);
  await together(
    createContainer(project, scene.model, service, own.length + 1),
    present ? renameContainer(present.id, nameAside(containerName)) : undefined,
  );
  await together(
    injectFiles(made, scene.model.files[service] ?? []),
    scene.services[name].restart === 'no' ? undefined : setRestartPolicy(made, 'no'),
  );
  if (made !== containerName) await renameContainer(made, containerName);
  return containerName;
}

/** Containers of this environment that never started: a client that outlived its killed task made them. */
async function removeLeftOvers(switching: Switching, name: EnvironmentName, present: Container | undefined) {
  const { project, scene } = switching;
  const own = containersOfEnvironment(project, scene.containers, name);
  for (const { id, state } of own) {
    if (state !== 'created' || id === present?.id) continue;
    await removeContainer(id);
    scene.containers = scene.containers.filter((one) => one.id !== id);
  }
}

async function prove(switching: Switching, name: EnvironmentName, id: string): Promise<void> {
  const { project, scene, images, waitSeconds, phases } = switching;
  const seconds = waitSeconds ?? project.environments[name].start_timeout;
  const image = images[name]!;
  const address = scene.addresses[name];
  await timed(phases, `healthy ${name}`, () =>
    proveHealthy(project, { environment: name, container: id, address, image, seconds }),
  );
  const waited = (phases[`start ${name}`] ?? 0) + (phases[`healthy ${name}`] ?? 0);
  log.done(`${name} is healthy after ${waited.toFixed(1)} s`);
}

/** The successor is proven: it gets its restart policy, and the old one is removed once all is done. */
async function completeSuccessor(
  { record, scene }: Switching,
  name: EnvironmentName,
  id: string,
  present: Container | undefined,
): Promise<void> {
  const { restart } = scene.services[name];
  if (restart !== 'no') await setRestartPolicy(id, restart);
  if (present) record.replaced.push(present.id);
}

export async function stopStep({ journal, record, scene, phases }: Switching, name: EnvironmentName) {
  const { container } = scene.observed.environments[name];
  record.stopping.push(name);
  await journal.record(`stop-${name}`, record);
  await timed(phases, `stop ${name}`, () => stopContainer(container!.id));
}
