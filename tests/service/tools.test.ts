// The tools through a linked client: names, parameters and defaults that agents' prompts use, and
// the rule of each. A change that breaks one of these breaks prompts that people already have.
import assert from 'node:assert/strict';
import { existsSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { linkedClient } from './support.ts';

const PARAMETERS = {
  'sy.proj.list': { scope_type: null },
  'sy.src.list': { project_id: 'required', source_type: null, limit: 100, offset: 0 },
  'sy.ctx.get': { project_id: 'required', context_type: 'all', query: null, max_results: 10 },
  'sy.mem.search': { project_id: 'required', query: 'required', memory_type: 'all', top_k: 10 },
  'sy.mem.ingest': {
    project_id: 'required',
    file_path: null,
    content: null,
    filename: null,
    source_type: 'file',
    metadata: null,
  },
  'sy.mem.fact.add': {
    project_id: 'required',
    fact_key: 'required',
    fact_value: 'required',
    confidence: 0.9,
    category: null,
  },
  'sy.mem.ep.add': {
    project_id: 'required',
    title: 'required',
    content: 'required',
    lesson_type: 'general',
    quality: 0.8,
  },
  'sy.mem.delete': { project_id: 'required', id: null, source: null },
};

test('the tools have exactly the names, parameters and defaults of the contract', async (t) => {
  const { client } = await linkedClient(t);
  const { tools } = await client.listTools();
  const found = tools.map(({ name, inputSchema }) => {
    const parameters = Object.entries(inputSchema.properties ?? {}).map(([key, schema]) => {
      const required = inputSchema.required?.includes(key) ? 'required' : null;
      return [key, (schema as { default?: unknown }).default ?? required];
    });
    return [name, Object.fromEntries(parameters)];
  });
  assert.deepEqual(Object.fromEntries(found), PARAMETERS);
});

type Schema = Record<string, unknown>;

/** What models' providers, their SDKs and grammar compilers understand alike. */
const KNOWN_KEYS = [
  ...['type', 'anyOf', 'properties', 'required', 'items', 'enum', 'description', 'default'],
  ...['minimum', 'maximum', 'minLength', 'maxLength', 'pattern'],
];
const KNOWN_TYPES = ['string', 'number', 'integer', 'boolean', 'object', 'array', 'null'];

function schemaProblems(schema: Schema, path: string): string[] {
  const problems = Object.keys(schema)
    .filter((key) => !KNOWN_KEYS.includes(key))
    .map((key) => `${path}: ${key}`);
  const parts = schema.anyOf as Schema[] | undefined;
  if (parts ? 'type' in schema : !KNOWN_TYPES.includes(String(schema.type))) problems.push(`${path}: type`);
  if (schema.type === 'array' && !schema.items) problems.push(`${path}: an array without items`);
  for (const bound of ['minLength', 'maxLength', 'minimum', 'maximum'])
    if (Math.abs(Number(schema[bound] ?? 0)) > 1_000_000) problems.push(`${path}: ${bound} ${schema[bound]}`);
  if (Number(schema.maxLength ?? 0) > 1000) problems.push(`${path}: maxLength ${schema.maxLength}`);
  // As Python compiles it: without JavaScript's flag.
  if (schema.pattern) assert.doesNotThrow(() => new RegExp(String(schema.pattern)), path);
  if (/\\p\{/i.test(String(schema.pattern))) problems.push(`${path}: pattern ${schema.pattern}`);
  const below: [string, Schema][] = [
    ...Object.entries((schema.properties ?? {}) as Record<string, Schema>),
    ...(parts ?? []).map((part, index): [string, Schema] => [`anyOf.${index}`, part]),
    ...(schema.items ? [['items', schema.items] as [string, Schema]] : []),
  ];
  return [...problems, ...below.flatMap(([name, part]) => schemaProblems(part, `${path}.${name}`))];
}

test('the listed schemas keep to what every provider understands, or a model could use no tool at all', async (t) => {
  const { client } = await linkedClient(t);
  const { tools } = await client.listTools();
  assert.deepEqual(
    tools.flatMap(({ name, inputSchema }) => schemaProblems(inputSchema, name)),
    [],
  );
});

const large = 'x'.repeat(70_000);
const fact = { fact_key: 'k', fact_value: 1 };

const REFUSED: [tool: string, args: Record<string, unknown>, reason: RegExp][] = [
  ['sy.mem.fact.add', { ...fact, project_id: 'a\nb' }, /project_id/],
  ['sy.mem.fact.add', { ...fact, project_id: '\0' }, /project_id/],
  ['sy.mem.fact.add', { ...fact, project_id: 'x'.repeat(201) }, /project_id/],
  ['sy.mem.fact.add', { ...fact, project_id: '   ' }, /project_id/],
  ['sy.mem.fact.add', { ...fact, fact_value: { large } }, /ingest larger texts as documents/],
  ['sy.mem.fact.add', { ...fact, fact_key: large }, /fact_key/],
  ['sy.mem.fact.add', { fact_key: 'k' }, /fact_value/],
  ['sy.mem.fact.add', { ...fact, confidence: 2 }, /confidence/],
  ['sy.mem.ep.add', { title: 't', content: large }, /content/],
  ['sy.mem.search', {}, /query/],
  ['sy.mem.search', { project_id: '', query: 'x' }, /project_id/],
  ['sy.mem.search', { query: 'x', top_k: 0 }, /top_k/],
  ['sy.ctx.get', { context_type: 'graph' }, /symbolic/],
  ['sy.mem.ingest', { filename: 'f', content: 'c', metadata: { large } }, /metadata/],
  ['sy.mem.ingest', {}, /Give file_path .* or content and filename/],
  ['sy.mem.ingest', { content: 'x' }, /filename is missing/],
  ['sy.mem.ingest', { content: 'x', filename: 'x', file_path: 'x' }, /not both/],
  ['sy.mem.ingest', { content: ' \n', filename: 'x' }, /is empty/],
  ['sy.mem.delete', {}, /Give either id or source/],
  ['sy.mem.delete', { id: 'x', source: 'y' }, /Give either id or source/],
];

test('a wrong call is refused with the parameter and what was expected', async (t) => {
  const { refused } = await linkedClient(t);
  for (const [tool, args, reason] of REFUSED)
    assert.match(
      await refused(tool, { project_id: 'p', ...args }),
      reason,
      JSON.stringify(args).slice(0, 80),
    );
});

test('a tool that does not exist is answered with those that do', async (t) => {
  const { client } = await linkedClient(t);
  await assert.rejects(
    client.callTool({ name: 'sy.mem.forget', arguments: {} }),
    /Unknown tool sy\.mem\.forget/,
  );
});

test('a fact keeps any JSON value as it is', async (t) => {
  const { call } = await linkedClient(t);
  for (const value of ['text', 42, 0.5, true, null, [1, 'two'], { nested: { deep: [] } }, 'ünïcode 🦉', '']) {
    await call('sy.mem.fact.add', { project_id: 'p', fact_key: 'k', fact_value: value });
    const { results } = await call('sy.ctx.get', { project_id: 'p', context_type: 'symbolic' });
    assert.deepEqual([results[0].value, results[0].confidence], [value, 0.9]);
  }
});

test('a fact with a known key is updated, and the audit log keeps both values', async (t) => {
  const { call, stores } = await linkedClient(t);
  const db = { project_id: 'p', fact_key: 'db' };
  const first = await call('sy.mem.fact.add', { ...db, category: 'stack', fact_value: 'postgres' });
  const second = await call('sy.mem.fact.add', { ...db, fact_value: 'sqlite', confidence: 1 });
  assert.equal(second.fact_id, first.fact_id);
  assert.deepEqual([first.updated, second.updated], [false, true]);
  const { results } = await call('sy.ctx.get', { project_id: 'p', context_type: 'symbolic' });
  assert.equal(results.length, 1);
  assert.deepEqual([results[0].value, results[0].category, results[0].confidence], ['sqlite', 'stack', 1]);
  const log = stores.memory.database.sql.prepare('SELECT * FROM memory_audit_log ORDER BY id').all();
  const changes = log.map((row) => [
    row.operation,
    row.old_value,
    row.new_value,
    row.fact_id === first.fact_id,
  ]);
  assert.deepEqual(changes, [
    ['INSERT', null, '"postgres"', true],
    ['UPDATE', '"postgres"', '"sqlite"', true],
  ]);
});

test('the same key in another project is another fact', async (t) => {
  const { call } = await linkedClient(t);
  await call('sy.mem.fact.add', { project_id: 'a', fact_key: 'k', fact_value: 1 });
  const other = await call('sy.mem.fact.add', { project_id: 'b', fact_key: 'k', fact_value: 2 });
  assert.equal(other.updated, false);
  const { results } = await call('sy.mem.search', { project_id: 'a', query: 'k' });
  assert.deepEqual(
    results.map((row: { value: number }) => row.value),
    [1],
  );
});

test('results come in the order of authority, whatever was written first', async (t) => {
  const { call } = await linkedClient(t);
  const project_id = 'p';
  await call('sy.mem.ingest', { project_id, content: 'The deployment uses compose.', filename: 'notes.md' });
  await call('sy.mem.ep.add', { project_id, title: 'Deployment failed', content: 'Check the port first.' });
  await call('sy.mem.fact.add', { project_id, fact_key: 'deployment', fact_value: 'compose' });
  for (const [tool, args] of [
    ['sy.mem.search', { query: 'deployment' }],
    ['sy.ctx.get', { query: 'Deployment?' }],
    ['sy.ctx.get', {}],
  ] as const) {
    const { results, total } = await call(tool, { project_id, ...args });
    const types = results.map((row: { memory_type: string }) => row.memory_type);
    assert.deepEqual(types, ['symbolic', 'episodic', 'semantic'], `${tool} ${JSON.stringify(args)}`);
    assert.equal(total, 3);
  }
  for (const memory_type of ['symbolic', 'episodic', 'semantic']) {
    const { results } = await call('sy.mem.search', { project_id, query: 'deployment', memory_type });
    assert.deepEqual(
      results.map((row: { memory_type: string }) => row.memory_type),
      [memory_type],
    );
  }
});

test('search ranks the better match first and keeps to its limit', async (t) => {
  const { call } = await linkedClient(t);
  const project_id = 'p';
  for (const [key, text] of Object.entries({ one: 'Größe', two: 'Größe der Datei' })) {
    await call('sy.mem.fact.add', { project_id, fact_key: key, fact_value: text });
    await call('sy.mem.ingest', { project_id, filename: key, content: text });
  }
  const find = async (top_k: number) => {
    const { results } = await call('sy.mem.search', { project_id, query: 'größe datei', top_k });
    return results.map((row: Record<string, string>) => row.key ?? row.filename);
  };
  assert.deepEqual(await find(10), ['two', 'one', 'two', 'one']);
  assert.deepEqual(await find(1), ['two', 'two']);
});

test('a query of long words, punctuation or index syntax is harmless', async (t) => {
  const { call } = await linkedClient(t);
  await call('sy.mem.ingest', { project_id: 'p', filename: 'a.md', content: 'harmless text' });
  const long = Array.from({ length: 32 }, (_, i) => String.fromCharCode(97 + (i % 26)).repeat(40 + i)).join(
    ' ',
  );
  for (const query of [long, '"', '*', 'a" OR "b', 'NEAR(', "'; DROP TABLE chunks; --", '^', '()', '%']) {
    const { results } = await call('sy.mem.search', { project_id: 'p', query });
    assert(Array.isArray(results), query);
  }
  assert.equal((await call('sy.mem.search', { project_id: 'p', query: 'harmless' })).total, 1);
});

test('a document is cut into chunks of the configured size', async (t) => {
  const { call } = await linkedClient(t, {
    SYNAPSE_SEMANTIC__CHUNK_SIZE: '200',
    SYNAPSE_SEMANTIC__CHUNK_OVERLAP: '40',
  });
  const content = 'word '.repeat(200);
  const { chunks } = await call('sy.mem.ingest', { project_id: 'p', filename: 'long.txt', content });
  assert(chunks >= 6 && chunks <= 9, `${chunks} chunks`);
});

test('ingesting the same document again does not store it twice', async (t) => {
  const { call } = await linkedClient(t);
  const document = { project_id: 'p', filename: 'a.md', content: 'once', metadata: { lang: 'en' } };
  const first = await call('sy.mem.ingest', document);
  const again = await call('sy.mem.ingest', document);
  assert.equal(again.already_known, true);
  assert.equal(again.document_id, first.document_id);
  const { sources } = await call('sy.src.list', { project_id: 'p' });
  assert.equal(sources.length, 1);
  assert.deepEqual(sources[0].metadata, { lang: 'en' });
});

test('a changed document replaces its earlier version, and nothing of another project or name', async (t) => {
  const { call, stores } = await linkedClient(t);
  const ingest = (project_id: string, filename: string, content: string) =>
    call('sy.mem.ingest', { project_id, filename, content });
  const first = await ingest('p', 'plan.md', 'The first plan: herons');
  await ingest('p', 'other.md', 'Another document about herons');
  await ingest('q', 'plan.md', 'A plan of another project about herons');
  const second = await ingest('p', 'plan.md', 'The second plan: owls');
  assert.deepEqual([first.replaced, second.replaced], [0, 1]);
  const find = async (project_id: string, query: string) => {
    const { results } = await call('sy.mem.search', { project_id, query });
    return results.map((row: Record<string, string>) => row.content);
  };
  assert.deepEqual(await find('p', 'herons'), ['Another document about herons']);
  assert.deepEqual(await find('p', 'owls'), ['The second plan: owls']);
  assert.equal((await find('q', 'herons')).length, 1);
  const [entry] = stores.semantic.database.sql.prepare('SELECT * FROM audit_log').all();
  assert.equal(entry?.operation, 'UPDATE');
  assert.equal(entry.record_id, first.document_id);
  assert.equal(JSON.parse(String(entry.new_value)).id, second.document_id);
  await stores.semantic.removeUnlisted();
  const chunks = stores.semantic.database.sql.prepare('SELECT content FROM chunks').all();
  assert(
    !chunks.some(({ content }) => String(content).includes('first plan')),
    'its text is gone from the disk',
  );
});

test('facts, episodes and documents are deleted by id or source, in their project alone, and audited', async (t) => {
  const { call, refused, stores } = await linkedClient(t);
  const ids: Record<string, string> = {};
  for (const project_id of ['p', 'q']) {
    const fact = await call('sy.mem.fact.add', { project_id, fact_key: 'owl', fact_value: 'hoots' });
    const episode = await call('sy.mem.ep.add', { project_id, title: 'owl', content: 'It hoots.' });
    const document = await call('sy.mem.ingest', { project_id, filename: 'owl.md', content: 'Owls hoot' });
    await call('sy.mem.ingest', { project_id, filename: 'second.md', content: 'They hoot at night' });
    Object.assign(ids, { [`${project_id}1`]: fact.fact_id, [`${project_id}2`]: episode.episode_id });
    ids[`${project_id}3`] = document.document_id;
  }
  const total = async (project_id: string) =>
    (await call('sy.mem.search', { project_id, query: 'hoot' })).total;
  assert.equal(await total('p'), 4);
  const types = [];
  for (const target of [{ id: ids.p1 }, { id: ids.p2 }, { id: ids.p3 }, { source: 'second.md' }]) {
    const { deleted } = await call('sy.mem.delete', { project_id: 'p', ...target });
    types.push(deleted.map((row: Record<string, string>) => row.memory_type));
    assert.match(await refused('sy.mem.delete', { project_id: 'p', ...target }), /Nothing in p has the/);
  }
  assert.deepEqual(types, [['symbolic'], ['episodic'], ['semantic'], ['semantic']]);
  assert.deepEqual([await total('p'), await total('q')], [0, 4]);
  assert.match(await refused('sy.mem.delete', { project_id: 'p', id: ids.q1 }), /Nothing in p has the id/);
  const audited = (database: { sql: DatabaseSync }, table: string, column: string) =>
    database.sql.prepare(`SELECT ${column} AS id, old_value FROM ${table} WHERE operation = 'DELETE'`).all();
  assert.equal(audited(stores.memory.database, 'memory_audit_log', 'fact_id')[0]?.old_value, '"hoots"');
  const [episode] = audited(stores.episodic.database, 'audit_log', 'record_id');
  assert.equal(JSON.parse(String(episode?.old_value)).lesson, 'It hoots.');
  assert.equal(audited(stores.semantic.database, 'audit_log', 'record_id').length, 2);
});

test('an upload is ingested under its own name and then removed', async (t) => {
  const { call, uploads } = await linkedClient(t);
  const { file } = uploads.newPath('../Notes on owls.md');
  writeFileSync(file, 'Owls hunt at night.');
  const { filename } = await call('sy.mem.ingest', { project_id: 'p', file_path: file });
  assert.equal(filename, 'Notes_on_owls.md');
  assert.equal(existsSync(file), false);
  assert.equal((await call('sy.mem.search', { project_id: 'p', query: 'owl' })).total, 1);
});

test('paths outside the upload directory are refused, links and unfinished uploads included', async (t) => {
  const { refused, uploads, data } = await linkedClient(t);
  const outside = join(data, 'secret.txt');
  writeFileSync(outside, 'secret');
  const link = join(uploads.directory, 'link');
  symlinkSync(outside, link);
  const { partial } = uploads.newPath('x.txt');
  writeFileSync(partial, 'half');
  for (const [path, reason] of [
    [outside, /outside the upload directory/],
    ['/etc/passwd', /outside the upload directory/],
    [`${uploads.directory}/../secret.txt`, /outside the upload directory/],
    [`${uploads.directory}/none/../../memory.db`, /outside the upload directory/],
    [uploads.directory, /outside the upload directory/],
    [partial, /outside the upload directory/],
    [link, /not a regular file/],
    [join(uploads.directory, 'gone'), /does not exist/],
  ] as const) {
    assert.match(await refused('sy.mem.ingest', { project_id: 'p', file_path: path }), reason, path);
  }
  assert(existsSync(outside));
});

test('an upload that is not text is refused, and stays until it expires', async (t) => {
  const { refused, uploads } = await linkedClient(t);
  const { file } = uploads.newPath('image.png');
  writeFileSync(file, Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x00, 0xff]));
  assert.match(await refused('sy.mem.ingest', { project_id: 'p', file_path: file }), /not UTF-8 text/);
  assert(existsSync(file));
});

