// Episodic memory: what was tried and learnt, written by agents and by automatic learning. The episode
// table is data format 1; the lesson type, which it has no column for, lies in a table beside it.
import { randomUUID } from 'node:crypto';
import { addMatchFunction } from './match.ts';
import { type Database, openDatabase, write } from './sqlite.ts';

const TABLES = `
  CREATE TABLE IF NOT EXISTS episodic_memory (
    id TEXT PRIMARY KEY,
    project_id TEXT NOT NULL,
    situation TEXT NOT NULL,
    action TEXT NOT NULL,
    outcome TEXT NOT NULL,
    lesson TEXT NOT NULL,
    confidence REAL NOT NULL,
    created_at TEXT NOT NULL
  );
  CREATE INDEX IF NOT EXISTS episodic_memory_project ON episodic_memory (project_id, created_at);
  CREATE TABLE IF NOT EXISTS episode_lesson_types (
    episode_id TEXT PRIMARY KEY,
    lesson_type TEXT NOT NULL
  );
`;

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
  const database = openDatabase(file, (sql) => sql.exec(TABLES), { busyTimeoutMs });
  addMatchFunction(database.sql);
  return {
    database,
    addEpisode: addEpisode(database),
    findEpisodes: findEpisodes(database),
    ...overview(database),
  };
}

export type EpisodicStore = ReturnType<typeof openEpisodic>;

function addEpisode(database: Database) {
  const episode = database.sql.prepare(`
    INSERT INTO episodic_memory (id, project_id, situation, action, outcome, lesson, confidence, created_at)
    VALUES ($id, $project_id, $situation, $action, $outcome, $lesson, $confidence, $now)`);
  const type = database.sql.prepare(
    'INSERT INTO episode_lesson_types (episode_id, lesson_type) VALUES (?, ?)',
  );
  return ({ lesson_type, ...columns }: NewEpisode): { id: string } => {
    const id = randomUUID();
    write(database, () => {
      episode.run({ ...columns, id, now: new Date().toISOString() });
      type.run(id, lesson_type);
    });
    return { id };
  };
}

function findEpisodes({ sql }: Database) {
  const columns = `id, situation, action, outcome, lesson, coalesce(lesson_type, 'general') AS lesson_type,
    confidence, created_at`;
  const source = 'episodic_memory LEFT JOIN episode_lesson_types ON episode_id = id';
  const recent = sql.prepare(`
    SELECT ${columns} FROM ${source} WHERE project_id = ? ORDER BY created_at DESC, episodic_memory.rowid DESC LIMIT ?`);
  const matching = sql.prepare(`
    SELECT ${columns}, hits(concat_ws(' ', situation, action, outcome, lesson), $query) AS matched_words
    FROM ${source} WHERE project_id = $project AND matched_words > 0
    ORDER BY matched_words DESC, confidence DESC, created_at DESC LIMIT $limit`);
  /** Best matches first; without a query the newest. */
  return (project: string, query: string | undefined, limit: number) =>
    query === undefined ? recent.all(project, limit) : matching.all({ project, query, limit });
}

function overview({ sql }: Database) {
  const statement = sql.prepare(
    'SELECT project_id, count(*) AS count, max(created_at) AS last FROM episodic_memory GROUP BY project_id',
  );
  return { countByProject: () => statement.all() as { project_id: string; count: number; last: string }[] };
}
