// Reading a file while somebody writes it: a state that the file had, also where the writer is held up in the middle,
// and one that is written all the time is not given up while it says the same.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { copyUntorn } from '../../tasks/lib/backup/program/files.ts';
import { temporaryDirectory } from './support.ts';

/** Shorter than what the kernel's time stamps tell apart for sure. */
const EVERY_MS = 5;

/** Writes the same again and again, as a busy writer does. */
function busyWith(t: TestContext, path: string, text: string): NodeJS.Timeout {
  writeFileSync(path, text);
  const timer = setInterval(() => writeFileSync(path, text, { flag: 'r+' }), EVERY_MS);
  t.after(() => clearInterval(timer));
  return timer;
}

async function readOf(path: string): Promise<string> {
  await copyUntorn(Buffer.from(path), Buffer.from(`${path}-copy`), () => {});
  return readFileSync(`${path}-copy`, 'utf8');
}

test('a writer that is held up in the middle is waited for', async (t) => {
  const path = join(temporaryDirectory(t), 'file');
  const timer = busyWith(t, path, 'new old');
  const reading = readOf(path);
  await sleep(60);
  clearInterval(timer);
  writeFileSync(path, 'new new');
  assert.equal(await reading, 'new new');
});

test('a file that is written all the time is read when it says the same twice', async (t) => {
  const path = join(temporaryDirectory(t), 'file');
  busyWith(t, path, 'always the same');
  assert.equal(await readOf(path), 'always the same');
});
