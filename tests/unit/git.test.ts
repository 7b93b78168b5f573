// Reading git's answers: a change that is overlooked would be released, or thrown away.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseStatus, publicUrl, workTree } from '../../tasks/lib/git.ts';

const HEAD = 'a'.repeat(40);
const status = (...entries: string[]) => entries.map((entry) => `${entry}\0`).join('');

test('branch, commit and changes from the porcelain form', () => {
  const on = (oid: string, head: string) => [`# branch.oid ${oid}`, `# branch.head ${head}`];
  const plain = `1 .M N... 100644 100644 100644 ${HEAD} ${HEAD}`;
  const renamed = `2 R. N... 100644 100644 100644 ${HEAD} ${HEAD} R100`;
  const conflict = `u UU N... 100644 100644 100644 100644 ${HEAD} ${HEAD} ${HEAD}`;
  const rows: [string, ReturnType<typeof parseStatus>][] = [
    [status(...on(HEAD, 'main')), { branch: 'main', head: HEAD, changes: [] }],
    [status(...on(HEAD, '(detached)')), { branch: undefined, head: HEAD, changes: [] }],
    [status(...on('(initial)', 'main')), { branch: 'main', head: undefined, changes: [] }],
    [
      status(...on(HEAD, 'feat/a b'), `${plain} a file with spaces`, '? new  file', '? ümlaut\nline'),
      { branch: 'feat/a b', head: HEAD, changes: ['a file with spaces', 'new  file', 'ümlaut\nline'] },
    ],
    [
      status(...on(HEAD, 'main'), `${renamed} new name`, '1 old name that looks like an entry', '? x'),
      { branch: 'main', head: HEAD, changes: ['new name', 'x'] },
    ],
    [status(...on(HEAD, 'main'), `${conflict} both`), { branch: 'main', head: HEAD, changes: ['both'] }],
    [
      status(...on(HEAD, 'main'), '# branch.ab +1 -2', '! ignored'),
      { branch: 'main', head: HEAD, changes: [] },
    ],
  ];
  for (const [text, expected] of rows) assert.deepEqual(parseStatus(text), expected, JSON.stringify(text));
});

test('the same from git itself, with a rename, an odd name and an untracked folder', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'git-test-'));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  const git = (...argv: string[]) =>
    execFileSync('git', ['-c', 'user.name=x', '-c', 'user.email=x@y', ...argv], {
      cwd: root,
      encoding: 'utf8',
    });
  git('init', '--quiet', '--initial-branch=main');
  assert.deepEqual(await workTree(root), { branch: 'main', head: undefined, changes: [] });
  writeFileSync(join(root, 'a name'), 'long enough to be seen as renamed\n'.repeat(5));
  git('add', '--all');
  git('commit', '--quiet', '-m', 'x');
  renameSync(join(root, 'a name'), join(root, 'another\tname'));
  writeFileSync(join(root, '-x'), '');
  git('add', '--', 'another\tname', 'a name');
  const { branch, changes } = await workTree(root);
  assert.deepEqual([branch, changes.sort()], ['main', ['-x', 'another\tname']]);
});

test('a folder that is no repository says so and what to do', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'git-test-'));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  await assert.rejects(workTree(root), { code: 'not-a-repository', exitCode: 1 });
});

test('the public form of a remote carries no user, no password, no local path', () => {
  const rows = [
    ['git@github.com:me/it.git', 'https://github.com/me/it'],
    ['ssh://git@host.example:2222/me/it.git', 'https://host.example/me/it'],
    ['https://github.com/me/it.git', 'https://github.com/me/it'],
    ['https://user:ghp_secret@github.com/me/it', 'https://github.com/me/it'],
    ['https://ghp_secret@github.com/me/it.git', 'https://github.com/me/it'],
    ['http://host:3000/me/it', 'https://host:3000/me/it'],
    ['https://user:p@ss@host/me/it', 'https://host/me/it'],
    ['/srv/git/it.git', ''],
    ['../it', ''],
    ['file:///srv/it.git', ''],
    ['', ''],
  ];
  for (const [url = '', expected] of rows) assert.equal(publicUrl(url), expected, url);
});
