// A backup that a timer starts must not fail because a release happens to run: it waits its turn for a while.
import { TaskError } from '../errors.ts';
import { pause } from '../interrupt.ts';
import { withLock } from '../lock.ts';
import { log } from '../log.ts';

const POLL_MS = 2000;

/** As withLock, but waits up to `seconds` for whoever holds it. @throws TaskError `locked` after that */
export async function withLockWithin<T>(root: string, task: string, seconds: number, work: () => Promise<T>) {
  const deadline = Date.now() + seconds * 1000;
  let told = false;
  for (;;) {
    let began = false;
    try {
      return await withLock(root, task, () => {
        began = true;
        return work();
      });
    } catch (error) {
      const isHeld = !began && error instanceof TaskError && error.code === 'locked';
      if (!isHeld || Date.now() >= deadline) throw error;
      if (!told) log.info(`${error.message}; waiting up to ${seconds} s`);
      told = true;
      await pause(POLL_MS);
    }
  }
}
