// Starting processes: what they say and how they end reaches the caller, whatever becomes of their input.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { connect, probe, read, run } from '../../tasks/lib/command.ts';
import { runProcess } from '../tasks/processes.ts';
import { REPOSITORY } from '../tasks/project.ts';

test('a program that ends before it has read its input is told by its own words and exit code', async () => {
  const input = 'x'.repeat(4_000_000);
  for (let time = 0; time < 10; time += 1) {
    await assert.rejects(run(['sh', '-c', 'echo "not today" >&2; exit 3'], { input }), {
      name: 'CommandError',
      processExitCode: 3,
      message: /not today/,
    });
    assert.equal((await probe(['true'], { input })).ok, true, 'one that does not want it has done its work');
  }
});

test('input arrives whole', async () => {
  const input = 'ü'.repeat(1_000_000);
  assert.equal(await read(['wc', '-c'], { input }), '2000000');
});

test('a process that takes too long ends with all it started, also where there is no ps', async (t) => {
  const { PATH } = process.env;
  t.after(() => Object.assign(process.env, { PATH }));
  process.env.PATH = '/nowhere';
  const outcome = await probe(['sh', '-c', 'sleep 31 & echo $!; wait'], { timeoutMs: 300 });
  assert.deepEqual([outcome.ok, outcome.stderr], [false, 'no answer within 300 ms\n']);
  // One that has ended, but that nobody has heard of yet, has no command line any more.
  const left = () => readFile(`/proc/${Number(outcome.stdout)}/cmdline`, 'utf8').catch(() => '');
  for (let waited = 0; (await left()) !== '' && waited < 50; waited += 1) await setTimeout(20);
  assert.equal(await left(), '');
});

test('where PATH names nothing, not even a bash, the usual places are looked through', async () => {
  const program = `import { read } from '${REPOSITORY}tasks/lib/command.ts'; console.log(await read(['git', '--version']));`;
  const argv = ['--import', 'tsx/esm', '--input-type=module', '--eval', program];
  const { stdout, stderr } = await runProcess(process.execPath, argv, {
    cwd: REPOSITORY,
    env: { PATH: '/nowhere' },
  });
  assert.match(stdout, /^git version/, stderr);
});

test('a program that cannot be started says why', async () => {
  const missing = await probe(['no-such-program']);
  assert.deepEqual([missing.exitCode, missing.stderr], [127, 'no-such-program: not found\n']);
  const folder = await probe([REPOSITORY]);
  assert.equal(folder.exitCode, 127);
  assert.match(folder.stderr, /EACCES/);
  const { stream, closed } = connect(['no-such-program']);
  stream.on('error', () => {});
  assert.deepEqual(await closed, { exitCode: 127, stderr: 'no-such-program: not found' });
});
