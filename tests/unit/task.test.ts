// The frame around every task: one JSON object on stdout whatever happens, the contract's exit codes, and
// no secret in anything that is printed. Each case is a process of its own, since the frame owns the process.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { searchPath } from '../../tasks/lib/command.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** Runs a task whose `run` has the given body. */
function runFrame(body: string, argv: string[] = []) {
  const script = `import { runTask } from './tasks/lib/task.ts';
    import { InterruptedError, TaskError, usageError } from './tasks/lib/errors.ts';
    import { confirm } from './tasks/lib/prompt.ts';
    import { log, registerSecret } from './tasks/lib/log.ts';
    await runTask({ name: 'sail', summary: 'x', flags: {}, run: async () => { ${body} } }, process.argv.slice(1));`;
  const options = ['--import', 'tsx/esm', '--input-type=module', '--eval', script, '--', ...argv];
  const { status, stdout, stderr } = spawnSync(process.execPath, options, { cwd: ROOT, encoding: 'utf8' });
  return { status, stdout, stderr };
}

const ENDS = [
  {
    name: 'done',
    body: `return { data: { knots: 5 }, text: 'sailed' };`,
    status: 0,
    json: { ok: true, task: 'sail', dryRun: false, knots: 5 },
  },
  {
    name: 'an answer that is "no"',
    body: 'return { data: { wind: false }, exitCode: 1 };',
    status: 1,
    json: { ok: false, task: 'sail', dryRun: false, wind: false },
  },
  {
    name: 'a failure',
    body: `throw new TaskError('no wind', { code: 'calm', hint: 'wait' });`,
    status: 1,
    json: {
      ok: false,
      task: 'sail',
      dryRun: false,
      error: { code: 'calm', message: 'no wind', hint: 'wait' },
    },
  },
  {
    name: 'wrong usage',
    body: `throw usageError('no such sea');`,
    status: 2,
    json: {
      ok: false,
      task: 'sail',
      dryRun: false,
      error: { code: 'usage', message: 'no such sea', hint: null },
    },
  },
  {
    name: 'an interruption',
    body: `throw new InterruptedError('SIGTERM');`,
    status: 143,
    json: {
      ok: false,
      task: 'sail',
      dryRun: false,
      error: {
        code: 'interrupted',
        message: 'Interrupted by SIGTERM',
        hint: 'run the same command again to resume',
      },
    },
  },
  {
    name: 'an error that nobody foresaw',
    body: `return null.x;`,
    status: 1,
    json: {
      ok: false,
      task: 'sail',
      dryRun: false,
      error: { code: 'unexpected', message: "Cannot read properties of null (reading 'x')", hint: null },
    },
  },
  {
    name: 'a refusal of the system',
    body: `throw Object.assign(new Error('x'), { code: 'ENOSPC', errno: -28, syscall: 'write' });`,
    status: 1,
    json: {
      ok: false,
      task: 'sail',
      dryRun: false,
      error: {
        code: 'enospc',
        message: 'Cannot write: no space left on device',
        hint: 'free some space and run the same command again',
      },
    },
  },
  {
    name: 'an error outside the task’s own promise',
    body: `setTimeout(() => { throw new Error('boom'); }, 5); await new Promise((done) => setTimeout(done, 5000));`,
    status: 1,
    json: {
      ok: false,
      task: 'sail',
      dryRun: false,
      error: { code: 'unexpected', message: 'boom', hint: null },
    },
  },
  {
    name: 'a promise that never settles',
    body: 'await new Promise(() => {});',
    status: 1,
    json: {
      ok: false,
      task: 'sail',
      dryRun: false,
      error: { code: 'unexpected', message: 'the task waited for something that never came', hint: null },
    },
  },
];

for (const { name, body, status, json } of ENDS) {
  test(`--json prints exactly one object: ${name}`, () => {
    const outcome = runFrame(body, ['--json']);
    assert.equal(outcome.stdout.trimEnd().split('\n').length, 1, outcome.stdout);
    assert.deepEqual(JSON.parse(outcome.stdout), json);
    assert.equal(outcome.status, status, outcome.stderr);
  });
}

test('without --json the result alone is on stdout; errors and hints are on stderr, without colour', () => {
  assert.deepEqual(runFrame(`log.step('casting off'); return { text: 'sailed' };`), {
    status: 0,
    stdout: 'sailed\n',
    stderr: '→ casting off\n',
  });
  assert.deepEqual(runFrame(`throw new TaskError('no wind', { hint: 'wait\\nor row' });`), {
    status: 1,
    stdout: '',
    stderr: '✗ no wind\n  hint: wait\n        or row\n',
  });
});

