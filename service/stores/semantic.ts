// Semantic memory: documents cut into chunks and ranked by SQLite's full-text index. The least
// authoritative of the stores, and the only one whose layout (index.db) is this program's own.
// A chunk counts only while its document is listed: a document of many chunks is written, replaced and deleted in
// slices, and appears or disappears in one moment all the same.
import { createHash, randomUUID } from 'node:crypto';
import type { DatabaseSync } from 'node:sqlite';
import { type ChunkSize, chunksOf } from './chunk.ts';
import { createSearchIndex, openSearchIndex, type SearchIndex } from './search-index.ts';
import {
  AUDIT_LOG,
  auditLog,
  countByProject,
  type Database,
  openDatabase,
  type Target,
  write,
  writeInSlices,
} from './sqlite.ts';

const TABLES = `
  CREATE TABLE IF NOT EXISTS documents (
    id TEXT PRIMARY KEY,
    project_id TEXT NOT NULL,
    source_type TEXT NOT NULL,
    filename TEXT NOT NULL,
    sha256 TEXT,
    metadata TEXT NOT NULL,
    created_at TEXT NOT NULL
  );
  CREATE INDEX IF NOT EXISTS documents_project ON documents (project_id, source_type);
  CREATE TABLE IF NOT EXISTS chunks (
    rowid INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    document_id TEXT NOT NULL,
    project_id TEXT NOT NULL,
    chunk_index INTEGER NOT NULL,
    content TEXT NOT NULL,
    metadata TEXT NOT NULL,
    created_at TEXT NOT NULL
  );
  CREATE INDEX IF NOT EXISTS chunks_document ON chunks (document_id);
  CREATE INDEX IF NOT EXISTS chunks_project ON chunks (project_id, created_at);
  CREATE TABLE IF NOT EXISTS unlisted_documents (
    document_id TEXT PRIMARY KEY,
    since TEXT NOT NULL
  );
  CREATE TABLE IF NOT EXISTS imports (
    name TEXT PRIMARY KEY,
    chunks INTEGER NOT NULL,
    skipped INTEGER NOT NULL,
    imported_at TEXT NOT NULL
  );
`;

/** The index of earlier versions, kept up to date because prod may run one of them on the same data. */
const EARLIER_INDEX = `
  CREATE VIRTUAL TABLE IF NOT EXISTS chunks_fts USING fts5 (
    content, content = 'chunks', content_rowid = 'rowid', tokenize = 'unicode61 remove_diacritics 2'
  );
  CREATE TRIGGER IF NOT EXISTS chunks_inserted AFTER INSERT ON chunks BEGIN
    INSERT INTO chunks_fts (rowid, content) VALUES (NEW.rowid, NEW.content);
  END;
  CREATE TRIGGER IF NOT EXISTS chunks_deleted AFTER DELETE ON chunks BEGIN
    INSERT INTO chunks_fts (chunks_fts, rowid, content) VALUES ('delete', OLD.rowid, OLD.content);
  END;
`;

/** Longer than any document takes: chunks that are still unlisted were left behind by a process that died. */
const ABANDONED_MS = 60 * 60 * 1000;

export interface NewDocument {
  project_id: string;
  source_type: string;
  filename: string;
  content: string;
  metadata: Record<string, unknown>;
}

export function openSemantic(file: string, busyTimeoutMs: number, size: ChunkSize) {
  const database = openDatabase(file, createSchema, { busyTimeoutMs });
  const index = openSearchIndex(database, 'chunks', ({ project_id, content }) => ({
    project: project_id,
    text: String(content),
  }));
  return {
    database,
    index,
    addDocument: addDocument(database, index, size),
    remove: deleteDocuments(database),
    removeUnlisted: removeUnlisted(database, index),
    listSources: listSources(database),
    find: findChunks(database, index),
    countByProject: countByProject(database, 'documents', 'project_id', 'created_at'),
  };
}

export type SemanticStore = ReturnType<typeof openSemantic>;

function createSchema(sql: DatabaseSync): void {
  for (const part of [TABLES, EARLIER_INDEX, AUDIT_LOG]) sql.exec(part);
  createSearchIndex(sql, 'chunks');
}

/** The two INSERT statements, shared with the import of older chunks. */
export function insertStatements({ sql }: Database) {
  return {
    document: sql.prepare(`
      INSERT OR IGNORE INTO documents (id, project_id, source_type, filename, sha256, metadata, created_at)
      VALUES ($id, $project_id, $source_type, $filename, $sha256, $metadata, $created_at)`),
    chunk: sql.prepare(`
      INSERT OR IGNORE INTO chunks (id, document_id, project_id, chunk_index, content, metadata, created_at)
      VALUES ($id, $document_id, $project_id, $chunk_index, $content, $metadata, $created_at)`),
  };
}

