// Progress on a real terminal (util-linux's `script` makes one). What would be lost: the trust in a task that says nothing
// while the engine is slow, which people then kill.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { type TestContext, test } from 'node:test';
import { tinyWithData } from './backup-support.ts';
import { tinyLegacy } from './legacy.ts';
import { START } from './project.ts';
import { fakeDocker } from './switch-support.ts';

/** How long the fake engine is slow, once for each task. */
const SLOW_SECONDS = 6;

/** Runs a task on a terminal; what it showed, and the longest time without a sign of it. */
function onTerminal(cwd: string, env: Record<string, string>, argv: readonly string[], columns = 60) {
  const command = `stty cols ${columns} rows 30; '${process.execPath}' '${START}' ${argv.join(' ')}`;
  const options = { cwd, env: { ...process.env, ...env, TERM: 'xterm', NO_COLOR: '1' } };
  const child = spawn('script', ['--quiet', '--return', '--command', command, '/dev/null'], {
    ...options,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let screen = '';
  let last = performance.now();
  let longestMs = 0;
  child.stdout.on('data', (chunk: Buffer) => {
    longestMs = Math.max(longestMs, performance.now() - last);
    last = performance.now();
    screen += chunk;
  });
  return new Promise<{ code: number | null; screen: string; longestMs: number }>((resolve) =>
    child.on('close', (code) => resolve({ code, screen, longestMs })),
  );
}

/** The lines of a screen, each state of a redrawn one. */
const linesOf = (screen: string) =>
  // biome-ignore lint/suspicious/noControlCharactersInRegex: a redrawn line begins with them.
  screen.split(/\r?\n|\r(?:\u001b\[K)?/).map((line) => line.replace('\u001b[K', ''));

/** A docker that is slow at the first command that begins so. */
const slowDocker = (t: TestContext, slow: string) =>
  fakeDocker(
    t,
    `case "$*" in "${slow}"*) [ -e "$here/slept" ] || { : > "$here/slept"; sleep ${SLOW_SECONDS}; };; esac`,
  );

/** The task, what of the engine is slow, and what is shown meanwhile. */
const CASES: [argv: string[], slow: string, shown: RegExp][] = [
  [['release', 'patch', '--yes'], 'buildx build', /build tiny-\S+ from that commit: \d+ s/],
  [['switch-env', 'both', '--yes'], 'compose --project-name', /: \d+ s/],
  [['backup', 'create'], 'run ', /backup: \d+ s/],
  [['backup', 'restore', '--yes'], 'run ', /: \d+ s/],
  [['build-push', 'latest', '--yes'], 'load', /: \d+ s/],
];

test('no task is silent while the engine is slow', async (t) => {
  const project = await tinyWithData(t);
  await project.commit('fix: something to release', { note: 'x' });
  for (const [argv, slow, shown] of CASES) {
    await t.test(argv.join(' '), async (s) => {
      const { PATH } = await slowDocker(s, slow);
      const { code, screen, longestMs } = await onTerminal(project.root, { PATH }, argv);
      assert.equal(code, 0, screen);
      assert.match(screen, shown);
      s.diagnostic(`longest silence ${Math.round(longestMs)} ms`);
      assert.ok(longestMs < (SLOW_SECONDS * 1000) / 2, `silent for ${longestMs} ms:\n${screen}`);
      assert.deepEqual(
        linesOf(screen).filter((line) => line.length > 60 && line.trim().includes(' ')),
        [],
      );
    });
  }
});

test('--quiet says nothing of a task that ends well, and everything of one that fails', async (t) => {
  const project = await tinyWithData(t);
  const quiet = await project.task('backup', ['create', '--quiet']);
  assert.deepEqual([quiet.code, quiet.stdout, quiet.stderr], [0, '', '']);
  const failed = await project.task('backup', ['verify', 'nope', '--quiet']);
  assert.notEqual(failed.code, 0);
  assert.match(failed.stderr, /nope[\s\S]*hint: /);
});

/** Each task that runs by steps, in an order in which each finds something to do. */
const JOURNEYS: [task: string, ...argv: string[]][] = [
  ['release', 'patch'],
  ['switch-env', 'both', '--version', 'v1.0.1'],
  ['backup', 'restore'],
  ['switch-env', 'prod'],
  ['release', '--undo', 'v1.0.2'],
  ['setup'],
];

test('a dry run prints, as its result, the steps that the run then does', async (t) => {
  const project = await tinyWithData(t);
  await project.commit('fix: something to release', { note: 'x' });
  assert.equal((await project.task('backup', ['create', '--yes'])).code, 0);
  for (const [task, ...argv] of JOURNEYS) {
    await t.test([task, ...argv].join(' '), async () => {
      const planned = await project.task(task, [...argv, '--dry-run']);
      const done = await project.task(task, [...argv, '--yes']);
      assert.deepEqual([planned.code, done.code], [0, 0], planned.stderr + done.stderr);
      const steps = done.stderr.match(/^→ .*$/gm)!.map((line) => line.slice(2));
      const plan = planned.stdout.split('\n').map((line) => line.replace(/^ +(→ |\d+\. |- )?/, ''));
      assert.deepEqual(
        plan.filter((line) => steps.includes(line)),
        steps,
      );
    });
  }
});

test('a migration does the steps of its plan, there and back, and is never silent', async (t) => {
  const { project } = await tinyLegacy(t);
  const planned = await project.task('migrate', ['--dry-run']);
  // What is set aside is named by the time of the plan.
  const untimed = (title: string) => title.replace(/\d{8}-\d{6}/, 'TIME');
  const plan = planned.stdout.match(/^ +\d+\. .*$/gm)!.map((line) => untimed(line.replace(/^ +\d+\. /, '')));
  for (const [argv, slow] of [
    [['migrate', '--yes'], 'run '],
    [['migrate', '--rollback', '--yes'], 'compose --project-name'],
  ] as const) {
    await t.test(argv.join(' '), async (s) => {
      const { PATH } = await slowDocker(s, slow);
      const { code, screen, longestMs } = await onTerminal(project.root, { PATH }, argv, 300);
      assert.equal(code, 0, screen);
      s.diagnostic(`longest silence ${Math.round(longestMs)} ms`);
      assert.ok(longestMs < (SLOW_SECONDS * 1000) / 2, `silent for ${longestMs} ms:\n${screen}`);
      // What it runs as other tasks has steps of its own.
      const done = linesOf(screen).flatMap((line) => (line.startsWith('→ ') ? untimed(line.slice(2)) : []));
      if (argv.length === 2)
        assert.deepEqual(
          done.filter((title) => plan.includes(title)),
          plan,
        );
    });
  }
});
