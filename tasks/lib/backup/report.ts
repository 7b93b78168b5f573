// The results of the backup task, for people and for --json.

import { TaskError, usageError } from '../errors.ts';
import { duration } from '../format.ts';
import { type Phases, readHistory } from '../history.ts';
import { withLock } from '../lock.ts';
import { log } from '../log.ts';
import type { Project } from '../project.ts';
import { pause } from '../session.ts';
import type { TaskResult } from '../task.ts';
import { isProven } from './archives.ts';
import type { BackupResult } from './create.ts';
import { backupDirectory, type CreatedArchive, type Listed, megabytes, type Verdict } from './program.ts';
import type { RestorePlan, RestoreResult } from './restore.ts';
import { type Decision, isEmptyPolicy } from './retention.ts';

export function reportCreated(
  project: Project,
  { created, removed }: BackupResult,
  phases: Phases,
): TaskResult {
  if (!created) return {};
  const { archives: _, ...made } = created;
  const lines = [
    describeCreated(created, backupDirectory(project)),
    ...removed.map((name) => `  removed ${name}`),
  ];
  return { data: { ...made, removed, phases }, text: lines.join('\n') };
}

export async function reportList(
  project: Project,
  { archives, free }: { archives: Listed[]; free: number },
): Promise<TaskResult> {
  const now = new Date();
  const health = await backupHealth(project, now);
  const data = { archives: archives.map((one) => archiveData(one, now)), free, health };
  return { data, text: describeArchives(archives, now) };
}

/** Exit code 1 if any archive is damaged. */
export function reportVerdicts(verdicts: readonly Verdict[]): TaskResult {
  const text = verdicts.length > 0 ? verdicts.map(describeVerdict).join('\n') : 'No archives.';
  return { data: { verdicts }, text, exitCode: verdicts.every(({ ok }) => ok) ? 0 : 1 };
}

export function reportRestored(plan: RestorePlan, result: RestoreResult, phases: Phases): TaskResult {
  const { name } = plan.archive;
  const { before, kept } = result;
  const lines = [
    `Restored ${name}${plan.to === undefined ? '' : ` to ${plan.to}`}`,
    ...(before ? [`What was there before: ${before}`] : []),
    ...(kept ? [`What was there before is kept as ${kept}`] : []),
  ];
  const { version } = plan.summary.origin;
  return { data: { archive: name, to: plan.to ?? null, ...result, version, phases }, text: lines.join('\n') };
}

// Backups as a person reads them: one line an archive, one line a decision.

/** `3 min`, `5 h`, `12 d` */
function age(from: string, now: Date): string {
  const minutes = Math.max(0, Math.round((now.getTime() - new Date(from).getTime()) / 60_000));
  if (minutes < 120) return `${minutes} min`;
  return minutes < 48 * 60 ? `${Math.round(minutes / 60)} h` : `${Math.round(minutes / 1440)} d`;
}

function ratio({ bytes, record }: Listed): string {
  return record && bytes > 0 ? `${(record.dataBytes / bytes).toFixed(1)}×` : '';
}

function mood(one: Listed): string {
  if (!one.record) return 'not from here';
  if (!isProven(one)) return one.record.problems.length > 0 ? 'DAMAGED' : 'not proven';
  return one.record.proof?.rehearsed ? 'proven, rehearsed' : 'proven';
}

/** A table, newest first. */
function describeArchives(archives: readonly Listed[], now: Date): string {
  if (archives.length === 0) return 'No backups yet. Make one: npm run backup';
  const rows = [...archives]
    .reverse()
    .map((one) => [
      one.archive,
      one.version,
      megabytes(one.bytes),
      ratio(one),
      age(one.time, now),
      mood(one),
    ]);
  const table = [['archive', 'version', 'size', 'ratio', 'age', ''], ...rows];
  const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)));
  return table
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** The same for --json. */
function archiveData(one: Listed, now: Date): Record<string, unknown> {
  const { archive, time, version, bytes, record } = one;
  return {
    archive,
    time,
    version,
    bytes,
    dataBytes: record?.dataBytes ?? null,
    proven: isProven(one),
    rehearsed: record?.proof?.rehearsed ?? null,
    problems: record?.problems ?? [],
    dataFormat: record?.dataFormat ?? null,
    ageSeconds: Math.max(0, Math.round((now.getTime() - new Date(time).getTime()) / 1000)),
  };
}

