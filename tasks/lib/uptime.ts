// How much of the time prod was up, from samples taken each minute: pure arithmetic on time stamps, and the file that
// holds them. What was not measured (the machine slept, cron did not run, the clock jumped) is neither up nor down.
import { z } from 'zod';
import { appendLine, readIfPresent, statePath, writeFileAtomic } from './files.ts';
import { session } from './session.ts';

const amount = z.number().nonnegative();
const memorySchema = z.object({ dev: amount.optional(), prod: amount.optional() });
const isTime = (text: string) => !Number.isNaN(Date.parse(text));

const sampleSchema = z.object({
  /** ISO 8601, UTC. */
  at: z.string().refine(isTime),
  /** `off`: not meant to run. */
  prod: z.enum(['up', 'down', 'off']),
  /** Why it was down. */
  why: z.string().optional(),
  /** Bytes in use. */
  memory: memorySchema.optional(),
  /** Prod was restarted because of this sample. */
  healed: z.boolean().optional(),
});

/** What is left of an hour's samples: seconds of each state, the highest memory. */
const hourSchema = z.object({
  /** Its first 13 characters: `2026-11-24T20`, UTC. */
  hour: z.string().refine((text) => isTime(`${text}:00:00Z`)),
  up: amount,
  down: amount,
  off: amount,
  memory: memorySchema.optional(),
});

const lineSchema = z.union([sampleSchema, hourSchema]);

export type Sample = z.output<typeof sampleSchema>;
export type HourRow = z.output<typeof hourSchema>;
export type ProdState = Sample['prod'];
type Memory = z.output<typeof memorySchema>;

export interface SampleLog {
  /** Oldest first; samples of these hours are gone, or counted no more. */
  hours: HourRow[];
  samples: Sample[];
}

const SECOND = 1000;
export const HOUR = 3600 * SECOND;
export const DAY = 24 * HOUR;
/** A sample speaks for the time until the next one, for this long at most: one may be missed. */
const LONGEST_GAP = 150 * SECOND;
/** Clocks are corrected by seconds all the time; what lies further ahead was written by a wrong one. */
const TOLERANCE = 5 * 60 * SECOND;

/** Milliseconds since 1970. */
const hourStart = ({ hour }: HourRow) => Date.parse(`${hour}:00:00Z`);

/** The log without what a clock that was ahead has left. */
function withoutFuture({ hours, samples }: SampleLog, now: number): SampleLog {
  return {
    hours: hours.filter((row) => hourStart(row) <= now + TOLERANCE),
    samples: samples.filter(({ at }) => Date.parse(at) <= now + TOLERANCE),
  };
}

/** The time that samples speak for, without overlaps, from the last counted hour to `now`. */
function intervals({ hours, samples }: SampleLog, now: number) {
  const counted = hours.reduce((end, row) => Math.max(end, hourStart(row) + HOUR), 0);
  const sorted = samples
    .map((sample) => ({ sample, from: Date.parse(sample.at) }))
    .sort((a, b) => a.from - b.from);
  return sorted
    .map(({ sample, from }, index) => {
      const next = sorted[index + 1]?.from ?? now;
      return { sample, from: Math.max(from, counted), to: Math.min(next, from + LONGEST_GAP, now) };
    })
    .filter(({ from, to }) => to > from);
}

function highest(a: Memory = {}, b: Memory = {}): { memory?: Memory } {
  const names = (['dev', 'prod'] as const).filter((name) => a[name] !== undefined || b[name] !== undefined);
  if (names.length === 0) return {};
  return { memory: Object.fromEntries(names.map((name) => [name, Math.max(a[name] ?? 0, b[name] ?? 0)])) };
}

/** Hours and samples as hours alone: an interval across an hour's border counts in both, by its parts. */
export function byHour(log: SampleLog, now: number): HourRow[] {
  const known = withoutFuture(log, now);
  const rows = new Map(known.hours.map((row) => [row.hour, row]));
  for (const { from, to, sample } of intervals(known, now)) {
    for (let start = from; start < to; ) {
      const end = Math.min(to, Math.floor(start / HOUR) * HOUR + HOUR);
      const hour = new Date(start).toISOString().slice(0, 13);
      const row = rows.get(hour) ?? { hour, up: 0, down: 0, off: 0 };
      const seconds = row[sample.prod] + (end - start) / SECOND;
      rows.set(hour, { ...row, [sample.prod]: seconds, ...highest(row.memory, sample.memory) });
      start = end;
    }
  }
  return [...rows.values()].sort((a, b) => a.hour.localeCompare(b.hour));
}

export type Period = ReturnType<typeof byPeriod>[number];

