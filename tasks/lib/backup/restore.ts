// A restore from beginning to end, journaled: unpack and prove beside, stop, back up what is there, swap whole
// directories, start, prove. Whatever fails, everything is put back.

import { randomBytes } from 'node:crypto';
import { basename, dirname, resolve } from 'node:path';
import { stopCommand } from '../active.ts';
import { probe, run } from '../command.ts';
import { environmentOfService } from '../docker/compose.ts';
import { docker } from '../docker/engine.ts';
import {
  type Container,
  containerIds,
  inspectContainers,
  inspectImage,
  projectContainers,
} from '../docker/objects.ts';
import { combinedError, TaskError, usageError } from '../errors.ts';
import { type Phases, timed } from '../history.ts';
import { log } from '../log.ts';
import { openJournal, readJournal } from '../old-journal.ts';
import { dataDirectory, type EnvironmentName, loadProject, type Project } from '../project.ts';
import { verifyReleasedImage } from '../release/record.ts';
import { session, uninterrupted } from '../session.ts';
import { survey } from '../switch/observe.ts';
import { proveHealthy, startFailure } from '../switch/prove.ts';
import { composeSwitch, resumeSwitch } from '../switch/run.ts';
import { type ArchivePlace, archiveDirectory, isPath } from './archives.ts';
import { createArchive, thawLeftovers } from './create.ts';
import {
  askProgram,
  BACKUPS,
  type BackupImage,
  backupDirectory,
  dataPlace,
  megabytes,
  Nothing,
  Preview,
  type ProgramSession,
  runProgram,
  type Summary,
  Unpacked,
  withSession,
} from './program.ts';

export interface RestoreResult {
  /** The archive of what was there before; null if there was nothing, or it could not be backed up. */
  before: string | null;
  /** The name under which the previous directory stays, when no backup could be made of it. */
  kept: string | null;
}

/** Backs up what is there. Damaged data must not stop its own restore: then the directory itself is kept. */
async function backUpPresent(
  project: Project,
  image: BackupImage,
  record: RestoreRecord,
): Promise<string | null> {
  try {
    return (await createArchive(project, image, { pause: false }))?.archive ?? null;
  } catch (error) {
    if (!(error instanceof TaskError) || error.code === 'interrupted') throw error;
    const stamp = new Date().toISOString().replace(/[-:]|\.\d+/g, '');
    record.keepAs = `${record.current}.before-restore-${stamp}`;
    log.warn(`what is there could not be backed up, so it is kept as ${record.keepAs}: ${error.message}`);
    return null;
  }
}

async function undo(restoring: Restoring, step: RestoreStep): Promise<void> {
  if (step === 'unpack') await swapBack(restoring);
  else await putBack(restoring);
  await openJournal(restoring.project.root, RESTORE_JOURNAL).close();
}

/** Carries a plan out. @throws TaskError after putting everything back */
export async function performRestore(
  project: Project,
  image: BackupImage,
  plan: RestorePlan,
  phases: Phases,
): Promise<RestoreResult> {
  const journal = openJournal<RestoreRecord>(project.root, RESTORE_JOURNAL);
  const { record } = plan;
  const restoring = { project, record, within: plan.session.program };
  let current: RestoreStep = 'unpack';
  let before: string | null = null;
  const step = async (name: RestoreStep, work: () => Promise<unknown>) => {
    current = name;
    await journal.record(name, record);
    await timed(phases, name, work);
  };
  try {
    await step('unpack', () => unpackBeside(restoring, plan.archive));
    if (record.running.length > 0) await step('stop', () => stopRunning(record.running));
    if (plan.to === undefined && plan.present.files > 0) {
      await step('backup', async () => {
        before = await backUpPresent(project, image, record);
      });
    }
    await step('swap', () => uninterrupted(() => swapIn(restoring)));
    await step('start', () => startRestored(project, record));
  } catch (error) {
    await uninterrupted(() => undo(restoring, current)).catch((cause: unknown) =>
      stuck(record, error, cause),
    );
    throw error;
  }
  await uninterrupted(() => step('finish', () => finishSwap(restoring)));
  await journal.close();
  return { before, kept: record.keepAs };
}

