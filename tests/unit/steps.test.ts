// The step engine: what a failure or a kill leaves is either the old state or the new one, whatever the steps are.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { z } from 'zod';
import { readHistory } from '../../tasks/lib/history.ts';
import { type Journey, resumeSteps, runSteps, type Step, undoSteps } from '../../tasks/lib/steps.ts';
import { REPOSITORY } from '../tasks/project.ts';

const NAMES = ['one', 'two', 'commit', 'three'];

interface Data {
  /** The step that fails when it is applied, and the one that cannot be undone. */
  fails: string;
  sticks: string;
}

/** Each step is a file; `failing` makes a step fail, `sticking` its undo. */
function journeyIn(root: string): Journey<Data> {
  const step = (name: string): Step<Data> => ({
    name,
    title: `do ${name}`,
    apply: async ({ fails }) => {
      writeFileSync(join(root, name), '');
      if (fails === name && !existsSync(join(root, 'mended'))) throw new Error(`${name} failed`);
    },
    ...(name === 'three'
      ? {}
      : {
          undo: async ({ sticks }) => {
            if (sticks === name && !existsSync(join(root, 'mended'))) throw new Error(`${name} sticks`);
            rmSync(join(root, name), { force: true });
          },
        }),
    ...(name === 'commit' ? { commits: true as const } : {}),
  });
  return {
    root,
    task: 'sail',
    command: 'npm run sail',
    schema: z.strictObject({ fails: z.string(), sticks: z.string() }),
    steps: () => NAMES.map(step),
    history: () => ({ from: 'here', to: 'there' }),
  };
}

function folder(t: TestContext): string {
  const root = mkdtempSync(join(tmpdir(), 'steps-test-'));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  return root;
}

const applied = (root: string) => NAMES.filter((name) => existsSync(join(root, name)));
const hasJournal = (root: string) => existsSync(join(root, '.synapse/journal/sail.json'));
const outcomes = async (root: string) => (await readHistory(root)).map(({ outcome }) => outcome);

test('steps that end well leave their work, one line in the history and no journal; a rollback takes all of it back', async (t) => {
  const root = folder(t);
  const { phases } = await runSteps(journeyIn(root), { fails: '', sticks: '' });
  assert.deepEqual(applied(root), NAMES);
  assert.deepEqual(Object.keys(phases), NAMES);
  assert.deepEqual([await outcomes(root), hasJournal(root)], [['done'], false]);
  await undoSteps(journeyIn(root), { fails: '', sticks: '' });
  assert.deepEqual(applied(root), ['three'], 'what has no undo stays');
});

test('a failure before the commit point is undone, one after it is finished by the next run', async (t) => {
  for (const fails of NAMES) {
    const root = folder(t);
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
  const root = folder(t);
  const error = await runSteps(journeyIn(root), { fails: 'commit', sticks: 'two' }).catch((thrown) => thrown);
  assert.match(error.message, /commit failed\nCould not undo: do two: two sticks/);
  assert.match(error.hint, /npm run sail/);
  assert.deepEqual([applied(root), hasJournal(root)], [['two'], true]);
  await assert.rejects(resumeSteps(journeyIn(root)), { code: 'not-restored' });
  writeFileSync(join(root, 'mended'), '');
  assert.equal((await resumeSteps(journeyIn(root)))?.outcome, 'undone');
  assert.deepEqual([applied(root), hasJournal(root)], [[], false]);
});

/** A process of its own that runs the steps, or resumes them, and is killed at a named moment. */
function killedAt(root: string, point: string, call: 'run' | 'resume'): void {
  const program = `
    const { runSteps, resumeSteps } = await import('./tasks/lib/steps.ts');
    const { z } = await import('zod');
    const { writeFileSync, rmSync } = await import('node:fs');
    const root = process.argv[1];
    const step = (name) => ({ name, title: name, apply: async () => writeFileSync(root + '/' + name, ''),
      ...(name === 'three' ? {} : { undo: async () => rmSync(root + '/' + name, { force: true }) }),
      ...(name === 'commit' ? { commits: true } : {}) });
    const journey = { root, task: 'sail', command: '', steps: () => ${JSON.stringify(NAMES)}.map(step),
      schema: z.strictObject({ fails: z.string(), sticks: z.string() }), history: () => ({ from: null, to: null }) };
    await (${call === 'run'} ? runSteps(journey, { fails: '', sticks: '' }) : resumeSteps(journey));`;
  const argv = ['--import', 'tsx/esm', '--input-type=module', '--eval', program, root];
  const env = { ...process.env, RELEASE_FLOW_FAULT: `SIGKILL@sail/${point}` };
  const { signal, stderr } = spawnSync(process.execPath, argv, { cwd: REPOSITORY, env, encoding: 'utf8' });
  assert.equal(signal, 'SIGKILL', `${point}: ${stderr}`);
}

test('killed at any moment, the next run leaves the old state or the new one, and one line in the history', async (t) => {
  const points = [...NAMES.flatMap((name) => [name, `${name}/applied`]), 'close'];
  for (const point of points) {
    const root = folder(t);
    killedAt(root, point, 'run');
    // Once in a while the next run is killed as well.
    if (point === 'two/applied') killedAt(root, 'one/undo', 'resume');
    await resumeSteps(journeyIn(root));
    const isBefore = points.indexOf(point) < points.indexOf('commit');
    assert.deepEqual(applied(root), isBefore ? [] : NAMES, point);
    const outcome = isBefore ? 'interrupted' : 'done';
    assert.deepEqual([hasJournal(root), await outcomes(root)], [false, [outcome]], point);
  }
});

test('a journal of another version, or edited by hand, is named with the command that clears it', async (t) => {
  const root = folder(t);
  killedAt(root, 'two', 'run');
  const path = join(root, '.synapse/journal/sail.json');
  for (const text of [
    'null',
    '42',
    '{"format":2}',
    readFileSync(path, 'utf8').replace('"fails"', '"other"'),
  ]) {
    writeFileSync(path, text);
    await assert.rejects(resumeSteps(journeyIn(root)), (error: { code: string; hint: string }) => {
      assert.equal(error.code, 'journal-unreadable');
      assert.ok(error.hint.includes(`rm ${path}`), error.hint);
      return true;
    });
  }
});
