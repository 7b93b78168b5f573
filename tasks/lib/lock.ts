// One task at a time in one project: a lock with an owner and a heartbeat (proper-lockfile). A second run
// says who holds it; the lock of a dead owner is taken over at once.
import { rm } from 'node:fs/promises';
import { hostname, userInfo } from 'node:os';
import type { LockOptions } from 'proper-lockfile';
import { TaskError } from './errors.ts';
import { readIfPresent, removeHalfWritten, replaceFile } from './files.ts';
import { log } from './log.ts';
import { markRun, stopOrphans, takePart } from './orphans.ts';
import { session } from './session.ts';
import { ensureStateDirectory, statePath } from './state.ts';

const STALE_MS = 10_000;

export interface LockOwner {
  pid: number;
  host: string;
  user: string;
  task: string;
  /** ISO 8601, UTC. */
  since: string;
  /** Start time of the process as the kernel gives it, to tell a reused pid; null where it is unknown. */
  startTime: string | null;
}

/** Field 22 of /proc/PID/stat (proc(5)): start time in clock ticks since boot; undefined off Linux. */
async function processStartTime(pid: number): Promise<string | undefined> {
  const stat = await readIfPresent(`/proc/${pid}/stat`).catch(() => undefined);
  return stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
}

export async function isAlive(owner: LockOwner): Promise<boolean> {
  if (owner.host !== hostname()) return true;
  try {
    process.kill(owner.pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
  const startTime = await processStartTime(owner.pid);
  return owner.startTime === null || startTime === undefined || startTime === owner.startTime;
}

export async function readOwner(root: string): Promise<LockOwner | undefined> {
  const text = await readIfPresent(statePath(root, 'owner.json'));
  try {
    return text ? (JSON.parse(text) as LockOwner) : undefined;
  } catch {
    return undefined;
  }
}

async function self(task: string): Promise<LockOwner> {
  return {
    pid: process.pid,
    host: hostname(),
    user: userInfo().username,
    task,
    since: new Date().toISOString(),
    startTime: (await processStartTime(process.pid)) ?? null,
  };
}

async function lockPath(root: string, name: string, options: LockOptions): Promise<() => Promise<void>> {
  const { default: lockfile } = await import('proper-lockfile');
  const common = { realpath: false, stale: STALE_MS, update: STALE_MS / 5 };
  return lockfile.lock(statePath(root, name), { ...common, ...options });
}

/** The lock itself, or undefined if another process has it. */
async function tryLock(root: string): Promise<(() => Promise<void>) | undefined> {
  try {
    return await lockPath(root, 'task', {
      onCompromised: (error) => log.warn(`the lock was lost: ${error.message}`),
    });
  } catch (error) {
    if ((error as { code?: string }).code === 'ELOCKED') return undefined;
    throw error;
  }
}

/**
 * Looking at the owner, taking the lock and writing the new owner happen under a second, short lock:
 * of two tasks that find a dead owner's lock only one takes it over, and neither sees it without an owner.
 */
async function acquire(root: string, task: string): Promise<() => Promise<void>> {
  const releaseGuard = await lockPath(root, 'guard', {
    retries: { retries: 60, minTimeout: 20, maxTimeout: 250 },
  });
  try {
    const owner = await readOwner(root);
    if (owner && !(await isAlive(owner))) {
      log.warn(`${owner.task} (pid ${owner.pid}) died without finishing; taking over its lock`);
      await rm(statePath(root, 'task.lock'), { recursive: true, force: true });
      await stopOrphans(root);
    }
    const release = await tryLock(root);
    if (!release) throw busy(task, owner);
    await removeHalfWritten(statePath(root), (name) => name === 'owner.json');
    await removeHalfWritten(statePath(root, 'journal'), () => true);
    await removeHalfWritten(root, (name) => name.startsWith('.env'));
    await replaceFile(statePath(root, 'owner.json'), JSON.stringify(await self(task)));
    return release;
  } finally {
    await releaseGuard();
  }
}

function busy(task: string, owner: LockOwner | undefined): TaskError {
  const who = owner
    ? `${owner.task} runs since ${owner.since} (pid ${owner.pid}, ${owner.user}@${owner.host})`
    : 'its lock is held';
  return new TaskError(`Cannot start ${task}: ${who}`, {
    code: 'locked',
    hint: 'wait for it to end; the lock of a process that died is taken over by itself',
  });
}

/** True for a task that the owner of the lock has started as a part of its own work, and waits for. */
async function isPartOfOwner(root: string): Promise<boolean> {
  const pid = takePart(root);
  const owner = pid === undefined ? undefined : await readOwner(root);
  return owner !== undefined && owner.pid === pid && (await isAlive(owner));
}

/** Runs `work` while holding the project's lock; a dry run needs none. @throws TaskError if it is held */
export async function withLock<T>(root: string, task: string, work: () => Promise<T>): Promise<T> {
  if (session.dryRun) return work();
  if (await isPartOfOwner(root)) {
    markRun(root);
    return work();
  }
  await ensureStateDirectory(root);
  const release = await acquire(root, task);
  markRun(root);
  try {
    return await work();
  } finally {
    await rm(statePath(root, 'owner.json'), { force: true });
    await release().catch((error: Error) => log.warn(`could not release the lock: ${error.message}`));
  }
}
