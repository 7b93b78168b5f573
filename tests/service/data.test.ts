// Existing data directories: format 1 as older programs left it, rollback-journal files and chunks.json
// included, and a directory of a newer program, which must not be touched.
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { openContext } from '../../service/context.ts';
import { DATA_FORMAT } from '../../service/stores/format.ts';
import { linkedClient, recordingLog, temporaryDirectory, testConfig } from './support.ts';

const CREATED = '2024-05-01T10:00:00Z';

/** A data directory as programs before index.db left it: no format number, no WAL, no index. */
function oldDataDirectory(data: string, chunks: unknown = CHUNKS): void {
  const memory = new DatabaseSync(join(data, 'memory.db'));
  memory.exec(`
    PRAGMA journal_mode = DELETE;
    CREATE TABLE memory_facts (id TEXT PRIMARY KEY, scope TEXT NOT NULL, category TEXT, key TEXT NOT NULL, value TEXT,
      confidence REAL CHECK (confidence BETWEEN 0 AND 1), source TEXT, created_at TEXT, updated_at TEXT, UNIQUE (scope, key));
    CREATE TABLE memory_audit_log (id INTEGER PRIMARY KEY, fact_id TEXT, operation TEXT, old_value TEXT, new_value TEXT,
      changed_by TEXT, changed_at TEXT);
    CREATE TRIGGER audit_update AFTER UPDATE ON memory_facts BEGIN
      INSERT INTO memory_audit_log (fact_id, operation, old_value, new_value, changed_by, changed_at)
      VALUES (NEW.id, 'UPDATE', OLD.value, NEW.value, NEW.source, datetime('now'));
    END;
    INSERT INTO memory_facts VALUES ('f1', 'p', 'stack', 'db', '"postgres"', 0.7, 'user', '${CREATED}', '${CREATED}');
    INSERT INTO memory_facts VALUES ('f2', 'p', NULL, 'note', 'plain text', 0.5, 'user', '${CREATED}', '${CREATED}');
  `);
  memory.close();
  const episodic = new DatabaseSync(join(data, 'episodic.db'));
  episodic.exec(`
    CREATE TABLE episodic_memory (id TEXT PRIMARY KEY, project_id TEXT, situation TEXT, action TEXT, outcome TEXT,
      lesson TEXT, confidence REAL, created_at TEXT);
    INSERT INTO episodic_memory VALUES ('e1', 'p', 'Port was busy', 'lsof', NULL, 'Ask lsof first', 0.9, '${CREATED}');
  `);
  episodic.close();
  mkdirSync(join(data, 'semantic_index'));
  const text = typeof chunks === 'string' ? chunks : JSON.stringify(chunks);
  writeFileSync(join(data, 'semantic_index', 'chunks.json'), text);
}

const CHUNKS = [0, 1].map((chunk_index) => ({
  chunk_id: `c${chunk_index}`,
  document_id: 'd1',
  content: `Owls hunt at night, part ${chunk_index}.`,
  embedding: [0.1, 0.2],
  metadata: { project_id: 'p', filename: 'owls.md', source_type: 'file' },
  chunk_index,
  created_at: CREATED,
}));

function journalMode(file: string): unknown {
  const sql = new DatabaseSync(file, { readOnly: true });
  const mode = sql.prepare('PRAGMA journal_mode').get()?.journal_mode;
  sql.close();
  return mode;
}

function open(data: string) {
  return openContext(testConfig(data), recordingLog().log);
}

async function catchUpOnce(data: string) {
  const { lines, log } = recordingLog();
  const opened = openContext(testConfig(data), log);
  await opened.catchUp();
  opened.close();
  return lines;
}

test('facts, episodes and chunks of an old data directory are all found', async (t) => {
  const data = temporaryDirectory(t);
  oldDataDirectory(data);
  const { call } = await linkedClient(t, {}, data);
  const { results } = await call('sy.ctx.get', { project_id: 'p' });
  const shown = results.map((row: Record<string, unknown>) => row.value ?? row.lesson ?? row.content);
  assert.deepEqual(shown, [
    'postgres',
    'plain text',
    'Ask lsof first',
    CHUNKS[0]!.content,
    CHUNKS[1]!.content,
  ]);
  assert.equal((await call('sy.mem.search', { project_id: 'p', query: 'lsof' })).total, 1);
  const { sources } = await call('sy.src.list', { project_id: 'p' });
  assert.deepEqual([sources[0].filename, sources[0].chunks], ['owls.md', 2]);
});

