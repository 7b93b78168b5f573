// The step engine: what a failure or a kill leaves is either the old state or the new one, whatever the steps are.
import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { readHistory } from '../../tasks/lib/history.ts';
import { resumeSteps, runSteps } from '../../tasks/lib/steps.ts';
import { runScript, temporaryFolder } from '../tasks/processes.ts';
import { journeyIn, NAMES, WELL } from './steps-journey.ts';

const applied = (root: string) => NAMES.filter((name) => existsSync(join(root, name)));
const hasJournal = (root: string) => existsSync(join(root, '.synapse/journal/sail.json'));
const outcomes = async (root: string) => (await readHistory(root)).map(({ outcome }) => outcome);

test('steps that end well leave their work, one line in the history and no journal; a rollback takes all of it back', async (t) => {
  const root = temporaryFolder(t);
  const { phases } = await runSteps(journeyIn(root), { ...WELL });
  assert.deepEqual(applied(root), NAMES);
  assert.deepEqual(Object.keys(phases), NAMES);
  assert.deepEqual([await outcomes(root), hasJournal(root)], [['done'], false]);
  // A rollback that is killed is still one for the next run.
  await killedAt(root, 'one/undo', 'undoSteps');
  assert.equal((await resumeSteps(journeyIn(root)))?.outcome, 'undone');
  assert.deepEqual([applied(root), await outcomes(root)], [['three'], ['done', 'done']]);
});

test('a failure before the commit point is undone, one after it is finished by the next run', async (t) => {
  for (const fails of NAMES) {
    const root = temporaryFolder(t);
    await assert.rejects(runSteps(journeyIn(root), { fails, sticks: '' }), new RegExp(`${fails} failed`));
    const isBefore = fails !== 'three';
    assert.deepEqual(applied(root), isBefore ? [] : NAMES, fails);
    assert.deepEqual([await outcomes(root), hasJournal(root)], [['failed'], !isBefore]);
    writeFileSync(join(root, 'mended'), '');
    assert.equal((await resumeSteps(journeyIn(root)))?.outcome, isBefore ? undefined : 'finished');
    assert.deepEqual([applied(root), hasJournal(root)], [isBefore ? [] : NAMES, false]);
  }
});

test('what cannot be undone is named with the command that tries again; the others are undone all the same', async (t) => {
  const root = temporaryFolder(t);
  const error = await runSteps(journeyIn(root), { fails: 'commit', sticks: 'two' }).catch((thrown) => thrown);
  assert.match(error.message, /commit failed\nCould not undo: do two: two sticks/);
  assert.match(error.hint, /npm run sail/);
  assert.deepEqual([applied(root), hasJournal(root)], [['two'], true]);
  await assert.rejects(resumeSteps(journeyIn(root)), { code: 'not-restored' });
  writeFileSync(join(root, 'mended'), '');
  assert.equal((await resumeSteps(journeyIn(root)))?.outcome, 'undone');
  assert.deepEqual([applied(root), hasJournal(root)], [[], false]);
});

/** A process of its own that runs the steps, undoes or resumes them, and is killed at a named moment. */
async function killedAt(root: string, point: string, call: string): Promise<void> {
  const program = `
    const { runSteps, resumeSteps, undoSteps } = await import('./tasks/lib/steps.ts');
    const { journeyIn, WELL } = await import('./tests/unit/steps-journey.ts');
    await ${call}(journeyIn(process.argv[1]), { ...WELL });`;
  const env = { RELEASE_FLOW_FAULT: `SIGKILL@sail/${point}` };
  const { code, stderr } = await runScript(program, [root], { env });
  assert.equal(code, 137, `${point}: ${stderr}`);
}

test('killed at any moment, the next run leaves the old state or the new one, and one line in the history', async (t) => {
  const points = [...NAMES.flatMap((name) => [name, `${name}/applied`]), 'close'];
  for (const point of points) {
    const root = temporaryFolder(t);
    await killedAt(root, point, 'runSteps');
    // Once in a while the next run is killed as well.
    if (point === 'two/applied') await killedAt(root, 'one/undo', 'resumeSteps');
    await resumeSteps(journeyIn(root));
    const isBefore = points.indexOf(point) < points.indexOf('commit');
    assert.deepEqual(applied(root), isBefore ? [] : NAMES, point);
    const outcome = isBefore ? 'interrupted' : 'done';
    assert.deepEqual([hasJournal(root), await outcomes(root)], [false, [outcome]], point);
  }
});

test('a journal of another version, or edited by hand, is named with the command that clears it', async (t) => {
  const root = temporaryFolder(t);
  await killedAt(root, 'two', 'runSteps');
  const path = join(root, '.synapse/journal/sail.json');
  // What is no journal at all: see journal.test.ts.
  for (const text of ['{"format":2}', readFileSync(path, 'utf8').replace('"fails"', '"other"')]) {
    writeFileSync(path, text);
    await assert.rejects(resumeSteps(journeyIn(root)), (error: { code: string; hint: string }) => {
      assert.equal(error.code, 'journal-unreadable');
      assert.ok(error.hint.includes(`rm ${path}`), error.hint);
      return true;
    });
  }
});
