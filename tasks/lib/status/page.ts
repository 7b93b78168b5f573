// Writing the page where the user wants it.

import { resolve } from 'node:path';
import { writeFileAtomic } from '../files.ts';
import { ago, amount, duration, percent } from '../format.ts';
import type { Project } from '../project.ts';
import { byDay, byHour, type DayRow, type HourRow, withoutFuture } from '../uptime.ts';
import { loadStatusFacts, type StatusFacts } from './facts.ts';
import {
  AIMS,
  describeMeasure,
  describeSilences,
  describeStatus,
  type EnvironmentReport,
  type Measure,
  reportStatus,
  type StatusReport,
  short,
  switchTimes,
} from './report.ts';

/** `file` is relative to the current directory; a page that is there is replaced atomically. */
export async function writeStatusPage(
  project: Project,
  facts: StatusFacts,
  report: StatusReport,
  file: string,
) {
  const now = +facts.at;
  const series = {
    days: byDay(facts.samples, now),
    hours: byHour(withoutFuture(facts.samples, now), now),
    switches: switchTimes(facts.history),
  };
  await writeFileAtomic(resolve(file), statusPage(project, report, series));
}

// The status as one self-contained page: the same facts as on the terminal, and three charts. Pure.

export interface Series {
  days: DayRow[];
  hours: HourRow[];
  switches: { at: string; seconds: number; prod?: string }[];
}

function attention({ problems, notes }: StatusReport): Html {
  if (problems.length + notes.length === 0) return raw('');
  return html`<ul class="problems">${[
    ...problems.map(
      ({ message, hint }) => html`<li>${message}${hint ? html`<small>${hint}</small>` : ''}</li>`,
    ),
    ...notes.map((note) => html`<li class="hint-only">${note}</li>`),
  ]}</ul>`;
}

function more({ lastSwitch, data, backup, at }: StatusReport): Html {
  const now = new Date(at);
  const phases = Object.entries(lastSwitch?.phases ?? {}).map(
    ([name, seconds]) => `${name} ${duration(seconds)}`,
  );
  const switched = lastSwitch
    ? `${lastSwitch.from} → ${lastSwitch.to}${lastSwitch.prod ? `, prod ${lastSwitch.prod}` : ''}, ${ago(lastSwitch.at, now)}, ${lastSwitch.outcome}`
    : 'none yet';
  return html`<div class="card"><dl>${[
    row('last switch', switched),
    row('its phases', phases.join(', ')),
    row('its silence', lastSwitch ? describeSilences(lastSwitch).join() : null),
    row('data', html`<code>${data.directory}</code>${data.bytes === null ? '' : `, ${amount(data.bytes)}`}`),
    row('last backup', `${backup.at ? ago(backup.at, now) : 'none yet'}${backup.overdue ? ', overdue' : ''}`),
    row('last attempt', backup.failure),
  ]}</dl></div>`;
}

/** Nothing may be loaded, whatever ends up in the page. */
const POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

function head(title: string): Html {
  return html`<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${raw(POLICY)}"><title>${title}</title>
<link rel="icon" href="data:,"><style>${raw(STYLE)}</style></head>`;
}

function verdictOf({ length: count }: readonly unknown[]): string {
  if (count === 0) return 'All is well';
  return count === 1 ? 'One thing needs attention' : `${count} things need attention`;
}

function header(project: Project, report: StatusReport): Html {
  const { at, active, prodTag, problems } = report;
  const time = new Date(at).toLocaleString('en-GB', {
    dateStyle: 'long',
    timeStyle: 'short',
    timeZone: 'UTC',
  });
  return html`<header><p class="name">${project.project.name}</p><h1>${verdictOf(problems)}</h1>
<p class="soft">Active: ${active}${prodTag ? `. Prod runs ${prodTag}` : ''}. As of <time datetime="${at}">${time} UTC</time>.</p>
${attention(report)}</header>`;
}

/** The whole document. */
export function statusPage(project: Project, report: StatusReport, series: Series): string {
  const { environments, measures, uptime, active, at, problems } = report;
  const cards = [environments.prod, environments.dev].map((one) => environmentCard(one, active !== 'none'));
  const charts = [
    uptimeChart(series.days, uptime.ratio),
    memoryChart(series.hours, Date.parse(at)),
    switchChart(series.switches, AIMS.switch),
  ];
  const page = html`<!doctype html>
<html lang="en">${head(`${project.project.name}: ${verdictOf(problems).toLowerCase()}`)}
<body><main>${header(project, report)}
<h2>Environments</h2><div class="grid two">${cards}</div>
<h2>What was promised</h2><div class="grid four">${measures.map(measureCard)}</div>
<h2>Over time</h2><div class="grid two">${charts}</div>
<h2>Also</h2>${more(report)}
<footer>Written by <code>npm run status -- --html</code>. This page loads nothing.</footer></main></body></html>
`;
  return page.html;
}