function stuck({ parent, current, previous }: RestoreRecord, error: unknown, cause: unknown): never {
  const message = (reason: unknown) => (reason instanceof Error ? reason.message : String(reason));
  throw new TaskError(`${message(error)}\nand putting everything back failed: ${message(cause)}`, {
    code: 'not-put-back',
    hint: `run any backup command again; by hand: in ${parent}, rename ${previous} (if it is there) to ${current}`,
    cause,
  });
}

/** Finishes or undoes a restore that died. Returns what was done, undefined if there was none. */
async function resumeRestore(project: Project): Promise<'finished' | 'undone' | undefined> {
  const entry = await readJournal<RestoreRecord>(project.root, RESTORE_JOURNAL);
  if (!entry) return undefined;
  const { data: record, step } = entry;
  const restoring = { project, record };
  const journal = openJournal<RestoreRecord>(project.root, RESTORE_JOURNAL);
  log.warn(`a restore of ${record.archive} died at "${step}" (${entry.at})`);
  if (session.dryRun) return undefined;
  await stopLeftover(record);
  if (record.prodTag !== null) await resumeSwitch(project);
  const todo = remedy(step);
  try {
    if (todo === 'start') await startRestored(await loadProject(project.root), record);
    if (todo !== 'undo') {
      await journal.record('finish', record);
      await finishSwap(restoring);
      await journal.close();
      log.done('the restore is finished');
      return 'finished';
    }
  } catch (error) {
    if (!(error instanceof TaskError) || todo === 'finish') throw error;
    log.warn(`the restored data does not serve: ${error.message}`);
  }
  await uninterrupted(() => undo(restoring, step === 'unpack' ? 'unpack' : 'swap'));
  log.done('the restore is undone; everything is as it was before it');
  return 'undone';
}

// What a restore will do, worked out and checked before anybody is asked: the archive is read through once, the
// place is looked at, and the release that can read its data format is found.

export interface RestorePlan {
  archive: ArchivePlace;
  summary: Summary;
  record: RestoreRecord;
  /** What is in the data directory now. */
  present: { exists: boolean; files: number; bytes: number };
  /** Has looked at all of this, and carries it out. */
  session: RestoreSession;
  /** Directory to restore to, when it is not the data directory. */
  to: string | undefined;
}

/** Looks at the place, and reads the archive through. @throws TaskError naming all of its damage */
async function preview(
  project: Project,
  image: BackupImage,
  archive: ArchivePlace,
  { parent, name, program }: RestoreSession,
) {
  const call = {
    image: image.program,
    command: 'preview',
    options: { path: `/archive/${archive.name}`, parent: PLACE, name },
    mounts: { '/archive': `${archive.directory}:ro`, [PLACE]: parent },
    asRoot: true,
    within: program,
  };
  const { problems, manifest, present, free } = await askProgram(project, call, Preview);
  if (manifest && problems.length === 0) return { summary: manifest, present, free };
  const lines = problems.map((problem) => `  - ${problem}`);
  throw new TaskError([`Cannot restore ${archive.name}; nothing was changed:`, ...lines].join('\n'), {
    code: 'bad-archive',
    hint: 'choose another one: npm run backup -- list',
  });
}

/** Containers of this project that run, by environment; any other that uses the data stops the restore. */
async function runningOn(project: Project): Promise<Running[]> {
  const users = await containerIds({ volume: [dataDirectory(project)] });
  const ours = await projectContainers(project);
  const isOurs = (id: string) => ours.some((one) => one.id === id);
  const isActive = ({ state }: Container) => ['running', 'restarting', 'paused'].includes(state);
  const foreign = (await inspectContainers(users.filter((id) => !isOurs(id)))).filter(isActive);
  if (foreign.length > 0) {
    throw new TaskError(`Other containers use the data: ${foreign.map(({ name }) => name).join(', ')}`, {
      code: 'data-in-use',
      hint: `stop them first: docker stop ${foreign.map(({ name }) => name).join(' ')}`,
    });
  }
  return ours.filter(isActive).flatMap(({ id, service }) => {
    const environment = environmentOfService(project, service);
    return environment ? [{ environment, id }] : [];
  });
}

