/// <reference path="../../../../node_modules/types-node-24/sqlite.d.ts" />
// What a migration asks about data: its content, compared before and after the new service starts; a copy; a few rows;
// its size. Converting a database to WAL, or adding tables and columns, leaves its content as it is.
import { createHash, hash } from 'node:crypto';
import { chmodSync, createReadStream, lchownSync, mkdirSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { backup, DatabaseSync, type SQLOutputValue } from 'node:sqlite';
import { serialize } from 'node:v8';
import { become, type Owner, ownerOf, sync } from './directory.ts';
import { at, copyUntorn, encodeName, type Found, isSideFile, shown, survey } from './files.ts';
import { BackupError, report, SQLITE, sqliteCode } from './report.ts';

const BUSY = { timeout: 10_000 };

/** Everything in /`place` but what belongs to a database. @throws BackupError where something cannot be read */
function entriesOf(place: string): Found[] {
  const {
    entries,
    unreadable: [first],
  } = survey('', [place]);
  if (first) throw new BackupError('not-permitted', `Cannot read ${shown(first.path)}: ${first.reason}`);
  const databases = new Set(entries.filter(({ isDatabase }) => isDatabase).map(({ path }) => path));
  return entries.filter(({ path }) => !isSideFile(path, (database) => databases.has(database)));
}

interface TableState {
  columns: string[];
  /** All rows, and those that hold a time after `since`: they are left out of the hash. */
  rows: number;
  recent: number;
  hash: string;
}

const quote = (name: string) => `"${name.replaceAll('"', '""')}"`;

/** The sum of the hashes of all rows: the same in whatever order they lie. */
function tableState(sql: DatabaseSync, table: string, since: string, known?: string[]): TableState {
  const info = sql.prepare('SELECT name FROM pragma_table_info(?)').all(table);
  const columns = known ?? info.map(({ name }) => String(name));
  const statement = sql.prepare(`SELECT ${columns.map(quote).join(', ')} FROM ${quote(table)}`);
  statement.setReadBigInts(true);
  statement.setReturnArrays(true);
  const isRecent = (value: SQLOutputValue) =>
    typeof value === 'string' && /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d/.test(value) && value >= since;
  let [rows, recent, sum] = [0, 0, 0n];
  for (const values of statement.iterate() as Iterable<SQLOutputValue[]>) {
    rows += 1;
    if (values.some(isRecent)) recent += 1;
    else sum += BigInt(`0x${hash('sha256', serialize(values))}`);
  }
  return { columns, rows, recent, hash: sum.toString(16) };
}

type DatabaseState = Record<string, TableState>;

/** Undefined for a file that is no database, whatever its first bytes say. */
function databaseState(path: string, since: string, known?: DatabaseState): DatabaseState | undefined {
  const sql = new DatabaseSync(at('', path), BUSY);
  try {
    sql.exec('BEGIN');
    const query = `SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0
      AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name`;
    const tables = sql
      .prepare(query)
      .all()
      .map(({ name }) => String(name));
    const wanted = tables.filter((name) => !known || known[name]);
    return Object.fromEntries(
      wanted.map((name) => [name, tableState(sql, name, since, known?.[name]?.columns)]),
    );
  } catch (error) {
    if (sqliteCode(error) === SQLITE.notDatabase) return undefined;
    throw error;
  } finally {
    sql.close();
  }
}

async function fileHash(file: Buffer): Promise<string> {
  const sum = createHash('sha256');
  for await (const chunk of createReadStream(file)) sum.update(chunk);
  return sum.digest('hex');
}

interface Inventory {
  databases: Record<string, DatabaseState>;
  /** Everything else: `size:sha256`, or the target of a link. */
  files: Record<string, string>;
}

/** What is in /data. `known`: looks only at what that inventory has. */
export async function inventory({ since, known }: { since: string; known?: Inventory }): Promise<Inventory> {
  become(ownerOf('/data'));
  const found: Inventory = { databases: {}, files: {} };
  for (const { path, type, stats, target, isDatabase } of entriesOf('data')) {
    const key = path.slice('data/'.length);
    if (known && !known.databases[key] && !known.files[key]) continue;
    const state = isDatabase ? databaseState(path, since, known?.databases[key]) : undefined;
    if (state) found.databases[key] = state;
    else if (type === 'symlink') found.files[key] = `link:${target}`;
    else if (type === 'file') found.files[key] = `${stats.size}:${await fileHash(at('', path))}`;
  }
  return found;
}

/** The rows of a query on a database in /data, values as text; none where it has no such table. */
export function sample({ database, query }: { database: string; query: string }): Record<string, string>[] {
  become(ownerOf('/data'));
  const path = `data/${database}`;
  if (!statSync(`/${path}`, { throwIfNoEntry: false })?.size) return [];
  const sql = new DatabaseSync(at('', path), BUSY);
  try {
    const text = ([name, value]: [string, unknown]) => [name, String(value)];
    return sql
      .prepare(query)
      .all()
      .map((row) => Object.fromEntries(Object.entries(row).map(text)));
  } catch (error) {
    if (/no such (table|column)/.test(String(error))) return [];
    throw error;
  } finally {
    sql.close();
  }
}

/** How much there is in /from, and how many entries the user may not read. */
export function measure({ user }: { user: Owner }): { bytes: number; unreadable: number } {
  const entries = entriesOf('from');
  const isReadable = ({ type, stats: { mode, uid, gid } }: Found) =>
    type === 'symlink' || (mode & (uid === user.uid ? 0o400 : gid === user.gid ? 0o040 : 0o004)) !== 0;
  const unreadable = entries.filter((entry) => !isReadable(entry)).length;
  return { bytes: entries.reduce((sum, { stats }) => sum + stats.size, 0), unreadable };
}

/** Copies /from, which may be in use, to /to, for `owner`: databases through SQLite, files compared by their hash. */
export async function copy({ owner }: { owner: Owner }): Promise<{ bytes: number }> {
  const entries = entriesOf('from');
  const total = entries.reduce((sum, { stats }) => sum + stats.size, 0);
  let bytes = 0;
  for (const { path, type, stats, target: linkTarget, isDatabase } of entries) {
    const [source, target] = [at('', path), at('', path.replace(/^from/, 'to'))];
    if (type === 'other') throw new BackupError('not-copied', `${shown(path)} is neither a file nor a link`);
    if (type === 'directory') mkdirSync(target, { recursive: true });
    else rmSync(target, { force: true });
    if (type === 'symlink') symlinkSync(encodeName(linkTarget), target);
    if (type === 'file' && !(isDatabase && (await copyDatabase(source, target)))) {
      const before = bytes;
      const progress = (done: number) => report.progress('copy', before + done, total);
      const read = await copyUntorn(source, target, progress).catch((error: Error) => {
        throw new BackupError('not-copied', `Cannot copy ${shown(path)}: ${error.message}`);
      });
      sync(target);
      if ((await fileHash(target)) !== read)
        throw new BackupError('copy-differs', `${shown(path)} is not the same after copying`);
    }
    if (type !== 'symlink') chmodSync(target, stats.mode & 0o777);
    lchownSync(target, owner.uid, owner.gid);
    bytes += stats.size;
    report.progress('copy', bytes, total);
  }
  return { bytes };
}

/** False for a file that is no database, whatever its first bytes say. */
async function copyDatabase(source: Buffer, target: Buffer): Promise<boolean> {
  const sql = new DatabaseSync(source, BUSY);
  try {
    // With a reader open the copy never starts over, however much is written.
    sql.exec('BEGIN; SELECT count(*) FROM sqlite_schema');
    await backup(sql, target);
    return true;
  } catch (error) {
    if (sqliteCode(error) === SQLITE.notDatabase) return false;
    throw error;
  } finally {
    sql.close();
  }
}
