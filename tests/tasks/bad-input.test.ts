// What a person gets wrong, one after the other on the real tools: each time the message names what is so
// and what to do, the exit code is the contract's, and everything is as it was before. What the parsers of the command
// line and of release.toml refuse is in tests/unit/flags and tests/unit/project.
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Outcome, RunOptions } from './processes.ts';
import { type TestProject, tinyProject } from './project.ts';

interface Row {
  name?: string;
  /** Makes the mistake, and takes it back. */
  make?: () => Promise<unknown>;
  undo?: () => Promise<unknown>;
  argv: readonly string[];
  code: string;
  exit?: 1 | 2;
  /** What the message and the hint must say. */
  says: RegExp;
  hint?: RegExp;
}

/** Fails unless the outcome is this refusal, with one JSON object on stdout and words for people on stderr. */
function assertRefused(outcome: Outcome, { code, exit = 1, says, hint = /./ }: Omit<Row, 'argv'>): void {
  assert.match(outcome.stdout, /^\{.*\}\n$/, outcome.stderr);
  const { ok, error } = outcome.json() as {
    ok: boolean;
    error?: { code: string; message: string; hint: string | null };
  };
  assert.deepEqual([ok, error?.code, outcome.code], [false, code, exit], outcome.stderr);
  assert.match(error?.message ?? '', says);
  assert.match(error?.hint ?? error?.message ?? '', hint);
  assert.match(outcome.stderr, /^✗ /m);
}

/** Each row is refused, and changes nothing. */
async function refuse(t: TestContext, project: TestProject, rows: readonly Row[], options: RunOptions = {}) {
  for (const { name, make, undo, argv, ...refusal } of rows) {
    await t.test(name ?? argv.join(' '), async () => {
      await make?.();
      try {
        const before = await project.snapshot();
        const [task = '', ...words] = argv;
        assertRefused(await project.task(task, [...words, '--json'], options), refusal);
        assert.deepEqual(await project.snapshot(), before, 'something changed');
      } finally {
        await undo?.();
      }
    });
  }
}

const RELEASE = ['release', 'patch', '--yes'];
const BOTH = ['switch-env', 'both', '--yes'];

test('a mistake on the command line is named, with what was meant: exit 2', async (t) => {
  const row = (argv: string, says: RegExp, hint = /./, code = 'usage'): Row => {
    return { argv: argv.split(' '), code, exit: 2, says, hint };
  };
  const noTerminal = 'no-terminal';
  await refuse(t, await tinyProject(t), [
    row('release pach --yes', /"pach"/, /patch/),
    row('switch-env prod --wait soon', /--wait is "soon", expected a number of seconds/),
    row('switch-env dev --version v1.0.0', /--version is for prod/),
    row('build-push newest', /"newest" is neither latest nor a version/, /v1\.2\.3/),
    row('build-push --push', /needs a registry/, /image\.registry/),
    row('release patch', /Confirmation required: Release v1\.0\.0\?/, /--yes/, noTerminal),
    row('switch-env', /Confirmation required/, /dev\|prod\|both\|none\|status/, noTerminal),
  ]);
});

test('a mistake in a file of the project is named by file, line and key: exit 2', async (t) => {
  const project = await tinyProject(t);
  const row = (
    name: string,
    file: string,
    [from, to]: [string | RegExp, string],
    refusal: Pick<Row, 'says' | 'hint'> & { code?: string },
  ): Row => {
    let good = '';
    const make = async () => {
      good = await project.read(file);
      await project.write(file, good.replace(from, to));
      assert.notEqual(await project.read(file), good, 'the mistake was made');
    };
    const undo = () => project.write(file, good);
    return { name, make, undo, argv: BOTH, code: 'config-invalid', exit: 2, ...refusal };
  };
  const toml = 'configs/release.toml';
  const compose = 'compose/docker-compose.yml';
  await refuse(t, project, [
    row('a wrong value', toml, ['timeout = 8', 'timeout = -8'], {
      says: /release\.toml: candidate\.timeout is -8/,
    }),
    row('a service that no compose file has', toml, ['service = "tiny-prod"', 'service = "prod"'], {
      says: /environments\.prod\.service is "prod", which no compose file has/,
      hint: /tiny-prod/,
    }),
    row('broken YAML', compose, ['services:', 'services: ['], {
      code: 'compose-invalid',
      says: /The compose file is not valid: .*line \d+/,
      hint: /compose\/docker-compose\.yml/,
    }),
    row('a build for prod', compose, ['  tiny-prod:\n', '  tiny-prod:\n    build: ..\n'], {
      says: /tiny-prod has a `build:`/,
      hint: /remove it/,
    }),
    row('a port that is none', '.env', [/^TINY_PROD_PORT=.*$/m, 'TINY_PROD_PORT=http'], {
      says: /\.env: TINY_PROD_PORT is "http", expected a port/,
    }),
  ]);
});

