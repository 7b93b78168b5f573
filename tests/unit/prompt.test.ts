// Questions on a real terminal (util-linux's `script` makes one). What would be lost: live data, by an Enter too many.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { test } from 'node:test';
import { REPOSITORY } from '../tasks/processes.ts';

/** Runs a task that asks; types `early` before the question, and `typed` once the screen shows it. */
function ask(question: string, terminal: string, early: string, shown: RegExp, typed: string) {
  const script = `import { runTask } from './tasks/lib/task.ts';
    import { choose, confirm, confirmByName } from './tasks/lib/prompt.ts';
    await runTask({ name: 'sail', summary: 'x', flags: {}, run: async () => {
      console.error('not asked yet');
      await new Promise((done) => setTimeout(done, 600));
      console.error('asking');
      ${question}
      return { text: 'SAILED' };
    } }, []);`;
  const command = `stty cols 100 rows 30; '${process.execPath}' --import tsx/esm --input-type=module --eval "$SCRIPT"`;
  const child = spawn('script', ['--quiet', '--return', '--command', command, '/dev/null'], {
    cwd: REPOSITORY,
    env: { ...process.env, SCRIPT: script, NO_COLOR: '1', TERM: terminal },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const pending: [shown: RegExp, typed: string][] = [
    [/not asked yet/, early],
    [shown, typed],
  ];
  let screen = '';
  let seen = 0;
  child.stdout.on('data', (chunk: Buffer) => {
    screen += chunk;
    const match = pending[0]?.[0].exec(screen.slice(seen));
    if (!match) return;
    seen += match.index + match[0].length;
    child.stdin.write(pending.shift()![1]);
  });
  return new Promise<{ code: number | null; screen: string }>((resolve) =>
    child.on('close', (code) => {
      resolve({ code, screen });
    }),
  );
}

const CONFIRM = `await confirm('Cast off?');`;
const BY_NAME = `await confirmByName('Scuttle her?', ['Beagle', 'latest']);`;
const TERMINATED = `setTimeout(() => process.kill(process.pid, 'SIGTERM'), 500); ${CONFIRM}`;
const CASES: [name: string, question: string, early: string, typed: string, code: number, sailed: boolean][] =
  [
    ['a yes', CONFIRM, '', 'y\r', 0, true],
    ['a no', CONFIRM, '', 'n\r', 1, false],
    ['Ctrl-C', CONFIRM, '', '\u0003', 130, false],
    ['SIGTERM', TERMINATED, '', '', 143, false],
    ['a yes typed before the question, then a no', CONFIRM, 'y', 'n\r', 1, false],
    ['the name in words', BY_NAME, '', 'Beagle\r', 0, true],
    ['Enter alone where it cannot be undone', BY_NAME, '', '\r', 1, false],
    ['y where the name is needed', BY_NAME, '', 'y\r', 1, false],
    ['the name typed before the question, then Enter', BY_NAME, 'Beagle', '\r', 1, false],
  ];

test('only a meant answer is a yes', { concurrency: 2 }, async (t) => {
  const terminals = ['xterm', 'dumb'];
  const rows = terminals.flatMap((terminal) => CASES.map((row) => [terminal, ...row] as const));
  const cases = rows.map(([terminal, name, question, early, typed, code, sailed]) =>
    t.test(`${name} (TERM=${terminal})`, async () => {
      const shown = terminal === 'dumb' ? /\[y\/N\]|to cancel\./ : /Cast off\?|to cancel\.[\s\S]*│/;
      const answer = await ask(question, terminal, early, shown, typed);
      assert.deepEqual([answer.code, answer.screen.includes('SAILED')], [code, sailed], answer.screen);
    }),
  );
  await Promise.all(cases);
});
