// Symbolic memory: facts of a project, one value per key, and the audit log that triggers keep of every
// change. The most authoritative of the stores. Its tables are data format 1, shared with older programs.
import { randomUUID } from 'node:crypto';
import type { DatabaseSync } from 'node:sqlite';
import { createSearchIndex, openSearchIndex } from './search-index.ts';
import { addMissingColumns, countByProject, openDatabase, type Target, write } from './sqlite.ts';

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

const BEST = 'confidence DESC, updated_at DESC';

const UPSERT = `
  INSERT INTO memory_facts (id, scope, category, key, value, confidence, source, created_at, updated_at)
  VALUES ($id, $scope, coalesce($category, 'general'), $key, $value, $confidence, $source, $now, $now)
  ON CONFLICT (scope, key) DO UPDATE SET value = excluded.value, confidence = excluded.confidence,
    category = coalesce($category, category), source = excluded.source, updated_at = excluded.updated_at
  RETURNING id, rowid`;

export interface NewFact {
  scope: string;
  key: string;
  /** Any JSON value. */
  value: unknown;
  confidence: number;
  /** Left as it is on an update that gives none. */
  category?: string | null | undefined;
  source: string;
}

export function openMemory(file: string, busyTimeoutMs: number) {
  const database = openDatabase(file, createSchema, busyTimeoutMs);
  const { sql } = database;
  const index = openSearchIndex(database, 'memory_facts', ({ scope, category, key, value }) => ({
    project: scope,
    // As JSON.stringify writes it: Python escapes letters that are not ASCII.
    text: [key, category === 'general' ? '' : category, JSON.stringify(parseValue(value))].join(' '),
  }));
  const earlier = sql.prepare('SELECT value FROM memory_facts WHERE scope = ? AND key = ?');
  const upsert = sql.prepare(UPSERT);
  const remove = sql.prepare('DELETE FROM memory_facts WHERE scope = ? AND id = ? RETURNING id, key, rowid');
  const best = sql.prepare(`SELECT ${COLUMNS} FROM memory_facts WHERE scope = ? ORDER BY ${BEST} LIMIT ?`);
  const search = index.search(COLUMNS, { order: BEST });
  return {
    database,
    index,
    countByProject: countByProject(database, 'memory_facts', 'scope', 'updated_at'),
    /** Adds the fact, or updates the one with its (scope, key). `changed`: it had another value. */
    addFact: ({ category = null, value, ...fact }: NewFact) =>
      write(database, () => {
        const before = earlier.get(fact.scope, fact.key);
        const now = new Date().toISOString();
        const text = JSON.stringify(value);
        const row = upsert.get({ ...fact, id: randomUUID(), value: text, category, now })!;
        index.update(row.rowid!);
        const updated = before !== undefined;
        return { id: String(row.id), updated, changed: updated && before.value !== text };
      }),
    remove: (scope: string, { id = '' }: Target) =>
      write(database, () =>
        remove.all(scope, id).map(({ rowid, ...fact }) => {
          index.update(rowid!);
          return fact;
        }),
      ),
    /** Best matches first; without a query the most certain and most recent. */
    find: async (scope: string, query: string | undefined, limit: number) => {
      const rows = query === undefined ? best.all(scope, limit) : await search(scope, query, limit);
      return rows.map(({ value, ...row }) => ({ ...row, value: parseValue(value) }));
    },
  };
}

export type MemoryStore = ReturnType<typeof openMemory>;

function createSchema(sql: DatabaseSync): void {
  sql.exec(TABLES);
  addMissingColumns(sql, 'memory_facts', { category: 'TEXT', source: 'TEXT' });
  createSearchIndex(sql, 'memory_facts');
  keepAuditLog(sql);
}

/** Replaces an older program's triggers: two would log twice, and the Python server's cannot log a deletion. */
function keepAuditLog(sql: DatabaseSync): void {
  const columns = sql.prepare(
    `SELECT name, "notnull" AS required FROM pragma_table_info('memory_audit_log')`,
  );
  const required = columns.all().some((column) => column.name === 'new_value' && column.required);
  const old = sql.prepare(`SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'memory_facts'
    AND sql LIKE '%memory_audit_log%' AND name NOT LIKE 'memory_facts_audit_%'`);
  for (const { name } of old.all()) sql.exec(`DROP TRIGGER "${name}"`);
  for (const [operation, values] of Object.entries({
    INSERT: `NEW.id, 'INSERT', NULL, NEW.value, NEW.source`,
    UPDATE: `NEW.id, 'UPDATE', OLD.value, NEW.value, NEW.source`,
    DELETE: `OLD.id, 'DELETE', OLD.value, ${required ? `''` : 'NULL'}, OLD.source`,
  }))
    sql.exec(`
      CREATE TRIGGER IF NOT EXISTS memory_facts_audit_${operation.toLowerCase()} AFTER ${operation} ON memory_facts
      BEGIN
        INSERT INTO memory_audit_log (fact_id, operation, old_value, new_value, changed_by, changed_at)
        VALUES (${values}, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'));
      END`);
}

/** Facts of older programs may hold plain text where JSON belongs. */
function parseValue(text: unknown): unknown {
  try {
    return JSON.parse(String(text));
  } catch {
    return text;
  }
}
