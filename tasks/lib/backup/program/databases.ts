/// <reference path="../../../../node_modules/types-node-24/sqlite.d.ts" />
// Copying live databases as of one moment. The write lock of each is held for some milliseconds, and in that time a reader
// is pinned to the present snapshot of each; from then on writers write, and SQLite's own backup copies what the readers see.
import { accessSync, constants, existsSync } from 'node:fs';
import { join } from 'node:path';
import { backup, DatabaseSync, type StatementSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { freeBytes } from './directory.ts';
import { at, encodeName, placeOf, shown } from './files.ts';
import type { DatabaseFacts, Manifest } from './manifest.ts';
import { BackupError, diskFull, SQLITE, sqliteCode } from './report.ts';

interface Opened {
  path: string;
  /** Opened for writing, never written: it takes the write lock. */
  writer: DatabaseSync;
  /** Opened read-only, so that closing it last can never checkpoint. */
  reader: DatabaseSync;
  journalMode: string;
  pin: StatementSync;
}

export type Pinned = Pick<Opened, 'path' | 'reader' | 'journalMode'>;

export interface Cut {
  /** Databases that are not in WAL mode first: their writers wait until they are copied. */
  databases: Pinned[];
  /** Files that look like a database and are none. */
  others: string[];
  heldMs: number;
  attempts: number;
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
/** For how long several write locks are tried for while some are held already. */
const GATHER_MS = 12;
/** Less than this is what a journal or an index of SQLite may ask for at once. */
const NEXT_TO_NOTHING = 64 * 1024;
const PAGES_PER_STEP = 256;

const isBusy = (error: unknown) => [SQLITE.busy, SQLITE.locked].includes(sqliteCode(error));
const block = (ms: number) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);

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
  const writer = new DatabaseSync(databaseUrl(bytes, 'mode=rw'), { timeout: 0 });
  let reader: DatabaseSync | undefined;
  try {
    const row = writer.prepare('PRAGMA journal_mode').get() as { journal_mode: string };
    writer.prepare('SELECT count(*) FROM sqlite_schema').get();
    reader = new DatabaseSync(bytes, { readOnly: true, timeout: 0 });
    const pin = reader.prepare('SELECT count(*) FROM sqlite_schema');
    pin.get();
    reader.exec(`PRAGMA busy_timeout = ${READER_TIMEOUT_MS}`);
    return { path, writer, reader, journalMode: row.journal_mode, pin };
  } catch (error) {
    writer.close();
    reader?.close();
    throw error;
  }
}

/** What became of a file that looked like a database: one that was empty a moment ago may be anything. */
async function openDatabase(
  root: string,
  path: string,
  timeoutMs: number,
): Promise<Opened | 'other' | 'gone'> {
  try {
    return await untilFree(root, path, timeoutMs, () => openPair(root, path));
  } catch (error) {
    if (sqliteCode(error) === SQLITE.notDatabase) return 'other';
    if (!existsSync(at(root, path))) return 'gone';
    throw error;
  }
}

/** Takes the remaining write locks while some are held; the one that was not to be had in time, or undefined. */
function gather(rest: readonly Opened[], deadline: number): Opened | undefined {
  return rest.find(({ writer }) => {
    for (;;) {
      try {
        writer.exec('BEGIN IMMEDIATE');
        return false;
      } catch (error) {
        if (!isBusy(error)) throw error;
        if (performance.now() > deadline) return true;
        block(0.3);
      }
    }
  });
}

function letGo(databases: readonly Opened[]): void {
  for (const { writer } of databases) if (writer.isTransaction) writer.exec('ROLLBACK');
}

/** Holds every write lock at the same time. Waits long only while nothing is held: no deadlock, no stall. */
async function holdAll(root: string, databases: readonly Opened[], timeoutMs: number) {
  const deadline = performance.now() + timeoutMs;
  let order = [...databases];
  for (let attempts = 1; ; attempts += 1) {
    const [first, ...rest] = order;
    if (!first) return { since: performance.now(), attempts };
    await untilFree(root, first.path, timeoutMs, () => first.writer.exec('BEGIN IMMEDIATE'));
    const since = performance.now();
    const missed = gather(rest, since + GATHER_MS);
    if (!missed) return { since, attempts };
    letGo(databases);
    if (performance.now() > deadline) throw lockedTooLong(missed.path, timeoutMs);
    order = [missed, ...order.filter((one) => one !== missed)];
    await sleep(2 + Math.random() * 20);
  }
}