test('a question without a terminal is not waited for: exit 2; --yes answers it', () => {
  const unasked = runFrame(`await confirm('Cast off?'); return {};`, ['--json']);
  assert.equal(unasked.status, 2);
  assert.match(JSON.parse(unasked.stdout).error.hint, /--yes.*--dry-run/);
  assert.equal(runFrame(`await confirm('Cast off?'); return {};`, ['--yes']).status, 0);
});

test('a dry run that held something back does not claim its result; one with nothing to do tells it', () => {
  const held = runFrame(`log.withhold('hoist the sail'); log.done('hoisted'); return { text: 'sailed' };`, [
    '--dry-run',
  ]);
  assert.deepEqual([held.stdout, held.stderr], ['', 'would hoist the sail\nDry run: nothing was changed.\n']);
  assert.equal(runFrame(`return { text: 'at sea already' };`, ['--dry-run']).stdout, 'at sea already\n');
});

test('a secret is printed nowhere: not in progress, result, error or JSON, whatever it is made of', () => {
  for (const secret of ['hunter2hunter2', 's3cr"et\\pass', 'first-line\nsecond-line', 'tab\there-it-is']) {
    const body = `const secret = ${JSON.stringify(secret)}; registerSecret(secret); log.info('it is ' + secret);`;
    const parts = [...secret.split('\n'), JSON.stringify(secret).slice(1, -1)];
    for (const end of [
      'return { data: { token: secret }, text: secret };',
      `throw new Error(secret.split('\\n').at(-1));`,
    ]) {
      for (const argv of [[], ['--json'], ['--verbose']]) {
        const { stdout, stderr } = runFrame(body + end, argv);
        for (const part of parts) assert.ok(!`${stdout}${stderr}`.includes(part), `${stdout}${stderr}`);
        assert.match(`${stdout}${stderr}`, /\*\*\*/);
      }
    }
  }
});

test('what others wrote (names, logs) does not control the terminal, neither in progress nor in errors or results', () => {
  const hostile = 'a\u001b[2Jb\u001b]0;title\u0007c\u001b[8md\rE\u0000f\u009bg\u001bPq\u001b\\h';
  const body = `const text = ${JSON.stringify(hostile)}; log.info(text); log.step(text);`;
  for (const end of ['return { text };', 'throw new TaskError(text, { hint: text });']) {
    const { stdout, stderr } = runFrame(body + end);
    assert.match(`${stdout}${stderr}`, /abcdEfgh/);
    assert.deepEqual(
      [...`${stdout}${stderr}`].filter((one) => /(?!\n)\p{Cc}/u.test(one)),
      [],
    );
  }
});

test('from cron, whose PATH is short, programs in the usual places are found; PATH itself comes first', () => {
  assert.equal(searchPath('/usr/bin:/bin').split(':').slice(0, 3).join(':'), '/usr/bin:/bin:/usr/local/bin');
  assert.ok(searchPath('/mine:/usr/local/bin').startsWith('/mine:/usr/local/bin:'));
  assert.ok(searchPath().startsWith('/usr/local/bin:'));
});

test('the machine that DOCKER_CONTEXT names has its own .env, as the one of --context', () => {
  const flags = `{ context: { type: 'string', value: 'NAME', description: 'x' } }`;
  const script = `import { runTask } from './tasks/lib/task.ts';
    import { dotenvPath } from './tasks/lib/dotenv.ts';
    const run = async () => ({ text: dotenvPath('/p') });
    await runTask({ name: 'sail', summary: 'x', flags: ${flags}, run }, process.argv.slice(1));`;
  const rows: [env: Record<string, string>, argv: string[], path: string][] = [
    [{}, [], '/p/.env'],
    [{ DOCKER_CONTEXT: 'pi' }, [], '/p/.env.context.pi'],
    [{ DOCKER_CONTEXT: 'pi' }, ['--context', 'mac'], '/p/.env.context.mac'],
    [{ DOCKER_CONTEXT: 'pi', DOCKER_HOST: 'ssh://mac' }, [], '/p/.env'],
  ];
  const { DOCKER_HOST: _host, DOCKER_CONTEXT: _context, ...shell } = process.env;
  for (const [env, argv, path] of rows) {
    const options = ['--import', 'tsx/esm', '--input-type=module', '--eval', script, '--', ...argv];
    const place = { cwd: ROOT, encoding: 'utf8', env: { ...shell, ...env } } as const;
    const { stdout, stderr } = spawnSync(process.execPath, options, place);
    assert.equal(stdout, `${path}\n`, `${JSON.stringify(env)} ${argv.join(' ')}: ${stderr}`);
  }
});
