// The main job on a small project: what a release leaves behind, and that bad input leaves nothing.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { docker } from './processes.ts';
import { tinyProject } from './project.ts';

test('a release is one commit, one annotated tag with the digest, one image, one notes entry', async (t) => {
  const project = await tinyProject(t);
  const first = await project.task('release', ['patch', '--yes', '--json']);
  assert.equal(first.code, 0, first.stderr);
  assert.equal(first.json().tag, 'v1.0.0', 'a first release is v1.0.0, whatever bump was asked for');
  await project.commit('fix: a repair', { note: 'x' });
  const second = await project.task('release', ['patch', '--yes', '--json']);
  assert.equal(second.code, 0, second.stderr);

  const { tag, commit, digest } = second.json() as { tag: string; commit: string; digest: string };
  assert.equal(tag, 'v1.0.1');
  assert.equal(await project.git('rev-parse', 'v1.0.1^{commit}', 'main'), `${commit}\n${commit}`);
  assert.match(await project.git('cat-file', 'tag', 'v1.0.1'), new RegExp(`^Image-Digest: ${digest}$`, 'm'));
  for (const name of ['v1.0.1', 'latest']) {
    assert.equal(await docker('image', 'inspect', '--format', '{{.Id}}', `${project.name}:${name}`), digest);
  }
  assert.equal(await project.git('status', '--porcelain'), '');
  const notes = await project.read('release-notes.md');
  assert.deepEqual(
    notes.match(/^## .*$/gm)?.map((line) => line.slice(0, 11)),
    ['## [v1.0.1]', '## [v1.0.0]'],
  );
  assert.match(notes, /### Fixed\n\n- a repair/);
  assert.equal((await project.snapshot()).candidates, '', 'nothing of the candidate is left');
});
