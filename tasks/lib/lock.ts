// One task at a time in one project: a lock with an owner and a heartbeat (proper-lockfile). A second run says who
// holds it; the lock of a dead owner is taken over at once, and what that one left running is ended.
import { chmod, mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { hostname, userInfo } from 'node:os';
import lockfile, { type LockOptions } from 'proper-lockfile';
import { z } from 'zod';
import { TaskError } from './errors.ts';
import { ensureStateDirectory, readLines, removeLeftovers, replaceFile, statePath } from './files.ts';
import { log } from './log.ts';
import { pause, session } from './session.ts';

const STALE_MS = 10_000;
/** A process that was just killed lives on for some milliseconds. */
const DYING_MS = 1_000;

const ownerSchema = z.object({
  pid: z.number(),
  host: z.string(),
  user: z.string(),
  task: z.string(),
  /** ISO 8601, UTC. */
  since: z.string(),
  /** Start time of the process as the kernel gives it, to tell a reused pid; null where it is unknown. */
  startTime: z.string().nullable(),
});
type LockOwner = z.output<typeof ownerSchema>;

/**
 * Runs `work` while holding the project's lock, and for work on an engine the one that all checkouts of this compose
 * project share there (`shared`, a folder); a dry run needs none. @throws TaskError if another task holds one of them
 */
export async function withLock<T>(
  root: string,
  task: string,
  work: () => Promise<T>,
  shared?: string,
): Promise<T> {
  if (session.dryRun || held.has(root)) return work();
  const isPart = await isPartOfOwner(root);
  const release = isPart ? async () => {} : await acquire(root, task);
  // From now on every process that this one starts carries the mark.
  process.env[RUN_MARK] = `${root}#${process.pid}`;
  held.add(root);
  try {
    const releaseShared = shared ? await acquireShared(shared, task) : undefined;
    return await work().finally(() => releaseShared?.());
  } finally {
    held.delete(root);
    await release();
  }
}

/** Users of other checkouts may be others: each may take it. */
async function acquireShared(folder: string, task: string): Promise<() => Promise<void>> {
  const made = await mkdir(statePath(folder), { recursive: true });
  if (made) for (const path of [folder, statePath(folder)]) await chmod(path, 0o777);
  return acquire(folder, task);
}

/** The projects whose lock this process has. */
const held = new Set<string>();

/** The task that holds the project's lock and is at work; undefined if none is. */
export async function runningTask(root: string): Promise<LockOwner | undefined> {
  const owner = await readOwner(root);
  return owner && (await isAlive(owner)) ? owner : undefined;
}

async function readOwner(root: string): Promise<LockOwner | undefined> {
  return (await readLines(root, 'owner.json', ownerSchema))[0];
}

async function isAlive({ pid, host, startTime }: LockOwner): Promise<boolean> {
  if (host !== hostname()) return true;
  const found = await processStat(pid);
  if (!found) return false;
  return startTime === null || found.startTime === undefined || found.startTime === startTime;
}

/**
 * What the kernel says of a process, undefined if it has ended; a zombie that nobody has waited for yet has. The start
 * time is in clock ticks since boot, undefined off Linux. (proc(5), /proc/PID/stat, fields 3 and 22.)
 */
async function processStat(pid: number): Promise<{ startTime: string | undefined } | undefined> {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return undefined;
  }
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  // Behind the program's name, which may have blanks and parentheses.
  const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields && 'ZX'.includes(fields[0]!) ? undefined : { startTime: fields?.[19] };
}

/** Takes the lock from nobody or from a dead owner; returns how to give it back. @throws TaskError `locked` */
async function acquire(root: string, task: string): Promise<() => Promise<void>> {
  await ensureStateDirectory(root);
  for (const began = Date.now(); ; await pause(50)) {
    const release = await attempt(root, task);
    if (release) return release;
    if (Date.now() - began < DYING_MS) continue;
    const owner = await readOwner(root);
    const who = owner
      ? `${owner.task} runs since ${owner.since} (pid ${owner.pid}, ${owner.user}@${owner.host})`
      : 'its lock is held';
    throw new TaskError(`Cannot start ${task}: ${who}`, {
      code: 'locked',
      hint: 'wait for it to end; the lock of a process that died is taken over by itself',
    });
  }
}

/**
 * Looking at the owner, taking the lock and writing the new owner happen under a second, short lock: of two tasks that
 * find a dead owner's lock only one takes it over, and neither sees it without an owner. Undefined if another task has it.
 */
