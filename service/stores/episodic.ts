// Episodic memory: what was tried and learnt, written by agents and by automatic learning. The episode
// table is data format 1; the lesson type, for which it has no column, is in a second table.
import { randomUUID } from 'node:crypto';
import type { DatabaseSync } from 'node:sqlite';
import { createSearchIndex, openSearchIndex } from './search-index.ts';
import {
  AUDIT_LOG,
  addMissingColumns,
  auditLog,
  countByProject,
  openDatabase,
  type Target,
  write,
} from './sqlite.ts';

const TABLES = `
  CREATE TABLE IF NOT EXISTS episodic_memory (
    id TEXT PRIMARY KEY,
    project_id TEXT,
    situation TEXT NOT NULL,
    action TEXT NOT NULL,
    outcome TEXT NOT NULL,
    lesson TEXT NOT NULL,
    confidence REAL NOT NULL,
    created_at TEXT NOT NULL
  );
  CREATE TABLE IF NOT EXISTS episode_lesson_types (
    episode_id TEXT PRIMARY KEY,
    lesson_type TEXT NOT NULL
  );
`;

const COLUMNS = `id, situation, action, outcome, lesson, coalesce(lesson_type, 'general') AS lesson_type,
  confidence, created_at`;
/** An episode without a project belongs to every project. */
const OF_PROJECT = `(project_id = ? OR project_id = '' OR project_id IS NULL)`;
const LESSON_TYPE = 'LEFT JOIN episode_lesson_types ON episode_id = id';

export interface NewEpisode {
  project_id: string;
  situation: string;
  action: string;
  outcome: string;
  lesson: string;
  lesson_type: string;
  /** 0–1; agents call it quality. */
  confidence: number;
}

export function openEpisodic(file: string, busyTimeoutMs: number) {
  const database = openDatabase(file, createSchema, busyTimeoutMs);
  const { sql } = database;
  const index = openSearchIndex(database, 'episodic_memory', (row) => ({
    project: row.project_id,
    text: [row.situation, row.action, row.outcome, row.lesson].join(' '),
  }));
  const insert = sql.prepare(`
    INSERT INTO episodic_memory (id, project_id, situation, action, outcome, lesson, confidence, created_at)
    VALUES ($id, $project_id, $situation, $action, $outcome, $lesson, $confidence, $now)`);
  const insertType = sql.prepare('INSERT INTO episode_lesson_types (episode_id, lesson_type) VALUES (?, ?)');
  const remove = sql.prepare(
    `DELETE FROM episodic_memory WHERE ${OF_PROJECT} AND id = ? RETURNING *, rowid AS row`,
  );
  const removeType = sql.prepare('DELETE FROM episode_lesson_types WHERE episode_id = ?');
  const audit = auditLog(database);
  const recent = sql.prepare(`
    SELECT ${COLUMNS} FROM episodic_memory ${LESSON_TYPE} WHERE ${OF_PROJECT}
    ORDER BY created_at DESC, episodic_memory.rowid DESC LIMIT ?`);
  const search = index.search(COLUMNS, { join: LESSON_TYPE, order: 'confidence DESC, created_at DESC' });
  return {
    database,
    index,
    countByProject: countByProject(database, 'episodic_memory', 'project_id', 'created_at'),
    addEpisode: ({ lesson_type, ...columns }: NewEpisode): { id: string } =>
      write(database, () => {
        const id = randomUUID();
        const { lastInsertRowid } = insert.run({ ...columns, id, now: new Date().toISOString() });
        insertType.run(id, lesson_type);
        index.update(lastInsertRowid);
        return { id };
      }),
    remove: (project: string, { id = '' }: Target) =>
      write(database, () =>
        remove.all(project, id).map(({ row, ...episode }) => {
          removeType.run(id);
          index.update(row!);
          audit(id, 'DELETE', episode, undefined);
          return { id, situation: episode.situation };
        }),
      ),
    /** Best matches first; without a query the newest. */
    find: async (project: string, query: string | undefined, limit: number) =>
      query === undefined ? recent.all(project, limit) : await search(project, query, limit),
  };
}

export type EpisodicStore = ReturnType<typeof openEpisodic>;

function createSchema(sql: DatabaseSync): void {
  sql.exec(TABLES);
  sql.exec(AUDIT_LOG);
  // The first versions of the Python server had no projects.
  addMissingColumns(sql, 'episodic_memory', { project_id: 'TEXT' });
  sql.exec(`CREATE INDEX IF NOT EXISTS episodic_memory_project ON episodic_memory (project_id, created_at)`);
  createSearchIndex(sql, 'episodic_memory');
}