/** Seconds of each state in the last `count` hours or days (UTC), the present one included, oldest first. */
export function byPeriod(log: SampleLog, now: number, length: typeof HOUR | typeof DAY, count: number) {
  const hours = byHour(log, now);
  const last = Math.floor(now / length) * length;
  return Array.from({ length: count }, (_, index) => {
    const start = last - (count - 1 - index) * length;
    const rows = hours.filter((row) => hourStart(row) >= start && hourStart(row) < start + length);
    const sum = (state: ProdState) => rows.reduce((total, row) => total + row[state], 0);
    const [up, down, off] = [sum('up'), sum('down'), sum('off')];
    const over = Math.min(length, now - start) / SECOND;
    /** `unknown`: seconds, as far as the period is over, that nobody measured. */
    return { at: new Date(start).toISOString(), up, down, off, unknown: Math.max(0, over - up - down - off) };
  });
}

const WINDOW_DAYS = 30;
/** Of the time that prod is meant to run. */
const UPTIME_AIM = 0.999;

export type Uptime = ReturnType<typeof uptimeOf>;

const tenth = (seconds: number) => Math.round(seconds * 10) / 10;

/**
 * Uptime and error budget of the `days` before `now`. The budget is that of the whole window, however little of it
 * was measured; an hour on the window's border counts by its part inside. All times in seconds; `ratio` is null
 * before the first measurement.
 */
export function uptimeOf(log: SampleLog, now: number, days = WINDOW_DAYS, aim = UPTIME_AIM) {
  const start = now - days * DAY;
  const total = { up: 0, down: 0, off: 0 };
  for (const row of byHour(log, now)) {
    const share = Math.min(1, Math.max(0, (hourStart(row) + HOUR - start) / HOUR));
    for (const state of ['up', 'down', 'off'] as const) total[state] += row[state] * share;
  }
  const { up, down, off } = total;
  const window = (days * DAY) / SECOND;
  const allowed = (1 - aim) * (window - off);
  return {
    ...{ days, aim, up: tenth(up), down: tenth(down), off: tenth(off) },
    unknown: tenth(Math.max(0, window - up - down - off)),
    ratio: up + down > 0 ? up / (up + down) : null,
    budget: { allowed: tenth(allowed), left: tenth(allowed - down) },
  };
}

// The samples on disk: one line each under .synapse/, appended by cron each minute, and now and then rewritten with
// whole past hours as one line, so that the file stays below a few hundred kilobytes for ever.

/** Another engine's samples are another machine's. */
function samplesFile(): string {
  const { context } = session;
  return context && context !== 'default' ? `samples@${context}.jsonl` : 'samples.jsonl';
}

/** Text → log; a line torn by a power cut, or from a hand, is skipped. */
export function parseSamples(text: string): SampleLog {
  const lines = text.split('\n').flatMap((line) => parseLine(line) ?? []);
  return {
    hours: lines.flatMap((line) => ('hour' in line ? [line] : [])),
    samples: lines.flatMap((line) => ('at' in line ? [line] : [])),
  };
}

function parseLine(line: string) {
  try {
    return line ? lineSchema.safeParse(JSON.parse(line)).data : undefined;
  } catch {
    return undefined;
  }
}

export async function readSamples(root: string): Promise<SampleLog> {
  return parseSamples((await readIfPresent(statePath(root, samplesFile()))) ?? '');
}

/**
 * Adds a sample. Two writers at once are rare and need no lock: lines are appended whole, and a line that is lost
 * to a rewrite is a minute that the neighbouring samples speak for.
 */
export async function appendSample(root: string, sample: Sample): Promise<void> {
  const { hours, samples } = await readSamples(root);
  await appendLine(root, samplesFile(), JSON.stringify(sample));
  const compacted = compact({ hours, samples: [...samples, sample] }, Date.parse(sample.at));
  if (!compacted) return;
  const lines = [...compacted.hours, ...compacted.samples].map((line) => `${JSON.stringify(line)}\n`);
  await writeFileAtomic(statePath(root, samplesFile()), lines.join(''), { mode: 0o600 });
}

/** Samples are kept for a few hours, hours for a little longer than the window that is reported. */
const KEEP_SAMPLES = 3 * HOUR;
const KEEP_HOURS = 40 * DAY;

/** The same knowledge in a bounded number of lines: whole past hours become one row each; undefined: not yet due. */
export function compact(log: SampleLog, now: number): SampleLog | undefined {
  const known = withoutFuture(log, now);
  const isAhead = known.hours.length < log.hours.length || known.samples.length < log.samples.length;
  const sorted = [...known.samples].sort((a, b) => Date.parse(a.at) - Date.parse(b.at));
  const isDue = sorted[0] && Date.parse(sorted[0].at) < now - KEEP_SAMPLES - HOUR;
  if (!isAhead && !isDue) return undefined;
  const border = Math.floor((now - KEEP_SAMPLES) / HOUR) * HOUR;
  const isKept = (row: HourRow) => hourStart(row) < border && hourStart(row) >= now - KEEP_HOURS;
  // The last one before the border still speaks for the first moments behind it.
  const first = sorted.findLastIndex(({ at }) => Date.parse(at) < border);
  return { hours: byHour(known, now).filter(isKept), samples: sorted.slice(Math.max(first, 0)) };
}
