// Printing, installing and taking away the schedule of backups. What runs then waits for whoever holds the lock,
// and keeps its log short.
import { appendFile, open, stat, truncate } from 'node:fs/promises';
import { homedir, platform } from 'node:os';
import { delimiter, join } from 'node:path';
import { probe, run, searchPath } from '../command.ts';
import { TaskError, usageError } from '../errors.ts';
import { makeDirectory, readIfPresent, statePath, writeFileAtomic } from '../files.ts';
import { type Project, TASKS_FOLDER } from '../project.ts';
import { confirm } from '../prompt.ts';
import { session } from '../session.ts';
import type { TaskResult } from '../task.ts';

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
  const start = join(TASKS_FOLDER, 'start.mjs');
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

interface ScheduleFlags {
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

// What a schedule consists of, as text: a systemd timer, a crontab line or a launchd file. Pure; shown before
// anything is installed, and the same text that is installed.

const KINDS = ['systemd', 'crontab', 'launchd'] as const;
type Kind = (typeof KINDS)[number];

interface When {
  /** Minutes between runs are not offered: a backup that overlaps the next one helps nobody. */
  every: 'hourly' | 'daily' | 'weekly';
  hour: number;
  minute: number;
}

/** `hourly`, `daily`, `weekly` or a time of day. @throws TaskError (exit 2) */
export function parseWhen(text: string): When {
  if (text === 'hourly' || text === 'daily' || text === 'weekly') return { every: text, hour: 3, minute: 17 };
  const match = /^([01]?\d|2[0-3]):([0-5]\d)$/.exec(text);
  if (match) return { every: 'daily', hour: Number(match[1]), minute: Number(match[2]) };
  throw usageError(`backup: --every is "${text}", expected hourly, daily, weekly or HH:MM`);
}

export interface Job {
  /** Name of units and files, e.g. `synapse-backup`. */
  name: string;
  root: string;
  /** The command that makes a backup. */
  command: readonly string[];
  /** Where cron's and launchd's output goes; systemd keeps a log of its own. */
  log: string;
  /** A timer has no profile of a shell: without it `docker` is not found. */
  path: string;
  when: When;
}

const two = (number: number) => String(number).padStart(2, '0');

/** systemd.time(7) */
export function calendar({ every, hour, minute }: When): string {
  const time = `${two(hour)}:${two(minute)}:00`;
  if (every === 'hourly') return `*-*-* *:${two(minute)}:00`;
  return every === 'weekly' ? `Sun *-*-* ${time}` : `*-*-* ${time}`;
}

/** systemd splits at blanks, and takes `%` and `$` as its own. */
function unitArgument(text: string): string {
  const escaped = text.replaceAll('%', '%%').replaceAll('$', '$$$$');
  return /^[\w@%+=:,./$-]+$/.test(escaped) ? escaped : `"${escaped.replace(/["\\]/g, '\\$&')}"`;
}

/** File name → text. A missed run (the machine was off) is made up for: Persistent=true. */
export function systemdUnits(job: Job): Record<string, string> {
  const service = `[Unit]
Description=Backup of ${job.name.replace(/-backup$/, '')}
After=docker.service network-online.target

[Service]
Type=oneshot
WorkingDirectory=${job.root.replaceAll('%', '%%')}
Environment=${unitArgument(`PATH=${job.path}`)}
ExecStart=${job.command.map(unitArgument).join(' ')}
Nice=10
IOSchedulingClass=idle
`;
  const timer = `[Unit]
Description=Schedule of ${job.name}

[Timer]
OnCalendar=${calendar(job.when)}
RandomizedDelaySec=60
Persistent=true

[Install]
WantedBy=timers.target
`;
  return { [`${job.name}.service`]: service, [`${job.name}.timer`]: timer };
}

function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** One line; its last word marks it as ours. cron ends a command at an unescaped `%`. */
export function crontabLine(job: Job): string {
  const { every, hour, minute } = job.when;
  const time =
    every === 'hourly' ? `${minute} * * * *` : `${minute} ${hour} * * ${every === 'weekly' ? '0' : '*'}`;
  const command = job.command.map(shellWord).join(' ');
  const line = `cd ${shellWord(job.root)} && PATH=${shellWord(job.path)} ${command} >> ${shellWord(job.log)} 2>&1`;
  return `${time} ${line.replaceAll('%', '\\%')} # ${job.name}`;
}

/** `text` of a crontab with our line in it, or without; every other line stays as it is. */
export function editCrontab(text: string, job: Pick<Job, 'name'>, line: string | undefined): string {
  const isOurs = (one: string) => one.endsWith(` # ${job.name}`);
  const others = text.split('\n').filter((one) => one !== '' && !isOurs(one));
  const lines = line === undefined ? others : [...others, line];
  return lines.length === 0 ? '' : `${lines.join('\n')}\n`;
}

const xml = (text: string) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

/** launchd.plist(5); a run that was missed while the machine slept is made up for. */
export function launchdFile(job: Job): string {
  const { every, hour, minute } = job.when;
  const times = {
    Minute: minute,
    ...(every === 'hourly' ? {} : { Hour: hour }),
    ...(every === 'weekly' ? { Weekday: 0 } : {}),
  };
  const calendarEntries = Object.entries(times).map(
    ([key, value]) => `    <key>${key}</key><integer>${value}</integer>`,
  );
  const argv = job.command.map((part) => `    <string>${xml(part)}</string>`);
  return `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>Label</key><string>${xml(job.name)}</string>
  <key>ProgramArguments</key>
  <array>
${argv.join('\n')}
  </array>
  <key>WorkingDirectory</key><string>${xml(job.root)}</string>
  <key>EnvironmentVariables</key>
  <dict><key>PATH</key><string>${xml(job.path)}</string></dict>
  <key>StartCalendarInterval</key>
  <dict>
${calendarEntries.join('\n')}
  </dict>
  <key>StandardOutPath</key><string>${xml(job.log)}</string>
  <key>StandardErrorPath</key><string>${xml(job.log)}</string>
  <key>LowPriorityIO</key><true/>
</dict>
</plist>
`;
}

// The log of backups that cron or launchd starts. Nothing else would ever shorten it.

const MOST_BYTES = 1024 * 1024;
const KEPT_BYTES = 256 * 1024;

function scheduleLog(project: Project): string {
  return statePath(project.root, 'backup.log');
}

/** Keeps the end of a log that has grown; cron has it open for appending, so it is shortened in place. */
export async function shortenLog(project: Project): Promise<void> {
  const path = scheduleLog(project);
  const size = await stat(path).then(
    (stats) => stats.size,
    () => 0,
  );
  if (size <= MOST_BYTES || session.dryRun) return;
  const file = await open(path, 'r');
  const tail = Buffer.alloc(KEPT_BYTES);
  await file.read(tail, 0, KEPT_BYTES, size - KEPT_BYTES);
  await file.close();
  await truncate(path, 0);
  await appendFile(path, tail.subarray(tail.indexOf('\n') + 1));
}

// The crontab of the user who runs the task: one line of ours among those of others.

async function presentCrontab(): Promise<string> {
  const answer = await probe(['crontab', '-l']);
  if (answer.ok) return answer.stdout;
  if (/no crontab/i.test(answer.stderr)) return '';
  throw new TaskError(`Cannot read the crontab: ${answer.stderr.trim()}`, {
    code: 'no-cron',
    hint: 'apt-get install cron, or choose another --kind',
  });
}

/** Puts our line in, or takes it away; every other line stays. */
async function writeCrontab(job: Job, line: string | undefined): Promise<void> {
  await run(['crontab', '-'], { input: editCrontab(await presentCrontab(), job, line) });
}

async function isInCrontab(job: Job): Promise<boolean> {
  const present = await presentCrontab();
  return editCrontab(present, job, undefined) !== present;
}
