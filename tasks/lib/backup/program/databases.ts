/// <reference path="../../../../node_modules/types-node-24/sqlite.d.ts" />
// Copying live databases as of one moment. The write lock of each is held for some milliseconds, and in that time a reader
// is pinned to the present snapshot of each; from then on writers write, and SQLite's own backup copies what the readers see.
import { accessSync, constants, existsSync, writeFileSync } from 'node:fs';
import { backup, DatabaseSync, type StatementSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { freeBytes, lockPath } from './directory.ts';
import { at, encodeName, placeOf, shown } from './files.ts';
import { BackupError, diskFull, report, SQLITE, sqliteCode } from './report.ts';

interface Opened {
  path: string;
  /** Opened for writing, never written: it takes the write lock. */
  writer: DatabaseSync;
  /** Opened read-only, so that closing it last can never checkpoint. */
  reader: DatabaseSync;
  isWal: boolean;
  pin: StatementSync;
}

export interface Cut {
  /** Pinned. Those that are not in WAL mode first: their writers wait until they are copied. */
  databases: Pick<Opened, 'path' | 'reader' | 'isWal'>[];
  /** What is not in it: why, or undefined for a file that only looked like a database. */
  rejected: Map<string, DatabaseError | undefined>;
  /** For how long all write locks were held. */
  heldMs: number;
  at: Date;
}

/** A database that cannot be part of the cut; the others can. */
export class DatabaseError extends BackupError {
  readonly path: string;

  constructor(path: string, code: string, reason: string) {
    super(code, reason);
    this.path = path;
  }
}

/** For how long a reader waits by itself, where the work does not try again. */
const READER_TIMEOUT_MS = 1000;
/** For how long a write lock is tried for while others are held. */
const LOCK_WAIT_MS = 12;
/** Less than this is what a journal or an index of SQLite may ask for at once. */
const NEXT_TO_NOTHING = 64 * 1024;
const PAGES_PER_STEP = 256;

const isBusy = (error: unknown) => [SQLITE.busy, SQLITE.locked].includes(sqliteCode(error));
const elapsed = (since: number) => Math.round((performance.now() - since) * 10) / 10;

function lockedTooLong(path: string, timeoutMs: number): DatabaseError {
  const reason = `locked by another program for more than ${timeoutMs / 1000} s`;
  return new DatabaseError(path, 'database-locked', reason);
}

/** SQLite's error about a database, where it wanted to write into `directory` (an index, a journal, a copy). */
function inWords(path: string, error: unknown, directory: string): unknown {
  const code = sqliteCode(error);
  const { message } = error as Error;
  const isFull = [SQLITE.io, SQLITE.cannotOpen].includes(code) && freeBytes(directory) < NEXT_TO_NOTHING;
  if (isFull || code === SQLITE.full) return diskFull(message);
  if (code === 0 || code === SQLITE.notDatabase) return error;
  if (isBusy(error)) return lockedTooLong(path, READER_TIMEOUT_MS);
  return new DatabaseError(path, 'database', `SQLite cannot read it: ${message}`);
}

/** Calls `work` until it is not busy; nothing may be held meanwhile. */
async function untilFree<T>(root: string, path: string, timeoutMs: number, work: () => T): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    try {
      return work();
    } catch (error) {
      if (!isBusy(error)) throw inWords(path, error, `${root}/${placeOf(path)}`);
      if (performance.now() > deadline) throw lockedTooLong(path, timeoutMs);
      await sleep(1 + Math.random() * 4);
    }
  }
}

/** https://sqlite.org/uri.html */
function databaseUrl(path: Buffer, parameters: string): URL {
  const escaped = [...path].map((byte) => (byte === 0x2f ? '/' : `%${byte.toString(16).padStart(2, '0')}`));
  return new URL(`file://${escaped.join('')}?${parameters}`);
}

function openPair(root: string, path: string): Opened {
  const bytes = at(root, path);
  // A database that was deleted meanwhile must not be made again.
  const writer = new DatabaseSync(databaseUrl(bytes, 'mode=rw'), { timeout: LOCK_WAIT_MS });
  let reader: DatabaseSync | undefined;
  try {
    const isWal = pragma(writer, 'journal_mode') === 'wal';
    writer.prepare('SELECT count(*) FROM sqlite_schema').get();
    reader = new DatabaseSync(bytes, { readOnly: true, timeout: 0 });
    const pin = reader.prepare('SELECT count(*) FROM sqlite_schema');
    pin.get();
    reader.exec(`PRAGMA busy_timeout = ${READER_TIMEOUT_MS}`);
    return { path, writer, reader, isWal, pin };
  } catch (error) {
    writer.close();
    reader?.close();
    throw error;
  }
}