async function attempt(root: string, task: string): Promise<(() => Promise<void>) | undefined> {
  const retries = { retries: 60, minTimeout: 20, maxTimeout: 250 };
  const releaseGuard = await lockPath(root, 'guard', { retries });
  try {
    const owner = await readOwner(root);
    if (owner && !(await isAlive(owner))) {
      log.warn(`${owner.task} (pid ${owner.pid}) died without finishing; taking over its lock`);
      await rm(statePath(root, 'task.lock'), { recursive: true, force: true });
      await stopOrphans(root);
    }
    const onCompromised = (error: Error) => log.warn(`the lock was lost: ${error.message}`);
    const release = await lockPath(root, 'task', { onCompromised }).catch((error: { code?: string }) => {
      if (error.code !== 'ELOCKED') throw error;
    });
    if (!release) return undefined;
    await removeLeftovers(root);
    await replaceFile(statePath(root, 'owner.json'), JSON.stringify(await self(task)));
    return async () => {
      await rm(statePath(root, 'owner.json'), { force: true });
      await release().catch((error: Error) => log.warn(`could not release the lock: ${error.message}`));
    };
  } finally {
    await releaseGuard();
  }
}

async function self(task: string): Promise<LockOwner> {
  const startTime = (await processStat(process.pid))?.startTime ?? null;
  const who = { pid: process.pid, host: hostname(), user: userInfo().username };
  return { ...who, task, since: new Date().toISOString(), startTime };
}

function lockPath(root: string, name: string, options: LockOptions): Promise<() => Promise<void>> {
  const common = { realpath: false, stale: STALE_MS, update: STALE_MS / 5 };
  return lockfile.lock(statePath(root, name), { ...common, ...options });
}

/** Environment variable that names the run a process belongs to: `ROOT#PID`. */
const RUN_MARK = 'RELEASE_FLOW_RUN';
/** Environment variable of a task that another task runs as a part of its own work: `ROOT#PID` of that one. */
const PART_MARK = 'RELEASE_FLOW_PART';

/** For the environment of a task that works under the lock of this one. */
export function partMark(root: string): Record<string, string> {
  return { [PART_MARK]: `${root}#${process.pid}` };
}

/** True for a task that the owner of the lock has started as a part of its own work, and waits for. */
async function isPartOfOwner(root: string): Promise<boolean> {
  const [markedRoot, pid] = process.env[PART_MARK]?.split(/#(?=\d+$)/) ?? [];
  // Our own children shall not take themselves for parts.
  delete process.env[PART_MARK];
  return markedRoot === root && (await runningTask(root))?.pid === Number(pid);
}

const GIT_WAIT_MS = 30_000;
/** Only what we start ourselves and can repeat; a check or a hook of the user's may have started anything. */
const STOPPABLE = /^(docker|docker-buildx|docker-compose|tar)$/;

/**
 * Ends what a killed run left running in this project: its docker and git processes outlive it and could still load an
 * image or write a ref while the next run works. Docker's clients are killed, which makes the engine drop their work;
 * git is waited for: a killed git leaves lock files behind. Call it holding the lock.
 */
async function stopOrphans(root: string): Promise<void> {
  for (const deadline = Date.now() + GIT_WAIT_MS; ; await pause(50)) {
    const found = await orphans(root);
    const stoppable = found.filter(({ name, isTask }) => isTask || STOPPABLE.test(name));
    const git = found.filter(({ name }) => name.startsWith('git'));
    if (stoppable.length + git.length === 0) return;
    for (const { pid, name } of stoppable) {
      log.detail(`ending ${name} (pid ${pid}), which the interrupted run left`);
      kill(pid, 'SIGKILL');
    }
    if (Date.now() < deadline) continue;
    log.warn(`git of the interrupted run still works: pid ${git.map(({ pid }) => pid).join(', ')}`);
    return;
  }
}

/** Signals a process that may just have ended by itself. */
export function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has.
  }
}

interface Orphan {
  pid: number;
  name: string;
  /** A whole task of ours, which can be killed at any moment. */
  isTask: boolean;
}

/**
 * Processes of runs in this project whose own process is gone. They are known by a mark in their environment that was
 * set before they started, so that there is no moment in which one of them is unknown. Linux only; elsewhere none.
 */
async function orphans(root: string): Promise<Orphan[]> {
  const pids = (await readdir('/proc').catch(() => [])).filter((name) => /^\d+$/.test(name)).map(Number);
  const found = await Promise.all(
    pids.map(async (pid): Promise<Orphan[]> => {
      const environment = await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '');
      const entries = environment.split('\0');
      const mark = entries.find((entry) => entry.startsWith(`${RUN_MARK}=${root}#`));
      const owner = Number(mark?.slice(mark.lastIndexOf('#') + 1));
      if (!mark || pid === process.pid || (await processStat(owner))) return [];
      const name = (await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '')).trim();
      const isTask = entries.some((entry) => entry.startsWith(`${PART_MARK}=${root}#`));
      return name ? [{ pid, name, isTask }] : [];
    }),
  );
  return found.flat();
}
