// Taking a release back: what nobody has is removed exactly, what was published is only withdrawn, and nobody
// else's commit is ever reset.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { docker } from './processes.ts';
import { configure, START, type TestProject, tinyProject } from './project.ts';
import { startRegistry } from './registry.ts';
import { errorOf, release, released } from './release-support.ts';

/** With somebody at the terminal (util-linux's `script` makes one), who types `answer` to the question. */
async function undoOnTerminal({ root }: TestProject, tag: string, answer: string): Promise<string> {
  const command = `stty cols 100 rows 30; '${process.execPath}' '${START}' release --undo ${tag}`;
  const child = spawn('script', ['--quiet', '--return', '--command', command, '/dev/null'], {
    cwd: root,
    env: { ...process.env, NODE_TEST_CONTEXT: undefined, NO_COLOR: '1', TERM: 'xterm' },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let screen = '';
  let isAnswered = false;
  child.stdout.on('data', (chunk: Buffer) => {
    screen += chunk;
    if (isAnswered || !/to cancel\.[\s\S]*│/.test(screen)) return;
    isAnswered = true;
    child.stdin.write(answer);
  });
  await once(child, 'close');
  return screen;
}

const imageId = (reference: string) => docker('image', 'inspect', '--format', '{{.Id}}', reference);

test('a release that nobody has', async (t) => {
  const project = await tinyProject(t);
  const first = await released(project, 'patch');

  await t.test('is not undone where it is not, nor on a branch that does not have it', async () => {
    await project.git('checkout', '--quiet', '-b', 'release/0.9', 'main~1');
    await project.git('tag', '-a', '-m', 'x\n\nImage: x\nImage-Digest: sha256:0', 'v0.1.0');
    const rows = [
      ['v1.0.0', 'wrong-branch'],
      ['v9.9.9', 'not-released'],
      ['v0.1.0', 'no-parent'],
    ] as const;
    for (const [tag, code] of rows) {
      const before = await project.snapshot();
      const refused = await release(project, '--undo', tag);
      assert.equal(refused.code, 1, tag);
      assert.equal(errorOf(refused).code, code, refused.stderr);
      assert.deepEqual(await project.snapshot(), before);
    }
    await project.git('tag', '--delete', 'v0.1.0');
    await project.git('checkout', '--quiet', 'main');
  });

  await t.test(
    'whose entry was edited since is not guessed at: refused, and nothing is touched',
    async () => {
      await project.edit('release-notes.md', (text) => text.replace('### Added', '### New'));
      await project.commit('docs: better notes');
      const before = await project.snapshot();
      const refused = await release(project, '--undo', 'v1.0.0');
      assert.equal(refused.code, 1);
      assert.equal(errorOf(refused).code, 'notes-edited');
      assert.deepEqual(await project.snapshot(), before);
    },
  );

  await t.test('is removed exactly: refs, notes, images and latest are as before', async () => {
    await project.commit('fix: next', { note: 'next' });
    const before = await project.snapshot();
    await released(project, 'patch');
    const undone = await release(project, '--undo', 'v1.0.1');
    assert.equal(undone.code, 0, undone.stderr);
    assert.equal(undone.json().outcome, 'remove');
    assert.deepEqual(await project.snapshot(), before);
    assert.equal(await imageId(`${project.name}:latest`), first.digest);
    assert.equal((await released(project, 'patch')).tag, 'v1.0.1', 'the number is free again');
  });

  await t.test('killed while undoing, the next run completes it', async () => {
    const steps = ['check', 'refs', 'work-tree', 'latest', 'images'].flatMap((step) => [
      step,
      `${step}/applied`,
    ]);
    for (const step of process.env.SOAK ? steps : ['check/applied', 'refs/applied', 'images']) {
      await project.commit('fix: next', { note: step });
      const before = await project.snapshot();
      await released(project, 'patch');
      const env = { RELEASE_FLOW_FAULT: `SIGKILL@undo/${step}` };
      const killed = await project.task('release', ['--undo', 'v1.0.2', '--yes'], { env });
      assert.equal(killed.code, 137, killed.stderr);
      const again = await release(project, '--undo', 'v1.0.2');
      assert.equal(again.code, 0, again.stderr);
      assert.match(again.stderr, /undo was interrupted at .*: resuming/);
      assert.deepEqual(await project.snapshot(), before);
    }
  });

  await t.test('leaves what was committed on top of it: its entry goes by a commit of its own', async () => {
    const notesBefore = await project.read('release-notes.md');
    await released(project, 'patch');
    const theirs = await project.commit('feat: on top of it', { other: 'theirs' });
    const undone = await release(project, '--undo', 'v1.0.2');
    assert.equal(undone.code, 0, undone.stderr);
    await project.git('merge-base', '--is-ancestor', theirs, 'main');
    assert.equal(await project.read('release-notes.md'), notesBefore);
    assert.equal(await project.read('other'), 'theirs');
    assert.equal(await project.git('tag', '--list'), 'v1.0.0\nv1.0.1');
    assert.equal(await project.git('status', '--porcelain'), '');
    const again = await released(project, 'auto');
    assert.equal(again.tag, 'v1.1.0');
    assert.doesNotMatch(
      await project.read('release-notes.md'),
      /chore|Revert/,
      'made and undone: not worth telling',
    );
  });
});

test('a published release is never deleted: withdrawn in the notes, latest back everywhere', async (t) => {
  const [project, registry] = [await tinyProject(t), await startRegistry(t)];
  await configure(project, 'image', `registry = "${registry.address}"`);
  const first = await released(project, 'patch', '--push');
  await project.commit('fix: a bad one', { note: 'bad' });
  const bad = await released(project, 'patch', '--push');
  const before = await project.snapshot();
  const screen = await undoOnTerminal(project, 'v1.0.1', '\r');
  assert.match(screen, /Type v1\.0\.1 to confirm[\s\S]*Cancelled/);
  assert.deepEqual(await project.snapshot(), before);
  const undone = await release(project, '--undo', 'v1.0.1');
  assert.equal(undone.code, 0, undone.stderr);
  assert.equal(undone.json().outcome, 'withdraw');
  assert.equal((await registry.manifest(project.name, 'v1.0.1'))?.digest, bad.digest, 'the image stays');
  assert.equal((await registry.manifest(project.name, 'latest'))?.digest, first.digest);
  assert.equal(await imageId(`${project.name}:latest`), first.digest);
  assert.match(await project.git('ls-remote', 'origin'), /refs\/tags\/v1\.0\.1/, 'the tag stays');
  assert.match(
    await project.read('release-notes.md'),
    /## \[v1\.0\.1\].*\n\n> \*\*Withdrawn:\*\* .*v1\.0\.0/,
  );
  assert.equal(await project.git('rev-parse', 'main'), await project.git('rev-parse', 'origin/main'));

  await project.commit('fix: a good one', { note: 'good' });
  assert.equal((await released(project, 'patch', '--push')).tag, 'v1.0.2', 'its number is never used again');
});
