// The error budget: how much downtime the aim allows in a window, and what is left of it. Pure.
import { byHour, DAY, HOUR, hourStart, type SampleLog, withoutFuture } from './uptime.ts';

export const WINDOW_DAYS = 30;
/** Of the time that prod is meant to run. */
export const UPTIME_AIM = 0.999;

export interface Uptime {
  days: number;
  aim: number;
  /** Seconds within the window. */
  up: number;
  down: number;
  /** Not meant to run. */
  off: number;
  /** Not measured. */
  unknown: number;
  /** up / (up + down), or null when nothing was measured. */
  ratio: number | null;
  /** Seconds of downtime that the aim allows in the whole window, and what is left; negative: overspent. */
  budget: { allowed: number; left: number };
}

const tenth = (seconds: number) => Math.round(seconds * 10) / 10;

/**
 * The last `days` days up to `now`. The budget is that of the whole window, however little of it was measured;
 * an hour on the window's border counts by its part inside.
 */
export function uptimeOf(log: SampleLog, now: number, days = WINDOW_DAYS, aim = UPTIME_AIM): Uptime {
  const start = now - days * DAY;
  const total = { up: 0, down: 0, off: 0 };
  for (const row of byHour(withoutFuture(log, now), now)) {
    const from = hourStart(row);
    const share = Math.min(1, Math.max(0, (from + HOUR - start) / HOUR));
    for (const state of ['up', 'down', 'off'] as const) total[state] += row[state] * share;
  }
  const { up, down, off } = total;
  const window = (days * DAY) / 1000;
  const allowed = (1 - aim) * (window - off);
  return {
    days,
    aim,
    up: tenth(up),
    down: tenth(down),
    off: tenth(off),
    unknown: tenth(Math.max(0, window - up - down - off)),
    ratio: up + down > 0 ? up / (up + down) : null,
    budget: { allowed: tenth(allowed), left: tenth(allowed - down) },
  };
}
