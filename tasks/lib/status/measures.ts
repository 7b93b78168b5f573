// The success measures with their present values: pure, from history, samples and what runs now.
import type { HistoryEntry } from '../journal.ts';
import type { Uptime } from './budget.ts';
import type { StatusFacts } from './facts.ts';
import { amount, duration, percent } from './format.ts';
import type { LastSwitch, Measure } from './reported.ts';
import { byHour } from './uptime.ts';

/** What the project promises: seconds, seconds, bytes. */
export const AIMS = { switch: 30, deploy: 300, memory: 3 * 1024 ** 3 } as const;

const isSwitch = ({ task }: HistoryEntry) => task === 'switch';

export function lastSwitch(history: readonly HistoryEntry[]): LastSwitch | null {
  const entry = history.findLast(isSwitch);
  if (!entry) return null;
  const { at, from, to, prod = null, seconds, outcome, phases = {}, gaps = {} } = entry;
  const silences = Object.entries(gaps).filter(([name]) => name === 'dev' || name === 'prod');
  return {
    at,
    from,
    to,
    prod,
    seconds,
    outcome,
    phases,
    silences: Object.fromEntries(silences.map(([name, milliseconds]) => [name, milliseconds / 1000])),
  };
}

/** Seconds of the switches that succeeded, oldest first, at most the last `count`. */
export function switchTimes(history: readonly HistoryEntry[], count = 30): { at: string; seconds: number }[] {
  return history.filter((entry) => isSwitch(entry) && entry.outcome === 'done').slice(-count);
}

/**
 * From commit to running: the last release plus the switch that first brought it to prod, or what the last
 * release took if none did yet.
 */
export function deployTime(
  history: readonly HistoryEntry[],
  prefix: string,
): { seconds: number; note: string } | null {
  const done = history.filter(({ outcome }) => outcome === 'done');
  const index = done.findLastIndex(({ task }) => task === 'release');
  const release = done[index];
  if (!release) return null;
  const tag = `${prefix}${release.to}`;
  const brought = done.slice(index + 1).find((entry) => isSwitch(entry) && entry.prod === tag);
  const seconds = release.seconds + (brought?.seconds ?? 0);
  return {
    seconds,
    note: brought ? `release and switch of ${tag}` : `release of ${tag}, not switched to yet`,
  };
}

/** The highest memory of any environment: the kernel's mark where it is told, else the highest sample. */
function peakMemory(facts: StatusFacts): { bytes: number | null; note: string } {
  const marks = Object.values(facts.usages).map(({ peak, memory }) => ({
    bytes: peak ?? memory,
    kernel: peak !== undefined,
  }));
  const sampled = byHour(facts.samples, +facts.at).flatMap(({ memory }) => Object.values(memory ?? {}));
  const all = [...marks, ...sampled.map((bytes) => ({ bytes, kernel: false }))];
  const top = all.sort((a, b) => b.bytes - a.bytes)[0];
  if (!top) return { bytes: null, note: 'nothing runs, nothing was sampled' };
  return {
    bytes: top.bytes,
    note: top.kernel ? 'highest since the container started, page cache included' : 'highest sample',
  };
}

/** Aims that a value has to stay below. */
function below(id: 'switch' | 'deploy' | 'memory', value: number | null, note: string): Measure {
  const aim = AIMS[id];
  const title = id === 'memory' ? 'peak memory' : id;
  const unit = id === 'memory' ? 'bytes' : 'seconds';
  return { id, title, value, aim, unit, reached: value === null ? null : value < aim, note };
}

export function measuresOf(facts: StatusFacts, uptime: Uptime, prefix: string): Measure[] {
  const last = switchTimes(facts.history, 1)[0];
  const deploy = deployTime(facts.history, prefix);
  const peak = peakMemory(facts);
  const { ratio, aim, days } = uptime;
  const reached = ratio === null ? null : ratio >= aim;
  return [
    below('switch', last?.seconds ?? null, last ? '' : 'no switch yet'),
    below('deploy', deploy?.seconds ?? null, deploy?.note ?? 'no release yet'),
    below('memory', peak.bytes, peak.note),
    {
      id: 'uptime',
      title: `prod uptime, ${days} d`,
      value: ratio,
      aim,
      unit: 'ratio',
      reached,
      note: describeBudget(uptime),
    },
  ];
}

/** How much of the error budget is left, and how much of the window was measured at all. */
export function describeBudget({ ratio, budget, up, down, off, unknown }: Uptime): string {
  if (ratio === null) return 'not measured yet: schedule `npm run status -- --record` (see --help)';
  const left =
    budget.left >= 0
      ? `error budget left: ${duration(budget.left)} of ${duration(budget.allowed)}`
      : `error budget overspent by ${duration(-budget.left)}`;
  return `${left}; measured ${percent((up + down + off) / (up + down + off + unknown))} of the time`;
}

/** `3.6 s`, `55 MB`, `99.98 %`. */
export function describeMeasure(value: number | null, unit: Measure['unit']): string {
  if (value === null) return '–';
  if (unit === 'bytes') return amount(value);
  return unit === 'ratio' ? percent(value) : duration(value);
}
