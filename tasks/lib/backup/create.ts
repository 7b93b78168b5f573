// A backup from beginning to end: hooks, archive and proof, rehearsal, retention, off-site. Only what is verified counts, and
// only then may anything older go.

import { randomBytes } from 'node:crypto';
import { tryCandidate } from '../docker/candidate.ts';
import { inspectImage } from '../docker/objects.ts';
import { TaskError, usageError } from '../errors.ts';
import { type Phases, timed } from '../history.ts';
import { log } from '../log.ts';
import { imageReference, type Project, variable } from '../project.ts';
import { newestRelease } from '../release/record.ts';
import { uninterrupted } from '../session.ts';
import { isEmptyPolicy, onBackups, planRetention, removeArchives } from './archives.ts';
import { ping, runAfterHooks, runBeforeHooks, sendOffsite, verifyOffsite } from './notify.ts';
import { BACKUPS, backupDirectory, backupPlaces, existingPlaces, mountsOf, PLACES } from './places.ts';
import type { Commands } from './program/main.ts';
import { runProgram } from './program.ts';

/** Under --dry-run. */
const UNNAMED = '<archive>';

export interface BackupResult {
  /** Undefined under --dry-run. */
  created: CreatedArchive | undefined;
  removed: string[];
}

/** What the program says of an archive that it has just made and verified. */
export type CreatedArchive = Awaited<ReturnType<Commands['create']>>;

/** The release whose data this is: the one that prod runs, else the newest. Its name is part of an archive's. */
async function releaseOfData(project: Project) {
  const version = variable(project, 'PROD_TAG') ?? (await newestRelease(project)) ?? 'latest';
  return { version, reference: imageReference(project, version) };
}

/** What an archive says about where it comes from: release, image and commit. */
async function backupOrigin(project: Project) {
  const { version, reference } = await releaseOfData(project);
  const image = await inspectImage(reference);
  const revision = image?.labels['org.opencontainers.image.revision'] ?? '';
  return { project: project.project.name, version, image: reference, imageDigest: image?.id ?? '', revision };
}

/** Makes and verifies one archive; nothing else. @throws TaskError */
export async function createArchive(project: Project): Promise<CreatedArchive | undefined> {
  const { mounts, options } = onBackups(project);
  const { lock_timeout, max_block, exclude } = project.backup;
  const places = await existingPlaces(await backupPlaces(project));
  if (Object.keys(places).length === 0)
    throw new TaskError('No files to back up: the volumes of prod do not exist yet', { code: 'no-data' });
  return runProgram(project, {
    command: 'create',
    options: {
      ...{ ...options, source: PLACES, places: Object.keys(places), exclude, prove: true },
      ...{ origin: await backupOrigin(project) },
      ...{ lockTimeoutMs: lock_timeout * 1000, maxBlockMs: max_block * 1000 },
    },
    mounts: { ...mounts, ...mountsOf(places) },
    creates: [BACKUPS],
  });
}

/** Removes what no rule keeps. */
async function applyRetention(project: Project, { archives }: CreatedArchive): Promise<string[]> {
  if (isEmptyPolicy(project.backup.keep)) return [];
  const going = planRetention(archives, project.backup.keep).filter(({ keep }) => !keep);
  return going.length === 0 ? [] : removeArchives(project, going.map(({ archive }) => archive).sort());
}

async function makeBackup(project: Project, rehearses: boolean, phases: Phases): Promise<BackupResult> {
  await verifyOffsite(project);
  if (rehearses && !(await backupPlaces(project)).data)
    throw usageError('Cannot rehearse: prod does not mount the data directory', {
      hint: 'omit --rehearse, and rehearse in [backup] of configs/release.toml',
    });
  await runBeforeHooks(project);
  const created = await timed(phases, 'archive and verify', () => createArchive(project));
  const archive = created?.archive ?? UNNAMED;
  if (rehearses) await timed(phases, 'rehearsal', () => rehearse(project, archive));
  const removed = created ? await timed(phases, 'retention', () => applyRetention(project, created)) : [];
  if (project.backup.offsite) await timed(phases, 'off-site', () => sendOffsite(project, archive));
  return { created, removed };
}

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
    const outcome = !result ? 'failed' : result.created?.missing.length ? 'incomplete' : 'done';
    await runAfterHooks(project, outcome, archive);
    await ping(project, outcome === 'done');
  }
}

// Rehearsal: the released image is started alone on the restored data, and must become healthy. What it writes is discarded.

/** Starts the released image on the directory `data` of the engine's machine. @throws TaskError */
async function startOn(project: Project, image: string, data: string): Promise<void> {
  try {
    await tryCandidate(project, { image, expected: {}, data });
  } catch (error) {
    if (!(error instanceof TaskError) || error.code === 'interrupted') throw error;
    const message = `The rehearsal failed: the release does not start on the restored data: ${error.message}`;
    const hint = 'the archive is kept; see why with: docker logs';
    throw new TaskError(message, { code: 'rehearsal-failed', hint });
  }
}

/** Unpacks an archive aside, starts the released image on it, and records that it answered. @throws TaskError */
async function rehearse(project: Project, archive: string): Promise<void> {
  const name = `.${project.project.name}-scratch-rehearsal-${randomBytes(4).toString('hex')}`;
  const { reference } = await releaseOfData(project);
  const { mounts, options } = onBackups(project);
  log.step(`rehearsal: start ${reference} on the data of ${archive}`);
  try {
    const unpack = { archive: `${BACKUPS}/${archive}`, places: ['data'], parent: BACKUPS, name };
    await runProgram(project, { command: 'unpack-to', options: unpack, mounts });
    await startOn(project, reference, `${backupDirectory(project)}/${name}`);
  } finally {
    const discard = { command: 'discard-scratch' as const, options: { ...options, name }, mounts };
    await uninterrupted(() => runProgram(project, discard));
  }
  const at = new Date().toISOString();
  await runProgram(project, { command: 'rehearsed', options: { ...options, archive, at }, mounts });
}