test('an episode keeps title, content, lesson type and quality', async (t) => {
  const { call } = await linkedClient(t);
  const first = { title: 'Port busy', content: 'Ask lsof first.', lesson_type: 'pattern', quality: 1 };
  await call('sy.mem.ep.add', { project_id: 'p', ...first });
  await call('sy.mem.ep.add', { project_id: 'p', title: 'Second', content: 'Plain.' });
  const { results } = await call('sy.ctx.get', { project_id: 'p', context_type: 'episodic' });
  const kept = results.map((row: Record<string, unknown>) => [
    row.situation,
    row.lesson,
    row.lesson_type,
    row.confidence,
  ]);
  assert.deepEqual(kept, [['Second', 'Plain.', 'general', 0.8], Object.values(first)]);
});

test('projects are listed with their counts and by the type of their id', async (t) => {
  const { call } = await linkedClient(t);
  await call('sy.mem.fact.add', { project_id: 'user:anna', fact_key: 'k', fact_value: 1 });
  await call('sy.mem.ep.add', { project_id: 'web', title: 't', content: 'c' });
  await call('sy.mem.ingest', { project_id: 'web', content: 'c', filename: 'f' });
  const { projects } = await call('sy.proj.list');
  const counts = projects.map(({ last_change, ...rest }: { last_change: string }) => ({
    ...rest,
    dated: last_change !== '',
  }));
  assert.deepEqual(counts, [
    { project_id: 'user:anna', scope_type: 'user', facts: 1, episodes: 0, documents: 0, dated: true },
    { project_id: 'web', scope_type: 'project', facts: 0, episodes: 1, documents: 1, dated: true },
  ]);
  const users = await call('sy.proj.list', { scope_type: 'user' });
  assert.deepEqual(
    users.projects.map((project: { project_id: string }) => project.project_id),
    ['user:anna'],
  );
});

