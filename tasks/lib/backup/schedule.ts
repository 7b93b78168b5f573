// Printing, installing and taking away the schedule of backups. What runs then waits for whoever holds the lock,
// and keeps its log short.
import { homedir, platform } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { searchPath } from '../child-environment.ts';
import { probe, run } from '../command.ts';
import { usageError } from '../errors.ts';
import { makeDirectory, readIfPresent, writeFileAtomic } from '../files.ts';
import type { Project } from '../project.ts';
import { confirm } from '../prompt.ts';
import { session } from '../session.ts';
import type { TaskResult } from '../task.ts';
import { isInCrontab, writeCrontab } from './crontab.ts';
import { scheduleLog } from './schedule-log.ts';
import {
  crontabLine,
  type Job,
  KINDS,
  type Kind,
  launchdFile,
  parseWhen,
  systemdUnits,
} from './schedule-plan.ts';

/** Seconds for which a scheduled backup waits for another task to end. */
const WAIT_SECONDS = 1800;

async function chooseKind(given: string | undefined): Promise<Kind> {
  const kind = KINDS.find((one) => one === given);
  if (kind) return kind;
  if (given) throw usageError(`backup: --kind is "${given}", expected ${KINDS.join(', ')}`);
  if (platform() === 'darwin') return 'launchd';
  return (await probe(['systemctl', 'is-system-running'])).stdout.match(/running|degraded|starting/)
    ? 'systemd'
    : 'crontab';
}

function jobOf(project: Project, every: string | undefined): Job {
  const start = fileURLToPath(new URL('../../start.mjs', import.meta.url));
  const context = session.context ? ['--context', session.context] : [];
  return {
    name: `${project.project.name}-backup`,
    root: project.root,
    command: [
      process.execPath,
      start,
      'backup',
      'create',
      '--yes',
      '--wait',
      String(WAIT_SECONDS),
      ...context,
    ],
    log: scheduleLog(project),
    path: lastingPath(process.env.PATH),
    when: parseWhen(every ?? 'daily'),
  };
}

/** Without the folders that npm puts before it for its scripts. */
function lastingPath(path = ''): string {
  const folders = path.split(delimiter).filter((folder) => !folder.includes('node_modules'));
  return searchPath(folders.join(delimiter));
}

const isRoot = () => process.getuid?.() === 0;

/** Root's timers are the machine's; anybody else's are their own, and run only while they are logged in. */
function systemd() {
  const system = { directory: '/etc/systemd/system', flags: [] as string[] };
  if (isRoot()) return system;
  const config = process.env.XDG_CONFIG_HOME ?? join(homedir(), '.config');
  return { directory: join(config, 'systemd/user'), flags: ['--user'] };
}

function launchd(job: Job): string {
  return isRoot()
    ? `/Library/LaunchDaemons/${job.name}.plist`
    : join(homedir(), 'Library/LaunchAgents', `${job.name}.plist`);
}

/** File → text; a crontab is no file of ours. */
function filesOf(kind: Kind, job: Job): Record<string, string> {
  if (kind === 'launchd') return { [launchd(job)]: launchdFile(job) };
  if (kind === 'crontab') return {};
  const { directory } = systemd();
  const units = Object.entries(systemdUnits(job));
  return Object.fromEntries(units.map(([name, text]) => [join(directory, name), text]));
}

async function install(kind: Kind, job: Job): Promise<void> {
  if (kind === 'crontab') {
    return writeCrontab(job, crontabLine(job));
  }
  const { directory, flags } = systemd();
  if (kind === 'systemd') await makeDirectory(directory);
  for (const [path, text] of Object.entries(filesOf(kind, job)))
    await writeFileAtomic(path, text, { mode: 0o644 });
  if (kind === 'launchd') {
    await run(['launchctl', 'load', '-w', launchd(job)]);
    return;
  }
  await run(['systemctl', ...flags, 'daemon-reload']);
  await run(['systemctl', ...flags, 'enable', '--now', `${job.name}.timer`]);
}

async function isInstalled(kind: Kind, job: Job): Promise<boolean> {
  if (kind === 'crontab') return isInCrontab(job);
  const texts = await Promise.all(Object.keys(filesOf(kind, job)).map(readIfPresent));
  return texts.some((text) => text !== undefined);
}

async function uninstall(kind: Kind, job: Job): Promise<void> {
  if (kind === 'crontab') {
    return writeCrontab(job, undefined);
  }
  const { flags } = systemd();
  if (kind === 'launchd') await run(['launchctl', 'unload', '-w', launchd(job)]);
  else await run(['systemctl', ...flags, 'disable', '--now', `${job.name}.timer`]);
  for (const path of Object.keys(filesOf(kind, job))) await run(['rm', '-f', path]);
  if (kind === 'systemd') await run(['systemctl', ...flags, 'daemon-reload']);
}

function describe(kind: Kind, job: Job): string {
  if (kind === 'crontab') return crontabLine(job);
  const files = Object.entries(filesOf(kind, job));
  return files.map(([path, text]) => `# ${path}\n${text}`).join('\n');
}

export interface ScheduleFlags {
  every: string | undefined;
  kind: string | undefined;
  install: boolean;
  uninstall: boolean;
}

/** Prints the schedule, or installs it or takes it away. @throws TaskError, CommandError */
export async function schedule(project: Project, flags: ScheduleFlags): Promise<TaskResult> {
  if (flags.install && flags.uninstall) throw usageError('backup: --install or --uninstall, not both');
  const kind = await chooseKind(flags.kind);
  const job = jobOf(project, flags.every);
  const text = describe(kind, job);
  const data = { kind, name: job.name, text };
  if (flags.uninstall) {
    if (!(await isInstalled(kind, job))) return { data: { ...data, changed: false }, text: 'Not installed.' };
    await confirm(`Take the ${kind} schedule ${job.name} away?`);
    await uninstall(kind, job);
    return { data: { ...data, changed: true }, text: `Took ${job.name} away.` };
  }
  if (!flags.install) return { data: { ...data, changed: false }, text };
  await confirm(`Install it?\n${text}`);
  await install(kind, job);
  return { data: { ...data, changed: true }, text: `Installed ${job.name} (${kind}).` };
}
