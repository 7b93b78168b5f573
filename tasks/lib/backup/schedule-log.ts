// The log of backups that cron or launchd starts. Nothing else would ever shorten it.
import { appendFile, open, stat, truncate } from 'node:fs/promises';
import type { Project } from '../project.ts';
import { session } from '../session.ts';
import { statePath } from '../state.ts';

const MOST_BYTES = 1024 * 1024;
const KEPT_BYTES = 256 * 1024;

export function scheduleLog(project: Project): string {
  return statePath(project.root, 'backup.log');
}

/** Keeps the end of a log that has grown; cron has it open for appending, so it is shortened in place. */
export async function shortenLog(project: Project): Promise<void> {
  const path = scheduleLog(project);
  const size = await stat(path).then(
    (stats) => stats.size,
    () => 0,
  );
  if (size <= MOST_BYTES || session.dryRun) return;
  const file = await open(path, 'r');
  const tail = Buffer.alloc(KEPT_BYTES);
  await file.read(tail, 0, KEPT_BYTES, size - KEPT_BYTES);
  await file.close();
  await truncate(path, 0);
  await appendFile(path, tail.subarray(tail.indexOf('\n') + 1));
}
