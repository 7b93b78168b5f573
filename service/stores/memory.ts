// Symbolic memory: facts of a project, one value per key, and the audit log that triggers keep of every
// change. The most authoritative of the stores. Its tables are data format 1, shared with older programs.
import { randomUUID } from 'node:crypto';
import type { DatabaseSync } from 'node:sqlite';
import { createSearchIndex, openSearchIndex, type SearchIndex } from './search-index.ts';
import {
  addMissingColumns,
  countByProject,
  type Database,
  openDatabase,
  type Target,
  write,
} from './sqlite.ts';

const TABLES = `
  CREATE TABLE IF NOT EXISTS memory_facts (
    id TEXT PRIMARY KEY,
    scope TEXT NOT NULL,
    category TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    confidence REAL NOT NULL CHECK (confidence >= 0 AND confidence <= 1),
    source TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    UNIQUE (scope, key)
  );
  CREATE TABLE IF NOT EXISTS memory_audit_log (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    fact_id TEXT NOT NULL,
    operation TEXT NOT NULL,
    old_value TEXT,
    new_value TEXT,
    changed_by TEXT,
    changed_at TEXT NOT NULL
  );
  CREATE INDEX IF NOT EXISTS memory_audit_log_fact ON memory_audit_log (fact_id);
`;

const COLUMNS = 'id, category, key, value, confidence, source, created_at, updated_at';

export interface NewFact {
  scope: string;
  key: string;
  /** Any JSON value. */
  value: unknown;
  confidence: number;
  /** Left as it is on an update that gives none. */
  category?: string | undefined;
  source: string;
}

export function openMemory(file: string, busyTimeoutMs: number) {
  const database = openDatabase(file, createSchema, { busyTimeoutMs });
  const index = openSearchIndex(database, 'memory_facts', ({ scope, category, key, value }) => ({
    project: scope,
    // As JSON.stringify writes it: Python escapes letters that are not ASCII.
    text: [key, category === 'general' ? '' : category, JSON.stringify(parseValue(value))].join(' '),
  }));
  return {
    database,
    index,
    addFact: addFact(database, index),
    remove: deleteFact(database, index),
    find: findFacts(database, index),
    countByProject: countByProject(database, 'memory_facts', 'scope', 'updated_at'),
  };
}

export type MemoryStore = ReturnType<typeof openMemory>;

function createSchema(sql: DatabaseSync): void {
  sql.exec(TABLES);
  addMissingColumns(sql, 'memory_facts', { category: 'TEXT', source: 'TEXT' });
  createSearchIndex(sql, 'memory_facts');
  const log = sql
    .prepare(`SELECT name, "notnull" AS required FROM pragma_table_info('memory_audit_log')`)
    .all();
  const noValue = log.some((column) => column.name === 'new_value' && column.required) ? `''` : 'NULL';
  for (const [operation, values] of Object.entries({
    INSERT: `NEW.id, 'INSERT', NULL, NEW.value, NEW.source`,
    UPDATE: `NEW.id, 'UPDATE', OLD.value, NEW.value, NEW.source`,
    DELETE: `OLD.id, 'DELETE', OLD.value, ${noValue}, OLD.source`,
  })) {
    const existing = sql
      .prepare(`SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'memory_facts'`)
      .all()
      .filter(({ sql: text }) => String(text).includes('memory_audit_log'))
      .filter(({ sql: text }) => new RegExp(`\\b(AFTER|BEFORE)\\s+${operation}\\b`, 'i').test(String(text)));
    // The Python server's writes NULL where its own table refuses it, so that nothing could be deleted.
    const broken = operation === 'DELETE' && noValue !== 'NULL';
    if (broken) for (const { name } of existing) sql.exec(`DROP TRIGGER "${name}"`);
    // An older program's trigger under another name already does it; two would log twice.
    else if (existing.length > 0) continue;
    sql.exec(`
      CREATE TRIGGER memory_facts_audit_${operation.toLowerCase()} AFTER ${operation} ON memory_facts BEGIN
        INSERT INTO memory_audit_log (fact_id, operation, old_value, new_value, changed_by, changed_at)
        VALUES (${values}, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'));
      END`);
  }
}

function addFact(database: Database, index: SearchIndex) {
  const { sql } = database;
  const find = sql.prepare('SELECT value FROM memory_facts WHERE scope = ? AND key = ?');
  const upsert = sql.prepare(`
    INSERT INTO memory_facts (id, scope, category, key, value, confidence, source, created_at, updated_at)
    VALUES ($id, $scope, coalesce($category, 'general'), $key, $value, $confidence, $source, $now, $now)
    ON CONFLICT (scope, key) DO UPDATE SET value = excluded.value, confidence = excluded.confidence,
      category = coalesce($category, category), source = excluded.source, updated_at = excluded.updated_at
    RETURNING id, rowid`);
  /** Adds the fact, or updates the one with its (scope, key). `changed`: it had another value. */
  return ({ category, value, ...fact }: NewFact) =>
    write(database, () => {
      const earlier = find.get(fact.scope, fact.key);
      const now = new Date().toISOString();
      const text = JSON.stringify(value);
      const row = upsert.get({ ...fact, id: randomUUID(), value: text, category: category ?? null, now })!;
      index.update(row.rowid!);
      const updated = earlier !== undefined;
      return { id: String(row.id), updated, changed: updated && earlier.value !== text };
    });
}

function deleteFact(database: Database, index: SearchIndex) {
  const statement = database.sql.prepare(
    'DELETE FROM memory_facts WHERE scope = ? AND id = ? RETURNING id, key, rowid',
  );
  return (scope: string, { id }: Target) =>
    write(database, () =>
      statement.all(scope, id ?? null).map(({ rowid, ...fact }) => {
        index.update(rowid!);
        return fact;
      }),
    );
}

function findFacts({ sql }: Database, index: SearchIndex) {
  const recent = sql.prepare(`
    SELECT ${COLUMNS} FROM memory_facts WHERE scope = ? ORDER BY confidence DESC, updated_at DESC LIMIT ?`);
  const search = index.search(COLUMNS, { order: ', confidence DESC, updated_at DESC' });
  /** Best matches first; without a query the most certain and most recent. */
  return async (scope: string, query: string | undefined, limit: number) => {
    const rows = query === undefined ? recent.all(scope, limit) : await search(scope, query, limit);
    return rows.map(({ value, ...row }) => ({ ...row, value: parseValue(value) }));
  };
}

/** Facts of older programs may hold plain text where JSON belongs. */
function parseValue(text: unknown): unknown {
  try {
    return JSON.parse(String(text));
  } catch {
    return text;
  }
}
