// The results of the backup task for people and for --json, which flag belongs to which command, and how backups went:
// what `status` and `doctor` tell, also when nothing runs.
import { usageError } from '../errors.ts';
import { ago, duration, formatBytes } from '../format.ts';
import { type Phases, readHistory } from '../history.ts';
import type { Project } from '../project.ts';
import { session } from '../session.ts';
import type { TaskResult } from '../task.ts';
import { listArchives } from './archives.ts';
import type { BackupResult } from './create.ts';
import { backupDirectory } from './places.ts';
import type { LeftOut } from './program/archive.ts';
import { type Listed, listArchives as readArchives } from './program/directory.ts';
import type { Verdict } from './program/restore.ts';
import type { RestorePlan } from './restore.ts';
import { scheduledSince } from './schedule.ts';

/** `2 entries are missing: data/a: reason; …` */
export function describeMissing(missing: number | readonly LeftOut[]): string {
  const list = typeof missing === 'number' ? [] : missing;
  const count = typeof missing === 'number' ? missing : missing.length;
  const names = list.slice(0, 3).map(({ path, reason }) => `${path}: ${reason}`);
  const text = `${count} ${count === 1 ? 'entry is' : 'entries are'} missing`;
  return names.length > 0 ? `${text}: ${names.join('; ')}${count > names.length ? '; …' : ''}` : text;
}

/** Exit code 1 and the error `incomplete` if something that should be in the archive is not. */
export function reportCreated(
  project: Project,
  { created, removed }: BackupResult,
  phases: Phases,
): TaskResult {
  if (!created) return {};
  const { archives: _, absent: __, ...made } = created;
  const { archive, bytes, dataBytes, files, databases, cut, seconds, proofSeconds, missing } = made;
  const sizes = `${formatBytes(dataBytes)} → ${formatBytes(bytes)}`;
  const lines = [
    `Backed up to ${backupDirectory(project)}/${archive}`,
    `  ${files} files, ${databases} databases, ${sizes}, in ${seconds.toFixed(1)} s; writers were blocked for ${cut.heldMs} ms`,
    `  verified in ${proofSeconds.toFixed(1)} s: hashes and integrity checks match`,
    ...removed.map((name) => `  removed ${name}`),
    ...missing.map(({ path, reason }) => `  MISSING ${path}: ${reason}`),
  ];
  const data = { ...made, removed, phases };
  if (missing.length === 0) return { data, text: lines.join('\n') };
  const hint = 'make it readable, or leave it out: [backup] exclude in configs/release.toml';
  const message = `The backup is incomplete: ${describeMissing(missing)}`;
  const error = { code: 'incomplete', message, hint };
  const text = [...lines, `INCOMPLETE: ${describeMissing(missing.length)}`, `hint: ${hint}`].join('\n');
  return { data: { ...data, error }, text, exitCode: 1 };
}

/** Exit code 1 if any archive is damaged. */
export function reportVerdicts(verdicts: readonly Verdict[]): TaskResult {
  const text = verdicts.length > 0 ? verdicts.map(describeVerdict).join('\n') : 'No archives.';
  return { data: { verdicts }, text, exitCode: verdicts.every(({ ok }) => ok) ? 0 : 1 };
}

function describeVerdict({ archive, ok, problems, seconds, manifest }: Verdict): string {
  if (!ok) return [`DAMAGED  ${archive}`, ...problems.map((problem) => `  - ${problem}`)].join('\n');
  const { files = 0, bytes = 0 } = manifest ?? {};
  return `ok       ${archive}  ${files} files, ${formatBytes(bytes)}, ${seconds.toFixed(1)} s`;
}

export function reportRestored(
  { archive: { name }, summary, to }: RestorePlan,
  result: { before: string | null; kept: string[]; phases: Phases },
): TaskResult {
  const { before, kept } = result;
  const lines = [
    `Restored ${name}${to === undefined ? '' : ` to ${to}`}`,
    ...(before ? [`The previous data is in ${before}`] : []),
    ...kept.map((path) => `Kept, because it is in no backup: ${path}`),
  ];
  const { version } = summary.origin;
  return { data: { archive: name, to: to ?? null, ...result, version }, text: lines.join('\n') };
}

function stateOf({ record }: Listed): string {
  if (!record) return 'not created here';
  if (!record.proof) return record.problems.length > 0 ? 'DAMAGED' : 'not verified';
  const rehearsed = record.proof.rehearsed ? ', rehearsed' : '';
  return `verified${rehearsed}${record.missing > 0 ? ', INCOMPLETE' : ''}`;
}

/** A table, newest first. */
function describeArchives(archives: readonly Listed[], now: Date): string {
  if (archives.length === 0) return 'No backups yet. Make one: npm run backup';
  const rows = [...archives].reverse().map((one) => {
    const { archive, version, bytes, time } = one;
    return [archive, version, formatBytes(bytes), ago(time, now), stateOf(one)];
  });
  const table = [['archive', 'version', 'size', 'made', ''], ...rows];
  const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)));
  const line = (row: string[]) => row.map((cell, column) => cell.padEnd(widths[column]!)).join('  ');
  return table.map((row) => line(row).trimEnd()).join('\n');
}

