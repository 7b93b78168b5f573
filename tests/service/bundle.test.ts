// The bundle that the image consists of: the same bytes from the same sources (a release's digest depends
// on it), small, and a program that runs alone.

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { temporaryDirectory } from './support.ts';

const BUNDLER = fileURLToPath(new URL('../../service/bundle.mjs', import.meta.url));

test('bundling twice gives the same bytes, under 5 MB, and the file runs without node_modules', (t) => {
  const folder = temporaryDirectory(t);
  const bundle = (name: string) => {
    const file = join(folder, name, 'synapse.mjs');
    mkdirSync(join(folder, name));
    execFileSync(process.execPath, [BUNDLER, file]);
    return file;
  };
  const [first, second] = [bundle('first'), bundle('second')];
  assert(readFileSync(first).equals(readFileSync(second)));
  const { size } = statSync(first);
  t.diagnostic(`bundle: ${(size / 1024 / 1024).toFixed(2)} MB`);
  assert(size < 5 * 1024 * 1024);
  const env = { SYNAPSE_CONFIG_PATH: join(folder, '..', 'synapse.json'), SYNAPSE_SERVER__PORT: '1' };
  const check = spawnSync(process.execPath, [first, '--health'], { cwd: folder, env, encoding: 'utf8' });
  assert.equal(check.status, 1);
  assert.match(check.stdout, /\/health on port 1: .*ECONNREFUSED/);
});
