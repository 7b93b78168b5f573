// One task at a time in one project: a lock with an owner and a heartbeat (proper-lockfile). A second run
// says who holds it; the lock of a dead owner is taken over at once.
import { readdir, readFile, rm } from 'node:fs/promises';
import { hostname, userInfo } from 'node:os';
import lockfile, { type LockOptions } from 'proper-lockfile';
import { TaskError } from './errors.ts';
import { ensureStateDirectory, readIfPresent, removeHalfWritten, replaceFile, statePath } from './files.ts';
import { log } from './log.ts';
import { session } from './session.ts';

const STALE_MS = 10_000;

interface LockOwner {
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

// What a killed run left running: its docker and git processes outlive it and could still load an image or
// write a ref while the next run works. They are told by a mark in their environment, set before they start,
// so that there is no moment in which one of them is unknown.

/** Environment variable that names the run a process belongs to: `ROOT#PID`. */
const RUN_MARK = 'RELEASE_FLOW_RUN';

const GIT_WAIT_MS = 30_000;
/** Only what we start ourselves and can repeat; a check or a hook of the user's may have started anything. */
const STOPPABLE = /^(docker|docker-buildx|docker-compose|tar)$/;

/** From now on every process that this one starts carries the mark. */
function markRun(root: string): void {
  process.env[RUN_MARK] = `${root}#${process.pid}`;
}

/** Environment variable of a task that another task runs as a part of its own work: `ROOT#PID` of that one. */
const PART_MARK = 'RELEASE_FLOW_PART';

/** For the environment of a task that works under the lock of this one. */
export function partMark(root: string): Record<string, string> {
  return { [PART_MARK]: `${root}#${process.pid}` };
}

/** The pid of the task that this one is a part of; its own children shall not take themselves for parts. */
function takePart(root: string): number | undefined {
  const [owner, pid] = process.env[PART_MARK]?.split(/#(?=\d+$)/) ?? [];
  delete process.env[PART_MARK];
  return owner === root ? Number(pid) : undefined;
}

interface Orphan {
  pid: number;
  name: string;
  /** A whole task of ours, which can be killed at any moment. */
  isTask: boolean;
}

function pidExists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Processes of runs in this project whose own process is gone. Linux only; elsewhere none are found. */
async function orphans(root: string): Promise<Orphan[]> {
  const pids = (await readdir('/proc').catch(() => [])).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid): Promise<Orphan[]> => {
      const environment = await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '');
      const entries = environment.split('\0');
      const mark = entries.find((entry) => entry.startsWith(`${RUN_MARK}=${root}#`));
      const owner = Number(mark?.slice(mark.lastIndexOf('#') + 1));
      if (!mark || Number(pid) === process.pid || pidExists(owner)) return [];
      const name = (await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '')).trim();
      const isTask = entries.some((entry) => entry.startsWith(`${PART_MARK}=${root}#`));
      return name ? [{ pid: Number(pid), name, isTask }] : [];
    }),
  );
  return found.flat();
}

/**
 * Ends what a killed run left running in this project. Docker's clients are killed, which makes the engine
 * drop their work; git is waited for: a killed git leaves lock files behind. Call it holding the lock.
 */
async function stopOrphans(root: string): Promise<void> {
  const deadline = Date.now() + GIT_WAIT_MS;
  for (;;) {
    const mayStop = ({ name, isTask }: Orphan) => isTask || STOPPABLE.test(name);
    const left = (await orphans(root)).filter((one) => mayStop(one) || one.name.startsWith('git'));
    if (left.length === 0) return;
    for (const { pid, name } of left.filter(mayStop)) {
      log.detail(`ending ${name} (pid ${pid}), which the interrupted run left`);
      kill(pid, 'SIGKILL');
    }
    if (Date.now() > deadline) {
      log.warn(`git of the interrupted run still works: pid ${left.map(({ pid }) => pid).join(', ')}`);
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Signals a process, or by a negative id the whole group that it leads. */
export function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has just ended by itself.
  }
}