function pragma(database: DatabaseSync, name: string): unknown {
  return Object.values(database.prepare(`PRAGMA ${name}`).get() ?? {})[0];
}

function close({ writer, reader }: Opened): void {
  for (const one of [writer, reader]) if (one.isOpen) one.close();
}

function letGo(databases: readonly Opened[]): void {
  for (const { writer } of databases) if (writer.isTransaction) writer.exec('ROLLBACK');
}

/** Takes the write lock, for which SQLite waits LOCK_WAIT_MS; false if somebody else has it. */
function hasLocked(root: string, { path, writer }: Opened): boolean {
  try {
    writer.exec('BEGIN IMMEDIATE');
    return true;
  } catch (error) {
    if (isBusy(error)) return false;
    throw inWords(path, error, `${root}/${placeOf(path)}`);
  }
}

/** Holds every write lock; returns since when. The one that is waited for comes first, while nothing is held: no stall. */
async function holdAll(root: string, databases: readonly Opened[], timeoutMs: number): Promise<number> {
  const deadline = performance.now() + timeoutMs;
  let order = [...databases];
  for (;;) {
    const since = performance.now();
    const missed = order.find((one) => !hasLocked(root, one));
    if (!missed) return since;
    letGo(databases);
    if (performance.now() > deadline) throw lockedTooLong(missed.path, timeoutMs);
    order = [missed, ...order.filter((one) => one !== missed)];
    await sleep(Math.random() * 10);
  }
}

/** Pins all readers to one moment. @throws DatabaseError of one that cannot be part of it */
async function pinAll(root: string, databases: readonly Opened[], timeoutMs: number) {
  const since = await holdAll(root, databases, timeoutMs);
  const now = new Date();
  for (const { path, reader, pin } of databases) {
    try {
      reader.exec('BEGIN');
      pin.get();
    } catch (error) {
      throw inWords(path, error, `${root}/${placeOf(path)}`);
    }
  }
  letGo(databases);
  return { heldMs: elapsed(since), at: now };
}

/** The cut across those of `paths` that can be part of one; what cannot is rejected, with the reason. */
export async function takeCut(root: string, paths: readonly string[], timeoutMs: number): Promise<Cut> {
  const rejected: Cut['rejected'] = new Map();
  let opened: Opened[] = [];
  const reject = (error: unknown) => {
    if (!(error instanceof DatabaseError)) throw error;
    rejected.set(error.path, error);
    opened.filter(({ path }) => path === error.path).forEach(close);
    opened = opened.filter(({ path }) => path !== error.path);
  };
  for (const path of paths) {
    try {
      opened.push(await untilFree(root, path, timeoutMs, () => openPair(root, path)));
    } catch (error) {
      if (sqliteCode(error) === SQLITE.notDatabase) rejected.set(path, undefined);
      else if (existsSync(at(root, path))) reject(error);
    }
  }
  for (;;) {
    try {
      const moment = await pinAll(root, opened, timeoutMs);
      // While the readers hold their snapshots, closing a writer cannot checkpoint.
      for (const { writer } of opened) writer.close();
      const databases = opened.map(({ path, reader, isWal }) => ({ path, reader, isWal }));
      databases.sort((a, b) => Number(a.isWal) - Number(b.isWal));
      return { databases, rejected, ...moment };
    } catch (error) {
      letGo(opened);
      for (const { reader } of opened) if (reader.isTransaction) reader.exec('ROLLBACK');
      reject(error);
    }
  }
}

/** Ends a cut that is not copied. */
export function dropCut({ databases }: Cut): void {
  for (const { reader } of databases) reader.close();
}

export interface Copy {
  path: string;
  file: string;
  /** What `PRAGMA integrity_check` says of the copy: `ok`, or the first problems. */
  integrity: string;
}

/**
 * Copies the databases of a cut, one after the other, into `scratch`; each snapshot ends with its copy. After `maxBlockMs`
 * the copy of a database that is not in WAL mode gives up. `onError` gets what happens to one and spares the others.
 */
