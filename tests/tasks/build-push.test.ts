// Images outside of a release: `latest` says what it was built from, a version comes only from its git tag and
// never takes a name from another image, and a second machine can run what it cannot build byte for byte.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadProject } from '../../tasks/lib/project.ts';
import { verifyReleasedImage } from '../../tasks/lib/release/record.ts';
import { docker } from './processes.ts';
import { configure, type TestProject, tinyProject } from './project.ts';
import { startRegistry } from './registry.ts';
import { errorOf, released } from './release-support.ts';
import { fakeDocker } from './switch-support.ts';
import { makeBase } from './tiny-base.ts';

const build = (project: TestProject, ...argv: string[]) =>
  project.task('build-push', [...argv, '--yes', '--json']);
const label = (reference: string, name: string) =>
  docker(
    'image',
    'inspect',
    '--format',
    `{{index .Config.Labels "org.opencontainers.image.${name}"}}`,
    reference,
  );

test('latest is labelled with its commit, and as dirty when the tree is', async (t) => {
  const project = await tinyProject(t);
  const head = await project.git('rev-parse', 'HEAD');
  assert.equal((await build(project)).code, 0);
  assert.equal(await label(`${project.name}:latest`, 'revision'), head);
  await project.write('note', 'not committed');
  const dirty = await build(project);
  assert.equal(dirty.code, 0, dirty.stderr);
  assert.equal(await label(`${project.name}:latest`, 'revision'), `${head}-dirty`);
  assert.equal(dirty.json().version, `0.0.0+1.g${head.slice(0, 7)}.dirty`);
  assert.equal((await project.snapshot()).candidates, '');
});

test('a version that is built again', async (t) => {
  const project = await tinyProject(t);
  const { digest } = await released(project, 'patch');

  await t.test(
    'is built only from its tag and only if its image is missing; a moved name is refused',
    async () => {
      const reference = `${project.name}:v1.0.0`;
      // Without --yes and without a terminal: the tag is checked before anybody is asked.
      assert.equal(errorOf(await project.task('build-push', ['v9.9.9', '--json'])).code, 'not-released');
      await docker('image', 'rm', reference, `${project.name}:latest`);
      await project.write('note', 'a dirty tree does not matter');
      const rebuilt = await build(project, 'v1.0.0');
      assert.equal(rebuilt.code, 0, rebuilt.stderr);
      assert.equal(rebuilt.json().digest, digest, 'the same commit gives the same image');
      const again = await build(project, 'v1.0.0');
      assert.equal(again.json().built, false);

      assert.equal((await build(project)).code, 0);
      await docker('tag', `${project.name}:latest`, reference);
      const refused = await build(project, 'v1.0.0');
      assert.equal(errorOf(refused).code, 'image-changed', refused.stderr);
      assert.match(refused.stderr, new RegExp(`released was ${digest}`));
    },
  );

  await t.test(
    'where the base image is another one, runs after a warning, and only that very image',
    async () => {
      const base = `${project.name}-base:1`;
      await makeBase(base, { extra: 'another base' });
      t.after(() => docker('image', 'rm', '--force', base));
      await project.edit('.env', (text) => text.replace(/^TINY_BASE_IMAGE=.*$/m, `TINY_BASE_IMAGE=${base}`));
      await docker('image', 'rm', `${project.name}:v1.0.0`, `${project.name}:latest`);
      const rebuilt = await build(project, 'v1.0.0');
      assert.equal(rebuilt.code, 0, rebuilt.stderr);
      assert.notEqual(rebuilt.json().digest, digest);
      assert.match(
        rebuilt.stderr,
        /differs from the released one: the base image was release-flow-test-base:sh@sha256:/,
      );
      const image = await verifyReleasedImage(await loadProject(project.root), 'v1.0.0');
      assert.equal(image.id, rebuilt.json().digest);
      assert.equal((await build(project, 'v1.0.0')).json().built, false);

      await project.write('note', 'third');
      assert.equal((await build(project)).code, 0);
      await docker('tag', `${project.name}:latest`, `${project.name}:v1.0.0`);
      await assert.rejects(verifyReleasedImage(await loadProject(project.root), 'v1.0.0'), {
        code: 'image-changed',
      });
    },
  );
});

test('a push is verified by digest; a version that the registry has otherwise is never overwritten', async (t) => {
  const [project, registry] = [await tinyProject(t), await startRegistry(t)];
  await configure(project, 'image', `registry = "${registry.address}"`);
  const { digest } = await released(project, 'patch');
  registry.fault = (_method, path) =>
    registry.faults === 0 && /blobs|manifests/.test(path) ? 429 : undefined;
  const pushed = await build(project, 'v1.0.0', '--push');
  assert.equal(pushed.code, 0, pushed.stderr);
  assert.equal(pushed.json().pushed, digest);
  assert.equal(registry.faults, 1, 'although it limited requests once');
  registry.fault = () => undefined;

  // One in the engine's insecure-registries: buildx does not know of them.
  const { PATH } = await fakeDocker(
    t,
    `case "$*" in "buildx imagetools"*) echo 'http: server gave HTTP response to HTTPS client' >&2; exit 1;; esac`,
  );
  const insecure = await project.task('build-push', ['v1.0.0', '--push', '--yes', '--json'], {
    env: { PATH },
  });
  assert.equal(insecure.code, 0, insecure.stderr);
  assert.equal(insecure.json().pushed, digest);

  await project.commit('fix: next', { note: 'next' });
  assert.equal((await build(project, 'latest', '--push', '--platform', 'linux/amd64,linux/arm64')).code, 0);
  const index = await registry.manifest(project.name, 'latest');
  assert.equal(index?.manifests?.filter(({ platform }) => platform.os === 'linux').length, 2);

  const taken = `${registry.address}/${project.name}:v1.0.0`;
  await docker('tag', `${project.name}:latest`, taken);
  await docker('push', '--quiet', taken);
  const other = await registry.manifest(project.name, 'v1.0.0');
  const refused = await build(project, 'v1.0.0', '--push');
  assert.equal(errorOf(refused).code, 'image-exists', refused.stderr);
  assert.match(refused.stderr, new RegExp(`the registry has ${other?.digest}, this machine has ${digest}`));
  assert.equal((await registry.manifest(project.name, 'v1.0.0'))?.digest, other?.digest);
});

test('a request that makes no sense is refused before anything is built', async (t) => {
  const project = await tinyProject(t);
  for (const argv of [['1.0'], ['latest', '--push'], ['--platform', 'arm']]) {
    assert.equal((await build(project, ...argv)).code, 2, argv.join(' '));
  }
});
