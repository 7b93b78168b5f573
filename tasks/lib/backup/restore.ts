// Restoring an archive: unpack and verify it next to the data, stop what runs, back up the current data, swap, start, wait
// until healthy. Until the service is healthy on the restored data, any failure brings the previous state back.

import { randomBytes } from 'node:crypto';
import { basename, dirname, resolve } from 'node:path';
import { z } from 'zod';
import { stopCommand, switchCommand } from '../active.ts';
import { run } from '../command.ts';
import { environmentOfService } from '../docker/compose.ts';
import { docker } from '../docker/engine.ts';
import {
  type Container,
  containerIds,
  inspectContainers,
  inspectImage,
  projectContainers,
} from '../docker/objects.ts';
import { errorSummary, TaskError, usageError } from '../errors.ts';
import { formatBytes } from '../format.ts';
import { withHistory } from '../history.ts';
import { log } from '../log.ts';
import { dataDirectory, type Project } from '../project.ts';
import { uninterrupted } from '../session.ts';
import { describeSteps, interruptedRun, type Journey, resumeSteps, runSteps, type Step } from '../steps.ts';
import { isHealthy, survey } from '../switch/observe.ts';
import { proveHealthy, setRestartPolicy, startContainer, withStartFailure } from '../switch/replace.ts';
import type { ArchivePlace } from './archives.ts';
import { createArchive } from './create.ts';
import { ARCHIVE, backupPlaces, existingPlaces, mountsOf, PLACES, type Places } from './places.ts';
import type { Summary } from './program/archive.ts';
import { backupLabel, queryProgram, runProgram } from './program.ts';

const Running = z.object({
  environment: z.enum(['dev', 'prod']),
  /** Of its container. */
  id: z.string(),
  image: z.string(),
  imageId: z.string(),
  restartPolicy: z.string(),
});
type Running = z.output<typeof Running>;

const Restore = z.object({
  /** Part of every name that this restore gives. */
  id: z.string(),
  archive: z.object({ directory: z.string(), name: z.string() }),
  /** Places that come back, e.g. `data` → `/opt/synapse/data`. */
  places: z.record(z.string(), z.string()),
  /** Is there anything that is replaced? */
  replaces: z.boolean(),
  /** What runs, and runs again afterwards. */
  running: z.array(Running),
  /** The archive of what was there before. */
  before: z.string().nullable(),
  /** Paths that the restored archive, or the one of what was there before, does not hold: they stay. */
  stays: z.array(z.string()),
  /** Where those that could not stay in their place are now. */
  kept: z.array(z.string()),
});
export type Restore = z.output<typeof Restore>;

/** Options and mounts of the program's commands on the places. */
function inPlaces({ places, id, archive, stays }: Restore) {
  const mounts = mountsOf(places);
  const path = `${ARCHIVE}/${archive.name}`;
  return {
    options: { root: PLACES, places: Object.keys(places), id, stays, archive: path },
    mounts: { ...mounts, [ARCHIVE]: `${archive.directory}:ro` },
    creates: Object.keys(mounts),
  };
}

const act = (project: Project, restore: Restore, command: 'unpack-in-place' | 'swap-in' | 'swap-back') =>
  runProgram<typeof command>(project, { command, ...inPlaces(restore) });

/** Backs up what is there. Damaged data must not stop its own restore: then all of it is kept. */
async function backUpPresent(project: Project, restore: Restore): Promise<void> {
  try {
    const made = await createArchive(project);
    if (!made) return;
    restore.before = made.archive;
    restore.stays = [...new Set([...restore.stays, ...made.absent])];
  } catch (error) {
    if (!(error instanceof TaskError) || error.code === 'interrupted') throw error;
    log.warn(`could not back up the current data, so all of it is kept: ${error.message}`);
  }
}

/** What no archive holds is kept. */
async function removeBefore(project: Project, restore: Restore): Promise<void> {
  const { options, ...call } = inPlaces(restore);
  const isSaved = restore.before !== null || !restore.replaces;
  const more = { keepAs: `before-restore-${restore.id}`, isSaved };
  restore.kept =
    (await runProgram(project, { ...call, command: 'finish-swap', options: { ...options, ...more } })) ?? [];
}