test('sources are listed newest first and by type', async (t) => {
  const { call } = await linkedClient(t);
  await call('sy.mem.ingest', { project_id: 'p', content: 'a', filename: 'a.md' });
  await call('sy.mem.ingest', { project_id: 'p', content: 'b', filename: 'b', source_type: 'url' });
  const { sources } = await call('sy.src.list', { project_id: 'p' });
  assert.deepEqual(
    sources.map((source: { filename: string }) => source.filename),
    ['b', 'a.md'],
  );
  const { sources: urls } = await call('sy.src.list', { project_id: 'p', source_type: 'url' });
  assert.equal(urls.length, 1);
});

test('a long list of sources comes in pages, none twice and none lost', async (t) => {
  const { call } = await linkedClient(t);
  for (let i = 0; i < 7; i++)
    await call('sy.mem.ingest', { project_id: 'p', content: `text ${i}`, filename: `${i}` });
  const pages: string[][] = [];
  for (let offset: number | undefined = 0; offset !== undefined; ) {
    const page = await call('sy.src.list', { project_id: 'p', limit: 3, offset });
    assert.equal(page.total, 7);
    pages.push(page.sources.map((source: { filename: string }) => source.filename));
    offset = page.next_offset;
  }
  assert.deepEqual(pages, [['6', '5', '4'], ['3', '2', '1'], ['0']]);
});
