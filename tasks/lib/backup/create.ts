// A backup from beginning to end: hooks, archive and proof, rehearsal, retention, off-site copy, ping. Only what is verified
// counts, and only then may anything older go.
import { randomBytes } from 'node:crypto';
import { join, resolve } from 'node:path';
import { type Command, probe, run } from '../command.ts';
import { tryCandidate } from '../docker/candidate.ts';
import { inspectImage } from '../docker/objects.ts';
import { errorSummary, lastLines, TaskError, usageError } from '../errors.ts';
import { type Phases, timed } from '../history.ts';
import { request } from '../http.ts';
import { log, registerSecret } from '../log.ts';
import { imageReference, type Project, variable } from '../project.ts';
import { newestRelease } from '../release/record.ts';
import { session, uninterrupted } from '../session.ts';
import { isEmptyPolicy, onBackups, planRetention, removeArchives } from './archives.ts';
import {
  BACKUPS,
  backupDirectory,
  backupPlaces,
  existingPlaces,
  mountsOf,
  PLACES,
  type Places,
} from './places.ts';
import type { Commands } from './program/main.ts';
import { runProgram } from './program.ts';

/** Under --dry-run. */
const UNNAMED = '<archive>';

/** What the program says of an archive that it has just made and verified. */
export type CreatedArchive = Awaited<ReturnType<Commands['create']>>;

export interface BackupResult {
  /** Undefined under --dry-run. */
  created: CreatedArchive | undefined;
  removed: string[];
}

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

/** @throws TaskError where there is none */
async function placesToBackUp(project: Project): Promise<Places> {
  const places = await existingPlaces(await backupPlaces(project));
  if (Object.keys(places).length > 0) return places;
  throw new TaskError('No files to back up: the volumes of prod do not exist yet', { code: 'no-data' });
}

/** Makes and verifies one archive; nothing else. @throws TaskError */
export async function createArchive(project: Project): Promise<CreatedArchive | undefined> {
  const { mounts, options } = onBackups(project);
  const { lock_timeout, max_block, exclude } = project.backup;
  const places = await placesToBackUp(project);
  return runProgram(project, {
    command: 'create',
    options: {
      ...{ ...options, source: PLACES, places: Object.keys(places), exclude },
      ...{ origin: await backupOrigin(project) },
      ...{ lockTimeoutMs: lock_timeout * 1000, maxBlockMs: max_block * 1000 },
    },
    mounts: { ...mounts, ...mountsOf(places) },
    creates: [BACKUPS],
  });
}

/** The whole of it in a sentence. */
async function describeBackup(project: Project, rehearses: boolean): Promise<string> {
  const { keep, offsite } = project.backup;
  const sources = Object.values(await placesToBackUp(project)).sort();
  const parts = [
    `Back up ${sources.join(' and ')} to ${backupDirectory(project)}`,
    'verify the archive',
    rehearses && `start ${(await releaseOfData(project)).reference} on it`,
    !isEmptyPolicy(keep) && 'remove archives that no rule keeps',
    offsite && `send it to ${offsite.repository}`,
  ];
  return parts.filter(Boolean).join(', ');
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
  log.plan(await describeBackup(project, rehearses));
  for (const [program = '', ...argv] of project.backup.hooks.before)
    await run([program, ...argv], { cwd: project.root });
  const created = await timed(phases, 'archive and verify', () => createArchive(project));
  const archive = created?.archive ?? UNNAMED;
  if (rehearses) await timed(phases, 'rehearsal', () => rehearse(project, archive));
  const removed = created ? await timed(phases, 'retention', () => applyRetention(project, created)) : [];
  if (project.backup.offsite) await timed(phases, 'off-site', () => sendOffsite(project, archive));
  return { created, removed };
}

/** The whole backup; hooks and the monitoring URL hear of it, good or bad. @throws TaskError */
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
    await runAfterHooks(project, { BACKUP_OUTCOME: outcome, BACKUP_ARCHIVE: archive });
    await ping(project, outcome === 'done');
  }
}

/** Every one runs, whatever the others do; none changes the outcome. */
async function runAfterHooks(project: Project, env: Record<string, string>): Promise<void> {
  for (const [program = '', ...argv] of project.backup.hooks.after) {
    await run([program, ...argv], { cwd: project.root, env }).catch((error: unknown) =>
      log.warn(`hook failed: ${errorSummary(error)}`),
    );
  }
}

const PING_TIMEOUT_MS = 10_000;
const PING_ATTEMPTS = 3;

