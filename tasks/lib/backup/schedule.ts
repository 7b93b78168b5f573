// The schedule of backups: one line of the user's crontab among those of others, which finds its Node and makes its folder by
// itself. It says since when it is there, so that `status` misses a backup that never came. What it starts waits its turn.
import { readdir, readFile } from 'node:fs/promises';
import { delimiter, dirname, join } from 'node:path';
import { probe, run } from '../command.ts';
import { TaskError, usageError } from '../errors.ts';
import { statePath } from '../files.ts';
import { withLock } from '../lock.ts';
import { log } from '../log.ts';
import { type Project, TASKS_FOLDER } from '../project.ts';
import { confirm } from '../prompt.ts';
import { pause, session } from '../session.ts';
import type { TaskResult } from '../task.ts';

/** Seconds for which a scheduled backup waits for another task to end. */
const WAIT_SECONDS = 1800;
const POLL_MS = 2000;

/** As withLock, but waits up to `seconds` for whoever holds it. @throws TaskError `locked` after that */
export async function withLockWithin<T>(root: string, task: string, seconds: number, work: () => Promise<T>) {
  const deadline = Date.now() + seconds * 1000;
  for (let told = false; ; told = true) {
    try {
      return await withLock(root, task, work);
    } catch (error) {
      const isHeld = error instanceof TaskError && error.code === 'locked';
      if (!isHeld || Date.now() >= deadline) throw error;
      if (!told) log.info(`${error.message}; waiting up to ${seconds} s`);
      await pause(POLL_MS);
    }
  }
}

/** `hourly`, `daily`, `weekly` or a time of day, as crontab(5) has it. Pure. @throws TaskError (exit 2) */
export function cronTime(every: string): string {
  const fixed = new Map([
    ['hourly', '17 * * * *'],
    ['daily', '17 3 * * *'],
    ['weekly', '17 3 * * 0'],
  ]).get(every);
  const match = /^([01]?\d|2[0-3]):([0-5]\d)$/.exec(every);
  if (fixed) return fixed;
  if (match) return `${Number(match[2])} ${Number(match[1])} * * *`;
  throw usageError(`backup: --every is "${every}", expected hourly, daily, weekly or HH:MM`);
}

export interface Job {
  /** Marks the line as ours; another checkout of the same project has another root. */
  project: string;
  root: string;
  time: string;
  /** Of this process. */
  node: string;
  /** Folders in which programs are looked for beside node's. */
  path: string;
  argv: readonly string[];
  /** ISO 8601. */
  since: string;
}

function shellWord(text: string): string {
  return /^[\w@%+=:,./-]*$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

const marker = ({ project, root }: Pick<Job, 'project' | 'root'>) => ` # ${project}-backup ${root}`;

/** Where node may be, the likeliest last: a version manager removes the folder of a version sooner or later. */
function nodeFolders(node: string): string[] {
  const folder = dirname(node).split('/').map(shellWord);
  const ofAnyVersion = folder.map((part) => (/^v?\d+\.\d+\.\d+$/.test(part) ? '*' : part));
  return [...new Set([ofAnyVersion.join('/'), folder.join('/')])];
}

/** One line. cron gives it next to no PATH, and ends a command at an unescaped `%`. Pure. */
export function crontabLine(job: Job): string {
  const { root, time, node, path, argv, since } = job;
  const find = `for d in ${nodeFolders(node).join(' ')}; do PATH=$d:$PATH; done`;
  const start = ['node', ...argv.map(shellWord)].join(' ');
  const parts = [`PATH=${shellWord(path)}`, find, 'export PATH', 'date', start];
  const line = `cd ${shellWord(root)} && mkdir -p .synapse && (${parts.join('; ')}) >> .synapse/backup.log 2>&1`;
  return `${time} ${line.replaceAll('%', '\\%')}${marker(job)}, since ${since}`;
}

const isOurs = (line: string, job: Pick<Job, 'project' | 'root'>) => line.includes(`${marker(job)}, since `);

/** `text` of a crontab with our line in it, or without; every other line stays as it is. Pure. */
export function editCrontab(
  text: string,
  job: Pick<Job, 'project' | 'root'>,
  line: string | undefined,
): string {
  const lines = text === '' ? [] : text.replace(/\n$/, '').split('\n');
  const kept = lines.filter((one) => !isOurs(one, job));
  const edited = line === undefined ? kept : [...kept, line];
  return edited.length === 0 ? '' : `${edited.join('\n')}\n`;
}

async function presentCrontab(): Promise<string> {
  const answer = await probe(['crontab', '-l']);
  if (answer.ok) return answer.stdout;
  if (/no crontab/i.test(answer.stderr)) return '';
  throw new TaskError(`Cannot read the crontab: ${answer.stderr.trim()}`, {
    code: 'no-cron',
    hint: 'apt-get install cron; or use a timer of systemd or launchd, see README',
  });
}

const jobIn = ({ project, root }: Project) => ({ project: project.name, root });

/** Since when a schedule of this checkout is installed; undefined if there is none, or no cron. */
export async function scheduledSince(project: Project): Promise<string | undefined> {
  const text = await presentCrontab().catch(() => '');
  const line = text.split('\n').find((one) => isOurs(one, jobIn(project)));
  return line?.split(', since ').at(-1);
}

/** Is there anybody who reads the crontab? macOS starts cron when it is needed. */
async function isCronRunning(): Promise<boolean> {
  const ids = (await readdir('/proc').catch(() => [])).filter((name) => /^\d+$/.test(name));
  if (ids.length === 0) return true;
  const names = await Promise.all(ids.map((id) => readFile(`/proc/${id}/comm`, 'utf8').catch(() => '')));
  return names.some((name) => /^(cron|crond|fcron|busybox-crond|systemd-cron)\n$/.test(name));
}

function jobOf(project: Project, every: string): Job {
  const context = session.context ? ['--context', session.context] : [];
  const start = join(TASKS_FOLDER, 'start.mjs');
  // Without the folders that npm puts before it for its scripts.
  const folders = (process.env.PATH ?? '').split(delimiter).filter((one) => !one.includes('node_modules'));
  return {
    ...jobIn(project),
    time: cronTime(every),
    node: process.execPath,
    path: [...new Set(folders)].join(delimiter),
    argv: [start, 'backup', 'create', '--yes', '--wait', String(WAIT_SECONDS), ...context],
    since: new Date().toISOString(),
  };
}

/** Prints the line, puts it into the crontab or takes it out. @throws TaskError, CommandError */
export async function schedule(
  project: Project,
  flags: { every: string | undefined; install: boolean; uninstall: boolean },
): Promise<TaskResult> {
  const job = jobOf(project, flags.every ?? 'daily');
  const line = crontabLine(job);
  const result = (changed: boolean, text: string) => ({ data: { text: line, changed }, text });
  if (!flags.install && !flags.uninstall) return result(false, line);
  const present = await presentCrontab();
  const edited = editCrontab(present, job, flags.install ? line : undefined);
  if (edited === present) return result(false, 'Not installed.');
  await confirm(
    flags.install ? `Add this line to the crontab?\n${line}` : 'Remove the schedule from the crontab?',
  );
  await run(['crontab', '-'], { input: edited });
  if (!flags.install) return result(true, 'Removed the schedule from the crontab.');
  if (!(await isCronRunning()))
    log.warn('no cron daemon is running, so nothing will start the backup: systemctl enable --now cron');
  return result(true, `Scheduled in the crontab; its log: ${statePath(project.root, 'backup.log')}`);
}
