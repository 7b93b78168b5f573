// Automatic learning and metrics: what each mode records, what neither may record (private text, the same
// failure twice), and that metrics have a retention.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { linkedClient } from './support.ts';

const AGGRESSIVE = { SYNAPSE_AUTOMATIC_LEARNING__MODE: 'aggressive' };

/** What an agent does in a day; its mistakes with the tools among it. */
async function session(t: Parameters<typeof linkedClient>[0], env: Record<string, string>) {
  const linked = await linkedClient(t, env);
  const { call, refused, uploads } = linked;
  const project_id = 'p';
  const upload = (text: string | Buffer) => {
    const { file } = uploads.newPath('plan.md');
    writeFileSync(file, text);
    return { project_id, file_path: file };
  };
  await call('sy.mem.fact.add', { project_id, fact_key: 'password', fact_value: 'hunter2' });
  await call('sy.mem.search', { project_id, query: 'unknowable' });
  await refused('sy.mem.ingest', { project_id, file_path: '/etc/passwd' });
  await refused('sy.mem.search', { project_id, query: 'x', top_k: 0 });
  await refused('sy.mem.delete', { project_id, source: 'nothing.md' });
  const binary = upload(Buffer.from([0xff, 0x00]));
  await refused('sy.mem.ingest', binary);
  await refused('sy.mem.ingest', binary);
  await call('sy.mem.ingest', upload('private words'));
  await call('sy.mem.ingest', upload('private words, revised'));
  await call('sy.mem.fact.add', { project_id, fact_key: 'password', fact_value: 'hunter2' });
  await call('sy.mem.fact.add', { project_id, fact_key: 'password', fact_value: 'hunter3' });
  await call('sy.proj.list');
  const { results } = await call('sy.ctx.get', { project_id, context_type: 'episodic' });
  return { ...linked, episodes: results.reverse() as Record<string, string>[] };
}

const FAILURE_AND_RECOVERY = ['automatic_failure', 'automatic_recovery'];

for (const [name, env, expected] of [
  ['moderate records a failure once and its recovery, and no wrong argument', {}, FAILURE_AND_RECOVERY],
  [
    'aggressive also records what changed, and nothing for each new fact and document',
    AGGRESSIVE,
    [...FAILURE_AND_RECOVERY, 'automatic_change', 'automatic_change'],
  ],
  [
    'learning that is switched off records nothing',
    { ...AGGRESSIVE, SYNAPSE_AUTOMATIC_LEARNING__ENABLED: 'false' },
    [],
  ],
] as const) {
  test(name, async (t) => {
    const { episodes } = await session(t, env);
    assert.deepEqual(
      episodes.map((episode) => episode.lesson_type),
      expected,
    );
    const lessons = episodes.map((episode) => episode.lesson);
    const wanted = [
      'sy.mem.ingest of "plan.md": sy.mem.ingest failed: plan.md is not UTF-8 text; only text can be ingested',
      'sy.mem.ingest of "plan.md" works again; before: sy.mem.ingest failed: plan.md is not UTF-8 text; only text can be ingested',
      'The document "plan.md" was replaced by a newer version.',
      'The fact "password" changed; its earlier value is in the audit log.',
    ];
    assert.deepEqual(lessons, wanted.slice(0, lessons.length));
    assert.doesNotMatch(
      JSON.stringify(episodes),
      /hunter\d|private words/,
      'what was stored is not repeated',
    );
  });
}

test('every call is counted with its outcome, and records older than the retention go', async (t) => {
  const { stores } = await session(t, {});
  const rows = stores.metrics.database.sql
    .prepare('SELECT outcome, count(*) AS count FROM tool_calls GROUP BY outcome ORDER BY outcome')
    .all();
  assert.deepEqual(
    rows.map((row) => [row.outcome, row.count]),
    [
      ['failed', 2],
      ['ok', 8],
      ['refused', 3],
    ],
  );
  assert.equal(stores.metrics.prune(30), 0);
  assert.equal(stores.metrics.prune(30, Date.now() + 31 * 24 * 60 * 60 * 1000), 13);
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