test('a repository that is not fit for a release is left as it is', async (t) => {
  const project = await tinyProject(t);
  const reset = () => project.git('reset', '--quiet', '--hard', 'HEAD~1');
  const broken = (
    name: string,
    code: string,
    says: RegExp,
    hint: RegExp,
    change: () => Promise<unknown>,
  ): Row => {
    const make = async () => {
      await change();
      await project.commit(`feat: ${name}`);
    };
    return { name, make, undo: reset, argv: RELEASE, code, says, hint };
  };
  const candidate = (behaviour: string, says: RegExp) =>
    broken(`an image that is ${behaviour}`, 'candidate-unhealthy', says, /nothing was released/, async () => {
      await project.edit('configs/release.toml', (text) => text.replace('timeout = 8', 'timeout = 2'));
      await project.write('behaviour', behaviour);
    });
  await refuse(t, project, [
    {
      name: 'dirty tree',
      make: () => project.write('some file', 'not committed'),
      undo: () => rm(join(project.root, 'some file')),
      ...{ argv: RELEASE, code: 'dirty-tree', says: /uncommitted changes in some file/, hint: /commit them/ },
    },
    {
      name: 'detached HEAD',
      make: () => project.git('switch', '--quiet', '--detach', 'main'),
      undo: () => project.git('switch', '--quiet', 'main'),
      ...{ argv: RELEASE, code: 'wrong-branch', says: /a detached HEAD/, hint: /git switch main/ },
    },
    broken('a failing check', 'check-failed', /check .*failed.*3 tests failed/s, /release\.checks/, () =>
      project.edit(
        'configs/release.toml',
        (text) =>
          `${text}\n[release]\nchecks = [["node", "-e", "console.error('3 tests failed'); process.exit(7)"]]\n`,
      ),
    ),
    broken('a Dockerfile that does not build', 'build-failed', /busybox false/, /./, () =>
      project.edit('Dockerfile', (text) => text.replace('USER 1000', 'RUN ["busybox", "false"]\nUSER 1000')),
    ),
    candidate('crash', /exited with code 3.*cannot start, as asked/s),
    candidate('unhealthy', /answered 404, expected 200, after 2 s/),
    candidate('wrong-version', /reports version "9\.9\.9", expected "1\.0\.0"/),
    {
      name: 'behind the remote',
      make: async () => {
        await project.commit('feat: pushed by somebody');
        await project.git('push', '--quiet', 'origin', 'main');
        await reset();
      },
      undo: () => project.git('push', '--quiet', '--force', 'origin', 'main'),
      ...{ argv: RELEASE, code: 'behind-remote', hint: /git pull/ },
      says: /origin\/main is at [0-9a-f]{7}, which main does not contain/,
    },
  ]);
});

test('a version that is taken, or that has nothing in it, is not released', async (t) => {
  const project = await tinyProject(t);
  await project.git('tag', '--annotate', '-m', 'v1.0.0', 'v1.0.0');
  const taken = 'tag-exists';
  await refuse(t, project, [
    { argv: RELEASE, code: 'nothing-to-release', says: /no commits since v1\.0\.0$/, hint: /--edit/ },
    {
      make: () => project.commit('fix: a repair', { note: 'x' }),
      ...{ argv: ['release', '1.0.0', '--yes'], code: taken, says: /v1\.0\.0: tag exists at [0-9a-f]{7}$/ },
    },
    {
      name: 'tag exists on the remote only',
      make: () => project.git('push', '--quiet', 'origin', 'HEAD:refs/tags/v1.0.1'),
      ...{ argv: RELEASE, code: taken, says: /v1\.0\.1: tag exists at [0-9a-f]{7} on the remote$/ },
    },
  ]);
});

test('with no engine, release and switch say so and change nothing', async (t) => {
  const says = /No Docker engine answers: .*127\.0\.0\.1:9/;
  const commands = [RELEASE, BOTH, ['build-push', '--yes'], ['switch-env', 'status']];
  const rows = commands.map((argv) => ({ argv, code: 'engine-down', says, hint: /DOCKER_HOST/ }));
  await refuse(t, await tinyProject(t), rows, { env: { DOCKER_HOST: 'tcp://127.0.0.1:9' } });
});

test('a folder that is no repository, or has no commit, is refused by name', async (t) => {
  const project = await tinyProject(t);
  await rm(join(project.root, '.git'), { recursive: true });
  const release = () => project.task('release', ['patch', '--yes', '--json']);
  assertRefused(await release(), {
    code: 'not-a-repository',
    says: /not a git repository/,
    hint: /git clone/,
  });
  for (const argv of [
    ['release', '--undo', 'v1.0.0'],
    ['build-push', 'v1.0.0'],
  ])
    assertRefused(await project.task(argv[0]!, [...argv.slice(1), '--yes', '--json']), {
      code: 'command-failed',
      says: /not a git repository/,
      hint: /git clone/,
    });
  await project.git('init', '--quiet', '--initial-branch=main');
  assertRefused(await release(), { code: 'no-commits', says: /has no commits/, hint: /commit/ });
});

test('without a git identity, a release is signed by the release flow, and says so', async (t) => {
  const project = await tinyProject(t);
  await project.git('config', '--unset', 'user.name');
  await project.git('config', '--unset', 'user.email');
  const env = { GIT_CONFIG_GLOBAL: '/dev/null', GIT_CONFIG_SYSTEM: '/dev/null', EMAIL: undefined };
  const released = await project.task('release', ['patch', '--yes', '--json'], { env });
  assert.equal(released.code, 0, released.stderr);
  assert.match(released.stderr, /git has no identity here; the author of the release is Release Flow/);
  assert.match(released.stderr, /git config user\.name/);
  assert.match(await project.git('log', '-1', '--format=%an <%ae> %cn'), /^Release Flow <.*> Release Flow$/);
});
