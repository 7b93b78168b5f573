// What tasks have done: one line for each run that changed something, and how long its parts took.
import { hostname, userInfo } from 'node:os';
import { z } from 'zod';
import { errorSummary } from './errors.ts';
import { appendLine, readLines } from './files.ts';
import { log, redact } from './log.ts';
import { session } from './session.ts';

const numbers = z.record(z.string(), z.number());

const entrySchema = z.object({
  /** ISO 8601, UTC: when it began. */
  at: z.string(),
  task: z.string(),
  who: z.string(),
  from: z.string().nullable(),
  to: z.string().nullable(),
  seconds: z.number(),
  /** `incomplete`: a backup from which something is missing. */
  outcome: z.enum(['done', 'failed', 'interrupted', 'incomplete']),
  error: z.string().optional(),
  /** The release that prod runs afterwards. */
  prod: z.string().optional(),
  /** Seconds per step, where the task measures them. */
  phases: numbers.optional(),
  /** Milliseconds of downtime, by environment, where the task measures them. */
  gaps: numbers.optional(),
  /** The Docker context it worked on, if one was named. */
  context: z.string().optional(),
});

export type HistoryEntry = z.output<typeof entrySchema>;
export type HistoryDetails = Pick<HistoryEntry, 'from' | 'to' | 'prod' | 'phases' | 'gaps' | 'context'> &
  Partial<Pick<HistoryEntry, 'outcome' | 'error'>>;

interface Outcome extends Omit<HistoryDetails, 'error'> {
  /** ISO 8601, UTC: when it began. */
  at: string;
  task: string;
  outcome: HistoryEntry['outcome'];
  error?: unknown;
}

export async function appendHistory(root: string, { error, ...outcome }: Outcome): Promise<void> {
  if (session.dryRun) return;
  const entry: HistoryEntry = {
    ...outcome,
    who: `${userInfo().username}@${hostname()}`,
    seconds: (Date.now() - Date.parse(outcome.at)) / 1000,
    ...(error ? { error: errorSummary(error) } : {}),
  };
  await appendLine(root, 'history.jsonl', redact(JSON.stringify(entry)));
}

/**
 * Runs a task's work that is not a list of steps, and leaves one line in the history, whatever the outcome. `details` are
 * read afterwards: what the work finds out goes into them.
 */
export async function withHistory<T>(
  root: string,
  task: string,
  details: HistoryDetails,
  work: () => Promise<T>,
): Promise<T> {
  const at = new Date().toISOString();
  try {
    const value = await work();
    await appendHistory(root, { at, task, outcome: 'done', ...details });
    return value;
  } catch (error) {
    const outcome = (error as { code?: string }).code === 'interrupted' ? 'interrupted' : 'failed';
    await appendHistory(root, { at, task, outcome, error, ...details }).catch(() => {});
    throw error;
  }
}

/** The history, oldest first. */
export function readHistory(root: string): Promise<HistoryEntry[]> {
  return readLines(root, 'history.jsonl', entrySchema);
}

/** Seconds per step, in the order in which they ran. */
export type Phases = Record<string, number>;

export async function timed<T>(phases: Phases, name: string, work: () => Promise<T>): Promise<T> {
  const started = performance.now();
  try {
    return await work();
  } finally {
    phases[name] = Math.round(performance.now() - started) / 1000;
    log.detail(`${name}: ${phases[name]} s`);
  }
}

/** `✓ build 3.2 s, candidate 0.9 s`; `log.done` is silent in a dry run. */
export function logPhases(phases: Phases): void {
  const parts = Object.entries(phases).map(([name, seconds]) => `${name} ${seconds.toFixed(1)} s`);
  log.done(parts.join(', '));
}
