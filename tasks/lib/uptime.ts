// How much of the time prod was up, from samples taken each minute: pure arithmetic on time stamps. What was not
// measured (the machine slept, cron did not run, the clock jumped) is neither up nor down, and is told.
import { appendFile } from 'node:fs/promises';
import { ensureStateDirectory, readIfPresent, replaceFile, statePath } from './files.ts';
import { log } from './log.ts';
import { session } from './session.ts';

export type ProdState = 'up' | 'down' | 'off';

export interface Sample {
  /** ISO 8601, UTC. */
  at: string;
  /** `off`: not meant to run. */
  prod: ProdState;
  /** Why it was down. */
  why?: string;
  /** Bytes in use. */
  memory?: Partial<Record<'dev' | 'prod', number>>;
  /** Prod was restarted because of this sample. */
  healed?: boolean;
}

/** What is left of an hour's samples: seconds of each state, the highest memory. */
export interface HourRow {
  /** Its first 13 characters: `2026-11-24T20`, UTC. */
  hour: string;
  up: number;
  down: number;
  off: number;
  memory?: Partial<Record<'dev' | 'prod', number>>;
}

export interface SampleLog {
  /** Oldest first; samples of these hours are gone, or counted no more. */
  hours: HourRow[];
  samples: Sample[];
}

interface Interval {
  from: number;
  to: number;
  sample: Sample;
}

const SECOND = 1000;
export const HOUR = 3600 * SECOND;
export const DAY = 24 * HOUR;
/** A sample speaks for the time until the next one, for this long at most: one may be missed. */
const LONGEST_SILENCE = 150 * SECOND;
/** Clocks are corrected by seconds all the time; what lies further ahead was written by a wrong one. */
const TOLERANCE = 5 * 60 * SECOND;

/** Milliseconds since 1970. */
export const hourStart = ({ hour }: HourRow) => Date.parse(`${hour}:00:00Z`);
const hourOf = (time: number) => new Date(time).toISOString().slice(0, 13);

/** The log without what a clock that was ahead has left. */
export function withoutFuture({ hours, samples }: SampleLog, now: number): SampleLog {
  return {
    hours: hours.filter((row) => hourStart(row) <= now + TOLERANCE),
    samples: samples.filter(({ at }) => Date.parse(at) <= now + TOLERANCE),
  };
}

/** The time that samples speak for, without overlaps, from the last counted hour to `now`. */
function intervals({ hours, samples }: SampleLog, now: number): Interval[] {
  const counted = hours.reduce((end, row) => Math.max(end, hourStart(row) + HOUR), 0);
  const sorted = samples
    .map((sample) => ({ sample, from: Date.parse(sample.at) }))
    .filter(({ from }) => !Number.isNaN(from))
    .sort((a, b) => a.from - b.from);
  return sorted
    .map(({ sample, from }, index) => {
      const next = sorted[index + 1]?.from ?? now;
      return { sample, from: Math.max(from, counted), to: Math.min(next, from + LONGEST_SILENCE, now) };
    })
    .filter(({ from, to }) => to > from);
}

function highest(
  a: Sample['memory'] = {},
  b: Sample['memory'] = {},
): { memory?: NonNullable<Sample['memory']> } {
  const names = (['dev', 'prod'] as const).filter((name) => a[name] !== undefined || b[name] !== undefined);
  if (names.length === 0) return {};
  return { memory: Object.fromEntries(names.map((name) => [name, Math.max(a[name] ?? 0, b[name] ?? 0)])) };
}

/** Hours and samples as hours alone: an interval across an hour's border counts in both, by its parts. */
export function byHour(log: SampleLog, now: number): HourRow[] {
  const rows = new Map(log.hours.map((row) => [row.hour, row]));
  for (const { from, to, sample } of intervals(log, now)) {
    for (let start = from; start < to; ) {
      const end = Math.min(to, Math.floor(start / HOUR) * HOUR + HOUR);
      const hour = hourOf(start);
      const row = rows.get(hour) ?? { hour, up: 0, down: 0, off: 0 };
      const seconds = row[sample.prod] + (end - start) / SECOND;
      rows.set(hour, { ...row, [sample.prod]: seconds, ...highest(row.memory, sample.memory) });
      start = end;
    }
  }
  return [...rows.values()].sort((a, b) => a.hour.localeCompare(b.hour));
}

export interface DayRow {
  /** `2026-11-24`, UTC. */
  date: string;
  /** Seconds. */
  up: number;
  down: number;
  off: number;
  /** Seconds of the day, as far as it is over, that nobody measured. */
  unknown: number;
  memory?: Partial<Record<'dev' | 'prod', number>>;
}

