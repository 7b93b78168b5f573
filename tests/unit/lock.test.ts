// One task at a time: of many that start together one runs, and a dead owner stops nobody.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { withLock } from '../../tasks/lib/lock.ts';
import { runScript, temporaryFolder } from '../tasks/processes.ts';

const SELF = {
  pid: process.pid,
  host: hostname(),
  user: 'somebody',
  task: 'release',
  since: '2026-01-01T00:00:00.000Z',
  startTime: null as string | null,
};
/** A pid that no process has: the kernel's own limit is below it. */
const NOBODY = 2 ** 22 + 1;

/** A lock as its owner would have left it. */
function leaveLock(root: string, owner: Partial<typeof SELF>): void {
  mkdirSync(join(root, '.synapse/task.lock'), { recursive: true });
  writeFileSync(join(root, '.synapse/owner.json'), JSON.stringify({ ...SELF, ...owner }));
}

const runUnderLock = (root: string) => withLock(root, 'switch', async () => 'ran');

test('what a killed run left is gone once the next one has the lock; other files stay', async (t) => {
  const root = temporaryFolder(t);
  const left = [
    '.synapse/.owner.json.0123456789ab.partial',
    '.synapse/journal/.release.json.0123456789ab.partial',
    '..env.0123456789ab.partial',
    '.synapse/work-a1B2c3/tree',
  ];
  const others = [
    '.synapse/.samples.jsonl.0123456789ab.partial',
    '.mine.partial',
    '.synapse/journal/release.json',
  ];
  for (const folder of ['.synapse/journal', '.synapse/work-a1B2c3'])
    mkdirSync(join(root, folder), { recursive: true });
  for (const path of [...left, ...others]) writeFileSync(join(root, path), 'half');
  await runUnderLock(root);
  const present = [...left, ...others].filter((path) => existsSync(join(root, path)));
  assert.deepEqual(present, others);
});

test('a live owner keeps its lock, and the refusal says who it is', async (t) => {
  const root = temporaryFolder(t);
  leaveLock(root, {});
  await assert.rejects(runUnderLock(root), {
    code: 'locked',
    message: `Cannot start switch: release runs since ${SELF.since} (pid ${SELF.pid}, somebody@${SELF.host})`,
  });
});

test('the lock of a dead owner is taken over at once, also when its pid was given to another process', async (t) => {
  for (const owner of [{ pid: NOBODY }, { startTime: '1' }]) {
    const root = temporaryFolder(t);
    leaveLock(root, owner);
    assert.equal(await runUnderLock(root), 'ran');
  }
});

test('an owner that was just killed is dead: while nobody has waited for it, and when it dies a moment later', async (t) => {
  // The shell becomes a program that never waits for the shell's child.
  const parent = spawn('sh', ['-c', 'sleep 600 & echo $!; exec sleep 600'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  t.after(() => parent.kill('SIGKILL'));
  const [line] = (await once(parent.stdout, 'data')) as [Buffer];
  const pid = Number(line);
  const root = temporaryFolder(t);
  leaveLock(root, { pid });
  await assert.rejects(runUnderLock(root), { code: 'locked' }, 'it still lives');
  setTimeout(() => process.kill(pid, 'SIGKILL'), 200);
  assert.equal(await runUnderLock(root), 'ran', 'it was dying');
  assert.match(readFileSync(`/proc/${pid}/stat`, 'utf8'), /\) Z /);
  leaveLock(root, { pid });
  assert.equal(await runUnderLock(root), 'ran', 'it is a zombie');
});

test('an owner on another machine cannot be looked at: its fresh lock stands', async (t) => {
  const root = temporaryFolder(t);
  leaveLock(root, { pid: NOBODY, host: 'elsewhere' });
  await assert.rejects(runUnderLock(root), { code: 'locked' });
});

test('the lock is given back when the work is done, and when it fails', async (t) => {
  const root = temporaryFolder(t);
  const failing = withLock(root, 'release', async () => Promise.reject(new Error('broken')));
  await assert.rejects(failing, /broken/);
  for (let time = 0; time < 2; time += 1) assert.equal(await runUnderLock(root), 'ran');
});

const RACERS = 5;
const ROUNDS = 4;

/** Adds one to a counter file, slowly and without any care, ROUNDS times under the lock. */
const RACER = `import { readFileSync, writeFileSync } from 'node:fs';
  import { withLock } from './tasks/lib/lock.ts';
  const root = process.argv.at(-1);
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  for (let round = 0; round < ${ROUNDS}; ) {
    try {
      await withLock(root, 'race', async () => {
        const count = Number(readFileSync(root + '/count', 'utf8'));
        await pause(3);
        writeFileSync(root + '/count', String(count + 1));
        round += 1;
      });
    } catch (error) {
      if (error.code !== 'locked') throw error;
    }
    await pause(5);
  }`;

test(`${RACERS} processes at once after an owner that died: never two inside, and each gets its turns`, async (t) => {
  const root = temporaryFolder(t);
  writeFileSync(join(root, 'count'), '0');
  leaveLock(root, { pid: NOBODY });
  const racers = await Promise.all(Array.from({ length: RACERS }, () => runScript(RACER, [root])));
  for (const { code, stderr } of racers) assert.equal(code, 0, stderr);
  assert.equal(readFileSync(join(root, 'count'), 'utf8'), String(RACERS * ROUNDS));
});
