// The results of the backup task for people and for --json, which flag belongs to which command, and how backups went:
// what `status` and `doctor` tell, also when nothing runs.
import { usageError } from '../errors.ts';
import { duration, formatBytes } from '../format.ts';
import { type Phases, readHistory } from '../history.ts';
import type { Project } from '../project.ts';
import type { TaskResult } from '../task.ts';
import { isProven, type Verdict } from './archives.ts';
import type { BackupResult } from './create.ts';
import { backupDirectory, type Listed } from './program.ts';
import type { RestorePlan } from './restore.ts';

/** Exit code 1 if something that should be in the archive is not. */
export function reportCreated(
  project: Project,
  { created, removed }: BackupResult,
  phases: Phases,
): TaskResult {
  if (!created) return {};
  const { archives: _, ...made } = created;
  const { archive, bytes, dataBytes, files, databases, cut, seconds, proofSeconds, missing } = made;
  const sizes = `${formatBytes(dataBytes)} → ${formatBytes(bytes)}`;
  const lines = [
    `Backed up to ${backupDirectory(project)}/${archive}`,
    `  ${files} files, ${databases} databases, ${sizes}, in ${seconds.toFixed(1)} s; writers waited ${cut.heldMs} ms for the cut`,
    `  proven in ${proofSeconds.toFixed(1)} s: read back, hashes, integrity and row counts are right`,
    ...removed.map((name) => `  removed ${name}`),
    ...missing.map(({ path, reason }) => `  MISSING ${path}: ${reason}`),
    ...(missing.length > 0
      ? [`INCOMPLETE: ${missing.length} missing. Repair it, or [backup] exclude it.`]
      : []),
  ];
  return { data: { ...made, removed, phases }, text: lines.join('\n'), exitCode: missing.length > 0 ? 1 : 0 };
}

/** Exit code 1 if any archive is damaged. */
export function reportVerdicts(verdicts: readonly Verdict[]): TaskResult {
  const text = verdicts.length > 0 ? verdicts.map(describeVerdict).join('\n') : 'No archives.';
  return { data: { verdicts }, text, exitCode: verdicts.every(({ ok }) => ok) ? 0 : 1 };
}

function describeVerdict({ archive, ok, problems, seconds, manifest }: Verdict): string {
  if (!ok) return [`DAMAGED  ${archive}`, ...problems.map((problem) => `  - ${problem}`)].join('\n');
  const { files = 0, bytes = 0 } = manifest ?? {};
  return `good     ${archive}  ${files} files, ${formatBytes(bytes)}, ${seconds.toFixed(1)} s`;
}

export function reportRestored(
  { archive: { name }, summary, to }: RestorePlan,
  result: { before: string | null; kept: string[]; phases: Phases },
): TaskResult {
  const { before, kept } = result;
  const lines = [
    `Restored ${name}${to === undefined ? '' : ` to ${to}`}`,
    ...(before ? [`What was there before: ${before}`] : []),
    ...kept.map((path) => `Kept, because no archive holds it: ${path}`),
  ];
  const { version } = summary.origin;
  return { data: { archive: name, to: to ?? null, ...result, version }, text: lines.join('\n') };
}

/** `3 min`, `5 h`, `12 d` */
function age(from: string, now: Date): string {
  const minutes = Math.max(0, Math.round((now.getTime() - new Date(from).getTime()) / 60_000));
  if (minutes < 120) return `${minutes} min`;
  return minutes < 48 * 60 ? `${Math.round(minutes / 60)} h` : `${Math.round(minutes / 1440)} d`;
}

function stateOf(one: Listed): string {
  const { record } = one;
  if (!record) return 'not from here';
  if (!isProven(one)) return record.problems.length > 0 ? 'DAMAGED' : 'not proven';
  const words = [
    'proven',
    record.proof?.rehearsed ? 'rehearsed' : '',
    record.missing > 0 ? 'INCOMPLETE' : '',
  ];
  return words.filter(Boolean).join(', ');
}

/** A table, newest first. */
function describeArchives(archives: readonly Listed[], now: Date): string {
  if (archives.length === 0) return 'No backups yet. Make one: npm run backup';
  const ratio = ({ bytes, record }: Listed) =>
    record && bytes > 0 ? `${(record.dataBytes / bytes).toFixed(1)}×` : '';
  const rows = [...archives].reverse().map((one) => {
    const { archive, version, bytes, time } = one;
    return [archive, version, formatBytes(bytes), ratio(one), age(time, now), stateOf(one)];
  });
  const table = [['archive', 'version', 'size', 'ratio', 'age', ''], ...rows];
  const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)));
  const line = (row: string[]) => row.map((cell, column) => cell.padEnd(widths[column]!)).join('  ');
  return table.map((row) => line(row).trimEnd()).join('\n');
}