function addDocument(database: Database, index: SearchIndex, size: ChunkSize) {
  const insert = insertStatements(database);
  const unlist = unlistStatement(database);
  const list = database.sql.prepare('DELETE FROM unlisted_documents WHERE document_id = ?');
  const same = database.sql.prepare(`
    SELECT id AS document_id, (SELECT count(*) FROM chunks WHERE document_id = documents.id) AS chunks
    FROM documents WHERE project_id = $project_id AND filename = $filename AND sha256 = $sha256`);
  const remove = removeDocuments(database);

  /** The result for a text that is stored already. */
  const findSame = (document: { project_id: string; filename: string; sha256: string }) => {
    const { project_id, filename, sha256 } = document;
    const found = same.get({ project_id, filename, sha256 }) as
      | { document_id: string; chunks: number }
      | undefined;
    return found && { ...found, already_known: true, replaced: 0 };
  };

  /** Lists the document and removes its earlier versions, unless another request was faster with the same text. */
  const publish = (
    row: Omit<NewDocument, 'content' | 'metadata'> & Record<'id' | 'sha256', string>,
    chunks: number,
  ) =>
    write(database, () => {
      const { id, project_id, filename, sha256 } = row;
      const known = findSame(row);
      if (known) {
        unlist.run(id, '');
        return known;
      }
      const replaced = remove(project_id, 'filename', filename, { id, filename, sha256, chunks });
      insert.document.run({ ...row });
      list.run(id);
      return { document_id: id, chunks, already_known: false, replaced: replaced.length };
    });

  /** Stores a document once; one of the same project and name with another text is replaced. */
  return async ({ content, metadata, ...document }: NewDocument) => {
    const sha256 = createHash('sha256').update(content).digest('hex');
    const known = findSame({ ...document, sha256 });
    if (known) return known;
    const id = randomUUID();
    const shared = { metadata: JSON.stringify(metadata), created_at: new Date().toISOString() };
    write(database, () => unlist.run(id, shared.created_at));
    const texts = chunksOf(content, size);
    let count = 0;
    await writeInSlices(database, () => {
      const { value: text, done } = texts.next();
      if (done) return false;
      const chunk = { ...shared, id: randomUUID(), document_id: id, project_id: document.project_id };
      index.update(insert.chunk.run({ ...chunk, chunk_index: count, content: text }).lastInsertRowid);
      count += 1;
      return true;
    });
    return publish({ ...document, ...shared, id, sha256 }, count);
  };
}

function unlistStatement({ sql }: Database) {
  return sql.prepare('INSERT OR REPLACE INTO unlisted_documents (document_id, since) VALUES (?, ?)');
}

/** Takes documents off the list, inside a transaction, and notes what they were; their chunks go in slices. */
function removeDocuments(database: Database) {
  const columns = `id, filename, source_type, sha256, metadata, created_at,
    (SELECT count(*) FROM chunks WHERE document_id = documents.id) AS chunks`;
  const find = {
    id: database.sql.prepare(`SELECT ${columns} FROM documents WHERE project_id IN (?, '') AND id = ?`),
    filename: database.sql.prepare(`SELECT ${columns} FROM documents WHERE project_id = ? AND filename = ?`),
  };
  const remove = database.sql.prepare('DELETE FROM documents WHERE id = ?');
  const unlist = unlistStatement(database);
  const audit = auditLog(database);
  return (project: string, key: 'id' | 'filename', value: string, replacedBy?: object) =>
    find[key].all(project, value).map((document) => {
      const id = String(document.id);
      remove.run(id);
      unlist.run(id, '');
      audit(id, replacedBy ? 'UPDATE' : 'DELETE', document, replacedBy);
      return { id, filename: document.filename, chunks: document.chunks };
    });
}

function deleteDocuments(database: Database) {
  const remove = removeDocuments(database);
  return (project: string, { id, source }: Target) =>
    write(database, () => remove(project, id ? 'id' : 'filename', id ?? source ?? ''));
}

/** Deletes chunks whose document was removed, or never listed because its process died. */
function removeUnlisted(database: Database, index: SearchIndex) {
  const { sql } = database;
  const due = sql.prepare('SELECT document_id FROM unlisted_documents WHERE since < ? LIMIT 1');
  const some = sql.prepare(`
    DELETE FROM chunks WHERE rowid IN (SELECT rowid FROM chunks WHERE document_id = ? LIMIT 10) RETURNING rowid`);
  const forget = sql.prepare('DELETE FROM unlisted_documents WHERE document_id = ?');
  return async (now = Date.now()): Promise<void> => {
    const before = new Date(now - ABANDONED_MS).toISOString();
    if (!due.get(before)) return;
    await writeInSlices(database, () => {
      const found = due.get(before);
      if (!found) return false;
      const rows = some.all(found.document_id!);
      for (const { rowid } of rows) index.update(rowid!);
      if (rows.length === 0) forget.run(found.document_id!);
      return true;
    });
  };
}

function listSources({ sql }: Database) {
  const ofType = `project_id IN ($project, '') AND ($type IS NULL OR source_type = $type)`;
  const count = sql.prepare(`SELECT count(*) AS total FROM documents WHERE ${ofType}`);
  const page = sql.prepare(`
    SELECT id AS document_id, source_type, filename, metadata, created_at,
      (SELECT count(*) FROM chunks WHERE document_id = documents.id) AS chunks
    FROM documents WHERE ${ofType} ORDER BY created_at DESC, documents.rowid DESC LIMIT $limit OFFSET $offset`);
  return (project: string, sourceType: string | undefined, limit: number, offset: number) => {
    const type = { project, type: sourceType ?? null };
    const sources = page.all({ ...type, limit, offset }).map(withMetadata);
    return { total: Number(count.get(type)?.total), sources };
  };
}

function findChunks({ sql }: Database, index: SearchIndex) {
  const columns = `chunks.id, chunks.document_id, filename, chunk_index, chunks.content, chunks.metadata,
    chunks.created_at`;
  const join = 'JOIN documents ON documents.id = document_id';
  const recent = sql.prepare(`
    SELECT ${columns} FROM chunks ${join} WHERE chunks.project_id IN ($project, '')
    ORDER BY chunks.created_at DESC, chunk_index LIMIT $limit`);
  const search = index.search(columns, { join, order: ', chunk_index' });
  /** Best matches first; without a query the newest. A query without words finds nothing. */
  return async (project: string, query: string | undefined, limit: number) => {
    const rows = query === undefined ? recent.all({ project, limit }) : await search(project, query, limit);
    return rows.map(withMetadata);
  };
}

function withMetadata({ metadata, ...row }: Record<string, unknown>) {
  return { ...row, metadata: JSON.parse(String(metadata)) as unknown };
}
