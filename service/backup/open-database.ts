/// <reference path="../../node_modules/types-node-24/sqlite.d.ts" />
// Opening a live database for a cut: a writer that takes its write lock, a reader that stays when the lock is let
// go. Everything about waiting for locks that others hold is here.
import { join } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { BackupError, diskFull, SQLITE_FULL } from './report.ts';
import { isFull } from './space.ts';

/** A file of the data directory. */
interface Place {
  root: string;
  path: string;
}

export interface Opened extends Place {
  /** Opened for writing, never written: it takes the write lock. */
  writer: DatabaseSync;
  /** Opened read-only, so that closing it last can never checkpoint. */
  reader: DatabaseSync;
  journalMode: string;
  pin: StatementSync;
}

const BUSY = new Set([5, 6]);
const NOT_A_DATABASE = 26;
const CANNOT_OPEN = 14;
const IO_ERROR = 10;
/** For how long a reader waits by itself, where the work does not ask again. */
const READER_TIMEOUT_MS = 1000;

const errorCode = (error: unknown) => ((error as { errcode?: number }).errcode ?? 0) & 0xff;

export const isBusy = (error: unknown) => BUSY.has(errorCode(error));

/** Calls `work` until it is not busy; nothing may be held meanwhile. */
export async function patiently<T>({ root, path }: Place, timeoutMs: number, work: () => T): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    try {
      return work();
    } catch (error) {
      if (!isBusy(error)) throw inWords(path, error, root);
      if (performance.now() > deadline) throw lockedTooLong(path, timeoutMs);
      await sleep(1 + Math.random() * 4);
    }
  }
}

export function lockedTooLong(path: string, timeoutMs: number): BackupError {
  return new BackupError(
    'database-locked',
    `${path} is locked by another program for more than ${timeoutMs / 1000} s`,
    'a program that keeps a transaction open, or locking_mode=EXCLUSIVE, has to end first',
  );
}

/** SQLite's error about a database, where it wanted to write into `directory` (an index, a journal, a copy). */
export function inWords(path: string, error: unknown, directory: string): unknown {
  const code = errorCode(error);
  const { message } = error as Error;
  if ((code === IO_ERROR || code === CANNOT_OPEN) && isFull(directory)) return diskFull(message);
  if (code === 0 || code === SQLITE_FULL || code === NOT_A_DATABASE || code === CANNOT_OPEN) return error;
  if (isBusy(error)) return lockedTooLong(path, READER_TIMEOUT_MS);
  return new BackupError(
    'database',
    `Cannot read ${path}: ${message}`,
    'is it damaged? the last archive has it',
  );
}

function openPair(root: string, path: string): Opened {
  // As a URL with mode=rw: a database that was deleted meanwhile must not be made again.
  const url = pathToFileURL(join(root, path));
  url.searchParams.set('mode', 'rw');
  const writer = new DatabaseSync(url, { timeout: 0 });
  let reader: DatabaseSync | undefined;
  try {
    const row = writer.prepare('PRAGMA journal_mode').get() as { journal_mode: string };
    writer.prepare('SELECT count(*) FROM sqlite_schema').get();
    reader = new DatabaseSync(join(root, path), { readOnly: true, timeout: 0 });
    const pin = reader.prepare('SELECT count(*) FROM sqlite_schema');
    pin.get();
    reader.exec(`PRAGMA busy_timeout = ${READER_TIMEOUT_MS}`);
    return { root, path, writer, reader, journalMode: row.journal_mode, pin };
  } catch (error) {
    writer.close();
    reader?.close();
    throw error;
  }
}

/** Undefined for a file that is gone, or turned out to be no database (it was empty a moment ago). */
export async function openDatabase(
  root: string,
  path: string,
  timeoutMs: number,
): Promise<Opened | undefined> {
  try {
    return await patiently({ root, path }, timeoutMs, () => openPair(root, path));
  } catch (error) {
    const code = errorCode(error);
    if (code === NOT_A_DATABASE || code === CANNOT_OPEN) return undefined;
    throw error;
  }
}
