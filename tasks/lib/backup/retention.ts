// Which archives stay and why, which go and why. Pure: the plan is what --dry-run prints and what is carried out.
import type { Listed } from './program.ts';

export interface Keep {
  last: number;
  hourly: number;
  daily: number;
  weekly: number;
  monthly: number;
  yearly: number;
}

export interface Decision {
  archive: string;
  keep: boolean;
  /** The rules that keep it, or why it goes. */
  reason: string;
}

const RULES = ['hourly', 'daily', 'weekly', 'monthly', 'yearly'] as const;
type Rule = (typeof RULES)[number];

/** ISO 8601 week, e.g. `2026-W01`: it belongs to the year of its Thursday. */
export function isoWeek(time: string): string {
  const day = new Date(time);
  day.setUTCHours(0, 0, 0, 0);
  day.setUTCDate(day.getUTCDate() + 3 - ((day.getUTCDay() + 6) % 7));
  const firstThursday = new Date(Date.UTC(day.getUTCFullYear(), 0, 4));
  firstThursday.setUTCDate(firstThursday.getUTCDate() + 3 - ((firstThursday.getUTCDay() + 6) % 7));
  const week = 1 + Math.round((day.getTime() - firstThursday.getTime()) / (7 * 86_400_000));
  return `${day.getUTCFullYear()}-W${String(week).padStart(2, '0')}`;
}

/** The period that a time falls into, in UTC: daylight saving must not make an hour come twice. */
function period(rule: Rule, time: string): string {
  switch (rule) {
    case 'hourly':
      return time.slice(0, 13);
    case 'daily':
      return time.slice(0, 10);
    case 'weekly':
      return isoWeek(time);
    case 'monthly':
      return time.slice(0, 7);
    case 'yearly':
      return time.slice(0, 4);
  }
}

export function isEmptyPolicy(keep: Keep): boolean {
  return keep.last === 0 && RULES.every((rule) => keep[rule] === 0);
}

const isProven = ({ record }: Listed) => record !== null && record.proof !== null;
const isOurs = ({ record }: Listed) => record?.source === 'created';

/** The rules that keep each archive, by name. The newest proven archive of a period stands for it. */
function keepers(archives: readonly Listed[], keep: Keep): Map<string, string[]> {
  const reasons = new Map<string, string[]>();
  const add = ({ archive }: Listed, reason: string) =>
    reasons.set(archive, [...(reasons.get(archive) ?? []), reason]);
  archives.slice(0, keep.last).forEach((one, index) => void add(one, `last ${index + 1}`));
  for (const rule of RULES) {
    const seen = new Set<string>();
    for (const one of archives) {
      const name = period(rule, one.time);
      if (seen.size === keep[rule]) break;
      if (!seen.has(name)) add(one, `${rule} ${name}`);
      seen.add(name);
    }
  }
  return reasons;
}

/**
 * The decision about every archive, newest first. Only proven archives of our own count; a newer archive that
 * is not proven yet waits for its proof, and the last proven one stays whatever the policy says.
 */
export function planRetention(listed: readonly Listed[], keep: Keep): Decision[] {
  const archives = [...listed].sort((a, b) => (a.archive < b.archive ? 1 : -1));
  const proven = archives.filter((one) => isOurs(one) && isProven(one));
  const [newest] = proven;
  const reasons = keepers(proven, keep);
  if (newest && !reasons.has(newest.archive)) reasons.set(newest.archive, ['the last proven one']);
  return archives.map((one) => {
    const { archive } = one;
    if (!one.record) return { archive, keep: true, reason: 'not ours: it has no record' };
    if (!isOurs(one)) return { archive, keep: true, reason: 'not ours: it was brought here' };
    if (!isProven(one)) {
      const isNewer = !newest || archive > newest.archive;
      return isNewer
        ? { archive, keep: true, reason: 'not proven, and nothing newer is' }
        : { archive, keep: false, reason: 'never proven, and a newer one is' };
    }
    const why = reasons.get(archive);
    return why
      ? { archive, keep: true, reason: why.join(', ') }
      : { archive, keep: false, reason: 'no rule keeps it' };
  });
}
