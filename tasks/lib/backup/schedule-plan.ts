// What a schedule consists of, as text: a systemd timer, a crontab line or a launchd file. Pure; shown before
// anything is installed, and the same text that is installed.
import { usageError } from '../errors.ts';

export const KINDS = ['systemd', 'crontab', 'launchd'] as const;
export type Kind = (typeof KINDS)[number];

export interface When {
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
