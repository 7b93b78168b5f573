// The archives that are there: listed, found by name, verified, removed; and the plan of which stay. Asked of the program,
// since only the engine's machine can see them.
import { basename, dirname, resolve } from 'node:path';
import { TaskError, usageError } from '../errors.ts';
import type { Project } from '../project.ts';
import { ARCHIVE, BACKUPS, backupDirectory } from './places.ts';
import type { Listed } from './program/directory.ts';
import type { Verdict } from './program/restore.ts';
import { queryProgram, runProgram } from './program.ts';

/** What every call on the backup directory has in common; it works also when the data is lost. */
export function onBackups(project: Project) {
  return {
    mounts: { [BACKUPS]: backupDirectory(project) },
    options: { backups: BACKUPS, project: project.project.name },
  };
}

/** All archives, oldest first, and the bytes that are free beside them. */
export async function listArchives(project: Project) {
  try {
    return await queryProgram(project, { command: 'list', ...onBackups(project) });
  } catch (error) {
    // Before the first backup there is no directory.
    if (error instanceof TaskError && error.code === 'no-directory') return { archives: [], free: 0 };
    throw error;
  }
}

/** Removes archives of ours; the program refuses any other. */
export async function removeArchives(project: Project, archives: readonly string[]): Promise<string[]> {
  const { mounts, options } = onBackups(project);
  const call = { command: 'remove' as const, options: { ...options, archives }, mounts };
  return (await runProgram(project, call))?.removed ?? [];
}

function isProven({ record }: Listed): boolean {
  return record !== null && record.proof !== null;
}

/** Where an archive lies: in the backup directory, or by a path of its own. */
export interface ArchivePlace {
  directory: string;
  name: string;
  isOurs: boolean;
}

/** A name in the backup directory, or a path, which has a slash. `latest` is the newest verified one. */
export async function findArchive(project: Project, given: string): Promise<ArchivePlace> {
  const ours = backupDirectory(project);
  if (given.includes('/')) {
    const path = resolve(given);
    return { directory: dirname(path), name: basename(path), isOurs: dirname(path) === ours };
  }
  const { archives } = await listArchives(project);
  const found =
    given === 'latest' ? archives.findLast(isProven) : archives.find(({ archive }) => archive === given);
  if (found) return { directory: ours, name: found.archive, isOurs: true };
  const newest = archives.slice(-3).map(({ archive }) => archive);
  throw usageError(`No ${given === 'latest' ? 'verified archive' : `archive ${given}`} in ${ours}`, {
    code: 'no-archive',
    hint: newest.length > 0 ? `newest: ${newest.join(', ')}` : 'make one: npm run backup',
  });
}

/** Reads archives back; `place` undefined means all of them. Damage is in the verdicts, not thrown. */
export async function verifyArchives(project: Project, place: ArchivePlace | undefined): Promise<Verdict[]> {
  const { mounts, options } = onBackups(project);
  if (!place || place.isOurs) {
    const archives = place ? [place.name] : null;
    const call = { command: 'verify' as const, options: { ...options, archives }, mounts };
    return (await runProgram(project, call))?.verdicts ?? [];
  }
  const found = await runProgram(project, {
    command: 'verify-file',
    options: { ...options, path: `${ARCHIVE}/${place.name}` },
    mounts: { ...mounts, [ARCHIVE]: `${place.directory}:ro` },
  });
  return found ? [found] : [];
}

// Retention: which archives stay and why, which go and why. Pure: the plan is what is shown and what is carried out.

export type Keep = Project['backup']['keep'];

export interface Decision {
  archive: string;
  keep: boolean;
  /** The rules that keep it, or why it goes. */
  reason: string;
}

/** The Monday of its week, which ISO 8601 begins with. */
export function mondayOf(time: string): string {
  const day = new Date(time);
  day.setUTCDate(day.getUTCDate() - ((day.getUTCDay() + 6) % 7));
  return day.toISOString().slice(0, 10);
}

/** The period that a time falls into, in UTC: daylight saving must not make an hour come twice. */
const PERIODS = {
  hourly: (time: string) => time.slice(0, 13),
  daily: (time: string) => time.slice(0, 10),
  weekly: mondayOf,
  monthly: (time: string) => time.slice(0, 7),
  yearly: (time: string) => time.slice(0, 4),
};
const RULES = Object.keys(PERIODS) as (keyof typeof PERIODS)[];

export function isEmptyPolicy(keep: Keep): boolean {
  return keep.last === 0 && RULES.every((rule) => keep[rule] === 0);
}

/** @throws TaskError (exit 2) for a policy that would keep nothing */
export function verifyPolicy(project: Project): void {
  if (!isEmptyPolicy(project.backup.keep)) return;
  throw usageError('[backup.keep] keeps nothing: every rule is 0', {
    code: 'empty-policy',
    hint: 'set at least one of last, hourly, daily, weekly, monthly, yearly; or do not prune',
  });
}

/** The rules that keep each of these, newest first, by name. The newest of a period stands for it. */
function keepers(archives: readonly Listed[], keep: Keep): Map<string, string[]> {
  const reasons = new Map<string, string[]>();
  const add = (reason: string, { archive }: Listed) =>
    reasons.set(archive, [...(reasons.get(archive) ?? []), reason]);
  archives.slice(0, keep.last).forEach((one, index) => void add(`last ${index + 1}`, one));
  for (const rule of RULES) {
    const periods = new Map<string, Listed>();
    for (const one of archives) {
      const period = PERIODS[rule](one.time);
      if (!periods.has(period)) periods.set(period, one);
    }
    for (const [period, one] of [...periods].slice(0, keep[rule])) add(`${rule} ${period}`, one);
  }
  // Whatever the policy says.
  const complete = archives.find(({ record }) => record?.missing === 0);
  if (archives[0] && !reasons.has(archives[0].archive)) add('last verified', archives[0]);
  if (complete && !reasons.has(complete.archive)) add('last complete', complete);
  return reasons;
}

/**
 * The decision about every archive, newest first. Only verified archives of our own count; a newer archive that is not
 * verified yet waits for its proof, and the last complete one stays whatever the policy says.
 */
export function planRetention(listed: readonly Listed[], keep: Keep): Decision[] {
  const archives = [...listed].sort((a, b) => (a.archive < b.archive ? 1 : -1));
  const proven = archives.filter((one) => one.record?.source === 'created' && isProven(one));
  const newest = proven[0]?.archive ?? '';
  const reasons = keepers(proven, keep);
  const decide = (one: Listed): [keep: boolean, reason: string] => {
    const { archive, record } = one;
    if (record?.source !== 'created') return [true, 'not created here'];
    if (!isProven(one))
      return archive > newest
        ? [true, 'not verified, but nothing newer is']
        : [false, 'never verified, and a newer one is'];
    const rules = reasons.get(archive);
    return rules ? [true, rules.join(', ')] : [false, 'no rule keeps it'];
  };
  return archives.map((one) => {
    const [keep, reason] = decide(one);
    return { archive: one.archive, keep, reason };
  });
}

export function describeDecisions(decisions: readonly Decision[]): string {
  const lines = decisions.map(
    ({ archive, keep, reason }) => `${keep ? 'keep  ' : 'remove'}  ${archive}  ${reason}`,
  );
  return lines.join('\n') || 'No archives.';
}
