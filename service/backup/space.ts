// Is there room for an archive? Asked before anything is written: a full disk is somebody else's outage too.
import { statfsSync } from 'node:fs';
import type { Listed } from './catalog.ts';
import { BackupError } from './report.ts';

/** How small data gets, where no earlier archive tells. */
const GUESSED_RATIO = 0.6;
const MARGIN = 1.1;

/** Bytes that a backup needs at most at one time: copies of the databases, and the archive. Pure. */
export function bytesNeeded(dataBytes: number, databaseBytes: number, archives: readonly Listed[]): number {
  const last = archives.findLast(({ record }) => record?.proof && record.dataBytes > 0)?.record;
  const ratio = last ? Math.min(1, (last.bytes / last.dataBytes) * MARGIN) : GUESSED_RATIO;
  return Math.ceil(dataBytes * ratio + databaseBytes);
}

export function freeBytes(directory: string): number {
  const { bavail, bsize } = statfsSync(directory);
  return bavail * bsize;
}

/** Less than this is what a journal or an index of SQLite may ask for at once. */
const NEXT_TO_NOTHING = 64 * 1024;

/** Where SQLite has no better word than "I/O error" or "unable to open": is it that there is no room? */
export function isFull(directory: string): boolean {
  return freeBytes(directory) < NEXT_TO_NOTHING;
}

/** @throws BackupError when the backup directory's file system has less than `needed` */
export function verifySpace(directory: string, needed: number): void {
  const free = freeBytes(directory);
  if (free >= needed) return;
  const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;
  throw new BackupError(
    'no-space',
    `Not enough room in the backup directory: ${megabytes(free)} are free, about ${megabytes(needed)} are needed`,
    'make room, keep fewer archives ([backup.keep]), or choose another [backup] directory; nothing was written',
  );
}