/** One row for each of the last `days` days, today included, oldest first. */
export function byDay(log: SampleLog, now: number, days = 30): DayRow[] {
  const hours = byHour(withoutFuture(log, now), now);
  const today = Math.floor(now / DAY) * DAY;
  return Array.from({ length: days }, (_, index) => {
    const start = today - (days - 1 - index) * DAY;
    const date = new Date(start).toISOString().slice(0, 10);
    const rows = hours.filter(({ hour }) => hour.startsWith(date));
    const sum = (state: ProdState) => rows.reduce((total, row) => total + row[state], 0);
    const [up, down, off] = [sum('up'), sum('down'), sum('off')];
    const length = Math.min(DAY, now - start) / SECOND;
    const memory = rows.reduce((most, row) => highest(most, row.memory).memory ?? most, {});
    return { date, up, down, off, unknown: Math.max(0, length - up - down - off), memory };
  });
}

// The samples on disk: one line each under .synapse/, appended by cron each minute, and now and then rewritten
// with whole past hours as one line, so that the file stays below a few hundred kilobytes for ever.

/** Another engine's samples are another machine's. */
function samplesPath(root: string): string {
  const { context } = session;
  return statePath(root, context && context !== 'default' ? `samples@${context}.jsonl` : 'samples.jsonl');
}

/** Text → log; a line torn by a power cut, or from a hand, is skipped. */
export function parseSamples(text: string): SampleLog {
  const result: SampleLog = { hours: [], samples: [] };
  for (const line of text.split('\n')) {
    const value = line ? parseLine(line) : undefined;
    if (value && 'hour' in value) result.hours.push(value);
    else if (value) result.samples.push(value);
  }
  return result;
}

function parseLine(line: string): HourRow | Sample | undefined {
  try {
    const value = JSON.parse(line) as Partial<HourRow & Sample> | null;
    const isHour = typeof value?.hour === 'string' && !Number.isNaN(Date.parse(`${value.hour}:00:00Z`));
    const isSample =
      !Number.isNaN(Date.parse(value?.at ?? '')) && ['up', 'down', 'off'].includes(value?.prod ?? '');
    return isHour || isSample ? (value as HourRow | Sample) : undefined;
  } catch {
    return undefined;
  }
}

export async function readSamples(root: string): Promise<SampleLog> {
  return parseSamples((await readIfPresent(samplesPath(root))) ?? '');
}

/**
 * Adds a sample. Two writers at once are rare and need no lock: lines are appended whole, and a line that is lost
 * to a rewrite is a minute that the neighbouring samples speak for.
 */
export async function appendSample(root: string, sample: Sample): Promise<void> {
  const path = samplesPath(root);
  if (log.withhold(`append to ${path}: ${JSON.stringify(sample)}`)) return;
  await ensureStateDirectory(root);
  // A power cut may have torn the last line: the new one must not become part of it.
  const before = (await readIfPresent(path)) ?? '';
  const torn = before !== '' && !before.endsWith('\n');
  await appendFile(path, `${torn ? '\n' : ''}${JSON.stringify(sample)}\n`, { mode: 0o600 });
  const now = Date.parse(sample.at);
  const all = parseSamples(`${before}\n${JSON.stringify(sample)}`);
  if (!isCompactable(all, now)) return;
  const { hours, samples } = compact(all, now);
  const lines = [...hours, ...samples].map((line) => `${JSON.stringify(line)}\n`);
  await replaceFile(path, lines.join(''), { mode: 0o600 });
}

// Keeping the samples bounded without forgetting what they say: whole past hours become one row each. Pure.

/** Samples are kept for a few hours, hours for a little longer than the window that is reported. */
const KEEP_SAMPLES = 3 * HOUR;
const KEEP_HOURS = 40 * DAY;

/** Whether something is due for `compact`. */
export function isCompactable(log: SampleLog, now: number): boolean {
  const known = withoutFuture(log, now);
  const lost = known.hours.length < log.hours.length || known.samples.length < log.samples.length;
  const oldest = known.samples[0];
  return lost || (oldest !== undefined && Date.parse(oldest.at) < now - KEEP_SAMPLES - HOUR);
}

/** The same knowledge in a bounded number of lines: whole past hours become one row each. */
export function compact(log: SampleLog, now: number): SampleLog {
  const known = withoutFuture(log, now);
  const border = Math.floor((now - KEEP_SAMPLES) / HOUR) * HOUR;
  const hours = byHour(known, now).filter(
    (row) => hourStart(row) < border && hourStart(row) >= now - KEEP_HOURS,
  );
  const sorted = [...known.samples].sort((a, b) => Date.parse(a.at) - Date.parse(b.at));
  // The last one before the border still speaks for the first moments behind it.
  const first = sorted.findLastIndex(({ at }) => Date.parse(at) < border);
  return { hours, samples: sorted.slice(Math.max(first, 0)) };
}