test('rollback-journal files become WAL, so that two environments can write at once', async (t) => {
  const data = temporaryDirectory(t);
  oldDataDirectory(data);
  assert.equal(journalMode(join(data, 'memory.db')), 'delete');
  await linkedClient(t, {}, data);
  for (const name of ['memory.db', 'episodic.db', 'metrics.db', 'semantic_index/index.db']) {
    assert.equal(journalMode(join(data, name)), 'wal', name);
  }
});

test('a change is logged once, whichever program made the audit trigger', async (t) => {
  const data = temporaryDirectory(t);
  oldDataDirectory(data);
  const { call, stores } = await linkedClient(t, {}, data);
  await call('sy.mem.fact.add', { project_id: 'p', fact_key: 'db', fact_value: 'sqlite' });
  await call('sy.mem.fact.add', { project_id: 'p', fact_key: 'new', fact_value: 1 });
  const log = stores.memory.database.sql
    .prepare('SELECT operation, old_value, new_value FROM memory_audit_log')
    .all();
  assert.deepEqual(
    log.map((row) => Object.values(row)),
    [
      ['UPDATE', '"postgres"', '"sqlite"'],
      ['INSERT', null, '1'],
    ],
  );
});

test('chunks.json is imported once, whatever happens later, and stays byte for byte', async (t) => {
  const data = temporaryDirectory(t);
  oldDataDirectory(data);
  const file = join(data, 'semantic_index', 'chunks.json');
  const before = readFileSync(file);
  for (let start = 0; start < 3; start++) {
    const opened = open(data);
    await opened.catchUp();
    const { sql } = opened.stores.semantic.database;
    if (start === 0) sql.exec(`DELETE FROM chunks WHERE id = 'c0'`);
    assert.equal(sql.prepare('SELECT count(*) AS n FROM chunks').get()?.n, 1);
    opened.close();
  }
  assert.deepEqual(readFileSync(file), before);
});

test('a broken chunks.json is reported, does not stop the service, and is imported once it is repaired', async (t) => {
  const data = temporaryDirectory(t);
  oldDataDirectory(data, '[{"chunk_id": ');
  const lines = await catchUpOnce(data);
  assert(lines.some((line) => line.level === 'ERROR' && String(line.message).includes('not imported')));
  writeFileSync(join(data, 'semantic_index', 'chunks.json'), JSON.stringify(CHUNKS));
  const opened = open(data);
  await opened.catchUp();
  assert.equal((await opened.stores.semantic.find('p', 'owls', 10)).length, 2);
  opened.close();
});

test('chunks that are not chunks are skipped and counted, the others imported', async (t) => {
  const data = temporaryDirectory(t);
  oldDataDirectory(data, [
    ...CHUNKS,
    { content: 'no ids' },
    7,
    { ...CHUNKS[0], chunk_id: 'c3', metadata: null },
  ]);
  const lines = await catchUpOnce(data);
  const report = lines.find((line) => line.message === 'older chunks imported');
  assert.deepEqual([report?.level, report?.chunks, report?.skipped], ['WARN', 3, 2]);
});

test('a new directory is marked with the format, an old one with 1', async (t) => {
  const fresh = temporaryDirectory(t);
  open(fresh).close();
  assert.deepEqual(JSON.parse(readFileSync(join(fresh, 'format.json'), 'utf8')), { dataFormat: DATA_FORMAT });
  const old = temporaryDirectory(t);
  oldDataDirectory(old);
  open(old).close();
  assert.deepEqual(JSON.parse(readFileSync(join(old, 'format.json'), 'utf8')), { dataFormat: 1 });
});

