// Whether a prod that is not well is restarted: once in a bout of illness, and never more than once an hour, so
// that a service which dies of its data is not killed by its nurse. Pure.
import type { Container } from '../docker/containers.ts';
import type { Sample } from './uptime.ts';

const SECOND = 1000;
const HOUR = 3600 * SECOND;
/** One bad answer may be a busy moment; Docker's own verdict has had its retries. */
const PATIENCE = 45 * SECOND;

export interface HealingCase {
  /** What was recorded before, oldest first. */
  samples: readonly Sample[];
  /** How prod is now. */
  sample: Sample;
  container: Pick<Container, 'state' | 'health'> | undefined;
}

/** Undefined when prod is well, or not meant to run. */
export function decideHealing({ samples, sample, container }: HealingCase) {
  if (sample.prod !== 'down') return undefined;
  const no = (reason: string) => ({ restart: false, reason });
  if (!container) return no('there is no container to restart');
  if (container.state === 'restarting') return no('Docker is restarting it already');
  if (container.health === 'starting') return no('it is still starting');
  const now = Date.parse(sample.at);
  const past = samples.filter(({ at }) => Date.parse(at) <= now);
  const bout = past.slice(past.findLastIndex(({ prod }) => prod !== 'down') + 1);
  if (bout.some(({ healed }) => healed)) return no('it was restarted before and has not been well since');
  if (past.some(({ at, healed }) => healed && Date.parse(at) > now - HOUR)) {
    return no('it was restarted less than an hour ago');
  }
  const certain = container.state !== 'running' || container.health === 'unhealthy';
  const since = Date.parse(bout[0]?.at ?? sample.at);
  if (!certain && now - since < PATIENCE)
    return no('it may be a moment: restarted if it is so at the next sample');
  return { restart: true, reason: 'not well' };
}
