// Symbolic memory: facts of a project, one value per key, and the audit log that triggers keep of every
// change. The most authoritative of the stores. Its tables are data format 1, shared with older programs.
import { randomUUID } from 'node:crypto';
import type { DatabaseSync } from 'node:sqlite';
import { addMatchFunction } from './match.ts';
import { type Database, openDatabase, write } from './sqlite.ts';

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

const AUDITED = {
  INSERT: `NEW.id, 'INSERT', NULL, NEW.value, NEW.source`,
  UPDATE: `NEW.id, 'UPDATE', OLD.value, NEW.value, NEW.source`,
  DELETE: `OLD.id, 'DELETE', OLD.value, NULL, OLD.source`,
};

const NOW = `strftime('%Y-%m-%dT%H:%M:%fZ', 'now')`;

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
  addMatchFunction(database.sql);
  return { database, addFact: addFact(database), findFacts: findFacts(database), ...overview(database) };
}

export type MemoryStore = ReturnType<typeof openMemory>;

function createSchema(sql: DatabaseSync): void {
  sql.exec(TABLES);
  const existing = sql
    .prepare(`SELECT sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'memory_facts'`)
    .all()
    .map((row) => String(row.sql))
    .filter((text) => text.includes('memory_audit_log'));
  for (const [operation, values] of Object.entries(AUDITED)) {
    // An older program's trigger under another name already does it; two would log twice.
    if (existing.some((text) => new RegExp(`\\b(AFTER|BEFORE)\\s+${operation}\\b`, 'i').test(text))) continue;
    sql.exec(`
      CREATE TRIGGER memory_facts_audit_${operation.toLowerCase()} AFTER ${operation} ON memory_facts BEGIN
        INSERT INTO memory_audit_log (fact_id, operation, old_value, new_value, changed_by, changed_at)
        VALUES (${values}, ${NOW});
      END`);
  }
}

function addFact({ sql, ...rest }: Database) {
  const find = sql.prepare('SELECT id FROM memory_facts WHERE scope = ? AND key = ?');
  const upsert = sql.prepare(`
    INSERT INTO memory_facts (id, scope, category, key, value, confidence, source, created_at, updated_at)
    VALUES ($id, $scope, coalesce($category, 'general'), $key, $value, $confidence, $source, $now, $now)
    ON CONFLICT (scope, key) DO UPDATE SET value = excluded.value, confidence = excluded.confidence,
      category = coalesce($category, category), source = excluded.source, updated_at = excluded.updated_at
    RETURNING id`);
  /** Adds the fact, or updates the one with its (scope, key). */
  return ({ category, value, ...fact }: NewFact): { id: string; updated: boolean } =>
    write({ sql, ...rest }, () => {
      const updated = find.get(fact.scope, fact.key) !== undefined;
      const now = new Date().toISOString();
      const text = JSON.stringify(value);
      const row = upsert.get({ ...fact, id: randomUUID(), value: text, category: category ?? null, now });
      return { id: String(row?.id), updated };
    });
}

function findFacts({ sql }: Database) {
  const columns = 'id, category, key, value, confidence, source, created_at, updated_at';
  const recent = sql.prepare(`
    SELECT ${columns} FROM memory_facts WHERE scope = ? ORDER BY confidence DESC, updated_at DESC LIMIT ?`);
  const matching = sql.prepare(`
    SELECT ${columns}, hits(concat_ws(' ', key, category, value), $query) AS matched_words
    FROM memory_facts WHERE scope = $scope AND matched_words > 0
    ORDER BY matched_words DESC, confidence DESC, updated_at DESC LIMIT $limit`);
  /** Best matches first; without a query the most certain and most recent. */
  return (scope: string, query: string | undefined, limit: number) => {
    const rows = query === undefined ? recent.all(scope, limit) : matching.all({ scope, query, limit });
    return rows.map(({ value, ...row }) => ({ ...row, value: parseValue(String(value)) }));
  };
}

/** Facts of older programs may hold plain text where JSON belongs. */
function parseValue(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function overview({ sql }: Database) {
  const statement = sql.prepare(
    'SELECT scope AS project_id, count(*) AS count, max(updated_at) AS last FROM memory_facts GROUP BY scope',
  );
  return { countByProject: () => statement.all() as { project_id: string; count: number; last: string }[] };
}
