// Keeping the samples bounded without forgetting what they say: whole past hours become one row each. Pure.
import { byHour, DAY, HOUR, hourStart, type SampleLog, withoutFuture } from './uptime.ts';

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
