// One container of an environment and its successor. Compose replaces a container by removing it first; here
// the next one is made beside it, by compose itself (as if scaling up), and takes over its name. Until it has
// proven healthy the old one lies aside, stopped, and can be started again as it was.

import { dirname } from 'node:path';
import { pack } from 'tar-stream';
import { type Command, run } from '../command.ts';
import { type ComposeModel, type InjectedFile, modelCommand } from '../docker/compose.ts';
import { docker, withEngine } from '../docker/engine.ts';
import { type ExpectedHealth, waitForHealth } from '../docker/health.ts';
import { type Container, type Image, lastLogLines, parseContainers } from '../docker/objects.ts';
import { allOrThrow, TaskError } from '../errors.ts';
import { timed } from '../history.ts';
import type { HttpAddress } from '../http.ts';
import { log } from '../log.ts';
import type { EnvironmentName, Project } from '../project.ts';
import { pause, session, throwIfInterrupted, uninterrupted } from '../session.ts';
import { containersOfEnvironment } from './observe.ts';
import type { SwitchStep } from './plan.ts';
import type { Switching } from './record.ts';

/** A single act on the engine is never cut in half: a signal takes effect after it. */
function act(command: Command, options: Parameters<typeof run>[1] = {}): Promise<string> {
  throwIfInterrupted();
  return uninterrupted(() => run(command, options));
}

/** The name of a container that was replaced and is kept for now. */
function nameAside(containerName: string): string {
  return `${containerName}.before`;
}

/** How compose calls a service's next container: by the number after the highest one in use. */
function nextName(project: Project, service: string, present: readonly Container[]): string {
  const numbers = present.map(({ labels }) => Number(labels['com.docker.compose.container-number'] ?? 0));
  return `${project.project.name}-${service}-${Math.max(0, ...numbers) + 1}`;
}

/** Makes a service's next container, not started, beside the ones that it has: `count` with the new one. */
async function createContainer(project: Project, model: ComposeModel, service: string, count: number) {
  const scale = `${service}=${count}`;
  const up = ['up', '--no-start', '--no-deps', '--no-build', '--no-recreate', '--scale', scale, service];
  await act(modelCommand(project, ...up), { input: model.input });
}

/** Puts files into a container that was made and not started yet. */
async function injectFiles(container: string, files: readonly InjectedFile[]): Promise<void> {
  for (const folder of new Set(files.map(({ target }) => dirname(target)))) {
    const inside = files.filter(({ target }) => dirname(target) === folder);
    await act(docker('cp', '-', `${container}:${folder}`), { input: await tarOf(inside) });
  }
}

/** Owned by root and readable by all: the service must not change what it was configured with. */
async function tarOf(files: readonly InjectedFile[]): Promise<Buffer> {
  const archive = pack();
  for (const { target, content, mode } of files) {
    archive.entry({ name: target.slice(dirname(target).length + 1), mode, uid: 0, gid: 0 }, content);
  }
  archive.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of archive) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

export async function renameContainer(id: string, name: string): Promise<void> {
  await act(docker('rename', id, name));
}

/**
 * What the engine does with a container when it or the machine stops. A successor has none until it is
 * proven: after a power cut in between, the old one alone comes up again.
 */
export async function setRestartPolicy(id: string, policy: string): Promise<void> {
  await act(docker('update', '--restart', policy, id));
}

export async function startContainer(id: string): Promise<void> {
  await act(docker('start', id));
}

/** Stops within the grace period that compose gave the container, or `seconds`. */
export async function stopContainer(id: string, seconds?: number): Promise<void> {
  await act(docker('stop', ...(seconds === undefined ? [] : ['--time', String(seconds)]), id));
}

/** Removes a container with the volumes that belong to it alone. */
export async function removeContainer(id: string): Promise<void> {
  await act(docker('rm', '--force', '--volumes', id));
}

// The two steps of a switch that touch containers: start an environment (its successor taking over the name
// and the port of the present container), and stop one.

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
  await allOrThrow(
    createContainer(project, scene.model, service, own.length + 1),
    present ? renameContainer(present.id, nameAside(containerName)) : undefined,
  );
  await allOrThrow(
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

// Starting one environment and proving it: its container runs the image that was meant and is healthy, and
// its /health comes from the environment, version and commit that were meant.

const VERSION_LABEL = 'org.opencontainers.image.version';
const REVISION_LABEL = 'org.opencontainers.image.revision';

export function expectedHealth(name: EnvironmentName, image: Image | undefined): ExpectedHealth {
  return { env: name, version: image?.labels[VERSION_LABEL], revision: image?.labels[REVISION_LABEL] };
}

interface Proof {
  environment: EnvironmentName;
  /** Id of the container that was started. */
  container: string;
  address: HttpAddress;
  image: Image;
  seconds: number;
}

/** Waits until the container and its /health are both well, and the right ones. @throws TaskError */
export function proveHealthy(project: Project, proof: Proof): Promise<void> {
  // One connection for all the questions: a process each would slow down the very start that is waited for.
  return withEngine(async (ask) => {
    const find = async (): Promise<Container | undefined> => {
      const found = await ask(`/containers/${encodeURIComponent(proof.container)}/json`);
      return found === undefined ? undefined : (await parseContainers([found]))[0];
    };
    const givenUp = async () => causeOfDeath(await find());
    verifyImage(await find(), proof.image);
    await waitForHealth({
      ...proof.address,
      keys: project.health,
      expected: expectedHealth(proof.environment, proof.image),
      timeoutSeconds: proof.seconds,
      givenUp,
    });
    await waitForCheck(find, proof.seconds);
    const dead = await givenUp();
    if (dead) throw new TaskError(`Not healthy: ${proof.address.url}: ${dead}`, { code: 'unhealthy' });
  });
}

function causeOfDeath(container: Container | undefined): string | undefined {
  if (!container) return 'its container is gone';
  if (container.state === 'exited' || container.restarts > 0)
    return `its container ended with exit code ${container.exitCode}`;
  return container.health === 'unhealthy' ? 'its container is unhealthy' : undefined;
}

/** Somebody may have re-tagged the image between the check and now. */
function verifyImage(container: Container | undefined, image: Image): void {
  if (!container || container.imageId === image.id) return;
  throw new TaskError(
    `The image ${container.image} changed meanwhile: the container runs ${container.imageId}, checked was ${image.id}`,
    { code: 'image-changed', hint: 'somebody built or re-tagged it at the same time; switch again' },
  );
}

/** /health is well; the engine's own check may still have to come to the same result. */
async function waitForCheck(find: () => Promise<Container | undefined>, seconds: number): Promise<void> {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const container = await find();
    if (container?.health !== 'starting') return;
    if (Date.now() > deadline) {
      const message = `Not healthy: the health check of ${container.name} has not passed after ${seconds} s`;
      throw new TaskError(message, { code: 'unhealthy' });
    }
    await pause(100);
  }
}

/** The error of an environment that did not start, with what its container said last. */
export async function startFailure(
  name: EnvironmentName,
  container: string,
  error: unknown,
): Promise<unknown> {
  if (!(error instanceof TaskError) || error.code === 'interrupted') return error;
  const logs = container ? await uninterrupted(() => lastLogLines(container)).catch(() => '') : '';
  const tail = logs ? `\nLast log lines of its container:\n${logs.replace(/^/gm, '    ')}` : '';
  return new TaskError(`Cannot start ${name}: ${error.message}${tail}`, {
    code: error.code,
    hint: error.hint ?? 'what ran before runs again; .env is unchanged',
    cause: error,
  });
}