export function describeDecisions(decisions: readonly Decision[]): string {
  if (decisions.length === 0) return 'No archives.';
  return decisions
    .map(({ archive, keep, reason }) => `${keep ? 'keep  ' : 'remove'}  ${archive}  ${reason}`)
    .join('\n');
}

function describeCreated(created: CreatedArchive, directory: string): string {
  const { archive, bytes, dataBytes, files, databases, cut, seconds, proofSeconds } = created;
  return [
    `Backed up to ${directory}/${archive}`,
    `  ${files} files, ${databases} databases, ${megabytes(dataBytes)} → ${megabytes(bytes)}, in ${seconds.toFixed(1)} s; writers waited ${cut.heldMs} ms for the cut`,
    `  proven in ${proofSeconds.toFixed(1)} s: read back, hashes, integrity and row counts are right`,
  ].join('\n');
}

function describeVerdict({ archive, ok, problems, seconds, manifest }: Verdict): string {
  if (ok)
    return `good     ${archive}  ${manifest?.files ?? 0} files, ${megabytes(manifest?.bytes ?? 0)}, ${seconds.toFixed(1)} s`;
  return [`DAMAGED  ${archive}`, ...problems.map((problem) => `  - ${problem}`)].join('\n');
}

// Which flag belongs to which command of the backup task: a flag that would be ignored is a mistake.

const OWN_FLAGS: Record<string, readonly string[]> = {
  create: ['pause', 'rehearse'],
  list: [],
  verify: ['all'],
  restore: ['to'],
  prune: [],
  schedule: ['every', 'kind', 'install', 'uninstall'],
};
const TAKES_ARCHIVE = ['verify', 'restore'];

/** @throws TaskError (exit 2) for a flag or an argument that the command does not know */
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

/** @throws TaskError (exit 2) for a policy that would keep nothing */
export function verifyPolicy(project: Project): void {
  if (!isEmptyPolicy(project.backup.keep)) return;
  throw usageError('[backup.keep] keeps nothing: every rule is 0', {
    code: 'empty-policy',
    hint: 'set at least one of last, hourly, daily, weekly, monthly, yearly; or do not prune',
  });
}

// How backups went, from the history of this machine: needs no engine and no archive, so that `status` and
// `doctor` can tell also when nothing runs.

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

/** What `status` and `doctor` tell about backups. */
export async function backupHealth(project: Project, now = new Date()): Promise<BackupHealth> {
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

// A backup that a timer starts must not fail because a release happens to run: it waits its turn for a while.

const POLL_MS = 2000;

/** As withLock, but waits up to `seconds` for whoever holds it. @throws TaskError `locked` after that */
export async function withLockWithin<T>(root: string, task: string, seconds: number, work: () => Promise<T>) {
  const deadline = Date.now() + seconds * 1000;
  let told = false;
  for (;;) {
    let began = false;
    try {
      return await withLock(root, task, () => {
        began = true;
        return work();
      });
    } catch (error) {
      const isHeld = !began && error instanceof TaskError && error.code === 'locked';
      if (!isHeld || Date.now() >= deadline) throw error;
      if (!told) log.info(`${error.message}; waiting up to ${seconds} s`);
      told = true;
      await pause(POLL_MS);
    }
  }
}

// What status and doctor tell about backups: when the last good one was made, and whether that is too long ago.

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
    return {
      report,
      problem: { code: 'backup-failed', message: `the last backup failed: ${failure.error}`, hint: again },
    };
  }
  if (!report.overdue) return { report, problem: undefined };
  const message = `the last good backup is ${duration(last?.ageSeconds ?? 0)} old, expected less than ${duration(maxAgeSeconds)}`;
  const hint = `${again}; is it scheduled? npm run backup -- schedule`;
  return { report, problem: { code: 'backup-overdue', message, hint } };
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
