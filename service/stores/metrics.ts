// Call statistics: tool, duration, outcome. A power cut may lose the last records.
import { openDatabase, write } from './sqlite.ts';

const TABLES = `
  CREATE TABLE IF NOT EXISTS tool_calls (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    environment TEXT NOT NULL,
    tool TEXT NOT NULL,
    project_id TEXT,
    outcome TEXT NOT NULL,
    duration_ms REAL NOT NULL,
    called_at TEXT NOT NULL
  );
  CREATE INDEX IF NOT EXISTS tool_calls_time ON tool_calls (called_at);
`;

const DAY_MS = 24 * 60 * 60 * 1000;

export interface ToolCall {
  tool: string;
  project_id: string | null;
  outcome: 'ok' | 'failed' | 'refused';
  duration_ms: number;
}

export type MetricsStore = ReturnType<typeof openMetrics>;

export function openMetrics(file: string, busyTimeoutMs: number, environment: string) {
  const database = openDatabase(file, (sql) => sql.exec(TABLES), busyTimeoutMs, 'NORMAL');
  const insert = database.sql.prepare(`
    INSERT INTO tool_calls (environment, tool, project_id, outcome, duration_ms, called_at)
    VALUES ($environment, $tool, $project_id, $outcome, $duration_ms, $called_at)`);
  const remove = database.sql.prepare('DELETE FROM tool_calls WHERE called_at < ?');
  return {
    database,
    record: (call: ToolCall): void => {
      write(database, () => insert.run({ ...call, environment, called_at: new Date().toISOString() }));
    },
    /** Deletes what is older than the retention; returns how many. */
    prune: (retentionDays: number, now = Date.now()): number => {
      const oldest = new Date(now - retentionDays * DAY_MS).toISOString();
      return Number(write(database, () => remove.run(oldest)).changes);
    },
  };
}
