/// <reference path="../../node_modules/types-node-24/sqlite.d.ts" />
// One at a time in one backup directory, whoever started it from wherever. The lock is SQLite's own on an empty
// file: the kernel lets go of it when the process dies, however it dies.
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { BackupError } from './report.ts';

const held = new Set<string>();

/** Held until the process ends, however often it asks. @throws BackupError when another backup, verify or restore has it */
export function lockDirectory(directory: string, project: string): void {
  if (held.has(directory)) return;
  try {
    accessSync(directory, constants.W_OK);
    const lock = new DatabaseSync(join(directory, `.${project}.lock`), { timeout: 0 });
    lock.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE');
    // Kept alive: a connection that is collected would let go.
    process.once('exit', () => lock.close());
    held.add(directory);
  } catch (error) {
    const code = ((error as { errcode?: number }).errcode ?? 0) & 0xff;
    if (code === 5)
      throw new BackupError(
        'backup-running',
        'Another backup task is at work in the backup directory',
        'wait for it to end; its lock goes with it',
      );
    throw new BackupError(
      'backup-directory',
      `Cannot write to the backup directory: ${(error as Error).message}`,
      `user id ${process.getuid?.()}, who owns the data, must be able to write there: chown it, or choose another [backup] directory`,
    );
  }
}
