// What a task was doing when it died, and what tasks have done. A journal is a small file that is replaced
// at each step and removed at the end; the history gets one line per mutating run.
import { appendFile, mkdir, rm } from 'node:fs/promises';
import { hostname, userInfo } from 'node:os';
import { errorSummary, TaskError } from './errors.ts';
import { ensureStateDirectory, readIfPresent, replaceFile, statePath } from './files.ts';
import { log, redact } from './log.ts';
import { session } from './session.ts';

export interface JournalEntry<Data> {
  task: string;
  /** The last step that was begun or done, in the task's own words. */
  step: string;
  /** ISO 8601, UTC. */
  at: string;
  data: Data;
}

export interface Journal<Data> {
  /** Makes `step` durable before the caller goes on. */
  record: (step: string, data: Data) => Promise<void>;
  /** The task came to an end, good or bad, and left nothing to finish. */
  close: () => Promise<void>;
}

function journalPath(root: string, task: string): string {
  return statePath(root, 'journal', `${task}.json`);
}

export async function readJournal<Data>(root: string, task: string): Promise<JournalEntry<Data> | undefined> {
  const path = journalPath(root, task);
  const text = await readIfPresent(path);
  try {
    return text ? (JSON.parse(text) as JournalEntry<Data>) : undefined;
  } catch (cause) {
    throw new TaskError(`Cannot read what an interrupted ${task} left: ${path} is not JSON`, {
      code: 'journal-unreadable',
      hint: `was it edited? Look at what is there (git log, docker images), then remove it: rm ${path}`,
      cause,
    });
  }
}

export function openJournal<Data>(root: string, task: string): Journal<Data> {
  return {
    record: async (step, data) => {
      faultPoint(`${task}/${step}`);
      if (session.dryRun) return;
      await ensureStateDirectory(root);
      await mkdir(statePath(root, 'journal'), { recursive: true });
      const entry: JournalEntry<Data> = { task, step, at: new Date().toISOString(), data };
      await replaceFile(journalPath(root, task), `${JSON.stringify(entry, null, 2)}\n`, { mode: 0o600 });
      faultPoint(`${task}/${step}/recorded`);
    },
    close: async () => {
      faultPoint(`${task}/close`);
      if (!session.dryRun) await rm(journalPath(root, task), { force: true });
    },
  };
}

/**
 * The one place where tests make a task die at a named step: RELEASE_FLOW_FAULT=SIGNAL@TASK/STEP.
 * A kill test that has to guess the moment by time cannot cover every boundary.
 */
function faultPoint(name: string): void {
  const [signal, ...point] = process.env.RELEASE_FLOW_FAULT?.split('@') ?? [];
  if (point.join('@') === name) process.kill(process.pid, signal as NodeJS.Signals);
}

export interface HistoryEntry {
  /** ISO 8601, UTC. */
  at: string;
  task: string;
  who: string;
  from: string | null;
  to: string | null;
  seconds: number;
  outcome: 'done' | 'failed' | 'interrupted';
  error?: string;
  /** The release that prod runs afterwards. */
  prod?: string;
  /** Seconds per phase, where the task measures them. */
  phases?: Record<string, number>;
  /** Milliseconds in which nobody answered, by environment, where the task measures them. */
  gaps?: Record<string, number>;
  /** The Docker context it worked on, if one was named. */
  context?: string;
}

type HistoryDetails = Pick<HistoryEntry, 'from' | 'to' | 'prod' | 'phases' | 'gaps' | 'context'>;

async function appendHistory(root: string, entry: HistoryEntry): Promise<void> {
  if (session.dryRun) return;
  await ensureStateDirectory(root);
  const path = statePath(root, 'history.jsonl');
  // A power cut may have torn the last line: this one must not become its end.
  const isTorn = !((await readIfPresent(path)) ?? '\n').endsWith('\n');
  const line = `${isTorn ? '\n' : ''}${redact(JSON.stringify(entry))}\n`;
  await appendFile(path, line, { mode: 0o600 });
}

/** Runs a mutating task's work and leaves one line in the history, whatever the outcome. */
export async function withHistory<T>(
  root: string,
  task: string,
  details: HistoryDetails,
  work: () => Promise<T>,
) {
  const started = Date.now();
  const entry = (outcome: HistoryEntry['outcome'], error?: unknown): HistoryEntry => ({
    at: new Date(started).toISOString(),
    task,
    who: `${userInfo().username}@${hostname()}`,
    from: details.from,
    to: details.to,
    seconds: (Date.now() - started) / 1000,
    outcome,
    ...(error ? { error: errorSummary(error) } : {}),
    ...(details.prod ? { prod: details.prod } : {}),
    ...(details.phases ? { phases: details.phases } : {}),
    ...(details.gaps ? { gaps: details.gaps } : {}),
    ...(details.context ? { context: details.context } : {}),
  });
  try {
    const value = await work();
    await appendHistory(root, entry('done'));
    return value;
  } catch (error) {
    const interrupted = (error as { code?: string }).code === 'interrupted';
    await appendHistory(root, entry(interrupted ? 'interrupted' : 'failed', error)).catch(() => {});
    throw error;
  }
}

/** The history, oldest first; a line torn by a power cut is skipped. */
export async function readHistory(root: string): Promise<HistoryEntry[]> {
  const text = (await readIfPresent(statePath(root, 'history.jsonl'))) ?? '';
  return text.split('\n').flatMap((line) => {
    try {
      return line ? [JSON.parse(line) as HistoryEntry] : [];
    } catch {
      return [];
    }
  });
}

// How long each part of a task took: measured where it happens, printed and kept in the history.

/** Seconds per phase, in the order in which they ran. */
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

/** `✓ build 3.2 s, candidate 0.9 s`; a dry run took no time worth telling. */
export function logPhases(phases: Phases): void {
  if (session.dryRun) return;
  const parts = Object.entries(phases).map(([name, seconds]) => `${name} ${seconds.toFixed(1)} s`);
  log.done(parts.join(', '));
}

/** Acts that do not need each other; the next step, or the undoing, begins when all have ended. @throws the first's error */
export async function together(...acts: (Promise<void> | undefined)[]): Promise<void> {
  const outcomes = await Promise.allSettled(acts);
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
}