/** The cut across `paths`. @throws DatabaseError when one of them stays locked, or is damaged */
export async function takeCut(root: string, paths: readonly string[], timeoutMs: number): Promise<Cut> {
  const databases: Opened[] = [];
  const others: string[] = [];
  try {
    for (const path of paths) {
      const opened = await openDatabase(root, path, timeoutMs);
      if (opened === 'other') others.push(path);
      else if (opened !== 'gone') databases.push(opened);
    }
    const { since, attempts } = await holdAll(root, databases, timeoutMs);
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
    const heldMs = Math.round((performance.now() - since) * 10) / 10;
    // While the readers hold their snapshots, closing a writer cannot checkpoint.
    for (const { writer } of databases) writer.close();
    const pinned = databases.map(({ path, reader, journalMode }) => ({ path, reader, journalMode }));
    const isWal = ({ journalMode }: Pinned) => Number(journalMode === 'wal');
    return { databases: pinned.sort((a, b) => isWal(a) - isWal(b)), others, heldMs, attempts, at: now };
  } catch (error) {
    for (const { writer, reader } of databases)
      for (const one of [writer, reader]) if (one.isOpen) one.close();
    throw error;
  }
}

/** Ends a cut that is not copied. */
export function dropCut({ databases }: Cut): void {
  for (const { reader } of databases) reader.close();
}

export interface Copy {
  facts: DatabaseFacts;
  /** Where the copy is; '' for a database without a page, which is an empty file. */
  file: string;
  /** Milliseconds for which writers may have waited: 0 in WAL mode. */
  blockedMs: number;
}

function pragma(database: DatabaseSync, name: string): unknown {
  return Object.values(database.prepare(`PRAGMA ${name}`).get() ?? {})[0];
}

/**
 * Copies pinned databases one after the other, those that are not in WAL mode first; each snapshot ends with its copy. What
 * is returned looks at a copy, which blocks this thread: only once no writer waits any more. After `maxBlockMs` the copy of
 * a database that is not in WAL mode gives up.
 */
export function copyAll(
  databases: readonly Pinned[],
  scratch: string,
  maxBlockMs: number,
): (() => Promise<Copy>)[] {
  const pinnedAt = performance.now();
  let last: Promise<unknown> = Promise.resolve();
  const copies = databases.map((pinned, index) => {
    const copying = last.then(() => copyPinned(pinned, `${scratch}/${index}.db`, pinnedAt, maxBlockMs));
    last = copying.catch(() => {});
    return copying;
  });
  const blocking = copies.filter((_, index) => databases[index]!.journalMode !== 'wal');
  return copies.map((copying, index) => async () => {
    await Promise.allSettled(blocking);
    try {
      return settle(await copying);
    } catch (error) {
      throw inWords(databases[index]!.path, error, scratch);
    }
  });
}

async function copyPinned(
  { path, reader, journalMode }: Pinned,
  file: string,
  pinnedAt: number,
  maxBlockMs: number,
) {
  const blocks = journalMode !== 'wal';
  const progress = () => {
    if (!blocks || performance.now() - pinnedAt <= maxBlockMs) return;
    const reason = `it would block its writers for more than ${maxBlockMs / 1000} s: it is not in WAL mode`;
    throw new DatabaseError(path, 'blocked-too-long', `${reason} ([backup] max_block)`);
  };
  try {
    const pages = Number(pragma(reader, 'page_count'));
    const pageSize = Number(pragma(reader, 'page_size'));
    if (pages > 0) await backup(reader, file, { rate: PAGES_PER_STEP, progress });
    const blockedMs = blocks ? Math.round((performance.now() - pinnedAt) * 10) / 10 : 0;
    // In WAL mode counting holds nobody up; else it is done in the copy, after the writers go on.
    const rows = blocks ? undefined : rowsIfWhole(reader);
    return { path, journalMode, pages, pageSize, rows, blockedMs, file: pages > 0 ? file : '' };
  } finally {
    reader.close();
  }
}