// HTML as text: every value goes through `escaped`, so that no container name or error message becomes markup.

const ENTITIES: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

function escaped(text: string | number): string {
  return String(text).replace(/[&<>"']/g, (character) => ENTITIES[character]!);
}

/** A template whose values are escaped; what is already HTML is passed as `raw`, lists are joined. */
function html(parts: TemplateStringsArray, ...values: Value[]): Html {
  const text = parts.reduce(
    (all, part, index) => all + (index > 0 ? render(values[index - 1]) : '') + part,
    '',
  );
  return { html: text };
}

interface Html {
  html: string;
}

type Value = string | number | null | undefined | false | Html | readonly Html[];

function render(value: Value): string {
  if (value === null || value === undefined || value === false) return '';
  if (Array.isArray(value)) return value.map((one: Html) => one.html).join('');
  return typeof value === 'object' ? (value as Html).html : escaped(value);
}

const raw = (text: string): Html => ({ html: text });

// How the page looks: one column on a phone, cards beside each other on a desktop, light and dark as the reader's
// system is. Nothing is loaded: system fonts, no images, no script.

const STYLE = `
:root {
  color-scheme: light dark;
  --page: #f6f6f3; --card: #ffffff; --ink: #1c1e22; --soft: #5b616b; --line: #e4e4df; --track: #e9e9e4;
  --good: #2c7a57; --bad: #b23328; --wait: #8f6200; --prod: #2f68a6; --dev: #a8651a;
  --shadow: 0 1px 2px rgb(0 0 0 / 4%), 0 4px 16px rgb(0 0 0 / 3%);
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #131518; --card: #1b1e23; --ink: #e7e8ea; --soft: #a0a6b0; --line: #2c3037; --track: #2a2e35;
    --good: #62bb93; --bad: #ec8479; --wait: #dcae55; --prod: #84b5ea; --dev: #e2ab66;
    --shadow: none;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  -webkit-text-size-adjust: 100%; font-variant-numeric: tabular-nums;
}
main { max-width: 68rem; margin: 0 auto; padding: clamp(1.25rem, 4vw, 3.5rem) clamp(1rem, 4vw, 2.5rem) 2rem; }
h1 { font-size: clamp(1.9rem, 5vw, 2.6rem); line-height: 1.15; letter-spacing: -0.02em; font-weight: 640; margin: 0.1rem 0 0.5rem; }
h2 { font-size: 0.85rem; font-weight: 600; color: var(--soft); margin: 2.5rem 0 0.75rem; }
h3 { font-size: 1.15rem; font-weight: 620; margin: 0; }
p { margin: 0; }
.soft { color: var(--soft); }
.name { font-weight: 600; color: var(--soft); }
.grid { display: grid; gap: 1rem; grid-template-columns: minmax(0, 1fr); }
.four { grid-template-columns: repeat(2, minmax(0, 1fr)); }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 1.25rem;
  box-shadow: var(--shadow); min-width: 0;
}
.head { display: flex; justify-content: space-between; align-items: center; gap: 1rem; margin-bottom: 0.9rem; }
.mood { display: inline-flex; align-items: center; gap: 0.45rem; font-size: 0.9rem; font-weight: 560; }
.mood::before { content: ""; width: 0.6rem; height: 0.6rem; border-radius: 50%; background: currentColor; }
.good { color: var(--good); } .bad { color: var(--bad); } .wait { color: var(--wait); } .idle { color: var(--soft); }
dl { display: grid; grid-template-columns: minmax(5.5rem, max-content) minmax(0, 1fr); gap: 0.3rem 1rem; margin: 0; font-size: 0.93rem; }
dt { color: var(--soft); max-width: 34vw; overflow-wrap: anywhere; } dd { margin: 0; overflow-wrap: anywhere; }
code { font: 0.9em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
a { color: inherit; text-decoration-color: var(--soft); text-underline-offset: 0.2em; }
.bar { display: block; height: 6px; border-radius: 3px; background: var(--track); overflow: hidden; margin-top: 0.45rem; }
.bar span { display: block; height: 100%; border-radius: 3px; background: var(--prod); min-width: 3px; }
.bar.full span { background: var(--bad); }
.measure .value { font-size: clamp(1.3rem, 5vw, 1.7rem); white-space: nowrap; font-weight: 620; letter-spacing: -0.015em; line-height: 1.2; margin: 0.15rem 0; }
.measure .aim { font-size: 0.9rem; }
.measure .note { font-size: 0.85rem; color: var(--soft); margin-top: 0.5rem; }
.problems { list-style: none; margin: 1.5rem 0 0; padding: 0; display: grid; gap: 0.75rem; }
.problems li { border-left: 3px solid var(--bad); padding: 0.1rem 0 0.1rem 0.9rem; }
.problems li.hint-only { border-color: var(--wait); }
.problems small { display: block; color: var(--soft); font-size: 0.88rem; white-space: pre-wrap; overflow-wrap: anywhere; }
figure { margin: 0; }
figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0.25rem 1rem; margin-bottom: 0.9rem; }
.key { display: flex; flex-wrap: wrap; gap: 0.2rem 0.9rem; font-size: 0.82rem; color: var(--soft); align-items: center; }
.key i { display: inline-block; width: 0.65rem; height: 0.65rem; border-radius: 2px; margin-right: 0.35rem; }
.plot { display: grid; grid-template-columns: auto 1fr; gap: 0 0.6rem; }
.plot svg { display: block; width: 100%; height: 9rem; overflow: visible; }
.scale { display: flex; flex-direction: column; justify-content: space-between; text-align: right; font-size: 0.75rem; color: var(--soft); line-height: 1; height: 9rem; white-space: nowrap; }
.dates { grid-column: 2; display: flex; justify-content: space-between; font-size: 0.75rem; color: var(--soft); margin-top: 0.4rem; }
.empty { height: 9rem; display: grid; place-items: center; text-align: center; color: var(--soft); font-size: 0.93rem; border: 1px dashed var(--line); border-radius: 10px; padding: 1rem; }
details { margin-top: 0.9rem; font-size: 0.85rem; }
summary { cursor: pointer; color: var(--soft); width: fit-content; }
.table { max-height: 16rem; overflow: auto; margin-top: 0.5rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: right; padding: 0.2rem 0.6rem; border-bottom: 1px solid var(--line); font-weight: 400; white-space: nowrap; }
th:first-child { text-align: left; padding-left: 0; } thead th { color: var(--soft); }
.up { fill: var(--good); } .down { fill: var(--bad); } .off { fill: var(--soft); opacity: 0.35; } .unknown { fill: var(--track); }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; vector-effect: non-scaling-stroke; }
.rule { stroke: var(--line); stroke-width: 1; vector-effect: non-scaling-stroke; }
.aim-rule { stroke: var(--bad); stroke-width: 1; stroke-dasharray: 4 4; vector-effect: non-scaling-stroke; }
.switch { fill: var(--prod); }
footer { margin-top: 2.5rem; font-size: 0.85rem; color: var(--soft); }
@media (min-width: 46rem) {
  .two { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .four { grid-template-columns: repeat(4, minmax(0, 1fr)); }
  .wide { grid-column: 1 / -1; }
}
`;

// The cards of the page: one for each environment, one for each measure.

const MOODS: Record<EnvironmentReport['mood'], string> = {
  healthy: 'good',
  starting: 'wait',
  unhealthy: 'bad',
  'crash-looping': 'bad',
  stopped: 'idle',
  absent: 'idle',
  unknown: 'idle',
};

/** A term and its value; nothing where there is none. */
function row(title: string, value: Html | string | null): Html {
  return value === null || value === '' ? raw('') : html`<dt>${title}</dt><dd>${value}</dd>`;
}

function memoryRow({ memory }: EnvironmentReport): Html {
  if (!memory) return raw('');
  const peak = memory.peak === null ? '' : `, peak ${amount(memory.peak)}`;
  if (memory.limit === null) return row('memory', `${amount(memory.bytes)}, no limit${peak}`);
  const share = Math.min(100, (100 * memory.bytes) / memory.limit).toFixed(1);
  const bar = html`<span class="bar${memory.bytes > 0.9 * memory.limit ? ' full' : ''}" aria-hidden="true"><span style="width:${share}%"></span></span>`;
  return row('memory', html`${amount(memory.bytes)} of ${amount(memory.limit)}${peak}${bar}`);
}

function environmentCard(report: EnvironmentReport, activeNames: boolean): Html {
  const { name, active, mood, version, revision, dirty, image, digest, releasedAs, url, config } = report;
  const failing = mood !== 'healthy' && active && mood !== 'starting' && mood !== 'unknown';
  return html`<article class="card" aria-labelledby="env-${name}">
<div class="head"><h3 id="env-${name}">${name}${active || !activeNames ? '' : html` <span class="soft">(not active)</span>`}</h3>
<span class="mood ${failing ? 'bad' : MOODS[mood]}">${mood}</span></div>
<dl>${[
    row('version', version),
    row(
      'commit',
      revision
        ? html`<code title="${revision}">${revision.slice(0, 12)}</code>${dirty ? ', uncommitted changes' : ''}`
        : null,
    ),
    row('image', image ? html`<code>${image}</code>` : null),
    row('digest', digest ? html`<code title="${digest}">${short(digest)}</code>` : null),
    row('released', image ? (releasedAs ?? 'not a released image') : null),
    ...Object.entries(config).map(([path, value]) =>
      row(path.replaceAll(/[._]/g, '$&\u200b'), String(value)),
    ),
    row('address', mood === 'absent' ? null : html`<a href="${url}">${url.replace(/^http:\/\//, '')}</a>`),
    row(
      'running',
      report.uptimeSeconds === null
        ? null
        : `for ${duration(report.uptimeSeconds)}, ${report.restarts} restarts`,
    ),
    memoryRow(report),
    row('CPU', report.cpuPercent === null ? null : `${report.cpuPercent} %`),
  ]}</dl></article>`;
}

function measureCard({ title, value, unit, aim, reached, note }: Measure): Html {
  const state = reached === null ? 'idle' : reached ? 'good' : 'bad';
  const words = reached === null ? 'not measured yet' : reached ? 'reached' : 'missed';
  return html`<article class="card measure"><p class="soft">${title}</p><p class="value">${describeMeasure(value, unit)}</p>
<p class="aim"><span class="mood ${state}">${words}</span> <span class="soft">aim ${unit === 'ratio' ? '≥' : '<'} ${describeMeasure(aim, unit)}</span></p>
${note ? html`<p class="note">${note}</p>` : ''}</article>`;
}

// A small chart as inline SVG. The drawing stretches with the page and holds no text; scales, dates and legends
// are HTML, so they keep their size on a phone. Each has a description and its numbers as a table.

interface Chart {
  id: string;
  title: string;
  /** What a person who cannot see it would be told. */
  description: string;
  legend: { label: string; colour: string }[];
  /** From the top to the bottom. */
  scale: string[];
  dates: string[];
  /** Content of an SVG of 1000 × 100. */
  drawing: Html;
  columns: string[];
  rows: string[][];
  wide?: boolean;
}

function figure(chart: Chart): Html {
  const { id, title, description, legend, scale, dates, drawing, columns, rows } = chart;
  return html`<figure class="card${chart.wide ? ' wide' : ''}">
<figcaption><h3>${title}</h3><span class="key" aria-hidden="true">${legend.map(
    ({ label, colour }) => html`<span><i style="background:${colour}"></i>${label}</span>`,
  )}</span></figcaption>
<div class="plot"><div class="scale" aria-hidden="true">${scale.map((text) => html`<span>${text}</span>`)}</div>
<svg viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" aria-labelledby="${id}-t ${id}-d">
<title id="${id}-t">${title}</title><desc id="${id}-d">${description}</desc>${drawing}</svg>
<div class="dates" aria-hidden="true">${dates.map((text) => html`<span>${text}</span>`)}</div></div>
<details><summary>As a table</summary><div class="table"><table><thead><tr>${columns.map(
    (text) => html`<th scope="col">${text}</th>`,
  )}</tr></thead><tbody>${rows.map(
    ([first = '', ...rest]) =>
      html`<tr><th scope="row">${first}</th>${rest.map((text) => html`<td>${text}</td>`)}</tr>`,
  )}</tbody></table></div></details></figure>`;
}

function emptyFigure(title: string, text: string, wide = false): Html {
  return html`<figure class="card${wide ? ' wide' : ''}"><figcaption><h3>${title}</h3></figcaption><p class="empty">${text}</p></figure>`;
}

const round = (value: number) => Math.round(value * 100) / 100;
const day = (date: string) =>
  new Date(`${date.slice(0, 10)}T00:00:00Z`).toLocaleDateString('en-GB', {
    day: 'numeric',
    month: 'short',
    timeZone: 'UTC',
  });

/** Evenly chosen labels below a plot. */
function dates<T>(items: readonly T[], label: (item: T) => string): string[] {
  const [first, middle, last] = [items[0], items[Math.floor((items.length - 1) / 2)], items.at(-1)];
  return [first, middle, last].flatMap((item) => (item === undefined ? [] : [label(item)]));
}

// The memory of both environments, hour by hour over the last days, as two lines.

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

function memoryChart(hours: readonly HourRow[], now: number, days = 7): Html {
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

// What the last switches took, against the aim.

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

function switchChart(switches: readonly Switch[], aim: number): Html {
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

// Thirty days as thirty bars: how much of each was up, down, off on purpose, or not measured.

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

function uptimeChart(days: readonly DayRow[], ratio: number | null): Html {
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

// One look at everything, as a report, one screen and a page.

export interface Status {
  report: StatusReport;
  /** One screen. */
  text: string;
  /** Writes the same as a page, if a file is named. */
  writePage: (file: string) => Promise<void>;
}

/** Looks at everything once. @throws TaskError only where the project itself is wrong */
export async function lookAtStatus(project: Project): Promise<Status> {
  const facts = await loadStatusFacts(project);
  const report = reportStatus(project, facts);
  const writePage = async (file: string) => {
    await writeStatusPage(project, facts, report, file);
  };
  return { report, text: describeStatus(project, report), writePage };
}
