/// <reference path="../../../../node_modules/types-node-24/sqlite.d.ts" />
// The content of a database, whatever pages it lies on: tables, rows, one hash each. Converting a database to
// write-ahead logging or adding tables and columns leaves it as it is.
import { createHash } from 'node:crypto';
import { DatabaseSync, type SQLOutputValue } from 'node:sqlite';
import type { Path } from './walk.ts';

interface TableState {
  columns: string[];
  /** All rows, and those that hold a time after `since`: they are left out of the hash. */
  rows: number;
  recent: number;
  sha256: string;
}

const quote = (name: string) => `"${name.replaceAll('"', '""')}"`;
const ISO_TIME = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d/;

/** The content of one table, hashed row by row in the order of its key, whatever pages it lies on. */
function tableState(sql: DatabaseSync, name: string, since: string, known?: string[]): TableState {
  const info = sql.prepare(`PRAGMA table_info(${quote(name)})`).all() as { name: string; pk: number }[];
  const columns = known ?? info.map((column) => column.name);
  const keys = info.filter(({ pk }) => pk > 0).sort((a, b) => a.pk - b.pk);
  const withoutRowid = (
    sql.prepare('SELECT wr FROM pragma_table_list WHERE name = ?').get(name) as { wr: number }
  ).wr;
  const order = withoutRowid ? keys.map((column) => quote(column.name)).join(', ') : 'rowid';
  const statement = sql.prepare(
    `SELECT ${columns.map(quote).join(', ')} FROM ${quote(name)} ORDER BY ${order}`,
  );
  statement.setReadBigInts(true);
  const hash = createHash('sha256');
  let [rows, recent] = [0, 0];
  for (const row of statement.iterate() as Iterable<Record<string, SQLOutputValue>>) {
    rows += 1;
    const values = columns.map((column) => row[column] ?? null);
    const isRecent = values.some(
      (value) => typeof value === 'string' && ISO_TIME.test(value) && value >= since,
    );
    if (isRecent) recent += 1;
    else for (const value of values) hashValue(hash, value);
  }
  return { columns, rows, recent, sha256: hash.digest('hex') };
}

function hashValue(hash: ReturnType<typeof createHash>, value: SQLOutputValue): void {
  const bytes = value instanceof Uint8Array ? value : Buffer.from(String(value));
  hash.update(
    `${value instanceof Uint8Array ? 'blob' : value === null ? 'null' : typeof value}:${bytes.length}:`,
  );
  hash.update(bytes);
}

export type DatabaseState = Record<string, TableState>;

export function databaseState(path: Path, since: string, known?: DatabaseState): DatabaseState {
  const sql = new DatabaseSync(path, {
    timeout: 10_000,
  });
  try {
    sql.exec('BEGIN');
    const query = `SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
      AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name`;
    const names = (sql.prepare(query).all() as { name: string }[]).map(({ name }) => name);
    const wanted = known ? names.filter((name) => known[name]) : names;
    return Object.fromEntries(
      wanted.map((name) => [name, tableState(sql, name, since, known?.[name]?.columns)]),
    );
  } finally {
    sql.close();
  }
}
