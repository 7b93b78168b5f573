// What a user's git, shell and machine are set to does not change what is read or written; how to reach a remote and how
// to sign is the user's. All of it with real git. Lost otherwise: line ends in an image, a signature, another's commits.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import {
  commitTime,
  exportTree,
  fileAt,
  isAncestor,
  mergedTags,
  publicUrl,
  readTags,
  remoteState,
  remoteUrl,
  resolveRevision,
  workTree,
} from '../../tasks/lib/git.ts';
import type { Project } from '../../tasks/lib/project.ts';
import { verifySigning, writeCommit, writeTag } from '../../tasks/lib/release/git-write.ts';
import { verifyBuildInputs } from '../../tasks/lib/release/preflight.ts';
import { publish, verifyPushAccess } from '../../tasks/lib/release/publish.ts';
import { releaseTags } from '../../tasks/lib/release/record.ts';

type Repository = ReturnType<typeof repository>;

/** A repository with one commit of `files`. */
function repository(t: TestContext, files: Record<string, string> = { file: 'one\n' }) {
  const directory = mkdtempSync(join(tmpdir(), 'git-settings-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const root = join(directory, 'clone');
  const git = (...argv: string[]) =>
    execFileSync('git', argv, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();
  execFileSync('git', ['init', '--quiet', '--initial-branch=main', root]);
  const write = (name: string, text: string) => writeFileSync(join(root, name), text);
  const commit = (message: string, changed: Record<string, string> = {}) => {
    for (const [name, text] of Object.entries(changed)) write(name, text);
    git('add', '--all');
    git('commit', '--quiet', '--allow-empty', '-m', message);
    return git('rev-parse', 'HEAD');
  };
  git('config', 'user.name', 'Ann Example');
  git('config', 'user.email', 'ann@example.org');
  commit('feat: first', files);
  return { directory, root, git, write, commit };
}

/** Ssh keys sign without an agent. */
function signBySsh({ directory, git }: Repository): void {
  const key = join(directory, 'key');
  execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', key]);
  writeFileSync(join(directory, 'signers'), `ann@example.org ${readFileSync(`${key}.pub`, 'utf8')}`);
  git('config', 'gpg.format', 'ssh');
  git('config', 'user.signingKey', key);
  git('config', 'gpg.ssh.allowedSignersFile', join(directory, 'signers'));
}

/** A key without passphrase in a keyring of its own, by way of `gpg.program`. */
function signByGpg({ directory, git }: Repository): void {
  const home = mkdtempSync(join(tmpdir(), 'gpg-'));
  const gpg = (...argv: string[]) =>
    execFileSync('gpg', ['--homedir', home, '--batch', ...argv], { stdio: 'pipe' });
  gpg('--passphrase', '', '--quick-gen-key', 'Ann Example <ann@example.org>', 'ed25519', 'sign');
  const program = join(directory, 'gpg.sh');
  writeFileSync(program, `#!/bin/sh\nexec gpg --homedir ${home} --batch "$@"\n`);
  chmodSync(program, 0o755);
  git('config', 'gpg.program', program);
}

const DATE = new Date('2026-11-28T00:00:00Z');

for (const [name, choose] of [
  ['an SSH key', signBySsh],
  ['an OpenPGP key', signByGpg],
] as const) {
  test(`commit and tag of a release are signed as git would, by ${name}`, async (t) => {
    const repo = repository(t);
    const { root, git } = repo;
    const parent = git('rev-parse', 'HEAD');
    const request = { parent, path: 'notes', text: 'x\n', message: 'chore(release): v1.0.0\n', date: DATE };
    const tag = { tag: 'v1.0.0', message: 'v1.0.0\n\nImage-Digest: sha256:1\n', date: DATE };
    const plain = await writeCommit(root, request);
    assert.doesNotMatch(git('cat-file', 'commit', plain), /gpgsig/);
    assert.equal(await writeCommit(root, request), plain, 'the same request gives the same commit');
    const unsigned = await writeTag(root, { ...tag, commit: plain });
    assert.equal(await writeTag(root, { ...tag, commit: plain }), unsigned);
    assert.match(
      git('cat-file', 'tag', unsigned),
      /^object \w+\ntype commit\ntag v1.0.0\ntagger Ann Example /,
    );

    choose(repo);
    git('config', 'commit.gpgSign', 'true');
    git('config', 'tag.gpgSign', 'true');
    await verifySigning(root, parent);
    const commit = await writeCommit(root, request);
    git('verify-commit', commit);
    const object = await writeTag(root, { ...tag, commit });
    git('verify-tag', object);
    assert.equal(git('tag', '--list'), '', 'and no tag is there yet');
    git('update-ref', 'refs/tags/v1.0.0', object);
    assert.match(git('cat-file', 'tag', 'v1.0.0'), /^Image-Digest: sha256:1$/m);
  });
}

test('a key that cannot sign is found before anything is made', async (t) => {
  const { root, git, directory } = repository(t);
  const head = git('rev-parse', 'HEAD');
  await verifySigning(root, head);
  git('config', 'gpg.format', 'ssh');
  git('config', 'user.signingKey', join(directory, 'missing'));
  for (const setting of ['commit.gpgSign', 'tag.gpgSign']) {
    git('config', setting, 'true');
    await assert.rejects(verifySigning(root, head), { code: 'cannot-sign' }, setting);
    git('config', '--unset', setting);
  }
  assert.equal(git('count-objects'), '3 objects, 12 kilobytes', 'trying leaves no object behind');
});

test('line ends, signatures and untracked files: a user’s settings change nothing', async (t) => {
  const repo = repository(t, {
    script: '#!/bin/sh\necho\n',
    '.gitattributes': '*.bat text eol=crlf\n',
    'x.bat': 'a\r\n',
  });
  const { root, git, directory, write } = repo;
  signBySsh(repo);
  git('config', 'commit.gpgSign', 'true');
  const head = repo.commit('feat: signed');
  writeFileSync(join(directory, 'attributes'), '* text eol=crlf\n');
  for (const [name, value] of [
    ['core.autocrlf', 'true'],
    ['core.eol', 'crlf'],
    ['core.attributesFile', join(directory, 'attributes')],
    ['log.showSignature', 'true'],
    ['status.showUntrackedFiles', 'no'],
    ['color.ui', 'always'],
    ['core.pager', 'false'],
  ] as const)
    git('config', name, value);
  const tree = await exportTree(root, head, join(directory, 'export'));
  assert.equal(readFileSync(join(tree, 'script'), 'utf8'), '#!/bin/sh\necho\n');
  assert.equal(readFileSync(join(tree, 'x.bat'), 'utf8'), 'a\r\n', 'but what the project itself asks for');
  assert.ok((await commitTime(root, head)) > 1.7e9);
  write('untracked', '');
  assert.deepEqual((await workTree(root)).changes, ['untracked']);
});

test('submodules are part of what is built, at the commit that is named, also within one another', async (t) => {
  const [inner, part, repo] = [repository(t), repository(t, { part: 'x\n' }), repository(t)];
  const add = ({ git }: Repository, { root }: Repository, path: string) =>
    git('-c', 'protocol.file.allow=always', 'submodule', '--quiet', 'add', root, path);
  add(part, inner, 'inner');
  part.commit('feat: with another');
  add(repo, part, 'lib/part');
  repo.git('-c', 'protocol.file.allow=always', 'submodule', '--quiet', 'update', '--init', '--recursive');
  const head = repo.commit('feat: with a part');
  writeFileSync(join(repo.root, 'lib/part/part'), 'edited\n');
  assert.deepEqual((await workTree(repo.root)).changes, ['lib/part'], 'an edit in it is seen');
  await verifyBuildInputs(repo.root, head, { dockerfile: 'lib/part/part', context: '.' });
  const tree = await exportTree(repo.root, head, join(repo.directory, 'export'));
  assert.equal(readFileSync(join(tree, 'lib/part/part'), 'utf8'), 'x\n');
  assert.equal(readFileSync(join(tree, 'lib/part/inner/file'), 'utf8'), 'one\n');
});

test('a tag that names a tag is the version that it is; one that names no commit is none', async (t) => {
  const { root, git } = repository(t);
  const head = git('rev-parse', 'HEAD');
  git('tag', '-a', '-m', 'inner', 'inner');
  git('tag', '-a', '-m', 'v1.0.0\n\nImage: a:v1\nImage-Digest: sha256:1', 'v1.0.0', 'inner');
  git('tag', '-a', '-m', 'outer', 'v1.1.0', 'v1.0.0');
  git('tag', 'v1.2.0');
  git('tag', 'v9.0.0', git('rev-parse', 'HEAD^{tree}'));
  const names = ['inner', 'v1.0.0', 'v1.1.0', 'v1.2.0'];
  const tags = await readTags(root);
  assert.deepEqual(
    tags.map(({ name, commit }) => [name, commit]),
    names.map((name) => [name, head]),
  );
  const merged = await mergedTags(root);
  assert.ok(names.every((name) => merged.has(name)));
  const releases = await releaseTags(root, 'v');
  assert.deepEqual(
    releases.map(({ version, commit, record }) => [version, commit, record?.digest]),
    [
      ['1.2.0', head, undefined],
      ['1.1.0', head, undefined],
      ['1.0.0', head, 'sha256:1'],
    ],
  );
});

test('branch, commit and changes are read whatever their names are', async (t) => {
  const { root, git, write } = repository(t, { 'a name': 'long enough to be seen as renamed\n'.repeat(5) });
  const head = git('rev-parse', 'HEAD');
  const state = async () => {
    const { changes, ...place } = await workTree(root);
    return { ...place, changes: changes.sort() };
  };
  git('checkout', '--quiet', '-b', 'feat/a-b');
  git('mv', 'a name', 'another\tname');
  for (const name of ['-x', 'new  file', 'ümlaut\nline']) write(name, name);
  const changes = ['-x', 'another\tname', 'new  file', 'ümlaut\nline'];
  assert.deepEqual(await state(), { branch: 'feat/a-b', head, changes });
  git('add', '--all');
  git('commit', '--quiet', '-m', 'renamed');
  git('checkout', '--quiet', '--detach', head);
  assert.deepEqual(await state(), { branch: undefined, head, changes: [] });
  write('new  file', 'another one\n');
  git('add', '--all');
  git('commit', '--quiet', '-m', 'added here, too');
  assert.throws(() => git('merge', '--quiet', 'feat/a-b'));
  assert.ok((await state()).changes.includes('new  file'), 'a conflict');
  git('checkout', '--quiet', '--force', '--orphan', 'empty');
  assert.equal((await state()).head, undefined);
  await assert.rejects(workTree(tmpdir()), { code: 'not-a-repository', exitCode: 1 });
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

test('a question that git refuses, or cannot answer, is an error and not a "no"', async (t) => {
  const repo = repository(t, { notes: 'x\n' });
  const { root, git } = repo;
  const head = git('rev-parse', 'HEAD');
  git('tag', '-a', '-m', 'x', 'v1.0.0');
  const unknown = '1'.repeat(40);
  const no: [name: string, answer: Promise<unknown>, expected: unknown][] = [
    ['no such revision', resolveRevision(root, 'refs/tags/v2.0.0'), undefined],
    ['no parent', resolveRevision(root, `${head}^`), undefined],
    ['no such file', fileAt(root, head, 'nope'), undefined],
    ['a commit that is not here', isAncestor(root, unknown, head), false],
    ['no such remote', remoteUrl(root, 'origin'), undefined],
  ];
  for (const [name, answer, expected] of no) assert.equal(await answer, expected, name);
  const questions: [name: string, ask: () => Promise<unknown>][] = [
    ['resolveRevision', () => resolveRevision(root, 'refs/tags/v1.0.0')],
    ['fileAt', () => fileAt(root, head, 'notes')],
    ['isAncestor', () => isAncestor(root, head, 'HEAD')],
    ['releaseTags', () => releaseTags(root, 'v')],
    ['mergedTags', () => mergedTags(root)],
    ['remoteUrl', () => remoteUrl(root, 'origin')],
  ];
  await assert.rejects(isAncestor(root, head, unknown), 'what the unknown contains is unknown');
  await assert.rejects(fileAt(root, unknown, 'notes'), 'what the unknown holds is unknown');
  const blob = git('rev-parse', 'HEAD:notes');
  rmSync(join(root, '.git/objects', blob.slice(0, 2), blob.slice(2)));
  await assert.rejects(fileAt(root, head, 'notes'), 'a file whose object is lost was not "not there"');
  if (process.getuid?.() !== 0) return;
  execFileSync('chown', ['-R', '65534:65534', root]);
  for (const [name, ask] of questions) await assert.rejects(ask(), /dubious ownership/, name);
  await assert.rejects(workTree(root), { code: 'repository-refused' });
  assert.deepEqual(await releaseTags(tmpdir(), 'v'), [], 'outside of a repository there are none');
});

/** A bare remote, reached by a program that stands for ssh. */
function remoteBySsh({ directory, git }: Repository): string {
  execFileSync('git', [
    'clone',
    '--quiet',
    '--bare',
    join(directory, 'clone'),
    join(directory, 'remote.git'),
  ]);
  const ssh = join(directory, 'ssh.sh');
  writeFileSync(ssh, '#!/bin/sh\nwhile [ "$1" != example.org ]; do shift; done; shift\nexec sh -c "$*"\n');
  chmodSync(ssh, 0o755);
  git('remote', 'add', 'origin', `ssh://example.org${join(directory, 'remote.git')}`);
  return ssh;
}

test('how to reach the remote is the user’s: core.sshCommand, GIT_SSH_COMMAND and GIT_SSH', async (t) => {
  const repo = repository(t);
  const { root, git } = repo;
  const ssh = remoteBySsh(repo);
  const isReached = async () => (await remoteState(root, 'origin')).branches.has('main');
  git('config', 'core.sshCommand', ssh);
  assert.ok(await isReached(), 'core.sshCommand');
  git('config', '--unset', 'core.sshCommand');
  for (const name of ['GIT_SSH_COMMAND', 'GIT_SSH']) {
    process.env[name] = ssh;
    if (name === 'GIT_SSH') process.env.GIT_SSH_VARIANT = 'ssh';
    assert.ok(await isReached(), name);
    delete process.env[name];
  }
  delete process.env.GIT_SSH_VARIANT;
});

const project = (root: string) => ({ root, release: { remote: 'origin' } }) as unknown as Project;

/** A repository with a remote that it has pushed to, and another clone of that. */
function published(t: TestContext) {
  const repo = repository(t);
  const remote = join(repo.directory, 'remote.git');
  execFileSync('git', ['clone', '--quiet', '--bare', repo.root, remote]);
  repo.git('remote', 'add', 'origin', remote);
  const other = join(repo.directory, 'other');
  execFileSync('git', ['clone', '--quiet', remote, other]);
  const theirs = (...argv: string[]) =>
    execFileSync('git', ['-c', 'user.name=x', '-c', 'user.email=x@y', ...argv], {
      cwd: other,
      stdio: 'pipe',
    });
  const bare = (...argv: string[]) => execFileSync('git', argv, { cwd: remote, encoding: 'utf8' }).trim();
  const from = repo.git('rev-parse', 'HEAD');
  const commit = repo.commit('chore(release): v1.0.0', { notes: 'x\n' });
  repo.git('tag', '-a', '-m', 'x', 'v1.0.0');
  const publication = { branch: 'main', commit, tag: 'v1.0.0', what: 'v1.0.0 is made' };
  return { ...repo, theirs, bare, from, publication, remote };
}

test('whether a remote takes the push is asked beforehand, as it will be pushed', async (t) => {
  const { root, bare, git, from } = published(t);
  const said = t.mock.method(process.stderr, 'write', () => true);
  const words = () => said.mock.calls.map((call) => call.arguments[0]).join('');
  await verifyPushAccess(project(root), 'main');
  assert.equal(words(), '');
  bare('config', 'receive.advertiseAtomic', 'false');
  await verifyPushAccess(project(root), 'main');
  assert.match(words(), /origin does not support atomic pushes: pushing the branch first/);
  git('remote', 'set-url', 'origin', join(root, 'nowhere.git'));
  await assert.rejects(verifyPushAccess(project(root), 'main'), { code: 'no-push-access' });
  assert.equal(bare('rev-parse', 'main'), from, 'nothing was pushed');
});

test('a remote that takes no atomic push gets the branch first, then the tag, whatever came in between', async (t) => {
  const { root, bare, git, publication, remote } = published(t);
  bare('config', 'receive.advertiseAtomic', 'false');
  const hook = join(remote, 'hooks/update');
  writeFileSync(hook, '#!/bin/sh\ncase "$1" in refs/tags/*) echo "no tags today"; exit 1;; esac\n');
  chmodSync(hook, 0o755);
  await assert.rejects(publish(project(root), publication), {
    code: 'push-rejected',
    message: /no tags today/,
  });
  assert.equal(bare('rev-parse', 'main'), publication.commit, 'never a tag without its branch');
  rmSync(hook);
  await publish(project(root), publication);
  assert.equal(bare('rev-parse', 'v1.0.0'), git('rev-parse', 'v1.0.0'));
  await publish(project(root), publication);
});

test('what a hook of the user’s says about a push is passed on, on whichever stream', async (t) => {
  const { root, publication } = published(t);
  const hook = join(root, '.git/hooks/pre-push');
  writeFileSync(hook, '#!/bin/sh\necho "on stdout: not on a Friday"\necho "on stderr: ask Bo" >&2\nexit 1\n');
  chmodSync(hook, 0o755);
  await assert.rejects(publish(project(root), publication), ({ code, message }: Error & { code: string }) => {
    assert.equal(code, 'push-rejected');
    return /not on a Friday/.test(message) && /ask Bo/.test(message);
  });
});

test('commits that are only on the remote are fetched before anything is concluded from them', async (t) => {
  const { root, git, theirs, bare, publication } = published(t);
  await publish(project(root), publication);
  theirs('pull', '--quiet');
  theirs('commit', '--quiet', '--allow-empty', '-m', 'fix: on top of the release');
  theirs('push', '--quiet');
  const tip = bare('rev-parse', 'main');
  await publish(project(root), publication);
  assert.equal(bare('rev-parse', 'main'), tip, 'the remote has the release: nothing is pushed');
  writeFileSync(join(root, 'notes'), 'withdrawn\n');
  git('commit', '--quiet', '-a', '-m', 'chore(release): withdraw v1.0.0');
  const next = { ...publication, commit: git('rev-parse', 'HEAD'), tag: undefined };
  await assert.rejects(publish(project(root), next), { code: 'push-rejected', hint: /git pull --no-rebase/ });
  assert.equal(bare('rev-parse', 'main'), tip);
  git('pull', '--quiet', '--no-rebase', 'origin', 'main');
  await publish(project(root), next);
  assert.equal(bare('rev-parse', 'main'), git('rev-parse', 'main'));
  git('merge-base', '--is-ancestor', tip, 'main');
});
