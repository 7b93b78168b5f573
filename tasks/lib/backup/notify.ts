// Reporting how a backup went: the commands of [backup.hooks], and a monitoring URL that notices missing pings. Neither
// changes the outcome of a backup. Also the off-site copy.
import { join, resolve } from 'node:path';
import { type Command, probe, run } from '../command.ts';
import { errorSummary, TaskError, usageError } from '../errors.ts';
import { request } from '../http.ts';
import { log, registerSecret } from '../log.ts';
import { type Project, variable } from '../project.ts';
import { session } from '../session.ts';
import { backupDirectory } from './places.ts';

const PING_TIMEOUT_MS = 10_000;
const PING_ATTEMPTS = 3;

/** @throws CommandError of the first one that fails */
export async function runBeforeHooks(project: Project): Promise<void> {
  for (const [program = '', ...argv] of project.backup.hooks.before)
    await run([program, ...argv], { cwd: project.root });
}

export type BackupOutcome = 'done' | 'incomplete' | 'failed';

/** Every one runs, whatever the others do. `archive`: its path on the engine's machine, '' if there is none. */
export async function runAfterHooks(project: Project, outcome: BackupOutcome, archive: string) {
  const env = { BACKUP_OUTCOME: outcome, BACKUP_ARCHIVE: archive };
  for (const [program = '', ...argv] of project.backup.hooks.after) {
    await run([program, ...argv], { cwd: project.root, env }).catch((error: unknown) =>
      log.warn(`hook failed: ${errorSummary(error)}`),
    );
  }
}

/** Where to say how it went, undefined if nowhere. Pure but for .env. */
function pingUrl(project: Project, ok: boolean): string | undefined {
  const { success, failure } = project.backup.ping;
  const good = variable(project, 'BACKUP_PING_URL') ?? success;
  if (ok) return good;
  return failure ?? (good ? `${good.replace(/\/$/, '')}/fail` : undefined);
}

export async function ping(project: Project, ok: boolean): Promise<void> {
  const url = pingUrl(project, ok);
  if (!url) return;
  // Whoever knows the address can silence the alarm.
  registerSecret(url);
  if (log.withhold(`ask: ${url}`)) return;
  for (let attempt = 1; ; attempt += 1) {
    const { status, error } = await request({ url }, { timeoutMs: PING_TIMEOUT_MS });
    if (status >= 200 && status < 400) return;
    if (attempt < PING_ATTEMPTS) continue;
    return log.warn(
      `could not ping the monitoring URL: ${error ? errorSummary(error) : `it answered ${status}`}`,
    );
  }
}

// A second place for verified archives, by restic: it encrypts, checks itself, and has a retention of its own.

type Offsite = NonNullable<Project['backup']['offsite']>;

const restic = (...argv: string[]): Command => ['restic', ...argv];

/** Repository and password by the environment: a process list shows arguments. */
function environment(project: Project, offsite: Offsite): Record<string, string | undefined> {
  const named = offsite.environment.map((name) => [name, project.dotenv[name] ?? process.env[name]] as const);
  for (const [, value] of named) registerSecret(value);
  return {
    ...Object.fromEntries(named),
    RESTIC_REPOSITORY: offsite.repository,
    RESTIC_PASSWORD_FILE: resolve(project.root, offsite.password_file),
  };
}

/** Retention in the repository: restic's own, per project, whatever the archives are called. */
export function forgetCommand(project: string, keep: Offsite['keep']): Command {
  const rules = Object.entries(keep).filter(([, count]) => count > 0);
  const flags = rules.map(([rule, count]) => `--keep-${rule}=${count}`);
  return restic('forget', '--prune', '--quiet', `--tag=${project}`, '--group-by=tags', ...flags);
}

/** What `restic check` is asked to look at; undefined for nothing. */
export function checkCommand(check: string): Command | undefined {
  if (check === 'none') return undefined;
  return restic('check', '--quiet', ...(check === 'metadata' ? [] : [`--read-data-subset=${check}`]));
}

/** @throws TaskError where the archives cannot be sent from here, before a backup is made */
export async function verifyOffsite(project: Project): Promise<void> {
  if (!project.backup.offsite) return;
  if (session.context)
    throw usageError('[backup.offsite] cannot be used with --context: the archives are on another machine', {
      hint: 'run the backup there, by a schedule of its own',
    });
  const { exitCode } = await probe(restic('version'));
  if (exitCode === 0) return;
  throw new TaskError('restic is not installed, but [backup.offsite] needs it', {
    code: 'restic-missing',
    hint: 'apt-get install restic, or see https://restic.net; or remove [backup.offsite]',
  });
}

async function ensureRepository(env: Record<string, string | undefined>): Promise<void> {
  const answer = await probe(restic('cat', 'config'), { env });
  if (answer.ok) return;
  if (!/unable to open config file|Is there a repository|does not exist/i.test(answer.stderr)) {
    throw new TaskError(`Cannot open the off-site repository: ${answer.stderr.trim().split('\n').at(-1)}`, {
      code: 'offsite',
      hint: 'see repository, password_file and environment in [backup.offsite]',
    });
  }
  log.step('creating the off-site repository');
  await run(restic('init', '--quiet'), { env });
}

/** Sends a verified archive and its record, forgets old ones, and checks the repository. @throws CommandError */
export async function sendOffsite(project: Project, archive: string): Promise<void> {
  const { offsite } = project.backup;
  if (!offsite) return;
  const env = environment(project, offsite);
  const { name } = project.project;
  log.step(`sending ${archive} off-site`);
  await ensureRepository(env);
  const path = join(backupDirectory(project), archive);
  await run(restic('backup', '--quiet', `--tag=${name}`, path, `${path}.json`), { env });
  await run(forgetCommand(name, offsite.keep), { env });
  const check = checkCommand(offsite.check);
  if (check) await run(check, { env });
  log.done('sent off-site');
}
