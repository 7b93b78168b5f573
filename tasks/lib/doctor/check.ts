// What a check is: a value with a name and a question, answered by a finding. Checks live in lists, so that one can
// be added, tested and timed without touching the others.
import type { Facts } from './facts.ts';

/** `unchecked`: it could not be asked, or does not apply, and the detail says why; never counted as well. */
export type Verdict = 'ok' | 'warning' | 'failed' | 'unchecked';

export interface Finding {
  verdict: Verdict;
  detail: string;
  /** What to do; every failure has one. */
  remedy?: string;
}

export interface Check {
  /** Stable, machine-readable. */
  id: string;
  title: string;
  /** It asks nothing that .env decides, so it can be made without one. */
  withoutDotenv?: true;
  run: (facts: Facts) => Promise<Finding> | Finding;
}

export const ok = (detail: string): Finding => ({ verdict: 'ok', detail });
export const unchecked = (why: string): Finding => ({ verdict: 'unchecked', detail: why });
export const warning = (detail: string, remedy: string): Finding => ({ verdict: 'warning', detail, remedy });
export const failed = (detail: string, remedy: string): Finding => ({ verdict: 'failed', detail, remedy });

/** One element of a list of problems, or none. */
export function when(condition: unknown, problem: () => Finding): Finding[] {
  return condition ? [problem()] : [];
}

/** Several things that one check may find: ok if none, with every detail and every remedy once. */
export function gather(problems: readonly Finding[], well: string): Finding {
  if (problems.length === 0) return ok(well);
  const verdict = problems.some((one) => one.verdict === 'failed') ? 'failed' : 'warning';
  const remedies = [...new Set(problems.flatMap(({ remedy }) => remedy ?? []))];
  return { verdict, detail: problems.map(({ detail }) => detail).join('\n'), remedy: remedies.join('\n') };
}
