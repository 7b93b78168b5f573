// Thirty days as thirty bars: how much of each was up, down, off on purpose, or not measured.
import { duration, percent } from '../format.ts';
import type { DayRow } from '../uptime.ts';
import { dates, day, emptyFigure, figure, round } from './chart.ts';
import { type Html, raw } from './html.ts';

/** Downtime of minutes would be thinner than a pixel: it is drawn at least this high, of 100. */
const LEAST_VISIBLE = 8;

function dayBar(row: DayRow, index: number, count: number): Html {
  const width = 1000 / count;
  const total = row.up + row.down + row.off + row.unknown;
  if (total <= 0) return raw('');
  const heights = {
    down: (100 * row.down) / total,
    off: (100 * row.off) / total,
    unknown: (100 * row.unknown) / total,
  };
  if (row.down > 0) heights.down = Math.max(heights.down, LEAST_VISIBLE);
  const up = Math.max(0, 100 - heights.down - heights.off - heights.unknown);
  let y = 0;
  return raw(
    Object.entries({ unknown: heights.unknown, off: heights.off, up, down: heights.down })
      .map(([name, height]) => {
        const rectangle = `<rect class="${name}" x="${round(index * width + width * 0.12)}" y="${round(y)}" width="${round(width * 0.76)}" height="${round(height)}"/>`;
        y += height;
        return height > 0 ? rectangle : '';
      })
      .join(''),
  );
}

export function uptimeChart(days: readonly DayRow[], ratio: number | null): Html {
  const title = 'Prod uptime by day';
  if (ratio === null) return emptyFigure(title, 'Not measured yet. See: npm run status -- --help', true);
  const troubled = days.filter(({ down }) => down > 0);
  const worst = [...troubled].sort((a, b) => b.down - a.down)[0];
  const trouble = worst
    ? `Down on ${troubled.length} of them, longest on ${day(worst.date)}: ${duration(worst.down)}.`
    : 'No downtime was seen.';
  return figure({
    id: 'uptime',
    title,
    description: `${days.length} days, ${percent(ratio)} up. ${trouble}`,
    legend: [
      { label: 'up', colour: 'var(--good)' },
      { label: 'down', colour: 'var(--bad)' },
      { label: 'off on purpose', colour: 'color-mix(in srgb, var(--soft) 35%, transparent)' },
      { label: 'not measured', colour: 'var(--track)' },
    ],
    scale: ['24 h', '12 h', '0'],
    dates: dates(days, ({ date }) => day(date)),
    drawing: raw(days.map((row, index) => dayBar(row, index, days.length).html).join('')),
    columns: ['Day (UTC)', 'up', 'down', 'off', 'not measured'],
    rows: [...days]
      .reverse()
      .map((row) => [row.date, ...[row.up, row.down, row.off, row.unknown].map(duration)]),
    wide: true,
  });
}
