// The steps of a restore and their undoing: unpack beside, stop, swap, start and prove, or everything back.
import { probe, run } from '../command.ts';
import { docker } from '../docker/client.ts';
import { inspectContainers } from '../docker/containers.ts';
import { inspectImage } from '../docker/images.ts';
import { TaskError } from '../errors.ts';
import { log } from '../log.ts';
import type { Project } from '../project.ts';
import { session } from '../session.ts';
import { survey } from '../switch/environments.ts';
import { planSwitch } from '../switch/plan.ts';
import { runSwitch } from '../switch/run.ts';
import { proveHealthy, startFailure } from '../switch/start.ts';
import { checkTarget } from '../switch/target.ts';
import { runProgram } from './program.ts';
import type { ProgramSession } from './program-session.ts';
import { PLACE, type RestoreRecord, type Running } from './restore-record.ts';
import type { ArchivePlace } from './verify.ts';

/** A restore as its steps see it; one that is resumed has no session, and each act a container of its own. */
export interface Restoring {
  project: Project;
  record: RestoreRecord;
  within?: ProgramSession;
}

function placeCall({ record, within }: Restoring, command: string, options: Record<string, unknown>) {
  const { current, staging, previous } = record;
  const places = { parent: PLACE, current, staging, previous };
  return {
    image: record.image,
    command,
    options: { places, ...options },
    mounts: { [PLACE]: record.parent },
    asRoot: true,
    within,
  };
}

async function inPlace(restoring: Restoring, command: string, options: object = {}) {
  const { Nothing } = await import('./program-schema.ts');
  await runProgram(restoring.project, placeCall(restoring, command, { ...options }), Nothing);
}

/** Unpacks and verifies beside the data directory, while everything still runs. */
export async function unpackBeside(restoring: Restoring, archive: ArchivePlace) {
  const { Unpacked } = await import('./program-schema.ts');
  const options = { archive: `/archive/${archive.name}`, parent: PLACE, name: restoring.record.staging };
  const call = placeCall(restoring, 'unpack', options);
  const mounts = { ...call.mounts, '/archive': `${archive.directory}:ro` };
  await runProgram(restoring.project, { ...call, mounts }, Unpacked);
}

export async function swapIn(restoring: Restoring): Promise<void> {
  await inPlace(restoring, 'swap-in');
}

export async function swapBack(restoring: Restoring): Promise<void> {
  await inPlace(restoring, 'swap-back', { hadCurrent: restoring.record.hadCurrent });
}

export async function finishSwap(restoring: Restoring): Promise<void> {
  await inPlace(restoring, 'finish-swap', { keepAs: restoring.record.keepAs });
}

/** Stops containers as their compose file says, and nothing that did not run. */
export async function stopRunning(running: readonly Running[]): Promise<void> {
  if (running.length > 0) await run(docker('stop', ...running.map(({ id }) => id)));
}

/** Starts what ran before in its own containers and proves it. @throws TaskError with log lines */
async function startSame(project: Project, running: readonly Running[]): Promise<void> {
  if (running.length === 0) return;
  await run(docker('start', ...running.map(({ id }) => id)));
  if (session.dryRun) return;
  const { addresses } = await survey(project, undefined);
  for (const { environment, id } of running) {
    const [container] = await inspectContainers([id]);
    const image = container ? await inspectImage(container.imageId) : undefined;
    if (!image) throw new TaskError(`The container of ${environment} is gone`, { code: 'unhealthy' });
    const seconds = project.environments[environment].start_timeout;
    const proof = { environment, container: id, address: addresses[environment], image, seconds };
    await proveHealthy(project, proof).catch(async (error: unknown) => {
      throw await startFailure(environment, id, error);
    });
  }
}

/** Starts prod as the release that the archive names, dev as it was, by a switch of its own. */
async function startOther(project: Project, running: readonly Running[], prodTag: string): Promise<void> {
  const names = running.map(({ environment }) => environment);
  const active = names.length === 2 ? 'both' : (names[0] ?? 'none');
  const [scene, check] = await Promise.all([survey(project, prodTag), checkTarget(project, active, prodTag)]);
  const [problem] = check.problems;
  if (problem) throw problem;
  const steps = planSwitch(scene.observed, check.target);
  const { target, images } = check;
  await runSwitch(project, { scene, target, images, steps, waitSeconds: undefined });
}

/** Starts and proves what ran before the restore. @throws TaskError */
export async function startRestored(project: Project, { running, prodTag }: RestoreRecord): Promise<void> {
  if (prodTag === null) await startSame(project, running);
  else await startOther(project, running, prodTag);
}

/** Everything as it was before the restore, and what ran runs. @throws TaskError saying what a person can do */
export async function putBack(restoring: Restoring): Promise<void> {
  const { project, record } = restoring;
  log.warn('putting everything back as it was before the restore');
  const ids = record.running.map(({ id }) => id);
  if (ids.length > 0) await probe(docker('stop', ...ids));
  await swapBack(restoring);
  try {
    await startSame(project, record.running);
  } catch (error) {
    if (!(error instanceof TaskError)) throw error;
    // It is as it was; that it does not start is not the restore's doing.
    log.warn(`the data is back as it was, but: ${error.message}`);
  }
}
