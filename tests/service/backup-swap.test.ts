// Directories that change places: killed between any two renames, the act is finished or undone by doing it again,
// and at no moment is there no data at all.
import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { finishSwap, inspectPlace, type Places, swapBack, swapIn } from '../../service/backup/swap.ts';

const NAMES = { current: 'data', staging: '.data.restoring-1', previous: '.data.before-1' };

function places(t: TestContext, there: Partial<Record<keyof typeof NAMES, string>>): Places {
  const parent = mkdtempSync(join(tmpdir(), 'swap-'));
  t.after(() => rmSync(parent, { recursive: true, force: true }));
  for (const [name, content] of Object.entries(there)) {
    const path = join(parent, NAMES[name as keyof typeof NAMES]);
    mkdirSync(path);
    writeFileSync(join(path, 'content'), content);
  }
  return { parent, ...NAMES };
}

const contentOf = ({ parent }: Places, name: keyof typeof NAMES) =>
  existsSync(join(parent, NAMES[name]))
    ? readFileSync(join(parent, NAMES[name], 'content'), 'utf8')
    : undefined;

/** Every state in which a kill can leave it: before, between the two renames, after. */
const STATES: [string, (places: Places) => void][] = [
  ['before', () => {}],
  ['between', ({ parent, current, previous }) => renameSync(join(parent, current), join(parent, previous))],
  ['after', swapIn],
];

for (const [name, reach] of STATES) {
  test(`swap in, killed ${name}: doing it again finishes it`, (t) => {
    const all = places(t, { current: 'old', staging: 'new' });
    reach(all);
    swapIn(all);
    assert.deepEqual([contentOf(all, 'current'), contentOf(all, 'previous')], ['new', 'old']);
    finishSwap(all, null);
    finishSwap(all, null);
    assert.deepEqual(readdirSync(all.parent), ['data']);
  });

  test(`swap in, killed ${name}: swapping back brings the old data and leaves nothing else`, (t) => {
    const all = places(t, { current: 'old', staging: 'new' });
    reach(all);
    swapBack(all, true);
    swapBack(all, true);
    assert.equal(contentOf(all, 'current'), 'old');
    assert.deepEqual(readdirSync(all.parent), ['data']);
  });
}

test('swapping back where nothing was before leaves nothing', (t) => {
  for (const reach of [() => {}, swapIn]) {
    const all = places(t, { staging: 'new' });
    reach(all);
    swapBack(all, false);
    assert.deepEqual(readdirSync(all.parent), []);
  }
});

test('what no backup could be made of stays under a name that a person finds', (t) => {
  const all = places(t, { current: 'old', staging: 'new' });
  swapIn(all);
  finishSwap(all, 'data.before-restore-1');
  assert.deepEqual(readdirSync(all.parent).sort(), ['data', 'data.before-restore-1']);
});

test('a data directory that is a link or a file is refused', (t) => {
  const all = places(t, {});
  writeFileSync(join(all.parent, 'data'), '');
  assert.throws(() => inspectPlace(all.parent, 'data'), /not a directory but a file/);
});
