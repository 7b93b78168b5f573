// Everything that can be known to fail is found before the first step, and told at once.

import { statfs } from 'node:fs/promises';
import { freemem } from 'node:os';
import { FILES_LABEL } from '../docker/compose-model.ts';
import type { ComposeService } from '../docker/compose-schema.ts';
import { isLocalEndpoint } from '../docker/endpoint.ts';
import { combinedError, TaskError } from '../errors.ts';
import { dataDirectory, type EnvironmentName, type Project, variableName } from '../project.ts';
import { dataProblems, megabytes, readLocalData, readRemoteData, SPARE_BYTES } from './data-directory.ts';
import { containersOfEnvironment, type Scene } from './environments.ts';
import type { SwitchStep } from './plan.ts';
import { isFree, listeningProcess, publishingContainer } from './ports.ts';
import { verifyServiceConfig } from './service-config.ts';
import { environmentImage, type TargetCheck } from './target.ts';

type StartStep = Extract<SwitchStep, { kind: 'start' }>;

/** @throws TaskError with every problem that stands in the way of the plan */
export async function verifySwitch(
  project: Project,
  scene: Scene,
  check: TargetCheck,
  steps: readonly SwitchStep[],
): Promise<void> {
  const starts = steps.filter((step) => step.kind === 'start');
  const found = await Promise.all([
    roomProblems(project, scene, starts),
    ...starts.map((step) => environmentProblems(project, scene, check, step)),
  ]);
  const problems = [...check.problems, ...found.flat()];
  if (problems.length === 0) return;
  throw combinedError(`Cannot switch to ${check.target.active}; nothing was changed:`, problems);
}

async function configProblems(project: Project, scene: Scene, name: EnvironmentName) {
  return verifyServiceConfig(project, scene.model.services, [name]).then(
    () => [],
    (error) => [asProblem(error)],
  );
}

function asProblem(error: unknown): TaskError {
  if (error instanceof TaskError && error.code !== 'interrupted') return error;
  throw error;
}

function environmentProblems(project: Project, scene: Scene, check: TargetCheck, step: StartStep) {
  const service = scene.services[step.environment];
  return Promise.all([
    configProblems(project, scene, step.environment),
    portProblems(project, scene, step.environment, service),
    directoryProblems(project, scene, check, step.environment),
    volumeProblems(scene, step),
  ]).then((lists) => lists.flat());
}

/** A port must be free, or published by this very environment, which gives it up for its successor. */
async function portProblems(project: Project, scene: Scene, name: EnvironmentName, service: ComposeService) {
  const own = containersOfEnvironment(project, scene.containers, name).filter(
    ({ state }) => state === 'running',
  );
  const isLocal = isLocalEndpoint(scene.endpoint);
  const swarmTasks = `${project.project.name}_${project.environments[name].service}.`;
  const problems = service.publishes.map(async (port): Promise<TaskError[]> => {
    if (own.some(({ publishedPorts }) => publishedPorts.includes(port.published))) return [];
    if (isLocal && (await isFree(port))) return [];
    const container = await publishingContainer(port.published);
    // A swarm's own container gives the port up for its successor, too.
    if (container?.startsWith(swarmTasks) || (!container && !isLocal)) return [];
    const holder = container ? `the container ${container}` : await listeningProcess(port.published);
    return [
      new TaskError(`Port ${port.published}, which ${name} needs, is taken by ${holder}`, {
        code: 'port-taken',
        hint: `stop it, or give ${name} another port: ${variableName(project, `${name.toUpperCase()}_PORT`)}=… in .env`,
      }),
    ];
  });
  return (await Promise.all(problems)).flat();
}

async function directoryProblems(project: Project, scene: Scene, check: TargetCheck, name: EnvironmentName) {
  const path = dataDirectory(project);
  const service = scene.services[name];
  if (!service.binds.some(({ source }) => source === path)) return [];
  const image = check.images[name];
  const isLocal = isLocalEndpoint(scene.endpoint);
  // Without an image there is nothing to look through; that is a problem of its own, or fetched first.
  if (!isLocal && !image) return [];
  const reference = environmentImage(project, name, check.target.prodTag);
  const read = isLocal ? readLocalData(project, path) : readRemoteData(project, path, reference);
  const data = await read.catch(asProblem);
  if (data instanceof TaskError) return [data];
  // In Docker's own virtual machine (macOS) owners are translated.
  const user = isLocal && process.platform !== 'linux' ? undefined : service.user;
  return dataProblems(project, { environment: name, path, user, image }, data);
}

/** What lies in a volume without a name would stay with the replaced container, and go with it. */
function volumeProblems(scene: Scene, step: StartStep): TaskError[] {
  const container = scene.observed.environments[step.environment].container;
  if (step.how !== 'replace' || !container) return [];
  const ours = container.labels[FILES_LABEL]?.split(',') ?? [];
  return container.anonymousVolumes
    .filter((path) => !ours.includes(path))
    .map(
      (path) =>
        new TaskError(
          `${container.name} keeps ${path} in a volume without a name: a new container starts empty`,
          {
            code: 'anonymous-volume',
            hint: `give the volume a name in the compose file, or mount a tmpfs if its content may go`,
          },
        ),
    );
}

/** Memory and disk of this machine; another one's cannot be asked through its engine. */
async function roomProblems(
  project: Project,
  scene: Scene,
  starts: readonly StartStep[],
): Promise<TaskError[]> {
  if (starts.length === 0 || !isLocalEndpoint(scene.endpoint) || process.platform !== 'linux') return [];
  const beside = starts.filter(({ how }) => how !== 'replace');
  const needed = beside.reduce(
    (sum, { environment }) => sum + scene.services[environment].memory.reservation,
    0,
  );
  const problems: TaskError[] = [];
  if (needed > freemem()) {
    const message = `Not enough memory: ${megabytes(freemem())} are available, ${beside.map((step) => step.environment).join(' and ')} reserve ${megabytes(needed)}`;
    problems.push(
      new TaskError(message, { code: 'memory-short', hint: 'stop something, or lower the reservation' }),
    );
  }
  const { bavail, bsize } = await statfs(project.root);
  if (bavail * bsize < SPARE_BYTES) {
    const message = `The disk of ${project.root} is full: ${megabytes(bavail * bsize)} free, at least ${megabytes(SPARE_BYTES)} are needed`;
    problems.push(new TaskError(message, { code: 'disk-full', hint: 'make room, then switch again' }));
  }
  return problems;
}
