// Semantic memory: documents cut into chunks and ranked by SQLite's full-text index. The least
// authoritative of the stores, and the only one whose layout (index.db) is this program's own.
// A chunk counts only while its document is listed. So a large document is written and deleted in slices, but
// appears, disappears or changes at once.
import { createHash, randomUUID } from 'node:crypto';
import type { DatabaseSync } from 'node:sqlite';
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

const CHUNK_COUNT = '(SELECT count(*) FROM chunks WHERE document_id = documents.id) AS chunks';

export interface NewDocument {
  project_id: string;
  source_type: string;
  filename: string;
  content: string;
  metadata: Record<string, unknown>;
}

export function openSemantic(file: string, busyTimeoutMs: number, size: ChunkSize) {
  const database = openDatabase(file, createSchema, busyTimeoutMs);
  const index = openSearchIndex(database, 'chunks', ({ project_id, content }) => ({
    project: project_id,
    text: String(content),
  }));
  return {
    database,
    index,
    countByProject: countByProject(database, 'documents', 'project_id', 'created_at'),
    addDocument: (document: NewDocument) => addDocument(database, index, size, document),
    remove: (project: string, { id, source }: Target) =>
      write(database, () => removeDocuments(database, project, id ? { id } : { filename: source ?? '' })),
    removeUnlisted: (now = Date.now()) => removeUnlisted(database, index, now),
    listSources: listSources(database),
    find: findChunks(database, index),
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

/** Stores a document once; one of the same project and name with another text is replaced. */
async function addDocument(
  database: Database,
  index: SearchIndex,
  size: ChunkSize,
  { content, metadata, ...document }: NewDocument,
) {
  const row = {
    ...document,
    id: randomUUID(),
    sha256: createHash('sha256').update(content).digest('hex'),
    metadata: JSON.stringify(metadata),
    created_at: new Date().toISOString(),
  };
  const { id, project_id, filename, sha256 } = row;
  const same = database.sql.prepare(`
    SELECT id AS document_id, ${CHUNK_COUNT} FROM documents WHERE project_id = ? AND filename = ? AND sha256 = ?`);
  const findSame = () => {
    const found = same.get(project_id, filename, sha256);
    return found && { ...found, already_known: true, replaced: 0 };
  };
  const known = findSame();
  if (known) return known;
  const chunks = await writeChunks(database, index, row, chunksOf(content, size));
  return write(database, () => {
    // Another request may have been faster with the same text.
    const known = findSame();
    if (known) {
      unlist(database, id);
      return known;
    }
    const replaced = removeDocuments(database, project_id, { filename }, { id, filename, sha256, chunks });
    insertStatements(database).document.run(row);
    database.sql.prepare('DELETE FROM unlisted_documents WHERE document_id = ?').run(id);
    return { document_id: id, chunks, already_known: false, replaced: replaced.length };
  });
}

/** Writes the chunks of a document that is not listed yet; returns how many. */
async function writeChunks(
  database: Database,
  index: SearchIndex,
  { id, project_id, metadata, created_at }: Record<'id' | 'project_id' | 'metadata' | 'created_at', string>,
  texts: Iterator<string>,
): Promise<number> {
  const insert = insertStatements(database).chunk;
  write(database, () => unlist(database, id, created_at));
  let chunks = 0;
  await writeInSlices(database, () => {
    const { value: content, done } = texts.next();
    if (done) return false;
    const chunk = { id: randomUUID(), document_id: id, project_id, content, metadata, created_at };
    index.update(insert.run({ ...chunk, chunk_index: chunks }).lastInsertRowid);
    chunks += 1;
    return true;
  });
  return chunks;
}

/** Marks the chunks of a document for deletion: at once, or an hour after `since`. */
function unlist({ sql }: Database, id: string, since = ''): void {
  sql.prepare('INSERT OR REPLACE INTO unlisted_documents (document_id, since) VALUES (?, ?)').run(id, since);
}

/** Takes documents off the list, inside a transaction, and logs what they were; their chunks are deleted later. */
function removeDocuments(
  database: Database,
  project: string,
  target: { id: string } | { filename: string },
  replacedBy?: object,
) {
  const { sql } = database;
  // An id also finds a document without a project, which belongs to all; a filename never replaces one.
  const where =
    'id' in target
      ? `project_id IN ($project, '') AND id = $id`
      : 'project_id = $project AND filename = $filename';
  const found = sql.prepare(`
    SELECT id, filename, source_type, sha256, metadata, created_at, ${CHUNK_COUNT} FROM documents WHERE ${where}`);
  const log = auditLog(database);
  return found.all({ project, ...target }).map((document) => {
    const id = String(document.id);
    sql.prepare('DELETE FROM documents WHERE id = ?').run(id);
    unlist(database, id);
    log(id, replacedBy ? 'UPDATE' : 'DELETE', document, replacedBy);
    return { id, filename: document.filename, chunks: document.chunks };
  });
}

/** Deletes chunks whose document was removed, or never listed because its process died. */
async function removeUnlisted(database: Database, index: SearchIndex, now: number): Promise<void> {
  const { sql } = database;
  const due = sql.prepare('SELECT document_id FROM unlisted_documents WHERE since < ? LIMIT 1');
  const some = sql.prepare(`
    DELETE FROM chunks WHERE rowid IN (SELECT rowid FROM chunks WHERE document_id = ? LIMIT 10) RETURNING rowid`);
  const forget = sql.prepare('DELETE FROM unlisted_documents WHERE document_id = ?');
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
}

function listSources({ sql }: Database) {
  const ofType = `project_id IN ($project, '') AND ($type IS NULL OR source_type = $type)`;
  const count = sql.prepare(`SELECT count(*) AS total FROM documents WHERE ${ofType}`);
  const page = sql.prepare(`
    SELECT id AS document_id, source_type, filename, metadata, created_at, ${CHUNK_COUNT}
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
  const search = index.search(columns, { join, order: 'chunk_index' });
  /** Best matches first; without a query the newest. A query without words finds nothing. */
  return async (project: string, query: string | undefined, limit: number) => {
    const rows = query === undefined ? recent.all({ project, limit }) : await search(project, query, limit);
    return rows.map(withMetadata);
  };
}

function withMetadata({ metadata, ...row }: Record<string, unknown>) {
  return { ...row, metadata: JSON.parse(String(metadata)) as unknown };
}

// Cutting a document into overlapping chunks, at the end of a paragraph, line or sentence if one is near.

/** Where to cut, best first, within the last third of a chunk. */
const CUTS = ['\n\n', '\n', '. ', ' '];

export interface ChunkSize {
  /** Characters. */
  chunk_size: number;
  chunk_overlap: number;
}

/** Chunks of at most `chunk_size` characters; each repeats up to `chunk_overlap` of the one before it. */
export function* chunksOf(text: string, { chunk_size, chunk_overlap }: ChunkSize): Generator<string> {
  for (let start = 0; start < text.length; ) {
    const last = start + chunk_size >= text.length;
    const end = last ? text.length : cutBefore(text, start, start + chunk_size);
    const chunk = text.slice(start, end).trim();
    if (chunk !== '') yield chunk;
    if (last) return;
    // A large overlap must not cut thousands of chunks that hardly differ.
    start = wholeCharacter(text, Math.max(end - chunk_overlap, start + Math.ceil(chunk_size / 3)));
  }
}

function cutBefore(text: string, start: number, end: number): number {
  const earliest = start + Math.ceil(((end - start) * 2) / 3);
  const window = text.slice(earliest, end);
  for (const cut of CUTS) {
    const found = window.lastIndexOf(cut);
    if (found >= 0) return earliest + found + cut.length;
  }
  return wholeCharacter(text, end);
}

/** Moves a position forward out of the middle of a surrogate pair. */
function wholeCharacter(text: string, position: number): number {
  const code = text.charCodeAt(position);
  return code >= 0xdc00 && code <= 0xdfff ? position + 1 : position;
}
