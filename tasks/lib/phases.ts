// How long each part of a task took: measured where it happens, printed and kept in the history.
import { log } from './log.ts';
import { session } from './session.ts';

/** Seconds per phase, in the order in which they ran. */
export type Phases = Record<string, number>;

export async function timed<T>(phases: Phases, name: string, work: () => Promise<T>): Promise<T> {
  const started = performance.now();
  try {
    return await work();
  } finally {
    phases[name] = Math.round(performance.now() - started) / 1000;
    log.detail(`${name}: ${phases[name]} s`);
  }
}

/** `✓ build 3.2 s, candidate 0.9 s`; a dry run took no time worth telling. */
export function logPhases(phases: Phases): void {
  if (session.dryRun) return;
  const parts = Object.entries(phases).map(([name, seconds]) => `${name} ${seconds.toFixed(1)} s`);
  log.done(parts.join(', '));
}
