// A backup from beginning to end: hooks, archive and proof, rehearsal, retention, off-site. Only what is proven
// counts, and only then may anything older go.

import { randomBytes } from 'node:crypto';
import { probe, run } from '../command.ts';
import { tryCandidate } from '../docker/candidate.ts';
import { docker } from '../docker/engine.ts';
import { inspectContainers, projectContainers } from '../docker/objects.ts';
import { withEngineRetries } from '../docker/registry.ts';
import { TaskError } from '../errors.ts';
import { type Phases, timed } from '../history.ts';
import { log } from '../log.ts';
import { openJournal, readJournal } from '../old-journal.ts';
import { dataDirectory, type Project } from '../project.ts';
import { uninterrupted } from '../session.ts';
import { listArchives, placesOf, removeArchives } from './archives.ts';
import { ping, runAfterHooks, runBeforeHooks, sendOffsite, verifyOffsite } from './notify.ts';
import {
  BACKUPS,
  type BackupImage,
  backupDirectory,
  backupImage,
  backupOrigin,
  CreatedArchive,
  DATA,
  Nothing,
  type ProgramCall,
  type ProgramSession,
  runProgram,
  Unpacked,
  withSession,
} from './program.ts';
import { isEmptyPolicy, planRetention } from './retention.ts';

/** Under --dry-run. */
const UNNAMED = '<archive>';

interface BackupOptions {
  /** Freeze the containers while files that are no databases are copied. */
  pause: boolean;
  rehearse: boolean;
}

export interface BackupResult {
  /** Undefined under --dry-run. */
  created: CreatedArchive | undefined;
  removed: string[];
}

/** What the container of a backup sees. */
function sharedBy(project: Project, image: BackupImage) {
  const mounts = { ...placesOf(project).mounts, [DATA]: dataDirectory(project) };
  return { image: image.program, mounts, makesBackups: true };
}

/** Makes and proves one archive; nothing else. @throws TaskError */
export async function createArchive(
  project: Project,
  image: BackupImage,
  options: { pause: boolean },
  within?: ProgramSession,
): Promise<CreatedArchive | undefined> {
  const { options: places } = placesOf(project);
  const { lock_timeout, max_block } = project.backup;
  const request = {
    ...places,
    data: DATA,
    origin: await backupOrigin(project, image),
    pause: options.pause,
    prove: true,
    lockTimeoutMs: lock_timeout * 1000,
    maxBlockMs: max_block * 1000,
  };
  const call = {
    ...sharedBy(project, image),
    command: 'create',
    options: request,
    within,
  };
  const answer = (freezer: Freezer) => async (question: 'pause' | 'thaw') => {
    if (question === 'thaw') await freezer.thaw();
    else await freezer.freeze();
    return question === 'thaw' ? 'thawed' : 'paused';
  };
  return withFreezer(project, (freezer) =>
    runProgram(project, { ...call, answer: answer(freezer) }, CreatedArchive),
  );
}

/** Removes what no rule keeps. */
async function applyRetention(
  project: Project,
  image: BackupImage,
  created: CreatedArchive,
  within: ProgramSession,
): Promise<string[]> {
  if (isEmptyPolicy(project.backup.keep)) return [];
  const archives = created.archives ?? (await listArchives(project, image, within)).archives;
  const going = planRetention(archives, project.backup.keep).filter(({ keep }) => !keep);
  if (going.length === 0) return [];
  return removeArchives(project, image, going.map(({ archive }) => archive).sort(), within);
}

async function steps(project: Project, options: BackupOptions, phases: Phases) {
  const image = await backupImage(project);
  await verifyOffsite(project);
  await runBeforeHooks(project);
  const result = await withSession(project, sharedBy(project, image), async (within) => {
    const make = () => createArchive(project, image, options, within);
    const created = await timed(phases, 'archive and proof', make);
    const archive = created?.archive ?? UNNAMED;
    if (options.rehearse) await timed(phases, 'rehearsal', () => rehearse(project, image, archive));
    if (!created) return { created, removed: [] };
    const clean = () => applyRetention(project, image, created, within);
    return { created, removed: await timed(phases, 'retention', clean) };
  });
  const archive = result.created?.archive ?? UNNAMED;
  if (project.backup.offsite) await timed(phases, 'off-site', () => sendOffsite(project, archive));
  return result;
}

/** The whole backup; hooks and the dead-man's switch hear of it, good or bad. @throws TaskError */
export async function performBackup(
  project: Project,
  options: BackupOptions,
  phases: Phases,
): Promise<BackupResult> {
  let result: BackupResult | undefined;
  try {
    result = await steps(project, options, phases);
    return result;
  } finally {
    const name = result?.created?.archive;
    const ok = result !== undefined;
    await runAfterHooks(project, { ok, archive: name ? `${backupDirectory(project)}/${name}` : '' });
    await ping(project, ok);
  }
}

// Freezing the containers while files are copied (--pause), so that the files belong to the same moment as the
// databases. Written down before the first one is frozen: whatever kills this task, the next one thaws them.