export async function reportList(
  project: Project,
  { archives, free }: { archives: Listed[]; free: number },
): Promise<TaskResult> {
  const now = new Date();
  const list = archives.map(({ archive, time, version, bytes, record }) => ({
    ...{ archive, time, version, bytes, dataBytes: record?.dataBytes ?? null, proven: !!record?.proof },
    ...{ rehearsed: record?.proof?.rehearsed ?? null, missing: record?.missing ?? 0 },
    ...{ problems: record?.problems ?? [], dataFormat: record?.dataFormat ?? null },
  }));
  const { report } = await loadBackupFacts(project, now, archives);
  const data = { archives: list, free, health: report };
  return { data, text: describeArchives(archives, now) };
}

/** Command → the flags that only it has. */
const OWN_FLAGS: Record<string, readonly string[]> = {
  create: ['rehearse'],
  verify: ['all'],
  restore: ['to'],
  schedule: ['every', 'install', 'uninstall'],
};
const TAKES_ARCHIVE = ['verify', 'restore'];

/** @throws TaskError (exit 2) for a flag or an argument that the command would ignore */
export function verifyBackupFlags(
  command: string,
  flags: Record<string, boolean | string | undefined>,
  archive: string | undefined,
): void {
  for (const [owner, names] of Object.entries(OWN_FLAGS)) {
    const wrong = owner === command ? undefined : names.find((name) => flags[name]);
    if (wrong) throw usageError(`backup: --${wrong} is for ${owner}, not for ${command}`);
  }
  if (archive !== undefined && !TAKES_ARCHIVE.includes(command))
    throw usageError(`backup: ${command} takes no archive, got "${archive}"`);
  if (archive !== undefined && flags.all) throw usageError('backup: name an archive, or --all, not both');
  if (flags.install && flags.uninstall) throw usageError('backup: --install or --uninstall, not both');
  if (flags.wait !== undefined && !/^\d+$/.test(String(flags.wait)))
    throw usageError(`backup: --wait is "${flags.wait}", expected a number of seconds`);
}

/** The name of backups in the history; `to` is the archive. */
export const BACKUP_TASK = 'backup';

/** What is not well, and what to do about it. */
export interface Problem {
  /** Stable, machine-readable. */
  code: string;
  message: string;
  hint: string;
}

/** What the backup directory holds, whoever made it; undefined where it cannot be read now. */
async function knownArchives(project: Project): Promise<Listed[] | undefined> {
  try {
    if (!session.context) return readArchives(backupDirectory(project), project.project.name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
  }
  // Another user's directory, or another machine's.
  return listArchives(project).then(
    ({ archives }) => archives,
    () => undefined,
  );
}

/** The last good backup, and the last failure if it is newer. `archives` undefined: only the history tells. */
async function lastBackup(project: Project, archives: readonly Listed[] | undefined) {
  const runs = (await readHistory(project.root)).filter(({ task }) => task === BACKUP_TASK);
  const done = runs.flatMap(({ outcome, at, to }) => (outcome === 'done' && to ? [{ archive: to, at }] : []));
  const complete = archives?.flatMap(({ archive, record }) =>
    record?.proof && record.missing === 0 ? [{ archive, at: record.at }] : [],
  );
  const last = (complete ?? done).at(-1);
  const bad = runs.findLast(({ outcome }) => outcome === 'failed' || outcome === 'incomplete');
  if (bad && (!last || Date.parse(bad.at) + bad.seconds * 1000 > Date.parse(last.at)))
    return { last, failure: bad.error ?? 'unknown', isIncomplete: bad.outcome === 'incomplete' };
  const missing = archives?.at(-1)?.record?.missing ?? 0;
  return { last, failure: missing > 0 ? describeMissing(missing) : null, isIncomplete: missing > 0 };
}

/**
 * How backups go, for `list`, `status` and `doctor`. Without a schedule, a project that has no backup yet may be an hour
 * old. `known`: what the backup directory holds.
 */
export async function loadBackupFacts(project: Project, now: Date, known?: readonly Listed[]) {
  const found = await lastBackup(project, known ?? (await knownArchives(project)));
  const { last, failure, isIncomplete } = found;
  const age = last ? Math.max(0, Math.round((now.getTime() - Date.parse(last.at)) / 1000)) : null;
  const limit = project.backup.max_age * 3600;
  const scheduled = last || failure ? undefined : await scheduledSince(project);
  const report = {
    /** ISO 8601 of the last good one. */
    at: last?.at ?? null,
    name: last?.archive ?? null,
    ageSeconds: age,
    overdue: age === null ? failure !== null || scheduled !== undefined : age > limit,
    /** Why the last attempt failed, when it was later than the last good one. */
    failure,
  };
  const since = `There is no backup yet, although one has been scheduled since ${scheduled}`;
  const old = `The last backup is ${duration(age ?? 0)} old, expected less than ${duration(limit)}`;
  const problems: [applies: boolean, code: string, message: string, more: string][] = [
    [
      isIncomplete,
      'backup-incomplete',
      `The last backup is incomplete: ${failure}`,
      'or leave it out: [backup] exclude',
    ],
    [failure !== null, 'backup-failed', `The last backup failed: ${failure}`, ''],
    [report.overdue && !last, 'backup-overdue', since, 'see .synapse/backup.log'],
    [report.overdue, 'backup-overdue', old, 'schedule it: npm run backup -- schedule'],
  ];
  const [, code = '', message = '', more] = problems.find(([applies]) => applies) ?? [];
  const hint = `make one: npm run backup${more ? `; ${more}` : ''}`;
  const problem: Problem | undefined = code ? { code, message, hint } : undefined;
  return { report, problem };
}
