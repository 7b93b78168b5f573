// What the command line chose for this process: set once by task.ts. Dry runs are honoured by one gate, `log.withhold`.
import { AsyncLocalStorage } from 'node:async_hooks';
import { setMaxListeners } from 'node:events';
import { setTimeout } from 'node:timers/promises';
import { InterruptedError } from './errors.ts';

export interface Session {
  dryRun: boolean;
  /** A dry run has printed something that it would have done. */
  withheld: boolean;
  verbose: boolean;
  /** `--quiet`: only warnings and errors. */
  quiet: boolean;
  json: boolean;
  /** `--yes`: questions answer themselves. */
  assumeYes: boolean;
  /** `--context`: the Docker context of the engine to work on; undefined is the client's own choice. */
  context: string | undefined;
  /** A socket that leads to that context's engine through a login that is open already (docker/remote.ts). */
  engineSocket: string | undefined;
}

export const session: Session = {
  dryRun: false,
  withheld: false,
  verbose: false,
  quiet: false,
  json: false,
  assumeYes: false,
  context: undefined,
  engineSocket: undefined,
};

// Ctrl-C and SIGTERM as a value: the task stops at the next safe place instead of dying half-way.
// Undoing and the few steps that must not be cut in half run inside `uninterrupted`.

const controller = new AbortController();
// Every running process listens to it, and a task may well run a dozen at once.
setMaxListeners(0, controller.signal);
const shielded = new AsyncLocalStorage<boolean>();

/** Asks the running task to stop; called by the signal handlers of task.ts. */
export function interrupt(signal: 'SIGINT' | 'SIGTERM'): void {
  controller.abort(new InterruptedError(signal));
}

/** The signal that a process or a wait should listen to, or undefined inside `uninterrupted`. */
export function interruptSignal(): AbortSignal | undefined {
  return shielded.getStore() ? undefined : controller.signal;
}

/** @throws InterruptedError if a signal came, unless called inside `uninterrupted`. */
export function throwIfInterrupted(): void {
  interruptSignal()?.throwIfAborted();
}

/** Runs `work` to its end whatever signals come; the signal takes effect afterwards. */
export function uninterrupted<T>(work: () => Promise<T>): Promise<T> {
  return shielded.run(true, work);
}

/** Waits `ms` milliseconds. @throws InterruptedError as soon as a signal comes. */
export async function pause(ms: number): Promise<void> {
  throwIfInterrupted();
  await setTimeout(ms, undefined, { signal: interruptSignal() }).catch(() => {});
  throwIfInterrupted();
}

/**
 * The one wait loop: asks until there is an answer, at first every `everyMs`, then ever more slowly up to ten times that.
 * Returns undefined when `withinMs` is over. @throws InterruptedError, and what `ask` throws
 */
export async function waitUntil<T>(
  ask: () => Promise<T | undefined>,
  { withinMs, everyMs = 100 }: { withinMs: number; everyMs?: number },
): Promise<T | undefined> {
  const deadline = Date.now() + withinMs;
  for (let delay = everyMs; ; delay = Math.min(delay * 1.2, everyMs * 10)) {
    const answer = await ask();
    if (answer !== undefined || Date.now() >= deadline) return answer;
    await pause(Math.min(delay, Math.max(1, deadline - Date.now())));
  }
}
