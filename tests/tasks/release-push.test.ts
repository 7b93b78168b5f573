// Publishing a release: to a real registry and a real bare remote, whole, verified and never over anything
// that others have.
import assert from 'node:assert/strict';
import { chmod, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { docker, runProcess } from './processes.ts';
import { configure, type TestProject, tinyProject } from './project.ts';
import { startRegistry } from './registry.ts';
import { errorOf, release } from './release-support.ts';

async function publishing(t: Parameters<typeof tinyProject>[0]) {
  const [project, registry] = [await tinyProject(t), await startRegistry(t)];
  await configure(project, 'image', `registry = "${registry.address}"`);
  return { project, registry };
}

/** Another person's clone, with a commit of theirs that is not pushed yet. */
async function otherClone(project: TestProject, name = 'other'): Promise<string> {
  const clone = join(project.directory, name);
  const git = async (...argv: string[]) => {
    const { code, stderr } = await runProcess('git', ['-C', clone, ...argv]);
    assert.equal(code, 0, stderr);
  };
  assert.equal((await runProcess('git', ['clone', '--quiet', project.remote, clone])).code, 0);
  await git('config', 'user.name', 'Other Person');
  await git('config', 'user.email', 'other@example.org');
  await writeFile(join(clone, `${name}.txt`), 'theirs\n');
  await git('add', '--all');
  await git('commit', '--quiet', '-m', `fix: by ${name}`);
  return clone;
}

test('published releases, one after another', async (t) => {
  const { project, registry } = await publishing(t);

  await t.test(
    'a published release is the same image, tag and commit here, in the registry and on the remote',
    async () => {
      await project.git('tag', 'not-for-others');
      const first = await release(project, 'patch', '--push');
      assert.equal(first.code, 0, first.stderr);
      const { tag, commit, digest } = first.json() as Record<string, string>;
      assert.equal(tag, 'v1.0.0');

      assert.deepEqual(await registry.tags(project.name), ['latest', 'v1.0.0']);
      assert.equal((await registry.manifest(project.name, 'v1.0.0'))?.digest, digest);
      assert.equal((await registry.manifest(project.name, 'latest'))?.digest, digest);
      const remote = await project.git('ls-remote', 'origin');
      assert.match(remote, new RegExp(`^${commit}\trefs/heads/main$`, 'm'));
      assert.match(remote, new RegExp(`^${commit}\trefs/tags/v1.0.0\\^\\{\\}$`, 'm'));
      assert.doesNotMatch(remote, /not-for-others/, 'only the refs of the release were pushed');
      assert.match(
        await project.git('cat-file', 'tag', 'v1.0.0'),
        new RegExp(`^Image: ${registry.address}/`, 'm'),
      );

      await project.commit('feat: more', { note: 'more' });
      const next = await release(project, 'prerelease', '--push');
      assert.equal(next.code, 0, next.stderr);
      assert.equal(next.json().tag, 'v1.0.1-rc.0');
      assert.equal(
        (await registry.manifest(project.name, 'latest'))?.digest,
        digest,
        'a prerelease does not move latest',
      );
      assert.ok(await registry.manifest(project.name, 'v1.0.1-rc.0'));
      const stable = await release(project, 'minor', '--push');
      assert.equal(stable.code, 0, 'a prerelease is completed without a further commit');
      assert.equal(stable.json().tag, 'v1.1.0');
      assert.match(await project.read('release-notes.md'), /## \[v1\.1\.0\][\s\S]*?### Added\n\n- more/);
    },
  );

  await t.test('a remote that refuses the push leaves a release that the next run publishes', async () => {
    await project.commit('fix: refused', { note: 'refused' });
    const hook = join(project.remote, 'hooks/pre-receive');
    await writeFile(hook, '#!/bin/sh\necho "protected branch" >&2\nexit 1\n');
    await chmod(hook, 0o755);
    const refused = await release(project, 'patch', '--push');
    assert.equal(refused.code, 1);
    const error = errorOf(refused);
    assert.equal(error.code, 'push-rejected');
    assert.match(error.message, /protected branch/);
    assert.match(error.hint, /--undo v1\.1\.1/);
    await rm(hook);
    const finished = await release(project);
    assert.equal(finished.code, 0, finished.stderr);
    assert.equal(finished.json().tag, 'v1.1.1');
    assert.match(await project.git('ls-remote', 'origin'), /refs\/tags\/v1\.1\.1/);
    assert.ok((await registry.tags(project.name)).includes('v1.1.1'));
  });

  await t.test(
    'a registry that fails for a moment is asked again; one that fails for long leaves a release to finish',
    async () => {
      await project.commit('fix: for a moment', { note: 'for a moment' });
      let left = 1;
      registry.fault = (method) => (method !== 'GET' && method !== 'HEAD' && left-- > 0 ? 503 : undefined);
      const first = await release(project, 'patch', '--push');
      assert.equal(first.code, 0, first.stderr);
      assert.ok(registry.faults > 0);

      await project.commit('fix: next', { note: 'next' });
      registry.fault = (method, path) => (method === 'POST' && /uploads/.test(path) ? 500 : undefined);
      const failed = await release(project, 'patch', '--push');
      assert.equal(failed.code, 1, failed.stderr);
      assert.equal(errorOf(failed).code, 'push-failed');
      assert.doesNotMatch(
        await project.git('ls-remote', 'origin'),
        /v1\.1\.3/,
        'no git tag without its image',
      );
      assert.ok(!(await registry.tags(project.name)).includes('v1.1.3'));

      registry.fault = () => undefined;
      const finished = await release(project, 'minor');
      assert.equal(finished.code, 0, finished.stderr);
      assert.match(
        finished.stderr,
        /release was interrupted at "push .*v1\.1\.3".*: resuming, it is finished first/,
      );
      assert.equal(finished.json().tag, 'v1.1.3');
      assert.equal(finished.json().pushed, true, 'with the options of the run that died');
      assert.equal((await registry.manifest(project.name, 'v1.1.3'))?.digest, finished.json().digest);
      assert.match(await project.git('ls-remote', 'origin'), /v1\.1\.3/);
      assert.equal(first.json().tag, 'v1.1.2', 'no number was skipped');
    },
  );

  await t.test('a release that was made without --push is published by naming it', async () => {
    await project.commit('fix: alone at first', { note: 'alone at first' });
    const made = await release(project, 'patch');
    assert.equal(made.code, 0, made.stderr);
    const published = await release(project, 'v1.1.4', '--push');
    assert.equal(published.code, 0, published.stderr);
    assert.equal(published.json().commit, made.json().commit);
    assert.equal((await registry.manifest(project.name, 'v1.1.4'))?.digest, made.json().digest);
    const again = await release(project, 'v1.1.4');
    assert.equal(again.code, 0, again.stderr);
    assert.match(again.stderr, /^v1\.1\.4 is already released: nothing to do$/m);
    assert.doesNotMatch(again.stderr, /→/, 'and nothing is done');
  });

  await t.test(
    'commits that somebody pushed meanwhile are never overwritten: a merge, and the same release is published',
    async () => {
      const other = await otherClone(project);
      await configure(project, 'release', `hooks.before = [["git", "-C", "${other}", "push", "--quiet"]]`);
      await runProcess('git', ['-C', other, 'pull', '--quiet', '--rebase']);
      const stopped = await release(project, 'patch', '--push');
      const { code, hint } = errorOf(stopped);
      assert.equal(code, 'push-rejected', stopped.stderr);
      const pull = /git (pull --no-rebase origin main)/.exec(hint)?.[1]?.split(' ') ?? [];
      assert.doesNotMatch(await project.git('ls-remote', 'origin'), /v1\.1\.5/);
      await project.git('-c', 'core.editor=true', ...pull, '--quiet');
      const done = await release(project);
      assert.equal(done.code, 0, done.stderr);
      assert.equal(await project.git('rev-parse', 'v1.1.5^{commit}'), done.json().commit);
      const remote = await project.git('ls-remote', 'origin');
      assert.match(remote, new RegExp(`^${await project.git('rev-parse', 'main')}\trefs/heads/main$`, 'm'));
      assert.match(remote, /refs\/tags\/v1\.1\.5$/m);
      assert.match(await project.git('log', '--format=%s'), /^fix: by other$/m);
      assert.equal(await project.git('status', '--porcelain'), '');
    },
  );

  await t.test(
    'every problem is told at once and nothing is touched: version in the registry, moved tag, dirty tree, silent remote',
    async () => {
      await project.commit('fix: next', { note: 'next' });
      // Somebody pushed an image under the next version, and moved a released tag on the remote.
      const taken = `${registry.address}/${project.name}:v1.1.6`;
      await docker('tag', `${project.name}:v1.1.5`, taken);
      await docker('push', '--quiet', taken);
      await docker('image', 'rm', taken);
      await docker('tag', `${project.name}:v1.1.5`, `${project.name}:v1.1.6`);
      const released = await project.git('rev-parse', 'v1.1.5^{commit}');
      const moved = await project.git('rev-parse', 'v1.1.5^{commit}^');
      await project.git('push', '--quiet', '--force', 'origin', `${moved}:refs/tags/v1.1.5`);
      await project.write('note', 'not committed');
      const before = await project.snapshot();
      const refused = await release(project, 'patch', '--push');
      assert.equal(refused.code, 1);
      const { message } = errorOf(refused);
      assert.match(message, /uncommitted changes in note/);
      assert.match(message, /v1\.1\.6 exists \(sha256:\w+\), built from commit \w{7},/);
      assert.match(message, /the registry already has \S+:v1\.1\.6 \(sha256:/);
      assert.match(
        message,
        new RegExp(`v1\\.1\\.5 is at ${released.slice(0, 7)} here and at ${moved.slice(0, 7)} on origin`),
      );
      assert.deepEqual(await project.snapshot(), before);
    },
  );
});

test('with platforms set, an index with provenance is pushed and its digest recorded', async (t) => {
  const { project, registry } = await publishing(t);
  await configure(project, 'image', 'platforms = ["linux/amd64", "linux/arm64"]');
  const done = await release(project, 'patch', '--push');
  assert.equal(done.code, 0, done.stderr);
  const { digest } = done.json() as Record<string, string>;
  const index = await registry.manifest(project.name, 'v1.0.0');
  assert.equal(index?.digest, digest);
  const platforms = index?.manifests?.map(({ platform }) => `${platform.os}/${platform.architecture}`);
  assert.deepEqual(platforms, ['linux/amd64', 'linux/arm64', 'unknown/unknown', 'unknown/unknown']);
  const message = await project.git('cat-file', 'tag', 'v1.0.0');
  assert.match(message, new RegExp(`^Image-Digest: ${digest}$`, 'm'));
  for (const { digest: manifest, platform } of index?.manifests?.slice(0, 2) ?? []) {
    assert.match(message, new RegExp(`^Platform-Digest: linux/${platform.architecture} ${manifest}$`, 'm'));
  }

  // Another machine: the repository and no image. What it builds from the tag is the released manifest.
  await docker('image', 'rm', '--force', `${project.name}:v1.0.0`, `${project.name}:latest`);
  const rebuilt = await project.task('build-push', ['v1.0.0', '--no-push', '--yes', '--json']);
  assert.equal(rebuilt.code, 0, rebuilt.stderr);
  const own = index?.manifests?.find(({ platform }) => platform.architecture === 'amd64')?.digest;
  if (process.arch === 'x64') assert.equal(rebuilt.json().digest, own);
  assert.doesNotMatch(rebuilt.stderr, /differs from the released/);
  const again = await project.task('build-push', ['v1.0.0', '--push', '--yes', '--json']);
  assert.equal(again.code, 0, again.stderr);
  assert.equal(again.json().pushed, digest, 'the registry keeps the index: it is the same release');
});
