// The memory of both environments, hour by hour over the last days, as two lines.
import { amount } from '../format.ts';
import type { HourRow } from '../uptime.ts';
import { dates, day, emptyFigure, figure, round } from './chart.ts';
import { type Html, raw } from './html.ts';

/** A round number of bytes at or above `bytes`, for the top of a scale. */
function ceiling(bytes: number): number {
  const step = 2 ** Math.floor(Math.log2(Math.max(bytes, 1)));
  return [1, 1.25, 1.5, 1.75, 2].map((factor) => factor * step).find((value) => value >= bytes) ?? bytes;
}

interface Point {
  time: number;
  bytes: number;
}

function pointsOf(hours: readonly HourRow[], name: 'dev' | 'prod', start: number, now: number): Point[] {
  return hours.flatMap(({ hour, memory }) => {
    const time = Date.parse(`${hour}:30:00Z`);
    const bytes = memory?.[name];
    return bytes === undefined || time < start ? [] : [{ time: Math.min(time, now), bytes }];
  });
}

const highest = (points: readonly Point[]) => Math.max(...points.map(({ bytes }) => bytes));
const RULES = [0, 50, 100].map((y) => `<line class="rule" x1="0" x2="1000" y1="${y}" y2="${y}"/>`).join('');

export function memoryChart(hours: readonly HourRow[], now: number, days = 7): Html {
  const title = `Memory in the last ${days} days`;
  const start = now - days * 86_400_000;
  const [dev, prod] = [pointsOf(hours, 'dev', start, now), pointsOf(hours, 'prod', start, now)];
  const all = [...dev, ...prod];
  if (all.length === 0) return emptyFigure(title, 'Nothing was sampled yet.');
  const top = ceiling(highest(all));
  const x = (time: number) => round((1000 * (time - start)) / (now - start));
  const y = (bytes: number) => round(100 - (100 * bytes) / top);
  const peak = (points: readonly Point[]) => (points.length > 0 ? amount(highest(points)) : 'not measured');
  return figure({
    id: 'memory',
    title,
    description: `Highest of each hour. Peak of prod: ${peak(prod)}; of dev: ${peak(dev)}.`,
    legend: [
      { label: 'prod', colour: 'var(--prod)' },
      { label: 'dev', colour: 'var(--dev)' },
    ],
    scale: [amount(top), amount(top / 2), '0'],
    dates: dates([start, (start + now) / 2, now], (time) => day(new Date(time).toISOString())),
    drawing: raw(RULES + polyline(dev, 'dev', x, y) + polyline(prod, 'prod', x, y)),
    columns: ['Day (UTC)', 'prod', 'dev'],
    rows: dailyPeaks(hours.filter(({ hour }) => Date.parse(`${hour}:30:00Z`) >= start)),
  });
}

/** A line, broken where nothing was measured for more than two hours; a lonely point is a short dash. */
function polyline(
  points: readonly Point[],
  name: string,
  x: (time: number) => number,
  y: (bytes: number) => number,
): string {
  const parts: Point[][] = [];
  for (const point of points) {
    const last = parts.at(-1);
    if (last && point.time - last.at(-1)!.time <= 2.5 * 3_600_000) last.push(point);
    else parts.push([point]);
  }
  return parts
    .map((part) => part.map(({ time, bytes }) => `${x(time)},${y(bytes)}`))
    .map((part) =>
      part.length > 1 ? part : [part[0]!, part[0]!.replace(/^[\d.]+/, (at) => String(Number(at) - 6))],
    )
    .map((part) => `<polyline class="line" style="stroke:var(--${name})" points="${part.join(' ')}"/>`)
    .join('');
}

function dailyPeaks(hours: readonly HourRow[]): string[][] {
  const dates = [...new Set(hours.map(({ hour }) => hour.slice(0, 10)))].reverse();
  const peak = (date: string, name: 'dev' | 'prod') => {
    const values = hours
      .filter(({ hour }) => hour.startsWith(date))
      .flatMap(({ memory }) => memory?.[name] ?? []);
    return values.length > 0 ? amount(Math.max(...values)) : '–';
  };
  return dates.map((date) => [date, peak(date, 'prod'), peak(date, 'dev')]);
}
