// Both environments share one data directory: they start on it at the same moment and write the same
// files at once. What would be lost here is an acknowledged write.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { temporaryDirectory } from './support.ts';

const WRITER = fileURLToPath(new URL('fact-writer.ts', import.meta.url));
const run = promisify(execFile);
const ROUNDS = process.env.SOAK ? 10 : 2;

async function writeTogether(data: string, writers: string[], count: number): Promise<number> {
  const config = join(data, '..', 'synapse.json');
  const results = await Promise.all(
    writers.map((name) => run(process.execPath, [WRITER, data, config, name, String(count)])),
  );
  return results.reduce((sum, { stdout }) => sum + Number(stdout), 0);
}

function count(data: string, table: string): unknown {
  const sql = new DatabaseSync(join(data, 'memory.db'), { readOnly: true });
  const row = sql.prepare(`SELECT count(*) AS n FROM ${table}`).get();
  assert.equal(sql.prepare('PRAGMA integrity_check').get()?.integrity_check, 'ok');
  sql.close();
  return row?.n;
}

test('four processes that start on one empty directory at once all succeed', async (t) => {
  for (let round = 0; round < ROUNDS; round++) {
    const data = temporaryDirectory(t);
    assert.equal(await writeTogether(data, ['a', 'b', 'c', 'd'], 5), 20);
    assert.equal(count(data, 'memory_facts'), 20);
  }
});
