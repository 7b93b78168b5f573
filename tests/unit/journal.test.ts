// What tasks have done, and what one was doing when it died: a torn line must not hide the rest.
import assert from 'node:assert/strict';
import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { InterruptedError, TaskError } from '../../tasks/lib/errors.ts';
import { readHistory, withHistory } from '../../tasks/lib/history.ts';
import { runningTask } from '../../tasks/lib/lock.ts';
import { interruptedRuns } from '../../tasks/lib/steps.ts';
import { readSamples } from '../../tasks/lib/uptime.ts';
import { temporaryFolder } from '../tasks/processes.ts';

test('every outcome leaves one line, and the error goes on', async (t) => {
  const root = temporaryFolder(t);
  const details = { from: 'v1', to: 'v2' };
  assert.equal(await withHistory(root, 'release', details, async () => 'value'), 'value');
  for (const error of [new TaskError('no wind\nat all'), new InterruptedError('SIGINT')])
    await assert.rejects(
      withHistory(root, 'release', details, () => Promise.reject(error)),
      error,
    );
  const history = await readHistory(root);
  assert.deepEqual(
    history.map(({ task, outcome, error }) => [task, outcome, error]),
    [
      ['release', 'done', undefined],
      ['release', 'failed', 'no wind'],
      ['release', 'interrupted', 'Interrupted by SIGINT'],
    ],
  );
  assert.ok(history.every(({ at, who, seconds }) => at.endsWith('Z') && who.includes('@') && seconds >= 0));
});

test('a line torn by a power cut hides neither what came before nor what comes after', async (t) => {
  const root = temporaryFolder(t);
  const line = (to: string) => withHistory(root, 'release', { from: null, to }, async () => {});
  await line('v1');
  appendFileSync(join(root, '.synapse/history.jsonl'), '{"at":"2026-01-01T00:0');
  await line('v2');
  await line('v3');
  assert.deepEqual(
    (await readHistory(root)).map(({ to }) => to),
    ['v1', 'v2', 'v3'],
  );
});

const NOT_OURS = ['null', '{}', '[]', '42', '"x"', '{"at', ''];
for (const text of NOT_OURS) {
  test(`state files that hold ${JSON.stringify(text)}: named with what clears them, or skipped; never taken for ours`, async (t) => {
    const root = temporaryFolder(t);
    mkdirSync(join(root, '.synapse/journal'), { recursive: true });
    const write = (name: string) => writeFileSync(join(root, '.synapse', name), text);
    for (const name of ['journal/switch.json', 'history.jsonl', 'samples.jsonl', 'owner.json']) write(name);
    const [run, ...others] = await interruptedRuns(root);
    assert.deepEqual([run?.task, others], ['switch', []]);
    assert.match(run?.error?.hint ?? '', /rm .*journal\/switch\.json/);
    assert.deepEqual(await readHistory(root), []);
    assert.deepEqual(await readSamples(root), { hours: [], samples: [] });
    assert.equal(await runningTask(root), undefined);
  });
}
