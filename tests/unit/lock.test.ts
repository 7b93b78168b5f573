// One task at a time: of many that start together one runs, and a dead owner stops nobody.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { withLock } from '../../tasks/lib/lock.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const SELF = {
  pid: process.pid,
  host: hostname(),
  user: 'somebody',
  task: 'release',
  since: '2026-01-01T00:00:00.000Z',
  startTime: null as string | null,
};

function folder(t: TestContext): string {
  const root = mkdtempSync(join(tmpdir(), 'lock-test-'));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  return root;
}

test('what a killed run left half-written is gone once the next one has the lock; other files stay', async (t) => {
  const root = folder(t);
  const half = ['.synapse/.owner.json', '.synapse/journal/.release.json', '.env'].map((path) =>
    path === '.env' ? '..env.0123456789ab.partial' : `${path}.0123456789ab.partial`,
  );
  const others = [
    '.synapse/.samples.jsonl.0123456789ab.partial',
    '.mine.partial',
    '.synapse/journal/release.json',
  ];
  mkdirSync(join(root, '.synapse/journal'), { recursive: true });
  for (const path of [...half, ...others]) writeFileSync(join(root, path), 'half');
  await withLock(root, 'test', async () => {});
  assert.deepEqual(
    half.filter((path) => existsSync(join(root, path))),
    [],
  );
  assert.deepEqual(
    others.filter((path) => !existsSync(join(root, path))),
    [],
  );
});

/** A lock as its owner would have left it. */
function leaveLock(root: string, owner: typeof SELF): void {
  mkdirSync(join(root, '.synapse/task.lock'), { recursive: true });
  writeFileSync(join(root, '.synapse/owner.json'), JSON.stringify(owner));
}

/** A pid that no process has: the kernel's own limit is below it. */
const NOBODY = 2 ** 22 + 1;

test('a live owner keeps its lock, and the refusal says who it is', async (t) => {
  const root = folder(t);
  leaveLock(root, SELF);
  await assert.rejects(
    withLock(root, 'switch-env', async () => {}),
    {
      code: 'locked',
      message: `Cannot start switch: release runs since ${SELF.since} (pid ${SELF.pid}, somebody@${SELF.host})`,
    },
  );
});

test('the lock of a dead owner is taken over at once, also when its pid was given to another process', async (t) => {
  for (const owner of [
    { ...SELF, pid: NOBODY },
    { ...SELF, startTime: '1' },
  ]) {
    const root = folder(t);
    leaveLock(root, owner);
    assert.equal(await withLock(root, 'switch-env', async () => 'ran'), 'ran');
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
  const root = folder(t);
  leaveLock(root, { ...SELF, pid });
  await assert.rejects(
    withLock(root, 'switch-env', async () => {}),
    { code: 'locked' },
    'it still lives',
  );
  setTimeout(() => process.kill(pid, 'SIGKILL'), 200);
  assert.equal(await withLock(root, 'switch-env', async () => 'ran'), 'ran', 'it was dying');
  assert.match(readFileSync(`/proc/${pid}/stat`, 'utf8'), /\) Z /);
  leaveLock(root, { ...SELF, pid });
  assert.equal(await withLock(root, 'switch-env', async () => 'ran'), 'ran', 'it is a zombie');
});

test('an owner on another machine cannot be looked at: its fresh lock stands', async (t) => {
  const root = folder(t);
  leaveLock(root, { ...SELF, pid: NOBODY, host: 'elsewhere' });
  await assert.rejects(
    withLock(root, 'switch-env', async () => {}),
    { code: 'locked' },
  );
});

test('the lock is given back when the work is done, and when it fails', async (t) => {
  const root = folder(t);
  await assert.rejects(
    withLock(root, 'release', async () => {
      throw new Error('broken');
    }),
    /broken/,
  );
  assert.equal(await withLock(root, 'release', async () => 'again'), 'again');
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
  const root = folder(t);
  writeFileSync(join(root, 'count'), '0');
  leaveLock(root, { ...SELF, pid: NOBODY });
  const exits = await Promise.all(
    Array.from({ length: RACERS }, () => {
      const child = spawn(
        process.execPath,
        ['--import', 'tsx/esm', '--input-type=module', '--eval', RACER, root],
        {
          cwd: ROOT,
          stdio: ['ignore', 'ignore', 'pipe'],
        },
      );
      let stderr = '';
      child.stderr.on('data', (chunk: Buffer) => {
        stderr += chunk;
      });
      return new Promise((resolve) => child.on('close', (code) => resolve(code === 0 ? 0 : stderr)));
    }),
  );
  assert.deepEqual(exits, Array(RACERS).fill(0));
  assert.equal(readFileSync(join(root, 'count'), 'utf8'), String(RACERS * ROUNDS));
});
