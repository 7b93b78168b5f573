// How much of the time prod was up, from samples taken each minute: pure arithmetic on time stamps, and the file that
// holds them. What was not measured (the machine slept, cron did not run, the clock jumped) is neither up nor down.
import { z } from 'zod';
import { appendLine, readLines, statePath, writeFileAtomic } from './files.ts';
import { session } from './session.ts';

const amount = z.number().nonnegative();
/** Bytes in use, by environment. */
const memorySchema = z.object({ dev: amount.optional(), prod: amount.optional() });
const isTime = (text: string) => !Number.isNaN(Date.parse(text));

const sampleSchema = z.object({
  /** ISO 8601, UTC. */
  at: z.string().refine(isTime),
  /** `off`: not meant to run. */
  prod: z.enum(['up', 'down', 'off']),
  /** Why it was down. */
  why: z.string().optional(),
  memory: memorySchema.optional(),
  /** Prod was restarted because of this sample. */
  healed: z.boolean().optional(),
});

/** What is left of an hour's samples: seconds of each state, the highest memory. */
const hourSchema = z.object({
  /** Its first 13 characters: `2026-11-24T20`, UTC. */
  hour: z.string().refine((text) => isTime(`${text}:00:00Z`)),
  ...{ up: amount, down: amount, off: amount },
  memory: memorySchema.optional(),
});

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
const startOf = (time: number, length: number) => Math.floor(time / length) * length;

/** The samples in order, without what a clock that was ahead has left. */
function sorted(samples: readonly Sample[], now: number) {
  return samples
    .map((sample) => ({ sample, from: Date.parse(sample.at) }))
    .filter(({ from }) => from <= now + TOLERANCE)
    .sort((a, b) => a.from - b.from);
}

function highest(a: Memory = {}, b: Memory = {}): Memory {
  const names = (['dev', 'prod'] as const).filter((name) => a[name] !== undefined || b[name] !== undefined);
  return Object.fromEntries(names.map((name) => [name, Math.max(a[name] ?? 0, b[name] ?? 0)]));
}

/** Hours and samples as hours alone: the time that a sample speaks for counts in each hour by its part there. */
export function byHour({ hours, samples }: SampleLog, now: number): HourRow[] {
  const known = hours.filter((row) => hourStart(row) <= now + TOLERANCE);
  const counted = known.reduce((end, row) => Math.max(end, hourStart(row) + HOUR), 0);
  const rows = new Map(known.map((row) => [row.hour, row]));
  const ordered = sorted(samples, now);
  for (const [index, { sample, from }] of ordered.entries()) {
    const to = Math.min(ordered[index + 1]?.from ?? now, from + LONGEST_GAP, now);
    for (let start = Math.max(from, counted); start < to; ) {
      const end = Math.min(to, startOf(start, HOUR) + HOUR);
      const hour = new Date(start).toISOString().slice(0, 13);
      const row = rows.get(hour) ?? { hour, up: 0, down: 0, off: 0 };
      const seconds = row[sample.prod] + (end - start) / SECOND;
      rows.set(hour, { ...row, [sample.prod]: seconds, memory: highest(row.memory, sample.memory) });
      start = end;
    }
  }
  return [...rows.values()].sort((a, b) => a.hour.localeCompare(b.hour));
}

/** Seconds of each state, and the highest memory. */
function sum(rows: readonly HourRow[]) {
  const total = (state: ProdState) => rows.reduce((seconds, row) => seconds + row[state], 0);
  const memory = rows.reduce<Memory>((all, row) => highest(all, row.memory), {});
  return { up: total('up'), down: total('down'), off: total('off'), memory };
}

export type Period = ReturnType<typeof byPeriod>[number];

/** The last `count` hours or days (UTC), the present one included, oldest first. */
export function byPeriod(log: SampleLog, now: number, length: typeof HOUR | typeof DAY, count: number) {
  const hours = byHour(log, now);
  return Array.from({ length: count }, (_, index) => {
    const start = startOf(now, length) - (count - 1 - index) * length;
    const total = sum(hours.filter((row) => hourStart(row) >= start && hourStart(row) < start + length));
    const over = Math.min(length, now - start) / SECOND;
    /** Seconds, as far as the period is over, that nobody measured. */
    const unknown = Math.max(0, over - total.up - total.down - total.off);
    return { at: new Date(start).toISOString(), ...total, unknown };
  });
}

const DAYS = 30;
/** Of the time that prod is meant to run. */
const AIM = 0.999;

export type Uptime = ReturnType<typeof uptimeOf>;

const tenth = (seconds: number) => Math.round(seconds * 10) / 10;

/**
 * Uptime and error budget of the last 30 times 24 hours, the present one included. The budget is that of the whole
 * window, however little of it was measured. All times in seconds; `ratio` is null before the first measurement.
 */
export function uptimeOf(log: SampleLog, now: number) {
  const first = startOf(now, HOUR) - (DAYS * 24 - 1) * HOUR;
  const { up, down, off } = sum(byHour(log, now).filter((row) => hourStart(row) >= first));
  const window = (DAYS * DAY) / SECOND;
  const allowed = (1 - AIM) * (window - off);
  return {
    ...{ days: DAYS, aim: AIM, up: tenth(up), down: tenth(down), off: tenth(off) },
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

export async function readSamples(root: string): Promise<SampleLog> {
  const lines = await readLines(root, samplesFile(), z.union([sampleSchema, hourSchema]));
  return {
    hours: lines.flatMap((line) => ('hour' in line ? [line] : [])),
    samples: lines.flatMap((line) => ('at' in line ? [line] : [])),
  };
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
  const samples = sorted(log.samples, now);
  const border = startOf(now - KEEP_SAMPLES, HOUR);
  if (!samples[0] || samples[0].from >= border - HOUR) return undefined;
  const isKept = (row: HourRow) => hourStart(row) < border && hourStart(row) >= now - KEEP_HOURS;
  // The last one before the border still speaks for the first moments behind it.
  const first = samples.findLastIndex(({ from }) => from < border);
  return {
    hours: byHour(log, now).filter(isKept),
    samples: samples.slice(first).map(({ sample }) => sample),
  };
}
