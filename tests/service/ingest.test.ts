// Large documents: cut in linear time, in slices between which other requests are served, and not visible before they
// are complete.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { chunksOf } from '../../service/stores/semantic.ts';
import { linkedClient, runningService } from './support.ts';

const SIZE = { chunk_size: 1200, chunk_overlap: 200 };
const MB = 1_000_000;

const LOG_LINE = '2026-11-28T01:02:03Z INFO request served in 12 ms by worker 4, status 200\n';

for (const [name, text] of [
  ['lines', LOG_LINE.repeat(Math.ceil((20 * MB) / LOG_LINE.length))],
  ['one line with spaces', 'word '.repeat(4 * MB)],
  ['one line without spaces', Array.from({ length: 3 * MB }, (_, i) => i).join('')],
] as const) {
  // Quadratic, the shortest of these took more than two minutes: the limit of time is what fails here.
  test(`20 MB of ${name} are cut without losing a character`, { timeout: 60_000 }, () => {
    let covered = 0;
    let count = 0;
    for (const chunk of chunksOf(text, SIZE)) {
      assert(chunk.length <= SIZE.chunk_size);
      const at = text.indexOf(chunk.slice(0, 100), Math.max(0, covered - SIZE.chunk_overlap - 2));
      assert(at >= 0 && at <= covered + 2, `a gap at ${covered}`);
      covered = at + chunk.length;
      count += 1;
    }
    assert(covered >= text.trimEnd().length && count < 30_000);
  });
}

test('an overlap of almost a chunk does not cut a chunk for every character', () => {
  const text = 'x'.repeat(10_000);
  assert([...chunksOf(text, { chunk_size: 100, chunk_overlap: 99 })].length < 400);
});

test('chunks end at a paragraph, line, sentence or word, and never inside a character', () => {
  const text = `${'a '.repeat(45)}end of it.\n\n${'🦉'.repeat(200)}`;
  const [first = '', second = ''] = chunksOf(text, { chunk_size: 120, chunk_overlap: 20 });
  assert(first.endsWith('end of it.'));
  for (const chunk of [first, second]) assert.doesNotMatch(chunk, /[\ud800-\udfff]/u);
});

test('while a large document is ingested others are served, and it is seen only when it is whole', async (t) => {
  const { url, data } = await runningService(t);
  const { call, uploads } = await linkedClient(t, {}, data);
  const { file } = uploads.newPath('large.log');
  writeFileSync(file, LOG_LINE.repeat(Math.ceil((3 * MB) / LOG_LINE.length)));
  let done = false;
  const ingested = call('sy.mem.ingest', { project_id: 'p', file_path: file }).finally(() => {
    done = true;
  });
  let served = 0;
  while (!done) {
    assert.equal((await fetch(`${url}/health`)).status, 200);
    const { total } = await call('sy.mem.search', { project_id: 'p', query: 'worker', top_k: 1 });
    const { sources } = await call('sy.src.list', { project_id: 'p' });
    if (!done) assert.deepEqual([total, sources.length], [0, 0]);
    served += 1;
  }
  t.diagnostic(`${served} rounds of requests served meanwhile`);
  assert(served >= 10, `${served} rounds served`);
  const { chunks } = await ingested;
  assert(chunks > 2000);
  assert.equal((await call('sy.mem.search', { project_id: 'p', query: 'worker', top_k: 100 })).total, 100);
});

test('a document that a killed process left half-written is removed, one that is being written is not', async (t) => {
  const { call, stores } = await linkedClient(t);
  const { database, removeUnlisted } = stores.semantic;
  const chunk = `INSERT INTO chunks VALUES (NULL, 'c', 'half', 'p', 0, 'half a document', '{}', '2024')`;
  const now = new Date().toISOString();
  database.sql.exec(`${chunk}; INSERT INTO unlisted_documents VALUES ('half', '${now}')`);
  const left = () => database.sql.prepare('SELECT count(*) AS n FROM chunks').get()?.n;
  await removeUnlisted();
  assert.equal(left(), 1);
  await removeUnlisted(Date.now() + 2 * 60 * 60 * 1000);
  assert.equal(left(), 0);
  assert.equal((await call('sy.mem.search', { project_id: 'p', query: 'half' })).total, 0);
});
