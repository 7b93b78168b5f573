/// <reference path="../../node_modules/types-node-24/sqlite.d.ts" />
// What SQLite can say about a database: whether it is whole, and how many rows it has.
import type { DatabaseSync } from 'node:sqlite';

/** Rows of every real table. Virtual tables keep theirs in shadow tables, which are counted. */
export function countRows(database: DatabaseSync): Record<string, number> {
  const tables = database
    .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name")
    .all() as { name: string }[];
  return Object.fromEntries(
    tables.map(({ name }) => {
      const sql = `SELECT count(*) AS n FROM "${name.replaceAll('"', '""')}"`;
      return [name, Number((database.prepare(sql).get() as { n: number }).n)];
    }),
  );
}

/** `ok`, or the first problems that SQLite finds. */
export function checkIntegrity(database: DatabaseSync): string {
  const rows = database.prepare('PRAGMA integrity_check(5)').all();
  return rows.map((row) => String(Object.values(row)[0])).join('; ');
}