const names = (running: readonly Running[]) => running.map(({ environment }) => environment).join(' and ');

/** Without a restart policy: after a power cut nothing must start on data that is half one and half the other. */
async function stopRunning({ running }: Restore): Promise<void> {
  for (const { id } of running) await setRestartPolicy(id, 'no');
  await run(docker('stop', ...running.map(({ id }) => id)));
}

/** Starts what ran before in its own containers. */
async function startSame(running: readonly Running[]): Promise<void> {
  for (const { id, restartPolicy } of running) {
    await startContainer(id);
    await setRestartPolicy(id, restartPolicy);
  }
}

/** Starts what ran before and waits until it is healthy. @throws TaskError */
async function startRestored(project: Project, { running }: Restore): Promise<void> {
  await startSame(running);
  for (const { environment, id, imageId } of running) {
    const image = await inspectImage(imageId);
    if (!image) throw new TaskError(`The image of ${environment} is gone`, { code: 'unhealthy' });
    await withStartFailure(environment, id, () => proveHealthy(project, environment, id, image));
  }
}

/** Everything that ran before is healthy now. */
async function allHealthy(project: Project, { running }: Restore): Promise<boolean> {
  const { observed } = await survey(project, undefined);
  return running.every(({ environment }) => isHealthy(observed.environments[environment]));
}

const existing = async (running: readonly Running[]) =>
  (await inspectContainers(running.map(({ id }) => id))).map(({ id }) => id);

async function startAgain({ running }: Restore): Promise<void> {
  log.warn('rolling back: the previous data and containers');
  const ids = await existing(running);
  // That the previous state does not start is not the restore's doing.
  await startSame(running.filter(({ id }) => ids.includes(id))).catch((error: unknown) => {
    log.warn(`the previous data was restored, but ${names(running)} does not start: ${errorSummary(error)}`);
  });
}

function stepsOf(project: Project, { archive, running, replaces, places }: Restore): Step<Restore>[] {
  const where = Object.values(places).join(' and ');
  const runs = running.length > 0;
  const swapBack = (data: Restore) => act(project, data, 'swap-back');
  const steps: (Step<Restore> | false)[] = [
    {
      name: 'unpack',
      title: `unpack ${archive.name} next to the data and verify it`,
      apply: (data) => act(project, data, 'unpack-in-place'),
      undo: swapBack,
    },
    runs && { name: 'stop', title: `stop ${names(running)}`, apply: stopRunning, undo: startAgain },
    replaces && {
      name: 'backup',
      title: `back up the current data in ${where}`,
      apply: (data) => backUpPresent(project, data),
    },
    {
      name: 'swap',
      title: `replace the data in ${where}`,
      apply: (data) => uninterrupted(() => act(project, data, 'swap-in')),
      undo: swapBack,
      ...(runs ? {} : { commits: true }),
    },
    runs && {
      name: 'start',
      title: `start ${names(running)} and wait until ${running.length > 1 ? 'they are' : 'it is'} healthy`,
      apply: (data) => startRestored(project, data),
      undo: async () => {
        const ids = await existing(running);
        if (ids.length > 0) await run(docker('stop', ...ids));
      },
      commits: true,
      isDone: (data) => allHealthy(project, data),
    },
    {
      name: 'finish',
      title: 'remove the previous data, which is in a backup',
      apply: (data) => removeBefore(project, data),
    },
  ];
  return steps.filter((step) => step !== false);
}

function journeyOf(project: Project): Journey<Restore> {
  return {
    root: project.root,
    task: 'backup-restore',
    command: 'npm run backup -- list',
    schema: Restore,
    steps: (restore) => stepsOf(project, restore),
    history: ({ archive }) => ({ from: archive.name, to: null }),
  };
}

/** Finishes or undoes a restore that was interrupted. Call it holding the lock. */
export async function resumeRestore(project: Project): Promise<'finished' | 'undone' | undefined> {
  const journey = journeyOf(project);
  const interrupted = await interruptedRun(journey);
  if (!interrupted) return undefined;
  // Whatever its container is still doing, it stops: any of it may be half-done.
  const left = await containerIds({ label: [backupLabel(project)] });
  if (left.length > 0) await run(docker('rm', '--force', ...left));
  return (await resumeSteps(journey))?.outcome;
}

