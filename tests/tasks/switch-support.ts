// What the tests of switch-env share: releases made by hand, so that also versions can be released that a
// real release would refuse; and a fake docker on PATH that fails on request.
import assert from 'node:assert/strict';
import { chmod, cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { releaseTagMessage } from '../../tasks/lib/release/record.ts';
import { docker, type Outcome, runProcess } from './processes.ts';
import { REPOSITORY, type TestProject, tinyProject } from './project.ts';
import { errorOf } from './release-support.ts';
import { tinyBase } from './tiny-base.ts';

export type Behaviour = 'ok' | 'unhealthy' | 'crash' | 'wrong-version' | 'slow';

/** Builds an image of the tiny app; returns its id. */
export async function buildTiny(project: TestProject, tag: string, behaviour: Behaviour, revision = 'none') {
  const context = await mkdtemp(join(tmpdir(), 'tiny-build-'));
  try {
    await cp(join(REPOSITORY, 'tests/tasks/tiny-app'), context, { recursive: true });
    await writeFile(join(context, 'behaviour'), `${behaviour}\n`);
    const version = tag === 'latest' ? '0.0.0-dev' : tag.slice(1);
    const values = [`VERSION=${version}`, `REVISION=${revision}`, 'CREATED=now', 'SOURCE='];
    const base = `NODE_IMAGE=${await tinyBase()}`;
    const flags = [base, ...values].flatMap((value) => ['--build-arg', value]);
    const name = `${project.name}:${tag}`;
    await docker('build', '--quiet', '--provenance=false', ...flags, '--tag', name, context);
    return await inspect(name, '{{.Id}}');
  } finally {
    await rm(context, { recursive: true });
  }
}

/** A release of the tiny app: its image and its annotated tag. */
export async function releaseTiny(project: TestProject, tag: string, behaviour: Behaviour = 'ok') {
  const revision = await project.git('rev-parse', 'HEAD');
  const digest = await buildTiny(project, tag, behaviour, revision);
  const message = releaseTagMessage(tag, { image: `${project.name}:${tag}`, digest, platforms: {} });
  await project.git('tag', '--annotate', '--message', message, tag);
}

/** A tiny project with two good releases and `latest`. */
export async function releasedProject(t: TestContext): Promise<TestProject> {
  const project = await tinyProject(t);
  await releaseTiny(project, 'v1.0.0');
  await docker('image', 'tag', `${project.name}:v1.0.0`, `${project.name}:latest`);
  await releaseTiny(project, 'v1.0.1');
  return project;
}

/** The same, prod running the first. */
export async function runningProject(t: TestContext): Promise<TestProject> {
  const project = await releasedProject(t);
  await mustSwitch(project, 'prod', '--version', 'v1.0.0');
  return project;
}

/** A file that a container gets as a config, with a root that it cannot write; `more`: of each service. */
export async function addConfig(project: TestProject, more = ''): Promise<void> {
  const service = `    init: true\n    read_only: true\n    configs: [{ source: app, target: /etc/tiny/app.json }]\n`;
  await project.edit('compose/docker-compose.yml', (text) =>
    `${text}\nconfigs:\n  app: { file: ../app.json }\n`.replaceAll('    init: true\n', service + more),
  );
  await project.write('app.json', '{"price": "5$"}\n');
}

/** Of an image or a container. */
export const inspect = (name: string, format: string) => docker('inspect', '--format', format, name);

export function switchTo(
  project: TestProject,
  argv: readonly string[],
  options: Parameters<TestProject['task']>[2] = {},
) {
  return project.task('switch-env', [...argv, '--yes'], options);
}

export async function mustSwitch(project: TestProject, ...argv: string[]): Promise<Outcome> {
  const outcome = await switchTo(project, argv);
  assert.equal(outcome.code, 0, outcome.stderr);
  return outcome;
}

/** Waits for an answer of 200 from an environment, however loaded the machine is. */
export async function answerOf(project: TestProject, environment: 'dev' | 'prod') {
  const began = Date.now();
  for (;;) {
    const answer = await project.health(environment).catch(() => undefined);
    if (answer) return answer;
    assert.ok(Date.now() - began < 120_000, `${environment} does not answer`);
    await sleep(50);
  }
}

/** A switch that must be refused, or fail: prod answers as before, and all is as it was. */
export async function refuses(
  project: TestProject,
  argv: readonly string[],
  [code, text, exit = 1]: [code: string, text: RegExp, exit?: number],
): Promise<Outcome> {
  const before = await project.snapshot();
  const outcome = await switchTo(project, [...argv, '--json']);
  const error = errorOf(outcome);
  assert.deepEqual([outcome.code, error.code], [exit, code], outcome.stderr);
  assert.match(`${error.message}\n${error.hint}`, text);
  await verifyUnchanged(project, before, '1.0.0');
  return outcome;
}

/** What a failed switch must not have changed: containers with their states, images, `.env`. */
export async function verifyUnchanged(project: TestProject, before: Record<string, string>, version: string) {
  assert.equal((await answerOf(project, 'prod')).version, version, 'it was rolled back');
  assert.deepEqual(await project.snapshot(), before);
}

/** A folder with a `docker` that is the real one until `script` (sh; `$real` is it) decides otherwise. */
export async function fakeDocker(t: TestContext, script: string): Promise<{ PATH: string; folder: string }> {
  const folder = await mkdtemp(join(tmpdir(), 'fake-docker-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const { stdout } = await runProcess('which', ['docker']);
  const text = `#!/bin/sh\nreal=${stdout.trim()}\nhere=${folder}\n${script}\nexec "$real" "$@"\n`;
  await writeFile(join(folder, 'docker'), text);
  await chmod(join(folder, 'docker'), 0o755);
  return { PATH: `${folder}${delimiter}${process.env.PATH}`, folder };
}
