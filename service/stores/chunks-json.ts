// Imports the chunks.json of programs from before index.db: once, in slices between which requests are served. The file
// stays as it is. A broken file is logged and retried at the next start.
import { createReadStream, existsSync, statSync } from 'node:fs';
import { JSONParser } from '@streamparser/json';
import * as z from 'zod';
import type { Log } from '../log.ts';
import { insertStatements, type SemanticStore } from './semantic.ts';
import { write, writeInSlices } from './sqlite.ts';

const NAME = 'chunks.json';

export interface ImportProgress {
  chunks: number;
  read_bytes: number;
  total_bytes: number;
}

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
export async function importChunksJson(
  { database, index }: SemanticStore,
  file: string,
  log: Log,
  report: (progress: ImportProgress) => void,
): Promise<void> {
  const { sql } = database;
  if (!existsSync(file) || sql.prepare('SELECT 1 FROM imports WHERE name = ?').get(NAME)) return;
  const mark = sql.prepare(
    'INSERT OR IGNORE INTO imports (name, chunks, skipped, imported_at) VALUES (?, ?, ?, ?)',
  );
  const insert = insertStatements(database);
  let [chunks, skipped, read_bytes] = [0, 0, 0];
  try {
    const total_bytes = statSync(file).size;
    const items: unknown[] = [];
    const parser = listParser((item) => items.push(item));
    report({ chunks, read_bytes, total_bytes });
    for await (const piece of createReadStream(file)) {
      read_bytes += piece.length;
      parser.write(piece);
      if (items.length === 0) continue;
      // Chunks that exist are skipped, so an interrupted import can be repeated.
      await writeInSlices(database, () => {
        const { data } = OldChunk.safeParse(items.shift());
        const row = data && insertOldChunk(insert, data);
        if (row?.changes) index.update(row.lastInsertRowid);
        chunks += data ? 1 : 0;
        skipped += data ? 0 : 1;
        return items.length > 0;
      });
      report({ chunks, read_bytes, total_bytes });
    }
    if (!parser.isEnded) throw new Error('the file ends in the middle of the list');
    write(database, () => mark.run(NAME, chunks, skipped, new Date().toISOString()));
    log[skipped > 0 ? 'warn' : 'info']('older chunks imported', { file, chunks, skipped });
  } catch (error) {
    log.error('older chunks not imported, will be retried at the next start', { file, error: String(error) });
  }
}

/** A streaming parser: some of these files do not fit into memory. */
function listParser(add: (item: unknown) => void): JSONParser {
  const parser = new JSONParser({ paths: ['$.*'], keepStack: false });
  parser.onValue = ({ value, key }) => {
    if (typeof key !== 'number') throw new Error('expected a list of chunks');
    add(value);
  };
  return parser;
}

function insertOldChunk(insert: ReturnType<typeof insertStatements>, old: OldChunk) {
  const metadata = old.metadata ?? {};
  const named = (...keys: string[]) =>
    keys.map((key) => metadata[key]).find((value) => typeof value === 'string');
  // Without a project it belongs to every project.
  const project_id = String(named('project_id', 'scope', 'project') ?? '');
  const shared = { project_id, metadata: JSON.stringify(metadata), created_at: isoTime(old.created_at) };
  insert.document.run({
    ...shared,
    id: old.document_id,
    source_type: String(named('source_type', 'type') ?? 'file'),
    filename: String(named('filename', 'file_name', 'source', 'file_path', 'title') ?? old.document_id),
    sha256: null,
  });
  const { chunk_id: id, document_id, chunk_index, content } = old;
  return insert.chunk.run({ ...shared, id, document_id, chunk_index, content });
}

/** Older programs wrote ISO text or seconds since 1970. */
function isoTime(time: string | number | null | undefined): string {
  if (typeof time === 'string' && time !== '') return time;
  return new Date(typeof time === 'number' ? time * 1000 : Date.now()).toISOString();
}
