// Asks the environments all the time while a switch goes on, and tells how long nobody answered:
// what a client would have seen, measured and not estimated.

import { setMaxListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { askHealth } from '../docker/health.ts';
import type { HttpAddress } from '../http.ts';

/** One question: when it was asked and when it was over, in milliseconds, and whether anybody answered. */
export interface Answered {
  asked: number;
  over: number;
  answered: boolean;
}

type Interval = [from: number, to: number];

const EVERY_MS = 50;
const REQUEST_TIMEOUT_MS = 1000;

/** When a port did not answer although it did before and after: from the first refusal to the next answer. Pure. */
export function gapsOf(samples: readonly Answered[]): Interval[] {
  const first = samples.findIndex(({ answered }) => answered);
  return first < 0 ? [] : outages(samples.slice(first)).filter(([, to]) => to !== Number.POSITIVE_INFINITY);
}

/** When a port did not answer, by samples in the order of what they tell; an open end lasts for ever. */
function outages(samples: readonly Answered[]): Interval[] {
  const found: Interval[] = [];
  let since: number | undefined;
  for (const { asked, over, answered } of samples) {
    if (!answered) since ??= asked;
    else if (since !== undefined) {
      found.push([since, over]);
      since = undefined;
    }
  }
  return since === undefined ? found : [...found, [since, Number.POSITIVE_INFINITY]];
}

/** When none of the ports answered, between the first answer and the last one of any. Pure. */
export function allDownOf(series: readonly (readonly Answered[])[]): Interval[] {
  const answers = series.flat().filter(({ answered }) => answered);
  if (answers.length === 0) return [];
  const begin = Math.min(...answers.map(({ over }) => over));
  const end = Math.max(...answers.map(({ over }) => over));
  const all = series.map((samples) =>
    samples.length > 0 ? outages(samples) : ([[0, Number.POSITIVE_INFINITY]] as Interval[]),
  );
  const common = all.reduce((a, b) => a.flatMap((x) => b.flatMap((y) => overlap(x, y))));
  return common.flatMap((interval) => overlap(interval, [begin, end]));
}

function overlap([a, b]: Interval, [c, d]: Interval): Interval[] {
  const [from, to] = [Math.max(a, c), Math.min(b, d)];
  return from < to ? [[from, to]] : [];
}

/** Milliseconds, whole. */
export function total(intervals: readonly Interval[]): number {
  return Math.round(intervals.reduce((sum, [from, to]) => sum + to - from, 0));
}

/** A question that fails tells of the moment it was asked, an answer of the moment it came: it may have waited. */
function toldAt({ asked, over, answered }: Answered): number {
  return answered ? over : asked;
}

/**
 * Asks every few milliseconds until told to stop, whether the last question is over or not: one that hangs,
 * which happens at a port whose container is just starting, must not hide that the next would be answered.
 */
async function probe(address: HttpAddress, stop: AbortSignal, samples: Answered[]): Promise<void> {
  const ask = async () => {
    const asked = performance.now();
    const { status } = await askHealth(address, REQUEST_TIMEOUT_MS, stop);
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
  // As many listeners as there are questions under way.
  setMaxListeners(0, stop.signal);
  const series = Object.keys(addresses).map((name): [string, Answered[]] => [name, []]);
  const probing = series.map(([name, samples]) => probe(addresses[name]!, stop.signal, samples));
  return {
    gaps: () => {
      const sorted = series.map(
        ([name, samples]) => [name, samples.toSorted((a, b) => toldAt(a) - toldAt(b))] as const,
      );
      const answering = sorted.filter(([, samples]) => samples.some(({ answered }) => answered));
      const own = answering.map(([name, samples]) => [name, total(gapsOf(samples))]);
      return { ...Object.fromEntries(own), any: total(allDownOf(sorted.map(([, samples]) => samples))) };
    },
    stop: async () => {
      stop.abort();
      await Promise.all(probing);
    },
  };
}
