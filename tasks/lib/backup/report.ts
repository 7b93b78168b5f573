// The results of the backup task for people and for --json, which flag belongs to which command, and how backups went:
// what `status` and `doctor` tell, also when nothing runs.
import { usageError } from '../errors.ts';
import { duration, formatBytes } from '../format.ts';
import { type Phases, readHistory } from '../history.ts';
import type { Project } from '../project.ts';
import { session } from '../session.ts';
import type { TaskResult } from '../task.ts';
import { isProven, listArchives } from './archives.ts';
import type { BackupResult } from './create.ts';
import { backupDirectory } from './places.ts';
import { type Listed, listArchives as readArchives } from './program/directory.ts';
import type { LeftOut } from './program/manifest.ts';
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
  const { archives: _, unsaved: __, ...made } = created;
  const { archive, bytes, dataBytes, files, databases, cut, seconds, proofSeconds, missing } = made;
  const sizes = `${formatBytes(dataBytes)} → ${formatBytes(bytes)}`;
  const lines = [
    `Backed up to ${backupDirectory(project)}/${archive}`,
    `  ${files} files, ${databases} databases, ${sizes}, in ${seconds.toFixed(1)} s; writers were blocked for ${cut.heldMs} ms`,
    `  verified in ${proofSeconds.toFixed(1)} s: hashes, integrity checks and row counts match`,
    ...removed.map((name) => `  removed ${name}`),
    ...missing.map(({ path, reason }) => `  MISSING ${path}: ${reason}`),
  ];
  const data = { ...made, removed, phases };
  if (missing.length === 0) return { data, text: lines.join('\n') };
  const hint = 'make it readable, or leave it out: [backup] exclude in configs/release.toml';
  const error = {
    code: 'incomplete',
    message: `The backup is incomplete: ${describeMissing(missing)}`,
    hint,
  };
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

/** `3 min`, `5 h`, `12 d` */
function age(from: string, now: Date): string {
  const minutes = Math.max(0, Math.round((now.getTime() - new Date(from).getTime()) / 60_000));
  if (minutes < 120) return `${minutes} min`;
  return minutes < 48 * 60 ? `${Math.round(minutes / 60)} h` : `${Math.round(minutes / 1440)} d`;
}

function stateOf(one: Listed): string {
  const { record } = one;
  if (!record) return 'not created here';
  if (!isProven(one)) return record.problems.length > 0 ? 'DAMAGED' : 'not verified';
  const words = [
    'verified',
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
  const data = { archives: list, free, health: await backupHealth(project, archives, now) };
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

/** How backups went, and what is wrong with that. `archives` undefined: only the history tells. */
async function backupHealth(project: Project, archives: readonly Listed[] | undefined, now: Date) {
  const runs = (await readHistory(project.root)).filter(({ task }) => task === BACKUP_TASK);
  const fromHistory = runs.findLast(({ outcome, to }) => outcome === 'done' && to !== null);
  const complete = archives?.findLast((one) => isProven(one) && one.record?.missing === 0);
  const last = archives
    ? complete && { archive: complete.archive, at: complete.record!.at }
    : fromHistory && { archive: fromHistory.to!, at: fromHistory.at };
  const ageSeconds = last ? Math.max(0, Math.round((now.getTime() - Date.parse(last.at)) / 1000)) : null;
  const bad = runs.findLast(({ outcome }) => outcome === 'failed' || outcome === 'incomplete');
  const newest = archives?.at(-1);
  const failure =
    bad && (!last || Date.parse(bad.at) + bad.seconds * 1000 > Date.parse(last.at))
      ? { at: bad.at, error: bad.error ?? 'unknown', incomplete: bad.outcome === 'incomplete' }
      : newest?.record && newest.record.missing > 0
        ? { at: newest.record.at, error: describeMissing(newest.record.missing), incomplete: true }
        : null;
  const maxAgeSeconds = project.backup.max_age * 3600;
  return {
    last: last ? { ...last, ageSeconds: ageSeconds! } : null,
    /** The last failure, if it is newer than the last good backup. */
    failure,
    /** None, or none within [backup] max_age hours. */
    overdue: ageSeconds === null || ageSeconds > maxAgeSeconds,
    maxAgeSeconds,
  };
}

/** How backups go, for `status` and `doctor`. Without a schedule, a project that has no backup yet may be an hour old. */
export async function loadBackupFacts(project: Project, now: Date) {
  const health = await backupHealth(project, await knownArchives(project), now);
  const { last, failure } = health;
  const scheduled = last || failure ? undefined : await scheduledSince(project);
  const report = {
    /** ISO 8601 of the last good one. */
    at: last?.at ?? null,
    name: last?.archive ?? null,
    ageSeconds: last?.ageSeconds ?? null,
    overdue: health.overdue && (last !== null || failure !== null || scheduled !== undefined),
    /** Why the last attempt failed, when it was later than the last good one. */
    failure: failure?.error ?? null,
  };
  return { report, problem: backupProblem(health, report.overdue, scheduled) };
}

function backupProblem(
  { last, failure, maxAgeSeconds }: Awaited<ReturnType<typeof backupHealth>>,
  overdue: boolean,
  scheduled: string | undefined,
): Problem | undefined {
  const again = 'make one: npm run backup';
  if (failure?.incomplete) {
    const message = `The last backup is incomplete: ${failure.error}`;
    return { code: 'backup-incomplete', message, hint: `${again}; or leave it out: [backup] exclude` };
  }
  if (failure)
    return { code: 'backup-failed', message: `The last backup failed: ${failure.error}`, hint: again };
  if (!overdue) return undefined;
  if (!last) {
    const message = `There is no backup yet, although one has been scheduled since ${scheduled}`;
    return { code: 'backup-overdue', message, hint: `${again}; see .synapse/backup.log` };
  }
  const message = `The last backup is ${duration(last.ageSeconds)} old, expected less than ${duration(maxAgeSeconds)}`;
  return { code: 'backup-overdue', message, hint: `${again}; schedule it: npm run backup -- schedule` };
}
