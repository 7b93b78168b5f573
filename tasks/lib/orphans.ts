// What a killed run left running: its docker and git processes outlive it and could still load an image or
// write a ref while the next run works. They are told by a mark in their environment, set before they start,
// so that there is no moment in which one of them is unknown.
import { readdir, readFile } from 'node:fs/promises';
import { kill } from './child-process.ts';
import { log } from './log.ts';

/** Environment variable that names the run a process belongs to: `ROOT#PID`. */
const RUN_MARK = 'RELEASE_FLOW_RUN';

const GIT_WAIT_MS = 30_000;
/** Only what we start ourselves and can repeat; a check or a hook of the user's may have started anything. */
const STOPPABLE = /^(docker|docker-buildx|docker-compose|tar)$/;

/** From now on every process that this one starts carries the mark. */
export function markRun(root: string): void {
  process.env[RUN_MARK] = `${root}#${process.pid}`;
}

/** Environment variable of a task that another task runs as a part of its own work: `ROOT#PID` of that one. */
const PART_MARK = 'RELEASE_FLOW_PART';

/** For the environment of a task that works under the lock of this one. */
export function partMark(root: string): Record<string, string> {
  return { [PART_MARK]: `${root}#${process.pid}` };
}

/** The pid of the task that this one is a part of; its own children shall not take themselves for parts. */
export function takePart(root: string): number | undefined {
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

function isAlive(pid: number): boolean {
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
      if (!mark || Number(pid) === process.pid || isAlive(owner)) return [];
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
export async function stopOrphans(root: string): Promise<void> {
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
