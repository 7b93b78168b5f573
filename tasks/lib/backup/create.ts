// A backup from beginning to end: hooks, archive and proof, rehearsal, retention, off-site. Only what is proven counts, and
// only then may anything older go.

import { randomBytes } from 'node:crypto';
import { tryCandidate } from '../docker/candidate.ts';
import { TaskError } from '../errors.ts';
import { type Phases, timed } from '../history.ts';
import { log } from '../log.ts';
import { dataDirectory, type Project } from '../project.ts';
import { uninterrupted } from '../session.ts';
import { isEmptyPolicy, onBackups, planRetention, removeArchives } from './archives.ts';
import { ping, runAfterHooks, runBeforeHooks, sendOffsite, verifyOffsite } from './notify.ts';
import {
  Anything,
  BACKUPS,
  backupDirectory,
  backupOrigin,
  CreatedArchive,
  releaseOfData,
  runProgram,
} from './program.ts';

/** Under --dry-run. */
const UNNAMED = '<archive>';
/** Where the program finds the places. */
export const PLACES = '/places';

export interface BackupResult {
  /** Undefined under --dry-run. */
  created: CreatedArchive | undefined;
  removed: string[];
}

/** What is backed up: name in the archive → directory, or name of a volume, on the engine's machine. */
export function backupPlaces(project: Project): Record<string, string> {
  return { data: dataDirectory(project) };
}

/** Makes and proves one archive; nothing else. @throws TaskError */
export async function createArchive(project: Project): Promise<CreatedArchive | undefined> {
  const { mounts, options } = onBackups(project);
  const { lock_timeout, max_block, exclude } = project.backup;
  const places = Object.entries(backupPlaces(project));
  const request = {
    ...options,
    source: PLACES,
    places: places.map(([name]) => name),
    origin: await backupOrigin(project),
    exclude,
    prove: true,
    lockTimeoutMs: lock_timeout * 1000,
    maxBlockMs: max_block * 1000,
  };
  const sources = places.map(([name, source]) => [`${PLACES}/${name}`, source]);
  const call = {
    command: 'create',
    options: request,
    mounts: { ...mounts, ...Object.fromEntries(sources) },
    creates: [BACKUPS],
  };
  return runProgram(project, call, CreatedArchive);
}

/** Removes what no rule keeps. */
async function applyRetention(project: Project, { archives }: CreatedArchive): Promise<string[]> {
  if (isEmptyPolicy(project.backup.keep)) return [];
  const going = planRetention(archives, project.backup.keep).filter(({ keep }) => !keep);
  return going.length === 0 ? [] : removeArchives(project, going.map(({ archive }) => archive).sort());
}

async function makeBackup(project: Project, rehearses: boolean, phases: Phases): Promise<BackupResult> {
  await verifyOffsite(project);
  await runBeforeHooks(project);
  const created = await timed(phases, 'archive and proof', () => createArchive(project));
  const archive = created?.archive ?? UNNAMED;
  if (rehearses) await timed(phases, 'rehearsal', () => rehearse(project, archive));
  const removed = created ? await timed(phases, 'retention', () => applyRetention(project, created)) : [];
  if (project.backup.offsite) await timed(phases, 'off-site', () => sendOffsite(project, archive));
  return { created, removed };
}

/** Incomplete counts as a failure for those who listen. */
const isGood = (result: BackupResult | undefined) => result !== undefined && !result.created?.missing.length;

/** The whole backup; hooks and the dead-man's switch hear of it, good or bad. @throws TaskError */
export async function performBackup(
  project: Project,
  options: { rehearse: boolean },
  phases: Phases,
): Promise<BackupResult> {
  let result: BackupResult | undefined;
  try {
    result = await makeBackup(project, options.rehearse, phases);
    return result;
  } finally {
    const name = result?.created?.archive;
    const archive = name ? `${backupDirectory(project)}/${name}` : '';
    await runAfterHooks(project, { ok: isGood(result), archive });
    await ping(project, isGood(result));
  }
}

// The last proof: the released image is started on what an archive brings back, alone, and asked how it is. What it writes
// is thrown away.

/** Starts the released image on the directory `data` of the engine's machine. @throws TaskError */
async function startOn(project: Project, image: string, data: string): Promise<void> {
  try {
    await tryCandidate(project, { image, expected: {}, data });
  } catch (error) {
    if (!(error instanceof TaskError) || error.code === 'interrupted') throw error;
    const message = `The rehearsal failed, on what the archive brings back: ${error.message}`;
    const hint = 'the archive is kept, but the service would not start from it';
    throw new TaskError(message, { code: 'rehearsal-failed', hint });
  }
}

/** Restores an archive aside, starts the released image on it, and records that it answered. @throws TaskError */
async function rehearse(project: Project, archive: string): Promise<void> {
  const id = randomBytes(4).toString('hex');
  const scratch = `.${project.project.name}-scratch-rehearsal-${id}`;
  const { reference } = await releaseOfData(project);
  const { mounts, options } = onBackups(project);
  const shared = { mounts, asRoot: true };
  log.step(`rehearsing: starting ${reference} on what ${archive} brings back`);
  try {
    const targets = { data: `${BACKUPS}/${scratch}` };
    const unpack = { ...shared, command: 'unpack', options: { archive: `${BACKUPS}/${archive}`, targets } };
    await runProgram(project, unpack, Anything);
    await startOn(project, reference, `${backupDirectory(project)}/${scratch}`);
  } finally {
    const discard = { ...shared, command: 'discard-scratch', options: { ...options, name: scratch } };
    await uninterrupted(() => runProgram(project, discard, Anything));
  }
  const at = new Date().toISOString();
  await runProgram(project, { command: 'rehearsed', options: { ...options, archive, at }, mounts }, Anything);
}
