// How long a switch may take at worst, from what the health check allows and how the last boot went: told
// beforehand, since 30 seconds are what a switch is allowed.
import type { ComposeService } from '../docker/compose-schema.ts';
import { readHistory } from '../journal.ts';
import type { EnvironmentName, Project } from '../project.ts';
import type { SwitchStep } from './plan.ts';

export const SWITCH_SECONDS = 30;

/** The engine's own defaults, where neither compose file nor image say otherwise. */
const DEFAULT = { interval: 30_000, timeout: 30_000, startInterval: 5_000 };

/**
 * Seconds until a service counts as healthy at worst: its boot, then the wait for the next check, and that
 * check's full patience; plus the grace in which the container before it may stop. Pure.
 */
export function worstCase(
  service: ComposeService,
  bootSeconds: number | undefined,
  replaces: boolean,
): number {
  const { interval, timeout, startInterval, startPeriod } = service.health;
  const rhythm = startPeriod ? (startInterval ?? DEFAULT.startInterval) : (interval ?? DEFAULT.interval);
  const boot = (bootSeconds ?? 0) * 1000;
  const stop = replaces ? service.stopGrace : 0;
  return (boot + rhythm + (timeout ?? DEFAULT.timeout) + stop) / 1000;
}

/** Seconds that the environment's last start took until it was healthy. */
async function lastBoot(project: Project, name: EnvironmentName): Promise<number | undefined> {
  const entry = (await readHistory(project.root)).findLast(
    ({ task, phases }) => task === 'switch' && phases?.[`healthy ${name}`] !== undefined,
  );
  return entry?.phases?.[`healthy ${name}`];
}

/** The sentences of warning that a plan deserves. */
export async function slowStarts(
  project: Project,
  services: Record<EnvironmentName, ComposeService>,
  steps: readonly SwitchStep[],
): Promise<string[]> {
  const warnings = steps.map(async (step) => {
    if (step.kind !== 'start') return [];
    const { environment: name, how } = step;
    const seconds = worstCase(services[name], await lastBoot(project, name), how === 'replace');
    if (seconds <= SWITCH_SECONDS) return [];
    return [
      `${name} may take ${seconds.toFixed(0)} s at worst, by its health check and its last start (allowed: ${SWITCH_SECONDS} s); a shorter start_interval or timeout in the compose file helps`,
    ];
  });
  return (await Promise.all(warnings)).flat();
}
