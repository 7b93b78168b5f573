// Full-text search over a table that other programs write as well. Triggers of plain SQL, which any program can run,
// record the changed rows. This program indexes its own rows at once, those of others before the next search, and those
// from before the index in the background.
import type { DatabaseSync, SQLOutputValue } from 'node:sqlite';
import { type Database, writeInSlices } from './sqlite.ts';
import { exactly, loosely, projectWord, searchableText, wordsOf } from './words.ts';

type Row = Record<string, SQLOutputValue>;

/** Adds the index of a table, once; to be run inside a schema transaction. */
export function createSearchIndex(sql: DatabaseSync, table: string): void {
  const index = `${table}_words`;
  if (sql.prepare('SELECT 1 FROM sqlite_master WHERE name = ?').get(index)) return;
  const triggers = Object.entries({ INSERT: 'NEW', UPDATE: 'NEW', DELETE: 'OLD' }).map(
    ([operation, row]) => `
      CREATE TRIGGER ${index}_${operation.toLowerCase()} AFTER ${operation} ON ${table} BEGIN
        INSERT INTO ${table}_unindexed SELECT ${row}.rowid
          WHERE NOT EXISTS (SELECT 1 FROM ${table}_unindexed WHERE row = ${row}.rowid);
      END;`,
  );
  sql.exec(`
    CREATE VIRTUAL TABLE ${index} USING fts5 (project, text, content = '', contentless_delete = 1,
      tokenize = 'porter unicode61 remove_diacritics 2');
    INSERT INTO ${index} (${index}, rank) VALUES ('rank', 'bm25(0.0, 1.0)');
    CREATE TABLE ${table}_unindexed (row INTEGER PRIMARY KEY);
    INSERT INTO ${table}_unindexed SELECT rowid FROM ${table};
    ${triggers.join('')}`);
}

export type SearchIndex = ReturnType<typeof openSearchIndex>;

/** `describe` gives the project and the text of a row. */
export function openSearchIndex(
  database: Database,
  table: string,
  describe: (row: Row) => { project: unknown; text: string },
) {
  const { sql } = database;
  const index = `${table}_words`;
  const row = sql.prepare(`SELECT * FROM ${table} WHERE rowid = ?`);
  const remove = sql.prepare(`DELETE FROM ${index} WHERE rowid = ?`);
  const add = sql.prepare(`INSERT INTO ${index} (rowid, project, text) VALUES (?, ?, ?)`);
  const done = sql.prepare(`DELETE FROM ${table}_unindexed WHERE row = ?`);
  const next = sql.prepare(`SELECT row FROM ${table}_unindexed ORDER BY row DESC LIMIT 1`);
  const count = sql.prepare(`SELECT count(*) AS rows FROM ${table}_unindexed`);

  const contains = sql.prepare(`SELECT 1 FROM ${index} WHERE ${index} MATCH ? LIMIT 1`);

  /** Indexes a row as it is now, inside the transaction that changed it. */
  const update = (id: SQLOutputValue): void => {
    remove.run(id!);
    const found = row.get(id!);
    if (found) {
      const { project, text } = describe(found);
      add.run(id!, projectWord(project), searchableText(text));
    }
    done.run(id!);
  };
  const updateNext = (): boolean => {
    const found = next.get();
    if (found) update(found.row!);
    return found !== undefined;
  };
  /** Indexes what other programs wrote; reports how many rows are left. */
  const catchUp = async (report: (left: number) => void = () => {}): Promise<void> => {
    let left = Number(count.get()?.rows);
    if (left === 0) return;
    await writeInSlices(database, () => {
      report(left--);
      return updateNext();
    });
  };
  /** Prepares a search for columns of the table and of what is joined to it; `order` decides between equal matches. */
  const search = (columns: string, { join = '', order }: { join?: string; order: string }) => {
    const statement = sql.prepare(`
      SELECT * FROM (
        SELECT ${columns}, round(-${index}.rank, 6) AS score
        FROM ${index} JOIN ${table} ON ${table}.rowid = ${index}.rowid ${join}
        WHERE ${index} MATCH ? ORDER BY ${index}.rank LIMIT ?
      ) ORDER BY score DESC, ${order}`);
    return async (project: string, query: string, limit: number): Promise<Row[]> => {
      await catchUp();
      const inProject = (words: string) =>
        `project : ("${projectWord(project)}" OR "${projectWord('')}") AND text : (${words})`;
      // A word that does not occur in the project is replaced by similar ones.
      const terms = wordsOf(query).map((word) =>
        contains.get(inProject(exactly(word))) ? exactly(word) : loosely(word),
      );
      return terms.length === 0 ? [] : statement.all(inProject(terms.join(' OR ')), limit);
    };
  };
  return { update, search, catchUp };
}