test('a directory of a newer program is refused before any file in it changes', (t) => {
  const data = temporaryDirectory(t);
  oldDataDirectory(data);
  writeFileSync(join(data, 'format.json'), `{"dataFormat": ${DATA_FORMAT + 1}}`);
  const contents = () =>
    readdirSync(data, { withFileTypes: true }).map((entry) => [
      entry.name,
      entry.isFile() && readFileSync(join(data, entry.name)).toString('hex'),
    ]);
  const before = contents();
  assert.throws(() => open(data), {
    message: /data format is 2, this version reads up to 1\nhint: run the newer version again/,
  });
  assert.deepEqual(contents(), before);
});

test('a damaged format.json is refused rather than guessed', (t) => {
  const data = temporaryDirectory(t);
  writeFileSync(join(data, 'format.json'), 'two');
  assert.throws(() => open(data), /format\.json should read/);
});

/** As the Python server creates them: nullable projects, an audit log that its own delete trigger cannot write to. */
function pythonDataDirectory(data: string, episodeColumns: string): void {
  const memory = new DatabaseSync(join(data, 'memory.db'));
  memory.exec(`
    CREATE TABLE memory_facts (id TEXT PRIMARY KEY, scope TEXT NOT NULL, category TEXT NOT NULL, key TEXT NOT NULL,
      value TEXT NOT NULL, confidence REAL NOT NULL CHECK(confidence >= 0.0 AND confidence <= 1.0), source TEXT NOT NULL,
      created_at DATETIME DEFAULT CURRENT_TIMESTAMP, updated_at DATETIME DEFAULT CURRENT_TIMESTAMP,
      CONSTRAINT unique_scope_key UNIQUE (scope, key));
    CREATE TABLE memory_audit_log (id INTEGER PRIMARY KEY AUTOINCREMENT, fact_id TEXT NOT NULL, operation TEXT NOT NULL,
      old_value TEXT, new_value TEXT NOT NULL, changed_by TEXT NOT NULL, changed_at DATETIME DEFAULT CURRENT_TIMESTAMP,
      FOREIGN KEY (fact_id) REFERENCES memory_facts(id) ON DELETE CASCADE);
    CREATE TRIGGER audit_insert AFTER INSERT ON memory_facts FOR EACH ROW BEGIN
      INSERT INTO memory_audit_log (fact_id, operation, old_value, new_value, changed_by, changed_at)
      VALUES (NEW.id, 'INSERT', NULL, NEW.value, NEW.source, CURRENT_TIMESTAMP); END;
    CREATE TRIGGER audit_delete AFTER DELETE ON memory_facts FOR EACH ROW BEGIN
      INSERT INTO memory_audit_log (fact_id, operation, old_value, new_value, changed_by, changed_at)
      VALUES (OLD.id, 'DELETE', OLD.value, NULL, OLD.source, CURRENT_TIMESTAMP); END;
    INSERT INTO memory_facts VALUES ('f1', 'user', 'preference', 'größe', '"gr\\u00f6\\u00dfer"', 0.7, 'user', '2024', '2024');
  `);
  memory.close();
  const episodic = new DatabaseSync(join(data, 'episodic.db'));
  episodic.exec(`
    CREATE TABLE episodic_memory (id TEXT PRIMARY KEY, ${episodeColumns} situation TEXT NOT NULL, action TEXT NOT NULL,
      outcome TEXT NOT NULL, lesson TEXT NOT NULL, confidence REAL NOT NULL, created_at DATETIME DEFAULT CURRENT_TIMESTAMP);
    INSERT INTO episodic_memory (id, situation, action, outcome, lesson, confidence)
      VALUES ('e1', 'Large repository', 'grep', 'success', 'Search names before reading files', 0.9);
  `);
  episodic.close();
  mkdirSync(join(data, 'semantic_index'));
  const chunk = {
    chunk_id: 'c1',
    document_id: 'doc_1',
    content: 'Herons fish at dawn.',
    embedding: [],
    chunk_index: 0,
  };
  const metadata = { type: 'code', source: 'birds/heron.py' };
  writeFileSync(
    join(data, 'semantic_index', 'chunks.json'),
    JSON.stringify([{ ...chunk, metadata, created_at: CREATED }], null, 2),
  );
}

