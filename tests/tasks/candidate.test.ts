// What a release depends on is started with its candidate, in the order and under the conditions that compose knows; and
// whatever happens, nothing of a trial stays.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { docker } from './processes.ts';
import { type TestProject, tinyProject } from './project.ts';

/** The tiny app, whose prod needs a cache that is healthy as `check` says, and dies without it. */
async function withCache(t: TestContext, check: string): Promise<TestProject> {
  const project = await tinyProject(t);
  const cache = `  cache:
    image: \${TINY_BASE_IMAGE}
    container_name: ${project.name}-cache
    ports: ["127.0.0.1:${project.ports.dev}:1234"]
    command: ["busybox", "sleep", "1000"]
    stop_signal: SIGKILL
    healthcheck: { test: ["CMD", "busybox", "${check}"], interval: 1s, retries: 2, start_period: 1s, start_interval: 300ms }
`;
  await project.edit('compose/docker-compose.yml', (text) =>
    text
      .replace('services:\n', `services:\n${cache}\n`)
      .replace(
        'environment: { APP_ENV: prod }',
        'environment: { APP_ENV: prod }\n    depends_on: { cache: { condition: service_healthy } }',
      ),
  );
  await project.edit('serve', (text) =>
    text.replace('#!/bin/sh\n', '#!/bin/sh\nbusybox ping -c 1 -W 2 cache >/dev/null || exit 4\n'),
  );
  await project.edit('Dockerfile', (text) => text.replace('USER 1000\n', ''));
  await project.commit('feat: a cache');
  await project.git('push', '--quiet', 'origin', 'main');
  return project;
}

/** Everything of a project's candidates that the engine still has. */
async function left(project: TestProject): Promise<string> {
  const filter = `label=release-flow.candidate=${project.name}`;
  const kinds = ['container', 'network', 'volume'].map((kind) =>
    docker(kind, 'ls', ...(kind === 'container' ? ['--all'] : []), '--quiet', '--filter', filter),
  );
  return (await Promise.all(kinds)).join('');
}

test('a release starts with what it depends on, once that is healthy, beside whatever has its names and ports', async (t) => {
  const project = await withCache(t, 'true');
  const made = await project.task('release', ['patch', '--yes', '--json']);
  assert.equal(made.code, 0, made.stderr);
  assert.equal(await left(project), '');
});

test('a dependency that is never healthy stops the release, which names it; nothing is released, nothing stays', async (t) => {
  const project = await withCache(t, 'false');
  const before = await project.snapshot();
  const refused = await project.task('release', ['patch', '--yes', '--json']);
  assert.equal(refused.code, 1);
  assert.match((refused.json().error as { message: string }).message, /cache/);
  assert.deepEqual(await project.snapshot(), before);
  assert.equal(await left(project), '');
});
