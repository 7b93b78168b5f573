// What a switch took, in words: the phases, and how long nobody answered.
import { log } from '../log.ts';
import { logPhases } from '../phases.ts';
import { session } from '../session.ts';
import type { SwitchReport } from './switching.ts';

/** `✓ create prod 0.3 s, …` and `✓ nobody answered on prod for 412 ms`; nothing after a dry run. */
export function logReport({ phases, gaps }: SwitchReport): void {
  if (session.dryRun) return;
  logPhases(phases);
  const { any, ...ports } = gaps;
  const parts = Object.entries(ports).map(([name, ms]) => `${name} ${ms} ms`);
  if (parts.length > 0)
    log.done(`without an answer: ${parts.join(', ')}; no environment answered: ${any} ms`);
}
