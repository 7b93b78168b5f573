// What the last switches took, against the aim.
import { duration } from '../format.ts';
import { dates, day, emptyFigure, figure, round } from './chart.ts';
import { type Html, raw } from './html.ts';

interface Switch {
  at: string;
  seconds: number;
  prod?: string;
}

function drawing(switches: readonly Switch[], top: number, aim: number): Html {
  const width = 1000 / switches.length;
  // A single switch is a bar, not a wall.
  const thick = Math.min(width * 0.7, 50);
  const bars = switches.map(({ seconds }, index) => {
    const height = round((100 * seconds) / top);
    const x = round((index + 0.5) * width - thick / 2);
    return `<rect class="switch" x="${x}" y="${round(100 - height)}" width="${round(thick)}" height="${height}"/>`;
  });
  const rule = (name: string, y: number) => `<line class="${name}" x1="0" x2="1000" y1="${y}" y2="${y}"/>`;
  const aimRule = top > aim ? rule('aim-rule', round(100 - (100 * aim) / top)) : '';
  return raw(rule('rule', 100) + bars.join('') + aimRule);
}

export function switchChart(switches: readonly Switch[], aim: number): Html {
  const title = 'Switch times';
  if (switches.length === 0) return emptyFigure(title, 'No switch yet.');
  const longest = Math.max(...switches.map(({ seconds }) => seconds));
  const top = longest > aim / 2 ? Math.max(aim, longest) * 1.1 : longest * 1.25;
  const last = duration(switches.at(-1)!.seconds);
  return figure({
    id: 'switches',
    title,
    description: `${switches.length} switches; the last took ${last}, the longest ${duration(longest)}. The aim is below ${duration(aim)}.`,
    legend: [{ label: `aim: below ${duration(aim)}`, colour: 'transparent' }],
    scale: [duration(top), duration(top / 2), '0'],
    dates: dates(switches.length > 2 ? switches : switches.slice(0, 1), ({ at }) => day(at)),
    drawing: drawing(switches, top, aim),
    columns: ['When (UTC)', 'took', 'prod'],
    rows: switches
      .map(({ at, seconds, prod }) => [at.slice(0, 16).replace('T', ' '), duration(seconds), prod ?? '–'])
      .reverse(),
  });
}
