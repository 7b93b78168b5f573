/// <reference path="../../node_modules/types-node-24/sqlite.d.ts" />
// Opening a database that another container may be opening, creating and writing at the same moment, and
// the one way to write to it. Everything about SQLite's locks is here; the stores contain only SQL.
import { randomUUID } from 'node:crypto';
import { rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

export interface Database {
  readonly sql: DatabaseSync;
  readonly file: string;
  /** Identity of the file when it was opened: a restore that swaps it must not go unnoticed. */
  readonly inode: number;
  readonly busyTimeoutMs: number;
}

export type Durability = 'FULL' | 'NORMAL';

/** How long the health probe of one store waits for a lock: all four must fit the time-out of a check. */
const PROBE_TIMEOUT_MS = 500;

/**
 * Opens or creates a database in WAL mode (a file in rollback-journal mode is converted) and runs
 * `schema`, which must be repeatable (`IF NOT EXISTS`), in one transaction.
 * `FULL` survives a power cut after each commit; `NORMAL` may lose the last moments.
 */
export function openDatabase(
  file: string,
  schema: (sql: DatabaseSync) => void,
  { busyTimeoutMs, durability = 'FULL' }: { busyTimeoutMs: number; durability?: Durability },
): Database {
  let sql: DatabaseSync | undefined;
  try {
    sql = new DatabaseSync(file, { timeout: busyTimeoutMs });
    useWal(sql, busyTimeoutMs);
    sql.exec(`PRAGMA synchronous = ${durability}`);
    const database = { sql, file, inode: statSync(file).ino, busyTimeoutMs };
    write(database, () => schema(database.sql));
    return database;
  } catch (error) {
    sql?.close();
    throw new Error(`Cannot open ${file}: ${(error as Error).message}${whoAmI()}`, { cause: error });
  }
}

function whoAmI(): string {
  return ` (as user id ${process.getuid?.()}, which must own the data directory)`;
}

/** Changing the journal mode needs the file alone and does not wait by itself, hence the loop. */
function useWal(sql: DatabaseSync, timeoutMs: number): void {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    try {
      sql.exec('PRAGMA journal_mode = WAL');
      return;
    } catch (error) {
      if (!isBusy(error) || Date.now() > deadline) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20 + Math.random() * 30);
    }
  }
}

/** SQLITE_BUSY or SQLITE_LOCKED, extended codes included. */
function isBusy(error: unknown): boolean {
  const code = (error as { errcode?: number }).errcode ?? 0;
  return (code & 0xff) === 5 || (code & 0xff) === 6;
}

/** Runs `work` in one transaction that takes the write lock first, so that it never fails half-way. */
export function write<T>(database: Database, work: () => T): T {
  database.sql.exec('BEGIN IMMEDIATE');
  try {
    const result = work();
    database.sql.exec('COMMIT');
    return result;
  } catch (error) {
    if (database.sql.isTransaction) database.sql.exec('ROLLBACK');
    throw error;
  }
}

/**
 * Why the database cannot be written now, or undefined when it can. Cheap: takes the write lock, changes
 * a page in memory only, and writes one small file beside the database (full disk, read-only mount).
 */
export function whyNotWritable(database: Database): string | undefined {
  const { sql, file, inode, busyTimeoutMs } = database;
  try {
    if (statSync(file).ino !== inode) return 'the file was replaced under the running service; restart it';
    sql.exec(`PRAGMA busy_timeout = ${Math.min(busyTimeoutMs, PROBE_TIMEOUT_MS)}`);
    sql.exec('BEGIN IMMEDIATE');
    sql.exec('PRAGMA user_version = 0; ROLLBACK');
    probeDirectory(dirname(file));
    return undefined;
  } catch (error) {
    return (error as Error).message;
  } finally {
    if (sql.isTransaction) sql.exec('ROLLBACK');
    sql.exec(`PRAGMA busy_timeout = ${busyTimeoutMs}`);
  }
}

function probeDirectory(directory: string): void {
  const probe = join(directory, `.probe-${randomUUID()}`);
  writeFileSync(probe, 'x'.repeat(4096), { flag: 'wx', mode: 0o600 });
  rmSync(probe);
}