export async function copyDatabases(
  { databases }: Cut,
  scratch: string,
  maxBlockMs: number,
  onError: (error: DatabaseError) => void,
): Promise<Copy[]> {
  const pinnedAt = performance.now();
  const copies: Copy[] = [];
  const guard = async (path: string, work: () => Promise<void> | void) => {
    try {
      await work();
    } catch (error) {
      const reason = inWords(path, error, scratch);
      if (!(reason instanceof DatabaseError)) throw reason;
      onError(reason);
    }
  };
  for (const [index, pinned] of databases.entries())
    await guard(pinned.path, async () => {
      const file = `${scratch}/${index}.db`;
      await copyPinned(pinned, file, pinnedAt, maxBlockMs);
      copies.push({ path: pinned.path, file, integrity: '' });
    });
  // Looking at a copy blocks this thread: only now that no writer waits any more.
  for (const copy of copies)
    await guard(copy.path, () => {
      copy.integrity = finishCopy(copy.file);
    });
  return copies.filter(({ integrity }) => integrity !== '');
}

async function copyPinned(
  { path, reader, isWal }: Cut['databases'][number],
  file: string,
  pinnedAt: number,
  maxBlockMs: number,
): Promise<void> {
  const pageSize = Number(pragma(reader, 'page_size'));
  const progress = ({ totalPages, remainingPages }: { totalPages: number; remainingPages: number }) => {
    report.progress(`copy ${shown(path)}`, (totalPages - remainingPages) * pageSize, totalPages * pageSize);
    if (isWal || elapsed(pinnedAt) <= maxBlockMs) return;
    const reason = `it would block its writers for more than ${maxBlockMs / 1000} s: it is not in WAL mode`;
    throw new DatabaseError(path, 'blocked-too-long', `${reason} ([backup] max_block)`);
  };
  try {
    const isEmpty = Number(pragma(reader, 'page_count')) === 0;
    if (isEmpty) writeFileSync(file, '');
    else await backup(reader, file, { rate: PAGES_PER_STEP, progress });
    if (!isWal && !isEmpty)
      report.note(`${shown(path)} is not in WAL mode: its writers were blocked for ${elapsed(pinnedAt)} ms`);
  } finally {
    reader.close();
  }
}

/** Makes a copy one file that needs no other, and checks it. */
function finishCopy(file: string): string {
  const copy = new DatabaseSync(file);
  try {
    // Exclusive, so that the index of its write-ahead log is in memory: as a file it may find no room on a full disk,
    // which SQLite calls an I/O error. https://sqlite.org/wal.html#noshm
    copy.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = OFF; PRAGMA journal_mode = DELETE');
    return integrityOf(copy);
  } catch (error) {
    if (sqliteCode(error) !== SQLITE.corrupt) throw error;
    return (error as Error).message;
  } finally {
    copy.close();
  }
}

function integrityOf(database: DatabaseSync): string {
  const lines = database.prepare('PRAGMA integrity_check(5)').all();
  return lines.map((row) => String(Object.values(row)[0])).join('; ');
}

/** Whether the database in a file is whole: `ok`, or what is wrong; undefined for a file that only looks like one. */
export function checkDatabase(file: string): string | undefined {
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(databaseUrl(encodeName(file), 'immutable=1'), { readOnly: true });
    return integrityOf(database);
  } catch (error) {
    return sqliteCode(error) === SQLITE.notDatabase ? undefined : (error as Error).message;
  } finally {
    database?.close();
  }
}

/**
 * One at a time in one backup directory, whoever started it from wherever; held until the process ends, however it ends:
 * the lock is SQLite's own on an empty file. @throws BackupError when another backup, verify or restore has it
 */
export function lockDirectory(directory: string, project: string): void {
  try {
    accessSync(directory, constants.W_OK);
    const lock = new DatabaseSync(lockPath(directory, project), { timeout: 0 });
    lock.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE');
    // Kept alive: a connection that is collected would let go.
    process.once('exit', () => lock.close());
  } catch (error) {
    if (sqliteCode(error) === SQLITE.busy) {
      const message = 'Another backup task is running in the backup directory';
      throw new BackupError('backup-running', message, 'wait for it to end; its lock goes with it');
    }
    const who = `user id ${process.getuid?.()}, who owns the data, must be able to write there`;
    throw new BackupError(
      'backup-directory',
      `Cannot write to the backup directory: ${(error as Error).message}`,
      `${who}: chown it, or choose another [backup] directory`,
    );
  }
}
