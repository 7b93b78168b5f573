// Measures the downtime of a switch as a client would see it: asks the environments all the time while it goes on.
import { setMaxListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { queryHealth } from '../docker/health.ts';
import type { HttpAddress } from '../http.ts';

/** One request: when it was sent and when it was over, in milliseconds, and whether anybody answered. */
export interface Sample {
  asked: number;
  over: number;
  answered: boolean;
}

const EVERY_MS = 50;
const REQUEST_TIMEOUT_MS = 1000;

/** A failed request says how it was when it was sent, an answer how it was when it came: it may have waited. */
const timeOf = ({ asked, over, answered }: Sample) => (answered ? over : asked);

/** Whole milliseconds in which none of the ports answered, between the first answer and the last one of any. Pure. */
export function downtimeOf(ports: readonly (readonly Sample[])[]): number {
  const samples = ports.flatMap((own, port) => own.map((sample) => ({ ...sample, port })));
  const up = new Set<number>();
  let [since, sum] = [Number.NaN, 0];
  for (const sample of samples.sort((a, b) => timeOf(a) - timeOf(b))) {
    const wasUp = up.size > 0;
    if (sample.answered) up.add(sample.port);
    else up.delete(sample.port);
    if (wasUp && up.size === 0) since = timeOf(sample);
    else if (!wasUp && up.size > 0 && !Number.isNaN(since)) sum += timeOf(sample) - since;
  }
  return Math.round(sum);
}

/**
 * Asks every few milliseconds, whether the last request is over or not: one that hangs, which happens at a port whose
 * container is just starting, must not hide that the next would be answered.
 */
async function probe(address: HttpAddress, stop: AbortSignal, samples: Sample[]): Promise<void> {
  const ask = async () => {
    const asked = performance.now();
    const { status } = await queryHealth(address, REQUEST_TIMEOUT_MS, stop);
    if (!stop.aborted) samples.push({ asked, over: performance.now(), answered: status !== 0 });
  };
  while (!stop.aborted) {
    void ask();
    await sleep(EVERY_MS);
  }
}

export interface Probing {
  /** Milliseconds of downtime until now: by name, and as `any` those in which nobody answered at all. */
  gaps: () => Record<string, number>;
  stop: () => Promise<void>;
}

/** Asks every address until it is stopped. */
export function startProbing(addresses: Record<string, HttpAddress>): Probing {
  const stop = new AbortController();
  // As many listeners as there are requests under way.
  setMaxListeners(0, stop.signal);
  const ports = Object.entries(addresses).map(([name, address]) => ({
    name,
    address,
    samples: [] as Sample[],
  }));
  const probing = ports.map(({ address, samples }) => probe(address, stop.signal, samples));
  return {
    gaps: () => {
      const answering = ports.filter(({ samples }) => samples.some(({ answered }) => answered));
      const own = answering.map(({ name, samples }) => [name, downtimeOf([samples])]);
      return { ...Object.fromEntries(own), any: downtimeOf(ports.map(({ samples }) => samples)) };
    },
    stop: async () => {
      stop.abort();
      await Promise.all(probing);
    },
  };
}
