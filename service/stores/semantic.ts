// Semantic memory: documents cut into chunks and ranked by SQLite's full-text index. The least
// authoritative of the stores, and the only one whose layout (index.db) is this program's own.
import { createHash, randomUUID } from 'node:crypto';
import { type ChunkSize, chunkText } from './chunk.ts';
import { fullTextQuery } from './match.ts';
import { type Database, openDatabase, write } from './sqlite.ts';

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
  CREATE VIRTUAL TABLE IF NOT EXISTS chunks_fts USING fts5 (
    content, content = 'chunks', content_rowid = 'rowid', tokenize = 'unicode61 remove_diacritics 2'
  );
  CREATE TRIGGER IF NOT EXISTS chunks_inserted AFTER INSERT ON chunks BEGIN
    INSERT INTO chunks_fts (rowid, content) VALUES (NEW.rowid, NEW.content);
  END;
  CREATE TRIGGER IF NOT EXISTS chunks_deleted AFTER DELETE ON chunks BEGIN
    INSERT INTO chunks_fts (chunks_fts, rowid, content) VALUES ('delete', OLD.rowid, OLD.content);
  END;
  CREATE TABLE IF NOT EXISTS imports (
    name TEXT PRIMARY KEY,
    chunks INTEGER NOT NULL,
    skipped INTEGER NOT NULL,
    imported_at TEXT NOT NULL
  );
`;

export interface NewDocument {
  project_id: string;
  source_type: string;
  filename: string;
  content: string;
  metadata: Record<string, unknown>;
}

export function openSemantic(file: string, busyTimeoutMs: number, size: ChunkSize) {
  const database = openDatabase(file, (sql) => sql.exec(TABLES), { busyTimeoutMs });
  return {
    database,
    addDocument: addDocument(database, size),
    listSources: listSources(database),
    findChunks: findChunks(database),
    ...overview(database),
  };
}

export type SemanticStore = ReturnType<typeof openSemantic>;

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

function addDocument(database: Database, size: ChunkSize) {
  const insert = insertStatements(database);
  const same = database.sql.prepare(`
    SELECT id, (SELECT count(*) FROM chunks WHERE document_id = documents.id) AS chunks
    FROM documents WHERE project_id = ? AND filename = ? AND sha256 = ?`);
  /** Stores a document once: the same text under the same name in a project is not stored again. */
  return ({ content, metadata, ...document }: NewDocument) => {
    const { project_id, filename } = document;
    const sha256 = createHash('sha256').update(content).digest('hex');
    const texts = chunkText(content, size);
    return write(database, () => {
      const known = same.get(project_id, filename, sha256);
      if (known) return { document_id: String(known.id), chunks: Number(known.chunks), already_known: true };
      const shared = { metadata: JSON.stringify(metadata), created_at: new Date().toISOString() };
      const document_id = randomUUID();
      insert.document.run({ ...document, ...shared, id: document_id, sha256 });
      texts.forEach((text, chunk_index) => {
        insert.chunk.run({
          ...shared,
          id: randomUUID(),
          document_id,
          project_id,
          chunk_index,
          content: text,
        });
      });
      return { document_id, chunks: texts.length, already_known: false };
    });
  };
}

function listSources({ sql }: Database) {
  const statement = sql.prepare(`
    SELECT id AS document_id, source_type, filename, metadata, created_at,
      (SELECT count(*) FROM chunks WHERE document_id = documents.id) AS chunks
    FROM documents WHERE project_id = $project AND ($type IS NULL OR source_type = $type)
    ORDER BY created_at DESC, documents.rowid DESC`);
  return (project: string, sourceType: string | undefined) =>
    statement.all({ project, type: sourceType ?? null }).map(withMetadata);
}

function findChunks({ sql }: Database) {
  const columns = `chunks.id, chunks.document_id, filename, chunk_index, chunks.content, chunks.metadata,
    chunks.created_at`;
  const recent = sql.prepare(`
    SELECT ${columns} FROM chunks JOIN documents ON documents.id = document_id
    WHERE chunks.project_id = $project ORDER BY chunks.created_at DESC, chunk_index LIMIT $limit`);
  const matching = sql.prepare(`
    SELECT ${columns}, round(-bm25(chunks_fts), 6) AS score
    FROM chunks_fts JOIN chunks ON chunks.rowid = chunks_fts.rowid JOIN documents ON documents.id = document_id
    WHERE chunks_fts MATCH $match AND chunks.project_id = $project ORDER BY bm25(chunks_fts) LIMIT $limit`);
  /** Best matches first; without a query the newest. A query without words finds nothing. */
  return (project: string, query: string | undefined, limit: number) => {
    if (query === undefined) return recent.all({ project, limit }).map(withMetadata);
    const match = fullTextQuery(query);
    return match === undefined ? [] : matching.all({ match, project, limit }).map(withMetadata);
  };
}

function withMetadata({ metadata, ...row }: Record<string, unknown>) {
  return { ...row, metadata: JSON.parse(String(metadata)) as unknown };
}

function overview({ sql }: Database) {
  const statement = sql.prepare(
    'SELECT project_id, count(*) AS count, max(created_at) AS last FROM documents GROUP BY project_id',
  );
  return { countByProject: () => statement.all() as { project_id: string; count: number; last: string }[] };
}
