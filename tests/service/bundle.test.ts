// The bundle that the image consists of: the same bytes from the same sources (a release's digest depends
// on it), small, and a program that runs alone.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { BUNDLER } from './programs.ts';
import { temporaryDirectory } from './support.ts';

/** Bundles into a folder of its own; its files by name. */
function bundle(folder: string): Map<string, Buffer> {
  mkdirSync(folder);
  execFileSync(process.execPath, [BUNDLER, join(folder, 'synapse.mjs')]);
  return new Map(readdirSync(folder).map((name) => [name, readFileSync(join(folder, name))]));
}

/** The files that a file of the bundle imports, itself included. */
function imports(files: Map<string, Buffer>, name: string, found = new Set<string>()): Set<string> {
  if (found.has(name)) return found;
  found.add(name);
  for (const [, specifier] of String(files.get(name)).matchAll(/\b(?:from|import) ?["']\.\/([^"']+)["']/g))
    imports(files, specifier!, found);
  return found;
}

test('the bundle: the same bytes twice, under 5 MB, and the program runs without node_modules', async (t) => {
  const folder = temporaryDirectory(t);
  const [files, again] = [bundle(join(folder, 'first')), bundle(join(folder, 'second'))];
  assert.deepEqual(files, again);
  const sizeOf = (names: Iterable<string>) =>
    [...names].reduce((sum, name) => sum + files.get(name)!.length, 0);
  t.diagnostic(`bundle: ${(sizeOf(files.keys()) / 1024 / 1024).toFixed(2)} MB`);
  assert(sizeOf(files.keys()) < 5 * 1024 * 1024);
  const env = { SYNAPSE_CONFIG_PATH: join(folder, '..', 'synapse.json'), SYNAPSE_SERVER__PORT: '1' };
  const argv = [join(folder, 'first', 'synapse.mjs'), '--health'];
  const check = spawnSync(process.execPath, argv, { cwd: folder, env, encoding: 'utf8' });
  assert.equal(check.status, 1);
  assert.match(check.stdout, /\/health on port 1: .*ECONNREFUSED/);

  await t.test('the health check, which runs as long as the container, loads almost nothing', () => {
    // The service itself is imported dynamically, which the pattern above does not follow.
    const loaded = imports(files, 'synapse.mjs');
    assert(sizeOf(loaded) < 10_000, `${sizeOf(loaded)} bytes in ${[...loaded]}`);
  });

  await t.test('node’s own modules are required: one that is imported loads all that it exports', () => {
    for (const [name, text] of files) {
      const found = String(text).matchAll(/\b(?:from|import) ?["'](node:[^"']+)["']/g);
      assert.deepEqual([...new Set([...found].map(([, one]) => one))], ['node:module'], name);
    }
  });
});
