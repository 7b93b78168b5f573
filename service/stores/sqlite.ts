/// <reference path="../../node_modules/types-node-24/sqlite.d.ts" />
// Opens and writes databases that another container may open, create and write at the same time. Everything about
// SQLite's locks is here; the stores contain only SQL.
import { randomUUID } from 'node:crypto';
import { rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout } from 'node:timers/promises';

export interface Database {
  readonly sql: DatabaseSync;
  readonly file: string;
  /** Inode of the file when it was opened, to notice a restore that replaces it. */
  readonly inode: number;
  readonly busyTimeoutMs: number;
  /** When the health probe first found the write lock taken, in milliseconds since 1970. */
  busySince?: number | undefined;
}

/** How long a part of a large write keeps other requests waiting. */
const SLICE_MS = 20;

/** SQLITE_PERM, READONLY, CANTOPEN, AUTH: probably a wrong owner of the data directory. */
const ACCESS_CODES = [3, 8, 14, 23];

/**
 * Opens or creates a database in WAL mode (a file in rollback-journal mode is converted) and runs
 * `schema`, which must be repeatable (`IF NOT EXISTS`), in one transaction.
 * `FULL` survives a power cut after each commit; `NORMAL` may lose the last moments.
 */
export function openDatabase(
  file: string,
  schema: (sql: DatabaseSync) => void,
  busyTimeoutMs: number,
  durability: 'FULL' | 'NORMAL' = 'FULL',
): Database {
  let sql: DatabaseSync | undefined;
  try {
    // The Python server's audit log refers to its facts and would lose the history of a deleted one.
    sql = new DatabaseSync(file, { timeout: busyTimeoutMs, enableForeignKeyConstraints: false });
    useWal(sql, busyTimeoutMs);
    sql.exec(`PRAGMA synchronous = ${durability}`);
    const database = { sql, file, inode: statSync(file).ino, busyTimeoutMs };
    write(database, () => schema(database.sql));
    return database;
  } catch (error) {
    sql?.close();
    const hint = ACCESS_CODES.includes(resultCode(error)) ? ownerHint() : '';
    throw new Error(`Cannot open ${file}: ${(error as Error).message}${hint}`, { cause: error });
  }
}

export const ownerHint = () => `\nhint: user id ${process.getuid?.()} must own the data directory`;

/** SQLite's result code without its extension; 0 for other errors. */
function resultCode(error: unknown): number {
  return ((error as { errcode?: number }).errcode ?? 0) & 0xff;
}

/** SQLITE_BUSY or SQLITE_LOCKED. */
function isBusy(error: unknown): boolean {
  return [5, 6].includes(resultCode(error));
}

/** Changing the journal mode needs exclusive access and ignores the busy timeout, hence the loop. */
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

/** Adds the columns that a table of an older program lacks. */
export function addMissingColumns(sql: DatabaseSync, table: string, columns: Record<string, string>): void {
  const present = sql.prepare(`SELECT name FROM pragma_table_info('${table}')`).all();
  for (const [name, type] of Object.entries(columns)) {
    if (!present.some((column) => column.name === name))
      sql.exec(`ALTER TABLE ${table} ADD COLUMN ${name} ${type}`);
  }
}

/** Runs `work` in one transaction that takes the write lock first, so that it never fails half-way. */
export function write<T>({ sql }: Database, work: () => T): T {
  sql.exec('BEGIN IMMEDIATE');
  try {
    const result = work();
    sql.exec('COMMIT');
    return result;
  } catch (error) {
    if (sql.isTransaction) sql.exec('ROLLBACK');
    throw error;
  }
}

/**
 * Runs `step` until it returns false, in many short transactions between which other requests are served and
 * the other environment can write. A power cut may lose them: the write that makes them count comes last.
 */
export async function writeInSlices(database: Database, step: () => boolean): Promise<void> {
  const { sql, busyTimeoutMs } = database;
  let deadline = Date.now() + busyTimeoutMs;
  for (let more = true; more; ) {
    if (!sql.isOpen) throw new Error('the service is stopping');
    // It waits for the lock between slices: waiting within one would block all requests.
    sql.exec('PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 0');
    let begun = false;
    try {
      const end = performance.now() + SLICE_MS;
      write(database, () => {
        begun = true;
        do more = step();
        while (more && performance.now() < end);
      });
      deadline = Date.now() + busyTimeoutMs;
    } catch (error) {
      if (begun || !isBusy(error) || Date.now() > deadline) throw error;
    } finally {
      sql.exec(`PRAGMA synchronous = FULL; PRAGMA busy_timeout = ${busyTimeoutMs}`);
    }
    await setTimeout(1);
  }
}

/** For stores whose changes are logged by auditLog instead of triggers. */
export const AUDIT_LOG = `
  CREATE TABLE IF NOT EXISTS audit_log (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    record_id TEXT NOT NULL,
    operation TEXT NOT NULL,
    old_value TEXT,
    new_value TEXT,
    changed_at TEXT NOT NULL
  )`;

/** Logs a change inside its transaction, as the triggers of the facts do. */
export function auditLog({ sql }: Database) {
  const insert = sql.prepare(
    'INSERT INTO audit_log (record_id, operation, old_value, new_value, changed_at) VALUES (?, ?, ?, ?, ?)',
  );
  return (id: string, operation: 'UPDATE' | 'DELETE', before: object, after: object | undefined): void => {
    const now = new Date().toISOString();
    insert.run(id, operation, JSON.stringify(before), after ? JSON.stringify(after) : null, now);
  };
}

/** What is deleted: one record by its id, or the document of a source. */
export interface Target {
  id?: string | undefined;
  source?: string | undefined;
}

export interface ProjectCount {
  project_id: string;
  count: number;
  last: string;
}

/** How many rows each project has, and when the last one changed. */
export function countByProject({ sql }: Database, table: string, project: string, time: string) {
  const statement = sql.prepare(`
    SELECT ${project} AS project_id, count(*) AS count, coalesce(max(${time}), '') AS last
    FROM ${table} WHERE ${project} <> '' GROUP BY 1`);
  return () => statement.all() as unknown as ProjectCount[];
}

/**
 * Why the database cannot be written now, or undefined when it can. Waits for nothing: takes the write lock,
 * changes a page in memory only, and writes one small file beside the database (full disk, read-only mount).
 * A taken lock counts only after a writer's busy timeout.
 */
export function whyNotWritable(database: Database, now = Date.now()): string | undefined {
  const { sql, file, inode, busyTimeoutMs } = database;
  try {
    if (statSync(file).ino !== inode) return 'the file was replaced under the running service; restart it';
    probeDirectory(dirname(file));
    sql.exec('PRAGMA busy_timeout = 0');
    sql.exec('BEGIN IMMEDIATE');
    sql.exec('PRAGMA user_version = 0; ROLLBACK');
    database.busySince = undefined;
    return undefined;
  } catch (error) {
    if (!isBusy(error)) return (error as Error).message;
    database.busySince ??= now;
    return now - database.busySince < busyTimeoutMs ? undefined : (error as Error).message;
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