/** Checks everything and works out what a restore would do; changes nothing. @throws TaskError */
export async function planRestore(
  project: Project,
  image: BackupImage,
  archive: ArchivePlace,
  to: string | undefined,
  session: RestoreSession,
): Promise<RestorePlan> {
  const { id, container, parent, name } = session;
  const { present, free, summary } = await preview(project, image, archive, session);
  if (to !== undefined && present.entries > 0)
    throw usageError(`${to} exists and is not empty`, { code: 'target-exists', hint: 'choose another --to' });
  if (free < summary.bytes) {
    const text = `${megabytes(free)} are free in ${parent}, ${megabytes(summary.bytes)} are needed`;
    throw new TaskError(`Not enough room to unpack: ${text}`, { code: 'no-space' });
  }
  const running = to === undefined ? await runningOn(project) : [];
  const record = {
    image: image.program,
    archive: archive.name,
    container,
    parent,
    current: name,
    staging: `.${name}.restoring-${id}`,
    previous: `.${name}.before-${id}`,
    hadCurrent: present.exists,
    running,
    prodTag: await releaseFor(project, running, summary),
    keepAs: null,
  };
  return { archive, summary, record, present, session, to };
}

/** What a person is asked about. */
export function describeRestore(project: Project, plan: RestorePlan): string {
  const { archive, summary, record, present, to } = plan;
  const stops = record.running.map(({ environment }) => environment);
  const replaced = present.exists && present.files > 0;
  return [
    `Restore ${archive.name}`,
    `  from    ${summary.at}, version ${summary.origin.version}, data format ${summary.dataFormat ?? 'unknown'}`,
    `  holds   ${summary.files} files, ${megabytes(summary.bytes)}`,
    `  to      ${to ?? dataDirectory(project)}`,
    ...(replaced
      ? [`  replaces ${present.files} files, ${megabytes(present.bytes)}, of which a backup is made first`]
      : []),
    ...(stops.length > 0
      ? [`  stops   ${stops.join(' and ')}, and starts ${stops.length > 1 ? 'them' : 'it'} again`]
      : []),
    ...(record.prodTag ? [`  prod    will run ${record.prodTag}, which reads this data format`] : []),
  ].join('\n');
}

// The steps of a restore and their undoing: unpack beside, stop, swap, start and prove, or everything back.

/** A restore as its steps see it; one that is resumed has no session, and each act a container of its own. */
interface Restoring {
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
  await runProgram(restoring.project, placeCall(restoring, command, { ...options }), Nothing);
}

/** Unpacks and verifies beside the data directory, while everything still runs. */
async function unpackBeside(restoring: Restoring, archive: ArchivePlace) {
  const options = { archive: `/archive/${archive.name}`, parent: PLACE, name: restoring.record.staging };
  const call = placeCall(restoring, 'unpack', options);
  const mounts = { ...call.mounts, '/archive': `${archive.directory}:ro` };
  await runProgram(restoring.project, { ...call, mounts }, Unpacked);
}

async function swapIn(restoring: Restoring): Promise<void> {
  await inPlace(restoring, 'swap-in');
}

async function swapBack(restoring: Restoring): Promise<void> {
  await inPlace(restoring, 'swap-back', { hadCurrent: restoring.record.hadCurrent });
}

async function finishSwap(restoring: Restoring): Promise<void> {
  await inPlace(restoring, 'finish-swap', { keepAs: restoring.record.keepAs });
}

/** Stops containers as their compose file says, and nothing that did not run. */
async function stopRunning(running: readonly Running[]): Promise<void> {
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
  await (await composeSwitch(project, active, prodTag)).run();
}

/** Starts and proves what ran before the restore. @throws TaskError */
async function startRestored(project: Project, { running, prodTag }: RestoreRecord): Promise<void> {
  if (prodTag === null) await startSame(project, running);
  else await startOther(project, running, prodTag);
}