// What a restore will do, worked out and checked before anybody is asked: the archive is read through once, the places are
// looked at, and the release that can read its data format is found.

export interface RestorePlan {
  archive: ArchivePlace;
  summary: Summary;
  /** What is in the places now: names at their top, files, bytes; and the bytes that are free. */
  present: { entries: number; files: number; bytes: number; free: number };
  /** Undefined for a restore to another directory. */
  restore: Restore | undefined;
  to: string | undefined;
}

/** Reads the archive through. @throws TaskError naming all of its damage */
async function preview(project: Project, { directory, name }: ArchivePlace): Promise<Summary> {
  const { problems, manifest } = await queryProgram(project, {
    command: 'verify-file',
    options: { path: `${ARCHIVE}/${name}` },
    mounts: { [ARCHIVE]: `${directory}:ro` },
  });
  if (manifest && problems.length === 0) return manifest;
  const lines = problems.map((problem) => `  - ${problem}`);
  throw new TaskError([`Cannot restore ${name}; nothing was changed:`, ...lines].join('\n'), {
    code: 'bad-archive',
    hint: 'choose another one: npm run backup -- list',
  });
}

/** What is in directories of the engine's machine; a missing one has nothing in it. */
async function inspect(project: Project, places: Places): Promise<RestorePlan['present']> {
  const sum = { entries: 0, files: 0, bytes: 0, free: Number.POSITIVE_INFINITY };
  for (const [name, source] of Object.entries(await existingPlaces(places))) {
    const found = await queryProgram(project, {
      command: 'inspect',
      options: { root: PLACES, places: [name] },
      mounts: mountsOf({ [name]: source }, ':ro'),
    }).catch((error: TaskError) => {
      if (error.code !== 'no-directory') throw error;
      return [];
    });
    for (const one of found) {
      sum.free = Math.min(sum.free, one.free);
      for (const key of ['entries', 'files', 'bytes'] as const) sum[key] += one[key];
    }
  }
  return sum;
}

/** Containers of this project that run; any other that uses the data stops the restore. */
async function runningOn(project: Project, sources: string[]): Promise<Running[]> {
  const [users, ours] = await Promise.all([containerIds({ volume: sources }), projectContainers(project)]);
  const isOurs = (id: string) => ours.some((one) => one.id === id);
  const isActive = ({ state }: Container) => ['running', 'restarting', 'paused'].includes(state);
  const foreign = (await inspectContainers(users.filter((id) => !isOurs(id)))).filter(isActive);
  if (foreign.length > 0) {
    throw new TaskError(`Other containers use the data: ${foreign.map(({ name }) => name).join(', ')}`, {
      code: 'data-in-use',
      hint: `stop them first: docker stop ${foreign.map(({ name }) => name).join(' ')}`,
    });
  }
  return ours.filter(isActive).flatMap(({ service, id, image, imageId, restartPolicy }) => {
    const environment = environmentOfService(project, service);
    return environment ? [{ environment, id, image, imageId, restartPolicy }] : [];
  });
}

/** A newer program reads older formats, never the other way round. @throws TaskError where what runs cannot read it */
async function verifyFormat(project: Project, running: readonly Running[], { dataFormat, origin }: Summary) {
  const label = project.data.format_label;
  if (dataFormat === null || !label) return;
  for (const { environment, image, imageId } of running) {
    const format = (await inspectImage(imageId))?.labels[label];
    if (format === undefined || Number(format) >= dataFormat) continue;
    const active = running.map((one) => one.environment);
    const newer = switchCommand(project, 'prod', { version: 'vX.Y.Z', running: active });
    const command =
      environment === 'prod' ? newer : `npm run build-push, or stop dev: ${stopCommand(project, 'dev')}`;
    throw new TaskError(
      `Cannot restore; nothing was changed: ${environment} runs ${image}, which reads data format ${format}; the archive has ${dataFormat}`,
      {
        code: 'data-format',
        hint: `it was made by ${origin.version}; run a version that reads it first: ${command}`,
      },
    );
  }
}

