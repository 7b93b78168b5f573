// The main job on a small project, and what can be asked of a release beside a version: notes alone, an editor, hooks, a
// maintenance branch, a deployment; and that each leaves the release whole.
import assert from 'node:assert/strict';
import { chmod, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { docker } from './processes.ts';
import { configure, type TestProject, tinyProject } from './project.ts';
import { startRegistry } from './registry.ts';
import { errorOf, release } from './release-support.ts';

/** An editor for $EDITOR: a script that changes the file it is given. */
async function editor(project: TestProject, script: string): Promise<string> {
  const path = join(project.directory, 'editor.sh');
  await writeFile(path, `#!/bin/sh\nset -e\n${script}\n`);
  await chmod(path, 0o755);
  return path;
}

/** Takes the last `configure` back. */
async function unconfigure(project: TestProject): Promise<void> {
  await project.git('reset', '--quiet', '--hard', 'HEAD~1');
  await project.git('push', '--quiet', '--force', 'origin', 'main');
}

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

test('what can be asked of a release', async (t) => {
  const project = await tinyProject(t);

  await t.test('--notes-only prints the entry and changes nothing, dirty tree or not', async () => {
    await project.write('note', 'not committed');
    const before = await project.snapshot();
    const printed = await project.task('release', ['minor', '--notes-only']);
    assert.equal(printed.code, 0, printed.stderr);
    assert.match(printed.stdout, /^## \[v1\.0\.0\] - \d{4}-\d\d-\d\d\n/);
    assert.match(printed.stdout, /- first version \(\w{7}\)/);
    assert.deepEqual(await project.snapshot(), before);
    await rm(join(project.root, 'note'));
  });

  await t.test(
    '--edit commits the entry as a person left it, and an emptied one stops the release',
    async () => {
      const before = await project.snapshot();
      const EDITOR = await editor(project, ': > "$1"');
      const env = { EDITOR, VISUAL: undefined, GIT_EDITOR: undefined };
      const stopped = await project.task('release', ['patch', '--edit', '--yes', '--json'], { env });
      assert.equal(errorOf(stopped).code, 'notes-empty', stopped.stderr);
      assert.deepEqual(await project.snapshot(), before);
      await editor(project, 'sed -i "s/first version/the very first version/" "$1"');
      const made = await project.task('release', ['patch', '--edit', '--yes', '--json'], { env });
      assert.equal(made.code, 0, made.stderr);
      assert.match(await project.git('show', 'v1.0.0:release-notes.md'), /- the very first version/);
      assert.equal(await project.git('status', '--porcelain'), '');
    },
  );

  await t.test(
    'a dry run shows every command of a release, its pushes and its undoing, and changes nothing',
    async (t) => {
      const registry = await startRegistry(t);
      await configure(project, 'image', `registry = "${registry.address}"`);
      const before = await project.snapshot();
      const shown = await project.task('release', ['patch', '--push', '--deploy', '--dry-run']);
      assert.equal(shown.code, 0, shown.stderr);
      const steps = [
        /would run: git -C \S+ commit-tree/,
        /would run: docker buildx build/,
        /would run: docker compose --project-name \S+-candidate-\S+ .* up --detach/,
        /would run: git .* update-ref .* --stdin/,
        new RegExp(`would run: docker image tag ${project.name}:candidate-\\S+ ${project.name}:v1\\.0\\.1\n`),
        new RegExp(`would run: docker push --quiet ${registry.address}/${project.name}:v1\\.0\\.1`),
        /would run: git .* push --atomic .* refs\/tags\/v1\.0\.1:refs\/tags\/v1\.0\.1/,
        /would run: docker image tag \S+:latest/,
      ];
      for (const [index, step] of steps.entries()) assert.match(shown.stderr, step, `step ${index}`);
      assert.deepEqual(await project.snapshot(), before);
      assert.equal((await project.task('release', ['--undo', 'v1.0.0', '--dry-run'])).code, 0);
      assert.deepEqual(await project.snapshot(), before);
      await unconfigure(project);
    },
  );

  await t.test(
    'a check that changes the project stops the release: what is released is what was planned',
    async () => {
      await configure(project, 'release', 'checks = [["sh", "-c", "echo generated > note"]]');
      const refs = await project.git('for-each-ref');
      const failed = await release(project, 'patch');
      assert.equal(failed.code, 1);
      assert.equal(errorOf(failed).code, 'dirty-tree');
      assert.equal(await project.git('for-each-ref'), refs);
      await project.git('checkout', '--quiet', '--', '.');
      await project.git('clean', '--quiet', '-f');
      await unconfigure(project);
    },
  );

  await t.test(
    'hooks run around the release and know it; a failing one before it changes nothing',
    async () => {
      const told = join(project.directory, 'told');
      const script = `printf '%s|' "$1" "$TINY_RELEASE_TAG" "$TINY_RELEASE_VERSION" "$TINY_RELEASE_COMMIT" "$TINY_RELEASE_DIGEST" >> ${told}; test ! -e ${told}.fail`;
      const hook = (when: string) => `["sh", "-c", ${JSON.stringify(script)}, "hook", "${when}"]`;
      await configure(
        project,
        'release',
        `hooks = { before = [${hook('before')}], after = [${hook('after')}] }`,
      );
      await writeFile(`${told}.fail`, '');
      const before = await project.snapshot();
      const failed = await release(project, 'patch');
      assert.equal(failed.code, 1);
      assert.deepEqual(await project.snapshot(), before);
      await project.git('clean', '--quiet', '-f');
      await writeFile(told, '');
      await rm(`${told}.fail`);
      const made = await release(project, 'patch');
      assert.equal(made.code, 0, made.stderr);
      const { commit, digest } = made.json();
      const text = await readFile(told, 'utf8');
      assert.equal(text, `before|v1.0.1|1.0.1|||after|v1.0.1|1.0.1|${commit}|${digest}|`);
    },
  );

  await t.test(
    '--deploy switches prod to the release, also after a kill; one that is not healthy is not released',
    async () => {
      await project.commit('fix: to be deployed', { note: 'deployed' });
      const env = { RELEASE_FLOW_FAULT: 'SIGKILL@release/cleanup/applied' };
      assert.equal((await project.task('release', ['patch', '--deploy', '--yes'], { env })).code, 137);
      const made = await release(project, 'patch');
      assert.equal(made.code, 0, made.stderr);
      assert.equal(made.json().deployed, true, 'as the run that died was asked to');
      assert.equal((await project.health('prod')).version, '1.0.2');

      await project.commit('feat: broken', { behaviour: 'crash' });
      const before = await project.snapshot();
      const failed = await release(project, 'minor', '--deploy');
      assert.equal(errorOf(failed).code, 'candidate-unhealthy');
      assert.match(failed.stderr, /cannot start, as asked/, 'with its last words');
      assert.deepEqual(await project.snapshot(), before);
      assert.equal((await project.health('prod')).version, '1.0.2', 'what ran still runs');

      // Undoing what prod runs takes prod back first.
      await project.commit('fix: mended', { behaviour: 'ok' });
      assert.equal((await release(project, 'minor', '--deploy')).code, 0);
      const undone = await release(project, '--undo', 'v1.1.0');
      assert.equal(undone.code, 0, undone.stderr);
      assert.equal((await project.health('prod')).version, '1.0.2');
    },
  );

  await t.test(
    'a fix of an old version comes from a maintenance branch, by name, and latest stays',
    async () => {
      await project.commit('feat: two', { note: 'two' });
      assert.equal((await release(project, 'major')).json().tag, 'v2.0.0');
      const latest = await docker('image', 'inspect', '--format', '{{.Id}}', `${project.name}:latest`);
      await project.git('checkout', '--quiet', '-b', 'v1.x', 'v1.0.2');
      await project.commit('fix: of the old one', { note: 'old' });
      const bump = await release(project, 'patch');
      assert.equal(errorOf(bump).code, 'version-not-higher', 'without a name it is more likely a mistake');
      const made = await release(project, '1.0.3');
      assert.equal(made.code, 0, made.stderr);
      assert.equal(await project.git('rev-parse', 'v1.x'), made.json().commit);
      assert.equal(await docker('image', 'inspect', '--format', '{{.Id}}', `${project.name}:latest`), latest);

      await project.git('checkout', '--quiet', '-b', 'topic');
      await project.commit('fix: elsewhere', { note: 'elsewhere' });
      assert.equal(errorOf(await release(project, '1.0.4')).code, 'wrong-branch');
    },
  );
});