/** Everything as it was before the restore, and what ran runs. @throws TaskError saying what a person can do */
async function putBack(restoring: Restoring): Promise<void> {
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

// What a restore in place has done so far, written down before each step, so that the next run of any backup
// command can finish it or put everything back.

/** Where the container sees the directory that holds the data directory. */
const PLACE = '/place';
const RESTORE_JOURNAL = 'backup-restore';

interface Running {
  environment: EnvironmentName;
  /** Container id. */
  id: string;
}

interface RestoreRecord {
  /** Image that has the backup program. */
  image: string;
  archive: string;
  /** Name of the container that carries it out; records from before there was one have none. */
  container?: string;
  /** Directory on the engine's machine that holds all three of the names. */
  parent: string;
  current: string;
  staging: string;
  previous: string;
  /** Was there a directory before? */
  hadCurrent: boolean;
  /** What ran, and runs again afterwards. */
  running: Running[];
  /** The release that prod has to run on the restored data; null: what it ran before. */
  prodTag: string | null;
  /** The previous directory stays under this name, because no backup holds what is in it; null: it goes. */
  keepAs: string | null;
}

export const STEPS = ['unpack', 'stop', 'backup', 'swap', 'start', 'finish'] as const;
type RestoreStep = (typeof STEPS)[number];

/** What to do about a restore that died in or after `step`: before the start there is nothing to lose. Pure. */
export function remedy(step: string): 'undo' | 'start' | 'finish' {
  if (step === 'start') return 'start';
  return step === 'finish' ? 'finish' : 'undo';
}

// Which release can read the data that an archive brings back: a newer one reads older formats, an older one
// refuses newer ones.

/** The number of the data format that an image reads; undefined where it does not say. */
async function formatOf(project: Project, imageId: string): Promise<number | undefined> {
  const label = project.data.format_label;
  const value = label ? (await inspectImage(imageId))?.labels[label] : undefined;
  return value === undefined ? undefined : Number(value);
}

/**
 * The release that prod has to run on this data: null where the present one can read it. A newer program reads
 * older formats, never the other way round. @throws TaskError where none of those that ran could start
 */
async function releaseFor(project: Project, running: readonly Running[], summary: Summary) {
  const { dataFormat, origin } = summary;
  if (dataFormat === null) return null;
  const problems: TaskError[] = [];
  let prodTag: string | null = null;
  for (const [index, container] of (await inspectContainers(running.map(({ id }) => id))).entries()) {
    const format = await formatOf(project, container.imageId);
    if (format === undefined || format >= dataFormat) continue;
    const { environment } = running[index]!;
    const what = `${environment} runs ${container.image}, which reads data format ${format}; the archive has ${dataFormat}`;
    if (environment === 'prod') {
      prodTag = origin.version;
      await verifyReleasedImage(project, origin.version).catch((error: TaskError) => problems.push(error));
    } else {
      const hint = `build a newer one (npm run build-push), or stop it first: ${stopCommand(project, 'dev')}`;
      problems.push(new TaskError(what, { code: 'data-format', hint }));
    }
  }
  if (problems.length > 0) throw combinedError('Cannot restore; nothing was changed:', problems);
  return prodTag;
}

// The one container that carries a restore out, from the look at the archive to the end. It is found again by its
// name: a restore that is killed leaves it at work for a moment.

interface RestoreSession {
  program: ProgramSession;
  /** Part of every name that this restore gives. */
  id: string;
  /** Name of the container. */
  container: string;
  /** Directory on the engine's machine, and the name in it to which is restored. */
  parent: string;
  name: string;
}

/** Where the restore goes. @throws TaskError (exit 2) */
function placeFor(project: Project, to: string | undefined): { parent: string; name: string } {
  if (to === undefined) return dataPlace(project);
  const path = resolve(to);
  if (path === dataDirectory(project))
    throw usageError('--to names the data directory itself', { hint: 'leave --to out to restore in place' });
  return { parent: dirname(path), name: basename(path) };
}

/** Runs `work` with the container of a restore of `archive`, as the user named it. */
export function withRestoreSession<T>(
  project: Project,
  image: BackupImage,
  { archive, to }: { archive: string; to: string | undefined },
  work: (session: RestoreSession) => Promise<T>,
): Promise<T> {
  const { parent, name } = placeFor(project, to);
  const id = randomBytes(4).toString('hex');
  const container = `${project.project.name}-restore-${id}`;
  const mounts = {
    ...(isPath(archive) ? {} : { [BACKUPS]: `${backupDirectory(project)}:ro` }),
    '/archive': `${archiveDirectory(project, archive)}:ro`,
    [PLACE]: parent,
  };
  return withSession(project, { image: image.program, name: container, mounts, asRoot: true }, (program) =>
    work({ program, id, container, parent, name }),
  );
}

/** Whatever a killed restore's container is still doing, it stops: any of it may be half-done. */
async function stopLeftover({ container }: RestoreRecord): Promise<void> {
  if (container !== undefined) await probe(docker('rm', '--force', container));
}

// What every backup command does first: what a killed one left frozen is thawed, what it left half-restored is
// finished or undone.

/** Call it holding the lock. */
export async function recoverBackups(project: Project): Promise<'finished' | 'undone' | undefined> {
  await thawLeftovers(project);
  return resumeRestore(project);
}