export async function reportList(
  project: Project,
  { archives, free }: { archives: Listed[]; free: number },
): Promise<TaskResult> {
  const now = new Date();
  const list = archives.map((one) => {
    const { archive, time, version, bytes, record } = one;
    return {
      ...{ archive, time, version, bytes, dataBytes: record?.dataBytes ?? null, proven: isProven(one) },
      ...{ rehearsed: record?.proof?.rehearsed ?? null, missing: record?.missing ?? 0 },
      ...{ problems: record?.problems ?? [], dataFormat: record?.dataFormat ?? null },
      ageSeconds: Math.max(0, Math.round((now.getTime() - new Date(time).getTime()) / 1000)),
    };
  });
  const data = { archives: list, free, health: await backupHealth(project, now) };
  return { data, text: describeArchives(archives, now) };
}

const OWN_FLAGS: Record<string, readonly string[]> = {
  create: ['rehearse'],
  list: [],
  verify: ['all'],
  restore: ['to'],
  prune: [],
  schedule: ['every', 'install', 'uninstall'],
};
const TAKES_ARCHIVE = ['verify', 'restore'];

/** @throws TaskError (exit 2) for a flag or an argument that the command would ignore */
export function verifyBackupFlags(
  command: string,
  flags: Record<string, boolean | string | undefined>,
  archive: string | undefined,
): void {
  const own = OWN_FLAGS[command] ?? [];
  for (const [owner, names] of Object.entries(OWN_FLAGS)) {
    const wrong = names.find((name) => flags[name] && !own.includes(name));
    if (wrong) throw usageError(`backup: --${wrong} is for ${owner}, not for ${command}`);
  }
  if (archive !== undefined && !TAKES_ARCHIVE.includes(command))
    throw usageError(`backup: ${command} takes no archive, got "${archive}"`);
  if (archive !== undefined && flags.all) throw usageError('backup: name an archive, or --all, not both');
  if (flags.wait !== undefined && !/^\d+$/.test(String(flags.wait)))
    throw usageError(`backup: --wait is "${flags.wait}", expected a number of seconds`);
}

/** The name of backups in the history; `to` is the archive. */
export const BACKUP_TASK = 'backup';

interface BackupHealth {
  /** The last backup that was proven; null if there never was one. */
  last: { archive: string; at: string; ageSeconds: number } | null;
  /** The last failure, if it is newer than the last good backup. */
  failure: { at: string; error: string } | null;
  /** None, or none within [backup] max_age hours. */
  overdue: boolean;
  maxAgeSeconds: number;
}

async function backupHealth(project: Project, now = new Date()): Promise<BackupHealth> {
  const runs = (await readHistory(project.root)).filter(({ task }) => task === BACKUP_TASK);
  const good = runs.findLast(({ outcome, to }) => outcome === 'done' && to !== null);
  const bad = runs.findLast(({ outcome }) => outcome === 'failed');
  const ended = good ? new Date(new Date(good.at).getTime() + good.seconds * 1000) : undefined;
  const ageSeconds = ended ? Math.max(0, Math.round((now.getTime() - ended.getTime()) / 1000)) : 0;
  const maxAgeSeconds = project.backup.max_age * 3600;
  const isNewer = bad !== undefined && (!good || bad.at > good.at);
  return {
    last: good && ended ? { archive: good.to!, at: ended.toISOString(), ageSeconds } : null,
    failure: isNewer ? { at: bad.at, error: bad.error ?? 'unknown' } : null,
    overdue: !good || ageSeconds > maxAgeSeconds,
    maxAgeSeconds,
  };
}

/** What is not well, and what to do about it. */
export interface Problem {
  /** Stable, machine-readable. */
  code: string;
  message: string;
  hint: string;
}

export interface BackupReport {
  /** ISO 8601 of the last good one. */
  at: string | null;
  name: string | null;
  ageSeconds: number | null;
  overdue: boolean;
  /** Why the last attempt failed, when it was later than the last good one. */
  failure: string | null;
}

export interface BackupFacts {
  report: BackupReport;
  problem: Problem | undefined;
}

/** A project that was never backed up is no problem yet: it may be an hour old. */
export async function loadBackupFacts(project: Project, now: Date): Promise<BackupFacts> {
  const { last, failure, overdue, maxAgeSeconds } = await backupHealth(project, now);
  const report: BackupReport = {
    at: last?.at ?? null,
    name: last?.archive ?? null,
    ageSeconds: last?.ageSeconds ?? null,
    overdue: overdue && (last !== null || failure !== null),
    failure: failure?.error ?? null,
  };
  const again = 'make one, and see why: npm run backup';
  if (failure) {
    const message = `the last backup failed: ${failure.error}`;
    return { report, problem: { code: 'backup-failed', message, hint: again } };
  }
  if (!report.overdue) return { report, problem: undefined };
  const message = `the last good backup is ${duration(last?.ageSeconds ?? 0)} old, expected less than ${duration(maxAgeSeconds)}`;
  const hint = `${again}; is it scheduled? npm run backup -- schedule`;
  return { report, problem: { code: 'backup-overdue', message, hint } };
}
