// Starting processes: what they say and how they end reaches the caller, whatever becomes of their input.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { probe, read, run } from '../../tasks/lib/command.ts';

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