/** Tells a monitoring URL, which notices when it is not told. */
async function ping(project: Project, ok: boolean): Promise<void> {
  const { success, failure } = project.backup.ping;
  const good = variable(project, 'BACKUP_PING_URL') ?? success;
  const url = ok ? good : (failure ?? (good && `${good.replace(/\/$/, '')}/fail`));
  if (!url) return;
  // Whoever knows the address can silence the alarm.
  registerSecret(url);
  if (log.withhold(`ask: ${url}`)) return;
  let reason = '';
  for (let attempt = 1; attempt <= PING_ATTEMPTS; attempt += 1) {
    const { status, error } = await request({ url }, { timeoutMs: PING_TIMEOUT_MS });
    if (status >= 200 && status < 400) return;
    reason = error ? errorSummary(error) : `it answered ${status}`;
  }
  log.warn(`could not ping the monitoring URL: ${reason}`);
}

/**
 * Rehearsal: unpacks an archive aside, starts the released image alone on it, which must become healthy, and records that it
 * did. What it writes is discarded. @throws TaskError
 */
async function rehearse(project: Project, archive: string): Promise<void> {
  const name = `.${project.project.name}-scratch-rehearsal-${randomBytes(4).toString('hex')}`;
  const { reference: image } = await releaseOfData(project);
  const { mounts, options } = onBackups(project);
  const end = (more: object) =>
    runProgram(project, { command: 'end-rehearsal', options: { ...options, name, ...more }, mounts });
  log.step(`rehearsal: start ${image} on the data of ${archive}`);
  try {
    const unpack = { archive: `${BACKUPS}/${archive}`, places: ['data'], parent: BACKUPS, name };
    await runProgram(project, { command: 'unpack-to', options: unpack, mounts });
    await tryCandidate(project, { image, expected: {}, data: `${backupDirectory(project)}/${name}` });
  } catch (error) {
    await uninterrupted(() => end({}));
    if (!(error instanceof TaskError) || error.code === 'interrupted') throw error;
    const message = `The rehearsal failed: ${error.message}`;
    const hint = 'the archive is kept; see why with: docker logs';
    throw new TaskError(message, { code: 'rehearsal-failed', hint });
  }
  await end({ started: archive });
}

// A second place for verified archives, by restic: it encrypts, checks itself, and has a retention of its own.

type Offsite = NonNullable<Project['backup']['offsite']>;

const restic = (...argv: string[]): Command => ['restic', ...argv];

/** Retention in the repository: restic's own, per project, whatever the archives are called. */
export function forgetCommand(project: string, keep: Offsite['keep']): Command {
  const rules = Object.entries(keep).filter(([, count]) => count > 0);
  const flags = rules.map(([rule, count]) => `--keep-${rule}=${count}`);
  return restic('forget', '--prune', '--quiet', `--tag=${project}`, '--group-by=tags', ...flags);
}

/** @throws TaskError where the archives cannot be sent from here, before a backup is made */
async function verifyOffsite(project: Project): Promise<void> {
  if (!project.backup.offsite) return;
  if (session.context)
    throw usageError('[backup.offsite] cannot be used with --context: the archives are on another machine', {
      hint: 'run the backup there, by a schedule of its own',
    });
  if ((await probe(restic('version'))).ok) return;
  throw new TaskError('restic is not installed, but [backup.offsite] needs it', {
    code: 'restic-missing',
    hint: 'apt-get install restic, or see https://restic.net; or remove [backup.offsite]',
  });
}

async function ensureRepository(env: Record<string, string | undefined>): Promise<void> {
  const answer = await probe(restic('cat', 'config'), { env });
  if (answer.ok) return;
  if (!/unable to open config file|Is there a repository|does not exist/i.test(answer.stderr)) {
    throw new TaskError(`Cannot open the off-site repository: ${lastLines(answer.stderr, 1)}`, {
      code: 'offsite',
      hint: 'see repository, password_file and environment in [backup.offsite]',
    });
  }
  log.step('creating the off-site repository');
  await run(restic('init', '--quiet'), { env });
}

/** Sends a verified archive and its record, forgets old ones, and checks the repository. @throws CommandError */
async function sendOffsite(project: Project, archive: string): Promise<void> {
  const { repository, password_file, environment, keep, check } = project.backup.offsite!;
  const named = environment.map((name) => [name, project.dotenv[name] ?? process.env[name]] as const);
  for (const [, value] of named) registerSecret(value);
  // By the environment: a process list shows arguments.
  const env = {
    ...Object.fromEntries(named),
    ...{ RESTIC_REPOSITORY: repository, RESTIC_PASSWORD_FILE: resolve(project.root, password_file) },
  };
  const { name } = project.project;
  log.step(`sending ${archive} off-site`);
  await ensureRepository(env);
  const path = join(backupDirectory(project), archive);
  await run(restic('backup', '--quiet', `--tag=${name}`, path, `${path}.json`), { env });
  await run(forgetCommand(name, keep), { env });
  const part = check === 'metadata' ? [] : [`--read-data-subset=${check}`];
  if (check !== 'none') await run(restic('check', '--quiet', ...part), { env });
  log.done('sent off-site');
}
