// What a person gets wrong, one after the other on the real tools: each time the message names what is so
// and what to do, the exit code is the contract's, and everything is as it was before.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import type { Outcome } from './processes.ts';
import { type TestProject, tinyProject } from './project.ts';

const execute = promisify(execFile);

interface Envelope {
  ok: boolean;
  task: string;
  error?: { code: string; message: string; hint: string | null };
}

interface Refusal {
  code: string;
  exit?: 1 | 2;
  /** What the message must say. */
  says: RegExp;
  /** What the hint must say. */
  hint?: RegExp;
}

/** Fails unless the outcome is this refusal, with one JSON object on stdout and words for people on stderr. */
function assertRefused(outcome: Outcome, { code, exit = 1, says, hint }: Refusal): void {
  assert.match(outcome.stdout, /^\{.*\}\n$/, outcome.stderr);
  const { ok, error } = outcome.json() as unknown as Envelope;
  assert.deepEqual([ok, error?.code, outcome.code], [false, code, exit], outcome.stderr);
  assert.match(error?.message ?? '', says);
  assert.match(error?.hint ?? error?.message ?? '', hint ?? /./);
  assert.match(outcome.stderr, /^✗ /m);
}

/** Runs a task that must refuse, and shows that nothing changed. */
async function refuses(
  project: TestProject,
  [task, ...argv]: [string, ...string[]],
  refusal: Refusal,
): Promise<void> {
  const before = await project.snapshot();
  const outcome = await project.task(task, [...argv, '--json']);
  assertRefused(outcome, refusal);
  assert.deepEqual(await project.snapshot(), before, 'something changed');
}

