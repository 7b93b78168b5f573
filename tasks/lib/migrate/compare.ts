// Before and after, compared: every table of every database that was there, every other file. Pure.
import type { Inventory, TableState } from './container.ts';

export interface Comparison {
  databases: number;
  tables: number;
  rows: number;
  files: number;
  /** Tables that clients have written to since the new service started: the hash leaves out what is new. */
  written: string[];
  problems: string[];
}

/** `pruned`: databases of which the new service removes what is old. */
export function compareInventories(
  before: Inventory,
  after: Inventory,
  pruned: readonly string[] = [],
): Comparison {
  const result: Comparison = { databases: 0, tables: 0, rows: 0, files: 0, written: [], problems: [] };
  for (const [path, tables] of Object.entries(before.databases)) {
    result.databases += 1;
    const now = after.databases[path];
    if (!now) result.problems.push(`${path} is no longer a database`);
    else if (!pruned.includes(path)) compareTables(path, tables, now, result);
  }
  for (const [path, content] of Object.entries(before.files)) {
    result.files += 1;
    const now = after.files[path];
    if (now !== content) result.problems.push(now === undefined ? `${path} is gone` : `${path} has changed`);
  }
  return result;
}

function compareTables(
  path: string,
  before: Record<string, TableState>,
  after: Record<string, TableState>,
  result: Comparison,
): void {
  for (const [table, old] of Object.entries(before)) {
    result.tables += 1;
    result.rows += old.rows;
    const now = after[table];
    const where = `${path}, table ${table}`;
    if (!now) result.problems.push(`${where} is gone`);
    else if (now.rows < old.rows) result.problems.push(`${where} had ${old.rows} rows and has ${now.rows}`);
    else if (now.sha256 === old.sha256 && now.rows - now.recent === old.rows - old.recent) {
      if (now.recent > old.recent) result.written.push(where);
    } else if (now.recent > old.recent) result.written.push(where);
    else result.problems.push(`${where} has other content than before`);
  }
}
