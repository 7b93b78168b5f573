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

test('bundling twice gives the same bytes, under 5 MB, and the program runs without node_modules', (t) => {
  const folder = temporaryDirectory(t);
  const [first, second] = [bundle(join(folder, 'first')), bundle(join(folder, 'second'))];
  assert.deepEqual(first, second);
  const size = [...first.values()].reduce((sum, bytes) => sum + bytes.length, 0);
  t.diagnostic(`bundle: ${(size / 1024 / 1024).toFixed(2)} MB`);
  assert(size < 5 * 1024 * 1024);
  const env = { SYNAPSE_CONFIG_PATH: join(folder, '..', 'synapse.json'), SYNAPSE_SERVER__PORT: '1' };
  const argv = [join(folder, 'first', 'synapse.mjs'), '--health'];
  const check = spawnSync(process.execPath, argv, { cwd: folder, env, encoding: 'utf8' });
  assert.equal(check.status, 1);
  assert.match(check.stdout, /\/health on port 1: .*ECONNREFUSED/);
});

/** The files that a file of the bundle imports, itself included. */
function imports(files: Map<string, Buffer>, name: string, found = new Set<string>()): Set<string> {
  if (found.has(name)) return found;
  found.add(name);
  for (const [, specifier] of String(files.get(name)).matchAll(/\b(?:from|import) ?["']\.\/([^"']+)["']/g))
    imports(files, specifier!, found);
  return found;
}

test('the health check, which runs as long as the container, loads almost nothing', (t) => {
  const files = bundle(join(temporaryDirectory(t), 'bundle'));
  // The service itself is imported dynamically, which the pattern above does not follow.
  const loaded = [...imports(files, 'synapse.mjs')];
  const size = loaded.reduce((sum, name) => sum + files.get(name)!.length, 0);
  assert(size < 10_000, `${size} bytes in ${loaded}`);
});

test('node’s own modules are required: one that is imported loads all that it exports', (t) => {
  const files = bundle(join(temporaryDirectory(t), 'bundle'));
  for (const [name, text] of files) {
    const imported = [...String(text).matchAll(/\b(?:from|import) ?["'](node:[^"']+)["']/g)].map(
      ([, one]) => one,
    );
    assert.deepEqual([...new Set(imported)], ['node:module'], name);
  }
});