function settle(copy: Awaited<ReturnType<typeof copyPinned>>): Copy {
  const { rows, blockedMs, file, ...facts } = copy;
  const found = file ? inspectCopy(file) : { integrity: 'ok', rows: {} };
  return { facts: { ...facts, integrity: found.integrity, rows: rows ?? found.rows }, file, blockedMs };
}

// What SQLite can say about a database that nobody else has open: whether it is whole, and how many rows it has.

export interface Finding {
  integrity: string;
  /** Empty if it is damaged. */
  rows: Record<string, number>;
}

/** Rows of every real table. Virtual tables keep theirs in shadow tables, which are counted. */
function countRows(database: DatabaseSync): Record<string, number> {
  const tables = database
    .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name")
    .all() as { name: string }[];
  const rows = ({ name }: { name: string }) =>
    Number(database.prepare(`SELECT count(*) AS n FROM "${name.replaceAll('"', '""')}"`).get()?.n);
  return Object.fromEntries(tables.map((table) => [table.name, rows(table)]));
}

function rowsIfWhole(database: DatabaseSync): Record<string, number> | undefined {
  try {
    return countRows(database);
  } catch (error) {
    if (sqliteCode(error) === SQLITE.corrupt) return undefined;
    throw error;
  }
}

function look(database: DatabaseSync): Finding {
  const lines = database.prepare('PRAGMA integrity_check(5)').all();
  const integrity = lines.map((row) => String(Object.values(row)[0])).join('; ');
  return { integrity, rows: integrity === 'ok' ? countRows(database) : {} };
}

/** Undefined for a file that is not a database, whatever its first bytes say. Its file stays as it is. */
export function inspectDatabase(file: string): Finding | undefined {
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(databaseUrl(encodeName(file), 'immutable=1'), { readOnly: true });
    return look(database);
  } catch (error) {
    return sqliteCode(error) === SQLITE.notDatabase
      ? undefined
      : { integrity: (error as Error).message, rows: {} };
  } finally {
    database?.close();
  }
}

/** Makes a copy one file that needs no other, and looks at it. */
function inspectCopy(file: string): Finding {
  const copy = new DatabaseSync(file);
  try {
    // Exclusive, so that the index of its write-ahead log is in memory: as a file it may find no room on a full disk,
    // which SQLite calls an I/O error. https://sqlite.org/wal.html#noshm
    copy.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = OFF; PRAGMA journal_mode = DELETE');
    return look(copy);
  } catch (error) {
    if (sqliteCode(error) !== SQLITE.corrupt) throw error;
    return { integrity: (error as Error).message, rows: {} };
  } finally {
    copy.close();
  }
}

/** Everything in which the databases that were read back differ from those at the cut. Pure. */
export function databaseProblems(manifest: Manifest, findings: ReadonlyMap<string, Finding>): string[] {
  const listed = new Map(manifest.databases.map((one) => [one.path, one]));
  const told = new Set(manifest.missing.map(({ path }) => path));
  const notFound = manifest.databases.filter(({ path, pages }) => pages > 0 && !findings.has(path));
  const problems = [...findings].flatMap(([path, { integrity, rows }]) => {
    if (integrity !== 'ok') return told.has(path) ? [] : [`database: ${shown(path)}: ${integrity}`];
    const expected = listed.get(path)?.rows;
    if (!expected || told.has(path)) return [];
    const tables = new Set([...Object.keys(rows), ...Object.keys(expected)]);
    return [...tables]
      .filter((table) => rows[table] !== expected[table])
      .map(
        (table) =>
          `database: ${shown(path)}: ${table} has ${rows[table]} rows, at the cut ${expected[table]}`,
      );
  });
  return [...problems, ...notFound.map(({ path }) => `database: ${shown(path)} was not found to be one`)];
}

/**
 * One at a time in one backup directory, whoever started it from wherever; held until the process ends, however it ends:
 * the lock is SQLite's own on an empty file. @throws BackupError when another backup, verify or restore has it
 */
export function lockDirectory(directory: string, project: string): void {
  try {
    accessSync(directory, constants.W_OK);
    const lock = new DatabaseSync(join(directory, `.${project}.lock`), { timeout: 0 });
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