/** Waits until a file is there. */
async function appears(path: string): Promise<void> {
  for (let tries = 0; tries < 500; tries++) {
    if (existsSync(path)) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.fail(`${path} did not appear within 10 s`);
}

const RELEASE: [string, ...string[]] = ['release', 'patch', '--yes'];
const PROD: [string, ...string[]] = ['switch-env', 'prod', '--yes'];

test('a mistake on the command line is named, with the nearest word: exit 2', {
  concurrency: 2,
}, async (t) => {
  const project = await tinyProject(t);
  const usage = (says: RegExp, hint?: RegExp): Refusal => ({
    code: 'usage',
    exit: 2,
    says,
    ...(hint ? { hint } : {}),
  });
  const rows: [[string, ...string[]], Refusal][] = [
    [['release', '--dryrun'], usage(/Unknown flag --dryrun/, /--dry-run/)],
    [['switch-env', 'pord'], usage(/Unknown argument "pord"/, /prod/)],
    [['release', 'pach', '--yes'], usage(/"pach"/, /patch/)],
    [['release', 'patch', 'minor'], usage(/Unexpected argument "minor"/, /--help/)],
    [['release', 'prerelease', '--preid'], usage(/--preid needs a value/, /--help/)],
    [['switch-env', 'prod', '--wait', 'soon'], usage(/--wait is "soon", expected a number of seconds/)],
    [['switch-env', 'dev', '--version', 'v1.0.0'], usage(/--version is for prod/)],
    [['build-push', 'newest'], usage(/"newest" is neither latest nor a version/, /v1\.2\.3/)],
    [['build-push', '--push'], usage(/needs a registry/, /image\.registry/)],
    [['setup', 'now'], usage(/Unexpected argument "now"/)],
    [
      ['release', 'patch'],
      { code: 'no-terminal', exit: 2, says: /Confirmation required: Release v1\.0\.0\?/, hint: /--yes/ },
    ],
    [
      ['switch-env'],
      { code: 'no-terminal', exit: 2, says: /Confirmation required/, hint: /dev\|prod\|both\|none\|status/ },
    ],
  ];
  const before = await project.snapshot();
  for (const [[task, ...argv], refusal] of rows) {
    await t.test([task, ...argv].join(' '), async () =>
      assertRefused(await project.task(task, [...argv, '--json']), refusal),
    );
  }
  assert.deepEqual(await project.snapshot(), before, 'something changed');
});

test('a mistake in a file of the project is named by file, line and key: exit 2', async (t) => {
  const project = await tinyProject(t);
  const good = { 'configs/release.toml': '', 'compose/docker-compose.yml': '', '.env': '' };
  type File = keyof typeof good;
  for (const file of Object.keys(good) as File[]) good[file] = await project.read(file);
  const before = await project.snapshot();
  const rows: {
    name: string;
    file: File;
    change: (text: string) => string;
    refusal: Omit<Refusal, 'exit'>;
  }[] = [
    {
      name: 'broken TOML',
      file: 'configs/release.toml',
      change: (text) => text.replace('timeout = 8', 'timeout = = 8'),
      refusal: {
        code: 'config-syntax',
        says: /configs\/release\.toml:11:\d+: not valid TOML/,
        hint: /toml\.io/,
      },
    },
    {
      name: 'unknown key',
      file: 'configs/release.toml',
      change: (text) => text.replace('timeout = 8', 'time_out = 8'),
      refusal: { code: 'config-unknown-key', says: /unknown key candidate\.time_out/, hint: /timeout/ },
    },
    {
      name: 'wrong type',
      file: 'configs/release.toml',
      change: (text) => text.replace('port = 8013', 'port = "8013"'),
      refusal: { code: 'config-invalid', says: /environments\.dev\.port is "8013"; expected number/ },
    },
    {
      name: 'two mistakes at once, both told',
      file: 'configs/release.toml',
      change: (text) => text.replace('timeout = 8', 'timeout = -8').replace('directory = "backups"', ''),
      refusal: {
        code: 'config-invalid',
        says: /2 problems:.*candidate\.timeout is -8.*backup\.directory is missing/s,
      },
    },
    {
      name: 'a service that the compose file does not have',
      file: 'configs/release.toml',
      change: (text) => text.replace('service = "tiny-prod"', 'service = "prod"'),
      refusal: {
        code: 'config-invalid',
        says: /environments\.prod\.service is "prod", which no compose file has/,
        hint: /tiny-prod/,
      },
    },
    {
      name: 'broken YAML',
      file: 'compose/docker-compose.yml',
      change: (text) => text.replace('services:', 'services: ['),
      refusal: {
        code: 'compose-invalid',
        says: /The compose file is not valid: .*line \d+/,
        hint: /compose\/docker-compose\.yml/,
      },
    },
    {
      name: 'a build for prod',
      file: 'compose/docker-compose.yml',
      change: (text) => text.replace('  tiny-prod:\n', '  tiny-prod:\n    build: ..\n'),
      refusal: { code: 'config-invalid', says: /tiny-prod has a `build:`/, hint: /remove it/ },
    },
    {
      name: 'a port that is none',
      file: '.env',
      change: (text) => text.replace(/^TINY_PROD_PORT=.*$/m, 'TINY_PROD_PORT=http'),
      refusal: { code: 'config-invalid', says: /\.env: TINY_PROD_PORT is "http", expected a port/ },
    },
  ];
  for (const { name, file, change, refusal } of rows) {
    await t.test(name, async () => {
      await project.write(file, change(good[file]));
      assert.notEqual(await project.read(file), good[file], 'the mistake was made');
      try {
        const outcome = await project.task('switch-env', ['both', '--yes', '--json']);
        assertRefused(outcome, { ...refusal, exit: 2 });
      } finally {
        await project.write(file, good[file]);
      }
    });
  }
  assert.deepEqual(await project.snapshot(), before, 'something changed');
});

test('a repository that is not fit for a release is left as it is', async (t) => {
  const project = await tinyProject(t);
  const rows: {
    name: string;
    make: () => Promise<unknown>;
    refusal: Refusal;
    undo: () => Promise<unknown>;
  }[] = [
    {
      name: 'dirty tree',
      make: () => project.write('some file', 'not committed'),
      refusal: { code: 'dirty-tree', says: /uncommitted changes in some file/, hint: /commit them/ },
      undo: () => rm(join(project.root, 'some file')),
    },
    {
      name: 'wrong branch',
      make: () => project.git('switch', '--quiet', '--create', 'feature'),
      refusal: {
        code: 'wrong-branch',
        says: /from branch feature: releases are made from main/,
        hint: /git switch main/,
      },
      undo: () => project.git('switch', '--quiet', 'main'),
    },
    {
      name: 'detached HEAD',
      make: () => project.git('switch', '--quiet', '--detach', 'main'),
      refusal: { code: 'wrong-branch', says: /a detached HEAD/, hint: /git switch main/ },
      undo: () => project.git('switch', '--quiet', 'main'),
    },
    {
      name: 'two things at once, both told',
      make: async () => {
        await project.git('switch', '--quiet', '--detach', 'main');
        await project.write('x', 'x');
      },
      refusal: {
        code: 'wrong-branch',
        says: /2 problems.*detached HEAD.*uncommitted changes in x/s,
      },
      undo: async () => {
        await rm(join(project.root, 'x'));
        await project.git('switch', '--quiet', 'main');
      },
    },
    {
      name: 'a failing check',
      make: async () => {
        await project.edit(
          'configs/release.toml',
          (text) =>
            `${text}\n[release]\nchecks = [["node", "-e", "console.error('3 tests failed'); process.exit(7)"]]\n`,
        );
        await project.commit('chore: check before a release');
      },
      refusal: { code: 'check-failed', says: /check .*failed.*3 tests failed/s, hint: /release\.checks/ },
      undo: () => project.git('reset', '--quiet', '--hard', 'HEAD~1'),
    },
    {
      name: 'a Dockerfile that does not build',
      make: async () => {
        await project.edit('Dockerfile', (text) =>
          text.replace('USER 1000', 'RUN ["busybox", "false"]\nUSER 1000'),
        );
        await project.commit('feat: a step that fails');
      },
      refusal: { code: 'build-failed', says: /busybox false/, hint: /./ },
      undo: () => project.git('reset', '--quiet', '--hard', 'HEAD~1'),
    },
    ...(['crash', 'unhealthy', 'wrong-version'] as const).map((behaviour) => ({
      name: `an image that shows itself as ${behaviour}`,
      make: async () => {
        await project.edit('configs/release.toml', (text) => text.replace('timeout = 8', 'timeout = 2'));
        await project.commit('feat: broken', { behaviour });
      },
      refusal: {
        code: 'candidate-unhealthy',
        says: {
          crash: /exited with code 3.*cannot start, as asked/s,
          unhealthy: /answered 404, expected 200, after 2 s/,
          'wrong-version': /reports version "9\.9\.9", expected "1\.0\.0"/,
        }[behaviour],
        hint: /nothing was released/,
      },
      undo: () => project.git('reset', '--quiet', '--hard', 'HEAD~1'),
    })),
    {
      name: 'behind the remote',
      make: async () => {
        await project.commit('feat: pushed by somebody');
        await project.git('push', '--quiet', 'origin', 'main');
        await project.git('reset', '--quiet', '--hard', 'HEAD~1');
      },
      refusal: {
        code: 'behind-remote',
        says: /origin\/main is at [0-9a-f]{7}, which main does not contain/,
        hint: /git pull/,
      },
      undo: () => project.git('push', '--quiet', '--force', 'origin', 'main'),
    },
  ];
  for (const { name, make, refusal, undo } of rows) {
    await t.test(name, async () => {
      await make();
      try {
        await refuses(project, RELEASE, refusal);
      } finally {
        await undo();
      }
    });
  }
});

test('a version that is taken, or that has nothing in it, is not released', async (t) => {
  const project = await tinyProject(t);
  await project.git('tag', '--annotate', '-m', 'v1.0.0', 'v1.0.0');

  await t.test('no commits since a tag set by hand', () =>
    refuses(project, RELEASE, {
      code: 'nothing-to-release',
      says: /no commits since v1\.0\.0$/,
      hint: /--edit/,
    }),
  );

  await project.commit('fix: a repair', { note: 'x' });
  await t.test('tag exists here', () =>
    refuses(project, ['release', '1.0.0', '--yes'], {
      code: 'tag-exists',
      says: /v1\.0\.0: tag exists at [0-9a-f]{7}$/,
      hint: /higher/,
    }),
  );

  await t.test('tag exists on the remote only', async () => {
    await project.git('push', '--quiet', 'origin', 'HEAD:refs/tags/v1.0.1');
    await refuses(project, RELEASE, {
      code: 'tag-exists',
      says: /v1\.0\.1: tag exists at [0-9a-f]{7} on the remote$/,
    });
  });
});

test('with no engine, release and switch say so and change nothing', async (t) => {
  const project = await tinyProject(t);
  const options = { env: { DOCKER_HOST: 'tcp://127.0.0.1:9' } };
  const refusal: Refusal = {
    code: 'engine-down',
    says: /No Docker engine answers: .*127\.0\.0\.1:9/,
    hint: /DOCKER_HOST/,
  };
  const before = await project.snapshot();
  const commands = [RELEASE, PROD, ['build-push', '--yes'], ['switch-env', 'status']];
  for (const [task = '', ...argv] of commands) {
    await t.test([task, ...argv].join(' '), async () =>
      assertRefused(await project.task(task, [...argv, '--json'], options), refusal),
    );
  }
  assert.deepEqual(await project.snapshot(), before, 'something changed');
});

test('a folder that is no repository, or no project, is refused by name', async (t) => {
  const project = await tinyProject(t);
  await rm(join(project.root, '.git'), { recursive: true });
  const noRepository = await project.task(...(['release', ['patch', '--yes', '--json']] as const));
  assertRefused(noRepository, { code: 'not-a-repository', says: /not a git repository/, hint: /git clone/ });
  const unborn = project
    .git('init', '--quiet', '--initial-branch=main')
    .then(() => project.task('release', ['patch', '--yes', '--json']));
  assertRefused(await unborn, { code: 'no-commits', says: /has no commits/, hint: /commit/ });
});

test('without a git identity, and without its port', async (t) => {
  const project = await tinyProject(t);

  await t.test('a release is signed by the release flow, and says so', async () => {
    await project.git('config', '--unset', 'user.name');
    await project.git('config', '--unset', 'user.email');
    const nobody = { GIT_CONFIG_GLOBAL: '/dev/null', GIT_CONFIG_SYSTEM: '/dev/null', EMAIL: undefined };
    const released = await project.task('release', ['patch', '--yes', '--json'], { env: nobody });
    assert.equal(released.code, 0, released.stderr);
    assert.match(released.stderr, /git has no identity here; the author of the release is Release Flow/);
    assert.match(released.stderr, /git config user\.name/);
    assert.match(
      await project.git('log', '-1', '--format=%an <%ae> %cn'),
      /^Release Flow <.*> Release Flow$/,
    );
  });

  await t.test('a port that somebody else holds stops the switch, and the holder keeps it', async (s) => {
    const holder = createServer((_request, response) => response.end('mine')).listen(
      project.ports.prod,
      '127.0.0.1',
    );
    s.after(() => holder.close());
    await refuses(project, PROD, {
      code: 'port-taken',
      says: new RegExp(`[Pp]ort ${project.ports.prod}`),
      hint: /PROD_PORT/,
    });
    assert.equal(await (await fetch(`http://127.0.0.1:${project.ports.prod}`)).text(), 'mine');
  });
});

test('two tasks at once: the second says who runs; a lock left by a dead process is taken over', async (t) => {
  const project = await tinyProject(t);
  await project.commit('feat: slow to start', { behaviour: 'slow' });
  let pid = 0;
  const first = project.task('release', ['patch', '--yes', '--json'], {
    onStart: (id) => {
      pid = id;
    },
  });
  const owner = join(project.root, '.synapse/owner.json');
  await appears(owner);
  const second = await project.task('switch-env', ['dev', '--yes', '--json']);
  assertRefused(second, {
    code: 'locked',
    says: new RegExp(`release runs since .* \\(pid ${pid}, .+@.+\\)`),
    hint: /wait/,
  });
  assert.equal((await first).code, 0, (await first).stderr);

  const dead = {
    pid,
    host: (await execute('hostname')).stdout.trim(),
    user: 'x',
    task: 'release',
    since: '2026-01-01T00:00:00.000Z',
    startTime: '1',
  };
  await mkdir(join(project.root, '.synapse/task.lock'), { recursive: true });
  await writeFile(owner, JSON.stringify(dead));
  const third = await project.task('switch-env', ['dev', '--yes', '--json']);
  assert.equal(third.code, 0, third.stderr);
  assert.match(third.stderr, /release \(pid \d+\) died without finishing; taking over its lock/);
});
