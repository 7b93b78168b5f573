// The frame around every task: one JSON object on stdout whatever happens, the contract's exit codes, and
// no secret in anything that is printed. Each case is a process of its own, since the frame owns the process.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { searchPath } from '../../tasks/lib/command.ts';
import { runScript } from '../tasks/processes.ts';

/** Runs a task whose `run` has the given body. */
async function runFrame(body: string, argv: string[] = [], env: Record<string, string | undefined> = {}) {
  const script = `import { runTask } from './tasks/lib/task.ts';
    import { dotenvPath } from './tasks/lib/dotenv.ts';
    import { InterruptedError, TaskError, usageError } from './tasks/lib/errors.ts';
    import { confirm } from './tasks/lib/prompt.ts';
    import { log, registerSecret } from './tasks/lib/log.ts';
    const flags = { context: { type: 'string', value: 'NAME', description: 'x' } };
    await runTask({ name: 'sail', summary: 'x', flags, run: async () => { ${body} } }, process.argv.slice(1));`;
  const { code, stdout, stderr } = await runScript(script, argv, { env });
  return { code, stdout, stderr };
}

const failed = (code: string, message: string, hint: string | null = null) => ({
  error: { code, message, hint },
});
const ENDS: [name: string, body: string, code: number, json: object][] = [
  ['done', `return { data: { knots: 5 }, text: 'sailed' };`, 0, { knots: 5 }],
  ['an answer that is "no"', 'return { data: { wind: false }, exitCode: 1 };', 1, { wind: false }],
  [
    'a failure',
    `throw new TaskError('no wind', { code: 'calm', hint: 'wait' });`,
    1,
    failed('calm', 'no wind', 'wait'),
  ],
  ['wrong usage', `throw usageError('no such sea');`, 2, failed('usage', 'no such sea')],
  [
    'an interruption',
    `throw new InterruptedError('SIGTERM');`,
    143,
    failed('interrupted', 'Interrupted by SIGTERM', 'run the same command again to resume'),
  ],
  [
    'an error that nobody foresaw',
    `return null.x;`,
    1,
    failed('unexpected', "Cannot read properties of null (reading 'x')"),
  ],
  [
    'a refusal of the system',
    `throw Object.assign(new Error('x'), { code: 'ENOSPC', errno: -28, syscall: 'write' });`,
    1,
    failed(
      'enospc',
      'Cannot write: no space left on device',
      'free some space and run the same command again',
    ),
  ],
  [
    'an error outside the task’s own promise',
    `setTimeout(() => { throw new Error('boom'); }, 5); await new Promise((done) => setTimeout(done, 5000));`,
    1,
    failed('unexpected', 'boom'),
  ],
  [
    'a promise that never settles',
    'await new Promise(() => {});',
    1,
    failed('unexpected', 'the task waited for something that never came'),
  ],
];

for (const [name, body, code, json] of ENDS) {
  test(`--json prints exactly one object: ${name}`, async () => {
    const outcome = await runFrame(body, ['--json']);
    assert.equal(outcome.stdout.trimEnd().split('\n').length, 1, outcome.stdout);
    assert.deepEqual(JSON.parse(outcome.stdout), { ok: code === 0, task: 'sail', dryRun: false, ...json });
    assert.equal(outcome.code, code, outcome.stderr);
  });
}

test('without --json the result alone is on stdout; errors and hints are on stderr, without colour', async () => {
  assert.deepEqual(await runFrame(`log.step('casting off'); return { text: 'sailed' };`), {
    code: 0,
    stdout: 'sailed\n',
    stderr: '→ casting off\n',
  });
  assert.deepEqual(await runFrame(`throw new TaskError('no wind', { hint: 'wait\\nor row' });`), {
    code: 1,
    stdout: '',
    stderr: '✗ no wind\n  hint: wait\n        or row\n',
  });
});

test('a question without a terminal is not waited for: exit 2; --yes answers it', async () => {
  const unasked = await runFrame(`await confirm('Cast off?'); return {};`, ['--json']);
  assert.equal(unasked.code, 2);
  assert.match(JSON.parse(unasked.stdout).error.hint, /--yes.*--dry-run/);
  assert.equal((await runFrame(`await confirm('Cast off?'); return {};`, ['--yes'])).code, 0);
});

test('a dry run that held something back does not claim its result; one with nothing to do tells it', async () => {
  const body = `log.withhold('hoist the sail'); log.done('hoisted'); return { text: 'sailed' };`;
  const held = await runFrame(body, ['--dry-run']);
  assert.deepEqual([held.stdout, held.stderr], ['', 'would hoist the sail\nDry run: nothing was changed.\n']);
  const idle = await runFrame(`return { text: 'at sea already' };`, ['--dry-run']);
  assert.equal(idle.stdout, 'at sea already\n');
});

test('a secret is printed nowhere: not in progress, result, error or JSON, whatever it is made of', async () => {
  const secrets = ['hunter2hunter2', 's3cr"et\\pass', 'first-line\nsecond-line', 'tab\there-it-is'];
  const body = `const secrets = ${JSON.stringify(secrets)}; secrets.forEach(registerSecret);
    log.info('it is ' + secrets.join(' or '));`;
  const parts = secrets.flatMap((secret) => [...secret.split('\n'), JSON.stringify(secret).slice(1, -1)]);
  for (const end of [
    `return { data: { secrets }, text: secrets.join(' and ') };`,
    `throw new Error(secrets.map((one) => one.split('\\n').at(-1)).join(' and '));`,
  ]) {
    for (const argv of [[], ['--json'], ['--verbose']]) {
      const { stdout, stderr } = await runFrame(body + end, argv);
      const printed = `${stdout}${stderr}`;
      for (const part of parts) assert.ok(!printed.includes(part), `${part} in ${printed}`);
      assert.ok(printed.split('***').length > 2 * secrets.length, printed);
    }
  }
});

test('what others wrote (names, logs) does not control the terminal, neither in progress nor in errors or results', async () => {
  const hostile = 'a\u001b[2Jb\u001b]0;title\u0007c\u001b[8md\rE\u0000f\u009bg\u001bPq\u001b\\h';
  const body = `const text = ${JSON.stringify(hostile)}; log.info(text); log.step(text);`;
  for (const end of ['return { text };', 'throw new TaskError(text, { hint: text });']) {
    const { stdout, stderr } = await runFrame(body + end);
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

test('the machine that DOCKER_CONTEXT names has its own .env, as the one of --context', async () => {
  const rows: [env: Record<string, string>, argv: string[], path: string][] = [
    [{}, [], '/p/.env'],
    [{ DOCKER_CONTEXT: 'pi' }, [], '/p/.env.context.pi'],
    [{ DOCKER_CONTEXT: 'pi' }, ['--context', 'mac'], '/p/.env.context.mac'],
    [{ DOCKER_CONTEXT: 'pi', DOCKER_HOST: 'ssh://mac' }, [], '/p/.env'],
  ];
  for (const [env, argv, path] of rows) {
    const shell = { DOCKER_HOST: undefined, DOCKER_CONTEXT: undefined, ...env };
    const { stdout, stderr } = await runFrame(`return { text: dotenvPath('/p') };`, argv, shell);
    assert.equal(stdout, `${path}\n`, `${JSON.stringify(env)} ${argv.join(' ')}: ${stderr}`);
  }
});
