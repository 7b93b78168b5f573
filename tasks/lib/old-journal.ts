// Replaced by steps.ts; to go once every task runs on it. What a task was doing when it died, and what tasks have done. A journal is a small file that is replaced
// at each step and removed at the end; the history gets one line per mutating run.
import { mkdir, rm } from 'node:fs/promises';
import { TaskError } from './errors.ts';
import { ensureStateDirectory, readIfPresent, replaceFile, statePath } from './files.ts';
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
