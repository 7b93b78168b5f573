// Importing the chunks.json that programs before index.db kept: once, in short transactions that leave room
// for the other environment, with the file left untouched. A bad file is reported and tried again at the
// next start; it never stops the service.
import { readFileSync } from 'node:fs';
import * as z from 'zod';
import type { Log } from '../log.ts';
import { insertStatements, type SemanticStore } from './semantic.ts';
import { write } from './sqlite.ts';

const NAME = 'chunks.json';

/** Chunks in one transaction. */
const BATCH = 500;

const id = z.union([z.string().min(1), z.number().transform(String)]);

const OldChunk = z.object({
  chunk_id: id,
  document_id: id,
  content: z.string(),
  metadata: z.record(z.string(), z.unknown()).nullish(),
  chunk_index: z.int().nonnegative().catch(0),
  created_at: z.union([z.string(), z.number()]).nullish(),
});

type OldChunk = z.output<typeof OldChunk>;

/** Imports the file if it is there and was not imported before. Embeddings stay in the file. */
export function importChunksJson(store: SemanticStore, file: string, log: Log): void {
  const { sql } = store.database;
  if (sql.prepare('SELECT 1 FROM imports WHERE name = ?').get(NAME)) return;
  const mark = sql.prepare(
    'INSERT OR IGNORE INTO imports (name, chunks, skipped, imported_at) VALUES (?, ?, ?, ?)',
  );
  try {
    const items = readItems(file);
    if (items === undefined) return;
    const chunks = items.map((item) => OldChunk.safeParse(item)).flatMap(({ data }) => (data ? [data] : []));
    insertAll(store, chunks);
    const skipped = items.length - chunks.length;
    write(store.database, () => mark.run(NAME, chunks.length, skipped, new Date().toISOString()));
    log[skipped > 0 ? 'warn' : 'info']('older chunks imported', { file, chunks: chunks.length, skipped });
  } catch (error) {
    log.error('older chunks not imported, trying again at the next start', { file, error: String(error) });
  }
}

/** Chunks that are there already are left alone, so that it may be cut off and run again. */
function insertAll(store: SemanticStore, chunks: OldChunk[]): void {
  const insert = insertStatements(store.database);
  for (let start = 0; start < chunks.length; start += BATCH) {
    write(store.database, () => {
      for (const chunk of chunks.slice(start, start + BATCH)) insertOldChunk(insert, chunk);
    });
  }
}

function readItems(file: string): unknown[] | undefined {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  return z.array(z.unknown()).parse(JSON.parse(text));
}

function insertOldChunk(insert: ReturnType<typeof insertStatements>, old: OldChunk): void {
  const metadata = old.metadata ?? {};
  const named = (...keys: string[]) =>
    keys.map((key) => metadata[key]).find((value) => typeof value === 'string');
  const project_id = String(named('project_id', 'scope', 'project') ?? 'default');
  const shared = { project_id, metadata: JSON.stringify(metadata), created_at: isoTime(old.created_at) };
  insert.document.run({
    ...shared,
    id: old.document_id,
    source_type: String(named('source_type') ?? 'file'),
    filename: String(named('filename', 'file_name', 'source', 'file_path', 'title') ?? old.document_id),
    sha256: null,
  });
  const { chunk_id: id, document_id, chunk_index, content } = old;
  insert.chunk.run({ ...shared, id, document_id, chunk_index, content });
}

/** Older programs wrote ISO text or seconds since 1970. */
function isoTime(time: string | number | null | undefined): string {
  if (typeof time === 'string' && time !== '') return time;
  return new Date(typeof time === 'number' ? time * 1000 : Date.now()).toISOString();
}
