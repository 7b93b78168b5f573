// Starting processes: what they say and how they end reaches the caller, whatever becomes of their input.
import assert from 'node:assert/strict';
import { symlinkSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { connect, isRedirecting, probe, read, run } from '../../tasks/lib/command.ts';
import { REPOSITORY, runScript, temporaryFolder } from '../tasks/processes.ts';

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
  const folder = temporaryFolder(t);
  for (const name of ['sh', 'sleep']) symlinkSync(`/bin/${name}`, join(folder, name));
  const { PATH } = process.env;
  t.after(() => Object.assign(process.env, { PATH }));
  process.env.PATH = folder;
  const outcome = await probe(['sh', '-c', 'sleep 31 & echo $!; wait'], { timeoutMs: 300 });
  assert.deepEqual([outcome.ok, outcome.stderr], [false, 'did not end within 300 ms\n']);
  // One that has ended, but that nobody has heard of yet, has no command line any more.
  const left = () => readFile(`/proc/${Number(outcome.stdout)}/cmdline`, 'utf8').catch(() => '');
  for (let waited = 0; (await left()) !== '' && waited < 50; waited += 1) await setTimeout(20);
  assert.equal(await left(), '');
});

test('where PATH names nothing, not even a bash, the usual places are looked through', async () => {
  const program = `import { read } from './tasks/lib/command.ts'; console.log(await read(['git', '--version']));`;
  const { stdout, stderr } = await runScript(program, [], { env: { PATH: '/nowhere' } });
  assert.match(stdout, /^git version/, stderr);
});

test('a program that cannot be started says why', async () => {
  const missing = await probe(['no-such-program']);
  assert.deepEqual([missing.exitCode, missing.stderr], [127, 'no-such-program: command not found\n']);
  const folder = await probe([REPOSITORY]);
  assert.equal(folder.exitCode, 126);
  assert.match(folder.stderr, /Is a directory/);
  const { stream, closed } = connect(['no-such-program']);
  stream.on('error', () => {});
  const { exitCode, stderr } = await closed;
  assert.deepEqual([exitCode, stderr], [127, 'no-such-program: command not found\n']);
});

test('every byte of an argument arrives', async () => {
  const odd = ['', ' ', "it's", '$HOME `id` $(id)', '"\\n"', 'a\nb', '*', '{a,b}', '~', 'ü✓', '-n', '!!'];
  assert.equal(await read(['printf', '%s|', ...odd]), odd.map((one) => `${one}|`).join(''));
});

test('the shell that a task is started from redirects neither git nor docker', () => {
  const redirecting =
    `GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_CONFIG_PARAMETERS GIT_NAMESPACE DOCKER_DEFAULT_PLATFORM
    DOCKER_CONTENT_TRUST BUILDX_BUILDER BUILDKIT_HOST COMPOSE_FILE COMPOSE_PROFILES`.split(/\s+/);
  const honoured = 'GIT_SSH_COMMAND GIT_CONFIG_GLOBAL GIT_AUTHOR_NAME DOCKER_HOST DOCKER_CONFIG PATH'.split(
    ' ',
  );
  assert.deepEqual([...redirecting, ...honoured].filter(isRedirecting), redirecting);
});
