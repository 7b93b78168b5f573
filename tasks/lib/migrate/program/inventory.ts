/// <reference path="../../../../node_modules/types-node-24/sqlite.d.ts" />
// A data directory as a whole: what is in each database, and size and hash of everything else.
import fs from 'node:fs';
import { DatabaseSync, type SQLOutputValue } from 'node:sqlite';
import { type DatabaseState, databaseState } from './database.ts';
import { COMPANION, fileHash, isDatabase, join, keyOf, type Path, walk } from './walk.ts';

const ROOT: Path = Buffer.from('/data');

interface Inventory {
  databases: Record<string, DatabaseState>;
  /** Everything else: `size:sha256`, or the target of a link. */
  files: Record<string, string>;
}

export function inventory({ since, known }: { since: string; known?: Inventory }): Inventory {
  const found: Inventory = { databases: {}, files: {} };
  const all = [...walk(ROOT)];
  const isOne = new Map(
    all.map(([path, stat]) => [
      path.toString('latin1'),
      stat.isFile() && isDatabase(join(ROOT, path), stat.size),
    ]),
  );
  for (const [path, stat] of all) {
    const key = keyOf(path);
    const text = path.toString('latin1');
    if (COMPANION.test(text) && isOne.get(text.replace(COMPANION, ''))) continue;
    if (known && !known.databases[key] && !known.files[key]) continue;
    if (isOne.get(text)) found.databases[key] = databaseState(join(ROOT, path), since, known?.databases[key]);
    else if (stat.isSymbolicLink()) found.files[key] = `link:${fs.readlinkSync(join(ROOT, path))}`;
    else if (stat.isFile()) found.files[key] = `${stat.size}:${fileHash(join(ROOT, path))}`;
  }
  return found;
}

/** Rows of one query, values as text. */
export function sample({ database, query }: { database: string; query: string }): Record<string, string>[] {
  if (!fs.existsSync(`/data/${database}`) || fs.statSync(`/data/${database}`).size === 0) return [];
  const sql = new DatabaseSync(`/data/${database}`, { timeout: 10_000 });
  try {
    const rows = sql.prepare(query).all() as Record<string, SQLOutputValue>[];
    return rows.map((row) =>
      Object.fromEntries(Object.entries(row).map(([name, value]) => [name, String(value)])),
    );
  } catch (error) {
    if (/no such (table|column)/.test(String(error))) return [];
    throw error;
  } finally {
    sql.close();
  }
}
