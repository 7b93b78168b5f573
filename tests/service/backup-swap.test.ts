// The moment of a restore: killed between any two acts, doing it again finishes or undoes it; what no archive holds stays.
import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import {
  finishSwap,
  type Swap,
  stagingOf,
  swapBack,
  swapIn,
} from '../../tasks/lib/backup/program/restore.ts';
import { temporaryDirectory } from './support.ts';

const OLD = {
  ...{ a: 'old', 'deep/b': 'old', key: 'secret', 'deep/socket': 'held by nobody', both: 'old' },
  ...{ cache: 'excluded', 'deep/cache': 'excluded' },
};
const NEW = { a: 'new', c: 'new', both: 'new' };
const KEPT = {
  ...{ key: 'secret', 'deep/socket': 'held by nobody' },
  ...{ cache: 'excluded', 'deep/cache': 'excluded' },
};

function fill(root: string, files: Record<string, string>): void {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
}

function contentOf(root: string): Record<string, string> {
  const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((name) =>
    statSync(join(root, name)).isFile(),
  );
  return Object.fromEntries(files.sort().map((name) => [name, readFileSync(join(root, name), 'utf8')]));
}

const sorted = (files: Record<string, string>) => Object.fromEntries(Object.entries(files).sort());

function prepare(t: TestContext): Swap {
  const place = temporaryDirectory(t);
  fill(place, OLD);
  chmodSync(place, 0o750);
  const swap = { place, id: '1', stays: ['key', 'deep/socket', 'both', 'cache', 'deep/cache'] };
  fill(stagingOf(place, '1'), NEW);
  return swap;
}

const work = ({ place }: Swap, what: string) => join(place, `.release-flow-1-${what}`);

function moveSome(from: string, to: string, names: string[]): void {
  mkdirSync(to, { recursive: true, mode: 0o750 });
  for (const name of names) if (existsSync(join(from, name))) renameSync(join(from, name), join(to, name));
}

/** Every kind of state in which a kill can leave it. */
const STATES: [name: string, reach: (swap: Swap) => void][] = [
  ['before', () => {}],
  ['while the old goes', (swap) => moveSome(swap.place, work(swap, 'leaving'), ['a'])],
  [
    'while the new comes',
    (swap) => {
      moveSome(swap.place, work(swap, 'old'), ['a', 'deep', 'both']);
      moveSome(work(swap, 'new'), swap.place, ['a']);
    },
  ],
  ['after', swapIn],
];

for (const [name, reach] of STATES) {
  test(`swap in, killed ${name}: doing it again finishes it; what no archive holds stays`, (t) => {
    const swap = prepare(t);
    reach(swap);
    swapIn(swap);
    const { a: _, both, ...present } = contentOf(swap.place);
    assert.equal(both, 'new');
    assert.deepEqual([present.key, present['deep/socket'], present.c], ['secret', 'held by nobody', 'new']);
    const kept = finishSwap(swap, 'before-restore', true);
    assert.deepEqual(kept, ['before-restore/both']);
    assert.deepEqual(finishSwap(swap, 'before-restore', true), []);
    assert.deepEqual(contentOf(swap.place), sorted({ ...NEW, ...KEPT, 'before-restore/both': 'old' }));
  });

  test(`swap in, killed ${name}: swapping back brings everything old and leaves nothing else`, (t) => {
    const swap = prepare(t);
    reach(swap);
    swapBack(swap);
    swapBack(swap);
    assert.deepEqual(contentOf(swap.place), sorted(OLD));
    assert.deepEqual(
      readdirSync(swap.place).filter((one) => one.startsWith('.')),
      [],
    );
    assert.equal(statSync(swap.place).mode & 0o777, 0o750);
  });
}

/** Every kind of state in which a kill can leave the way back. */
const BACK: [name: string, reach: (swap: Swap) => void][] = [
  ['while the new goes', (swap) => moveSome(swap.place, work(swap, 'new'), ['a'])],
  [
    'while the old comes',
    (swap) => {
      moveSome(swap.place, work(swap, 'new'), ['a', 'c', 'both']);
      moveSome(join(swap.place, 'deep'), join(work(swap, 'old'), 'deep'), ['socket', 'cache']);
      moveSome(swap.place, work(swap, 'new'), ['deep']);
      renameSync(work(swap, 'old'), work(swap, 'leaving'));
      moveSome(work(swap, 'leaving'), swap.place, ['a']);
    },
  ],
];

for (const [name, reach] of BACK)
  test(`swapping back, killed ${name}: doing it again brings everything old`, (t) => {
    const swap = prepare(t);
    swapIn(swap);
    reach(swap);
    swapBack(swap);
    assert.deepEqual(contentOf(swap.place), sorted(OLD));
  });

test('what no backup could be made of stays, all of it, under a name that a person finds', (t) => {
  const swap = prepare(t);
  const nothing = { ...swap, stays: [] };
  swapIn(nothing);
  assert.deepEqual(finishSwap(nothing, 'before-restore', false), ['before-restore']);
  assert.deepEqual(contentOf(join(swap.place, 'before-restore')), sorted(OLD));
});