/** The places of the archive that prod mounts. @throws TaskError where it mounts none of them */
async function placesToRestore(project: Project, { places }: Summary): Promise<Places> {
  const mounted = Object.entries(await backupPlaces(project)).filter(([name]) => places.includes(name));
  if (mounted.length > 0) return Object.fromEntries(mounted);
  const message = `Prod mounts nothing of what the archive holds: ${places.join(', ')}`;
  throw new TaskError(message, { code: 'wrong-data', hint: 'restore it to a directory: --to DIR' });
}

/** Checks everything and works out what a restore would do; changes nothing. @throws TaskError */
export async function planRestore(
  project: Project,
  archive: ArchivePlace,
  to: string | undefined,
): Promise<RestorePlan> {
  const target = to === undefined ? undefined : resolve(to);
  if (target === dataDirectory(project))
    throw usageError('--to is the data directory itself', { hint: 'omit --to to restore in place' });
  const summary = await preview(project, archive);
  const places = target === undefined ? await placesToRestore(project, summary) : { data: target };
  const present = await inspect(project, places);
  if (target !== undefined && present.entries > 0)
    throw usageError(`${to} exists and is not empty`, { code: 'target-exists', hint: 'choose another --to' });
  if (present.free < summary.bytes) {
    const text = `${formatBytes(present.free)} free, ${formatBytes(summary.bytes)} needed`;
    throw new TaskError(`Not enough disk space to unpack: ${text}`, { code: 'no-space' });
  }
  const plan = { archive, summary, present, to };
  if (target !== undefined) return { ...plan, restore: undefined };
  const running = await runningOn(project, Object.values(places));
  await verifyFormat(project, running, summary);
  const restore = {
    id: randomBytes(4).toString('hex'),
    ...{ archive: { directory: archive.directory, name: archive.name }, places, replaces: present.files > 0 },
    running,
    ...{ before: null, stays: summary.absent, kept: [] },
  };
  return { ...plan, restore };
}

/** What a person is asked about: what comes back, what is replaced, who is down meanwhile. */
export function describeRestore(project: Project, plan: RestorePlan, wanted: string): string {
  const { archive, summary, present, restore, to } = plan;
  const { at, origin, dataFormat, files, bytes, missing, places } = summary;
  const steps = restore ? describeSteps(stepsOf(project, restore)) : [`unpack to ${to}, and verify it there`];
  const notMounted = restore ? places.filter((name) => !(name in restore.places)) : [];
  const running = restore?.running ?? [];
  return [
    `Restore ${archive.name}${wanted === 'latest' ? ' (the latest verified archive)' : ''}`,
    `  from      ${at}, version ${origin.version}, data format ${dataFormat ?? 'unknown'}`,
    `  holds     ${files} files, ${formatBytes(bytes)}`,
    ...missing.map(({ path, reason }) => `  ! ${path} is not in it: ${reason}`),
    ...notMounted.map((name) => `  ! ${name} is not restored: prod does not mount it`),
    ...(restore?.replaces
      ? [
          `  replaces  ${present.files} files, ${formatBytes(present.bytes)}: they are backed up first`,
          `  new data  what was written after ${at} is only in that backup afterwards`,
        ]
      : []),
    ...(running.length > 0
      ? [`  downtime  ${names(running)}, from "${steps[1]}" until "${steps.at(-2)}"`]
      : []),
    ...steps.map((title, index) => `  ${index + 1}. ${title}`),
  ].join('\n');
}

/** Carries a plan out. @throws TaskError after putting everything back */
export async function performRestore(project: Project, { archive, summary, restore, to }: RestorePlan) {
  if (restore) {
    const { data, phases } = await runSteps(journeyOf(project), restore);
    return { before: data.before, kept: data.kept, phases };
  }
  const target = resolve(to!);
  const call = {
    command: 'unpack-to' as const,
    options: {
      archive: `${ARCHIVE}/${archive.name}`,
      ...{ places: summary.places, parent: '/place', name: basename(target) },
    },
    mounts: { [ARCHIVE]: `${archive.directory}:ro`, '/place': dirname(target) },
  };
  const details = { from: archive.name, to: target };
  await withHistory(project.root, 'backup-restore', details, () => runProgram(project, call));
  return { before: null, kept: [], phases: {} };
}
