// Search: a fixed set of questions, and the rules of words: whole ones and their stems, no stop words, scripts without
// spaces, emoji, identifiers. If these fail, answers drown in unrelated results.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { DOCUMENTS, PARAPHRASED, WORDED } from './search-set.ts';
import { linkedClient } from './support.ts';

type Call = Awaited<ReturnType<typeof linkedClient>>['call'];

async function filesFound(call: Call, query: string): Promise<string[]> {
  const args = { project_id: 'harbour', query, memory_type: 'semantic', top_k: 10 };
  const { results } = await call('sy.mem.search', args);
  return [...new Set<string>(results.map((row: { filename: string }) => row.filename))];
}

/** How many of the questions have their answer among the first documents. */
async function answered(t: TestContext, call: Call, questions: readonly [string, string][], first: number) {
  let count = 0;
  for (const [question, answer] of questions) {
    const found = await filesFound(call, question);
    const rank = found.indexOf(answer) + 1;
    if (rank > 0 && rank <= first) count += 1;
    t.diagnostic(`${rank || '–'}  ${question}`);
  }
  return count;
}

test('questions worded like the text find it first, paraphrased ones often among the first five', async (t) => {
  const { call } = await linkedClient(t);
  for (const [filename, content] of Object.entries(DOCUMENTS))
    await call('sy.mem.ingest', { project_id: 'harbour', filename, content });
  assert.equal(Object.keys(DOCUMENTS).length, 30);
  assert.equal(await answered(t, call, WORDED, 1), 10);
  const paraphrased = await answered(t, call, PARAPHRASED, 5);
  assert(paraphrased >= 4, `${paraphrased} of 10`);
});

const TEXTS = {
  start: 'To start the service run systemctl start synapse',
  category: 'The general idea is a category of plans',
  stem: 'Deployments were failing because migrations ran twice',
  camel: 'requestTimeoutMs is read by parseHTTPHeader',
  snake: 'max_upload_bytes limits what SYNAPSE_TOKEN may send',
  chinese: '我们每天晚上备份数据库',
  japanese: 'サーバーを再起動する手順',
  korean: '데이터베이스를 백업합니다',
  thai: 'สำรองข้อมูลทุกคืน',
  emoji: 'Ship it 🚀 on Friday 🇳🇴',
  accents: 'Die Größe der Datei im Café',
  code: 'The error code is E1234 in nginx.conf',
};

/** The texts that a query finds. A short word never stands for longer ones. */
const QUERIES: [query: string, expected: string[]][] = [
  ['what is a good way to start the service', ['start']],
  ['a', ['category']],
  ['gene', []],
  ['deploy', ['stem']],
  ['failed migration', ['stem']],
  ['failure', ['stem']],
  ['restart', ['start']],
  ['timeout', ['camel']],
  ['requestTimeoutMs', ['camel']],
  ['http header', ['camel']],
  ['upload bytes', ['snake']],
  ['max_upload_bytes', ['snake']],
  ['数据库', ['chinese']],
  ['怎么备份数据', ['chinese']],
  ['库', ['chinese']],
  ['再起動', ['japanese']],
  ['サーバー', ['japanese']],
  ['데이터베이스', ['korean']],
  ['ข้อมูล', ['thai']],
  ['🚀', ['emoji']],
  ['🇳🇴', ['emoji']],
  ['CAFE', ['accents']],
  ['groesse grosse größe', ['accents']],
  ['E1234', ['code']],
  ['nginx.conf', ['code']],
  ['e123', []],
];

test('whole words are found in facts, episodes and documents, and nothing that only looks like them', async (t) => {
  const { call } = await linkedClient(t);
  const project_id = 'p';
  for (const [name, text] of Object.entries(TEXTS)) {
    await call('sy.mem.fact.add', { project_id, fact_key: name, fact_value: { text } });
    await call('sy.mem.ep.add', { project_id, title: name, content: text });
    await call('sy.mem.ingest', { project_id, filename: name, content: text });
  }
  for (const [query, expected] of QUERIES) {
    const { results } = await call('sy.mem.search', { project_id, query });
    for (const [type, name] of [
      ['symbolic', 'key'],
      ['episodic', 'situation'],
      ['semantic', 'filename'],
    ] as const) {
      const rows = results.filter((row: Record<string, string>) => row.memory_type === type);
      const found = rows.map((row: Record<string, string>) => row[name]).sort();
      assert.deepEqual(found, expected, `${query}: ${type}`);
    }
  }
});