const JOURNAL = 'backup-pause';

interface Frozen {
  containers: string[];
}

async function pausedOf(ids: readonly string[]): Promise<string[]> {
  const containers = await inspectContainers(ids);
  return containers.filter(({ state }) => state === 'paused').map(({ id }) => id);
}

async function unpause(ids: readonly string[]): Promise<void> {
  const paused = await pausedOf(ids);
  if (paused.length === 0) return;
  const answer = await probe(docker('unpause', ...paused));
  const left = await pausedOf(paused);
  if (left.length === 0) return;
  throw new TaskError(`Cannot thaw ${left.join(' ')}: ${answer.stderr.trim()}`, {
    code: 'not-thawed',
    hint: `docker unpause ${left.join(' ')}`,
  });
}

/** The kernel's older freezer gives up on a container that starts a process, a health check, at just that moment. */
function pauseAll(ids: readonly string[]): Promise<void> {
  return withEngineRetries(/unable to freeze/, async () => {
    const paused = await pausedOf(ids);
    const left = ids.filter((id) => !paused.includes(id));
    if (left.length > 0) await run(docker('pause', ...left));
  });
}

/** Thaws what a killed task left frozen. */
export async function thawLeftovers(project: Project): Promise<void> {
  const journal = await readJournal<Frozen>(project.root, JOURNAL);
  if (!journal) return;
  log.warn(`a backup died while the containers were frozen (${journal.at}); thawing them`);
  await unpause(journal.data.containers);
  await openJournal<Frozen>(project.root, JOURNAL).close();
}

interface Freezer {
  freeze: () => Promise<void>;
  thaw: () => Promise<void>;
}

/** Runs `work` with a freezer; what it froze is thawed however `work` ends. */
async function withFreezer<T>(project: Project, work: (freezer: Freezer) => Promise<T>): Promise<T> {
  const journal = openJournal<Frozen>(project.root, JOURNAL);
  let frozen: string[] = [];
  const thaw = async () => {
    if (frozen.length === 0) return;
    await uninterrupted(async () => {
      await unpause(frozen);
      frozen = [];
      await journal.close();
    });
  };
  const freeze = async () => {
    if (frozen.length > 0) return;
    const running = (await projectContainers(project))
      .filter(({ state }) => state === 'running')
      .map(({ id }) => id);
    if (running.length === 0) return;
    await journal.record('freeze', { containers: running });
    frozen = running;
    await pauseAll(running);
    await journal.record('frozen', { containers: running });
  };
  try {
    return await work({ freeze, thaw });
  } finally {
    await thaw();
  }
}

// The last proof: the released image is started on what an archive brings back, alone and without a network,
// and asked how it is. What it writes is thrown away.

/** Starts the released image on the directory `data` of the engine's machine. @throws TaskError */
async function startOn(project: Project, image: string, data: string): Promise<void> {
  try {
    await tryCandidate(project, { image, expected: {}, data });
  } catch (error) {
    if (!(error instanceof TaskError) || error.code === 'interrupted') throw error;
    throw new TaskError(`The rehearsal failed: ${error.message}`, {
      code: 'rehearsal-failed',
      hint: 'the archive is kept, but the service would not start from it',
    });
  }
}

/** What the program's commands here have in common. */
type Shared = Omit<ProgramCall, 'command' | 'options'>;

/** What it brings back is gone afterwards. */
async function tryOut(project: Project, image: BackupImage, archive: string, shared: Shared): Promise<void> {
  const id = randomBytes(4).toString('hex');
  const scratch = `.${project.project.name}-scratch-rehearsal-${id}`;
  const place = { parent: BACKUPS, name: scratch, project: project.project.name };
  log.step(`rehearsing: starting ${image.appReference} on what ${archive} brings back`);
  try {
    const unpack = { ...shared, command: 'unpack', options: { archive: `${BACKUPS}/${archive}`, ...place } };
    await runProgram(project, unpack, Unpacked);
    await startOn(project, image.appReference, `${backupDirectory(project)}/${scratch}`);
  } finally {
    await uninterrupted(() =>
      runProgram(project, { ...shared, command: 'discard', options: place }, Nothing),
    );
  }
}

async function recordRehearsal(project: Project, archive: string, shared: Shared): Promise<void> {
  const options = { ...placesOf(project).options, archive, at: new Date().toISOString() };
  await runProgram(project, { ...shared, command: 'rehearsed', options }, Nothing);
}

/** Restores an archive aside, starts the released image on it, and records that it answered. @throws TaskError */
async function rehearse(project: Project, image: BackupImage, archive: string): Promise<void> {
  const mounts = { [BACKUPS]: backupDirectory(project) };
  const shared = { image: image.program, mounts, asRoot: true };
  await withSession(project, shared, async (within) => {
    await tryOut(project, image, archive, { ...shared, within });
    await recordRehearsal(project, archive, { image: image.program, mounts, within });
  });
}