for (const [name, columns] of [
  ['with a nullable project', 'project_id TEXT,'],
  ['from before there were projects', ''],
] as const) {
  test(`the Python server's data directory ${name} is listed, found and written`, async (t) => {
    const data = temporaryDirectory(t);
    pythonDataDirectory(data, columns);
    const { call, stores } = await linkedClient(t, {}, data);
    const { projects } = await call('sy.proj.list');
    assert.deepEqual(
      projects.map((row: Record<string, string>) => [row.project_id, row.scope_type]),
      [['user', 'user']],
    );
    for (const project_id of ['user', 'another']) {
      const found = await call('sy.mem.search', { project_id, query: 'dawn, or names before reading' });
      const shown = found.results.map((row: Record<string, string>) => row.lesson ?? row.content);
      assert.deepEqual(shown, ['Search names before reading files', 'Herons fish at dawn.'], project_id);
      const { sources } = await call('sy.src.list', { project_id, source_type: 'code' });
      assert.equal(sources[0]?.filename, 'birds/heron.py');
    }
    assert.equal((await call('sy.mem.search', { project_id: 'user', query: 'größer' })).total, 1);
    await call('sy.mem.ep.add', { project_id: 'user', title: 'New', content: 'Written by this version' });
    await call('sy.mem.delete', { project_id: 'user', id: 'f1' });
    const log = stores.memory.database.sql.prepare('SELECT operation, old_value FROM memory_audit_log').all();
    assert.deepEqual(
      log.map((row) => row.operation),
      ['INSERT', 'DELETE'],
    );
  });
}

test('no old fact is missed by a search that comes before all are indexed', async (t) => {
  const data = temporaryDirectory(t);
  oldDataDirectory(data);
  const memory = new DatabaseSync(join(data, 'memory.db'));
  const insert = memory.prepare(
    `INSERT INTO memory_facts VALUES (?, 'p', NULL, ?, '1', 0.5, 'user', '2024', '2024')`,
  );
  memory.exec('BEGIN');
  for (let i = 0; i < 3000; i++) insert.run(`old-${i}`, `key-${i}`);
  memory.exec('COMMIT');
  memory.close();
  const opened = open(data);
  const [found] = await opened.stores.memory.find('p', 'key-0', 1);
  assert.equal((found as { id?: string } | undefined)?.id, 'old-0');
  opened.close();
});

test('an earlier version on the same data finds what this one writes, and not what it deleted', async (t) => {
  const { call, stores } = await linkedClient(t);
  const found = stores.semantic.database.sql.prepare(`
    SELECT chunks.content FROM chunks JOIN chunks_fts ON chunks_fts.rowid = chunks.rowid
    JOIN documents ON documents.id = document_id WHERE chunks_fts MATCH 'herons'`);
  await call('sy.mem.ingest', { project_id: 'p', filename: 'a.md', content: 'About herons' });
  assert.equal(found.all().length, 1);
  await call('sy.mem.delete', { project_id: 'p', source: 'a.md' });
  assert.equal(found.all().length, 0);
  await stores.semantic.removeUnlisted();
  stores.semantic.database.sql.exec(`INSERT INTO chunks_fts (chunks_fts) VALUES ('integrity-check')`);
});

test('what another program writes is found by the next search, and what it deletes no more', async (t) => {
  const { call, data } = await linkedClient(t);
  const other = new DatabaseSync(join(data, 'memory.db'));
  const now = `'2024', '2024'`;
  other.exec(
    `INSERT INTO memory_facts VALUES ('x', 'p', 'general', 'owl', '"hunts at night"', 1, 'other', ${now})`,
  );
  const find = async (query: string) => (await call('sy.mem.search', { project_id: 'p', query })).total;
  assert.equal(await find('night'), 1);
  other.exec(`UPDATE memory_facts SET value = '"sleeps by day"'`);
  assert.deepEqual([await find('night'), await find('day')], [0, 1]);
  other.exec('DELETE FROM memory_facts');
  assert.equal(await find('day'), 0);
  other.close();
});
