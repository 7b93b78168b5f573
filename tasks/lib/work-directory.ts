// Scratch space of a task, below `.synapse/`, so that the next run can clear what a killed one left.
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { uninterrupted } from './interrupt.ts';
import { session } from './session.ts';
import { ensureStateDirectory, statePath } from './state.ts';

/** Runs `work` with a fresh directory that is removed afterwards; under --dry-run none is made. */
export async function withWorkDirectory<T>(
  root: string,
  work: (directory: string) => Promise<T>,
): Promise<T> {
  if (session.dryRun) return work(statePath(root, 'work-XXXXXX'));
  // A new name each time: an orphaned child of a killed run must not write into this run's files.
  const directory = await mkdtemp(join(await ensureStateDirectory(root), 'work-'));
  try {
    return await work(directory);
  } finally {
    await uninterrupted(() => rm(directory, { recursive: true, force: true }));
  }
}

/** Removes what killed runs left of theirs. Call it holding the lock: every other directory has no owner then. */
export async function clearWorkDirectories(root: string): Promise<void> {
  if (session.dryRun) return;
  const names = await readdir(statePath(root)).catch(() => []);
  const left = names.filter((name) => /^(work-|index-\d)/.test(name));
  await Promise.all(left.map((name) => rm(statePath(root, name), { recursive: true, force: true })));
}
