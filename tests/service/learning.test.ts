// Automatic learning and metrics: what each mode records, what neither may record (private text, the same
// failure again and again), and that the books are kept with a retention.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { linkedClient } from './support.ts';

const AGGRESSIVE = { SYNAPSE_AUTOMATIC_LEARNING__MODE: 'aggressive' };

async function session(t: Parameters<typeof linkedClient>[0], env: Record<string, string>) {
  const linked = await linkedClient(t, env);
  const { call, refused } = linked;
  await call('sy.mem.fact.add', { project_id: 'p', fact_key: 'password', fact_value: 'hunter2' });
  await call('sy.mem.search', { project_id: 'p', query: 'unknowable' });
  await refused('sy.mem.ingest', { project_id: 'p', file_path: '/etc/passwd' });
  await refused('sy.mem.ingest', { project_id: 'p', file_path: '/etc/passwd' });
  await call('sy.mem.ingest', { project_id: 'p', content: 'private words', filename: 'a.md' });
  await call('sy.proj.list');
  await call('sy.ctx.get', { project_id: 'p' });
  const { results } = await call('sy.ctx.get', { project_id: 'p', context_type: 'episodic' });
  return { ...linked, episodes: results.reverse() as Record<string, string>[] };
}

test('moderate records a failure once and its recovery, nothing else', async (t) => {
  const { episodes } = await session(t, {});
  assert.deepEqual(
    episodes.map((episode) => episode.lesson_type),
    ['automatic_failure', 'automatic_recovery'],
  );
  assert.match(episodes[0]!.outcome!, /outside the upload directory/);
  assert.match(episodes[1]!.lesson!, /failed with .* this call works/);
});

test('aggressive also records what changed memory and what was looked for in vain', async (t) => {
  const { episodes } = await session(t, AGGRESSIVE);
  assert.deepEqual(
    episodes.map((episode) => episode.lesson_type),
    ['automatic_success', 'automatic_success', 'automatic_failure', 'automatic_recovery'],
  );
  assert.match(episodes[1]!.lesson!, /Nothing is known yet about "unknowable"/);
});

test('episodes never contain the values and texts that were stored', async (t) => {
  const { episodes } = await session(t, AGGRESSIVE);
  assert.doesNotMatch(JSON.stringify(episodes), /hunter2|private words/);
});

test('every call is counted with its outcome, and records older than the retention go', async (t) => {
  const { stores } = await session(t, {});
  const rows = stores.metrics.database.sql
    .prepare('SELECT outcome, count(*) AS count FROM tool_calls GROUP BY outcome ORDER BY outcome')
    .all();
  assert.deepEqual(
    rows.map((row) => [row.outcome, row.count]),
    [
      ['failed', 2],
      ['ok', 6],
    ],
  );
  assert.equal(stores.metrics.prune(30), 0);
  assert.equal(stores.metrics.prune(30, Date.now() + 31 * 24 * 60 * 60 * 1000), 8);
});

test('metrics that are switched off record nothing', async (t) => {
  const { call, stores } = await linkedClient(t, { SYNAPSE_METRICS__ENABLED: 'false' });
  await call('sy.proj.list');
  assert.equal(stores.metrics.database.sql.prepare('SELECT count(*) AS n FROM tool_calls').get()?.n, 0);
});

test('a metrics store that cannot be written does not fail the call, and is logged', async (t) => {
  const { call, stores, lines } = await linkedClient(t);
  stores.metrics.database.sql.exec('DROP TABLE tool_calls');
  await call('sy.mem.fact.add', { project_id: 'p', fact_key: 'k', fact_value: 1 });
  assert(lines.some((line) => line.level === 'ERROR' && line.message === 'tool call not recorded'));
});
