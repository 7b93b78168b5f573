// Each command, file and link that the documents name exists. What would be lost: a README that leads nowhere.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const read = (path: string) => readFileSync(join(ROOT, path), 'utf8');
const scripts = JSON.parse(read('package.json')).scripts as Record<string, string>;
const DOCUMENTS = ['README.md', 'CONTRIBUTING.md'];
const documents = DOCUMENTS.map(read).join('\n');

test('each `npm run TASK` is a script, and each of its flags is in the help of the task', async () => {
  const uses = [...documents.matchAll(/npm run ([a-z][\w:-]*)((?: -- [^\n`#|(]*)?)/g)];
  const flags = new Map<string, Set<string>>();
  for (const [, name, rest] of uses) {
    const known = flags.get(name!) ?? new Set();
    for (const [flag] of rest!.matchAll(/--[a-z][a-z-]+/g)) known.add(flag);
    flags.set(name!, known);
  }
  assert.ok(flags.size > 8, 'they were found');
  for (const [name, used] of flags) {
    assert.ok(scripts[name], `npm run ${name}`);
    const task = /^node tasks\/start\.mjs (\S+)$/.exec(scripts[name])?.[1];
    if (!task) continue;
    const start = [join(ROOT, 'tasks/start.mjs'), task, '--help'];
    const { stdout } = await promisify(execFile)(process.execPath, start, { cwd: ROOT });
    for (const flag of used) assert.ok(stdout.includes(flag), `${name} ${flag}`);
  }
});

test('each link leads to a file or a heading, each named file of this project exists', () => {
  const anchors = [...read('README.md').matchAll(/^#+ (.+)$/gm)].map(
    ([, title]) =>
      `#${title!
        .toLowerCase()
        .replace(/[^\w -]/g, '')
        .replaceAll(' ', '-')}`,
  );
  const links = [...documents.matchAll(/\]\(([^)]+)\)|(?:src|srcset)="([^"]+)"/g)].map(
    (found) => found[1] ?? found[2]!,
  );
  const paths = [...documents.matchAll(/`((?:tasks|tests|compose|docs)\/[\w./-]+\w)`/g)].map(
    (found) => found[1]!,
  );
  const missing = [...links.filter((link) => !/^https?:/.test(link)), ...paths].filter(
    (target) => !(target.startsWith('#') ? anchors.includes(target) : existsSync(join(ROOT, target))),
  );
  assert.deepEqual(missing, []);
});
