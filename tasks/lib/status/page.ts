// The status as one self-contained page: the same report as on the terminal, prod's uptime as strips of bars, and memory.
// Nothing is loaded: the chart library is inlined, and the page's policy lets no script run but these two.
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { duration, formatBytes, percent } from '../format.ts';
import { type EnvironmentName, TASKS_FOLDER } from '../project.ts';
import type { Period } from '../uptime.ts';
import {
  describeAim,
  describeValue,
  describeVersion,
  environmentRows,
  headline,
  projectRows,
  type Row,
} from './describe.ts';
import type { EnvironmentReport, Measure, Series, StatusReport } from './report.ts';

/** With `refresh`, in seconds, the browser reads the file again and again. */
export async function statusPage(name: string, report: StatusReport, series: Series, refresh?: number) {
  const library = '../node_modules/uplot/dist/uPlot';
  const files = [`${library}.iife.min.js`, `${library}.min.css`, 'lib/status/page.css'];
  const texts = await Promise.all(files.map((file) => readFile(join(TASKS_FOLDER, file), 'utf8')));
  const [uplot = '', ...styles] = texts;
  const scripts = [uplot, SCRIPT];
  const hashes = scripts.map((text) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`);
  const policy = `default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src ${hashes.join(' ')}`;
  const { environments, measures, active, prodTag, problems, notes } = report;
  const attention = [
    ...problems.map(({ message, hint }) => html`<li>${message}<small>${hint}</small></li>`),
    ...notes.map((note) => html`<li class="note">${note}</li>`),
  ];
  const page = html`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${raw(policy)}">
${refresh ? html`<meta http-equiv="refresh" content="${refresh}">` : ''}
<title>${name}: ${headline(report)}</title><link rel="icon" href="data:,"><style>${raw(styles.join(''))}</style></head>
<body><main><header><p class="soft">${name}</p><h1>${headline(report)}</h1>
<p class="soft">Active: ${active}${prodTag ? `. Prod runs ${prodTag}` : ''}. As of <time datetime="${report.at}">${moment(report.at)}</time>.</p>
${attention.length > 0 ? html`<ul class="attention">${attention}</ul>` : ''}</header>
<h2>Environments</h2><div class="grid two">${[environments.prod, environments.dev].map(card)}</div>
<h2>Targets</h2><div class="grid four">${measures.map(target)}</div>
<h2>Prod uptime</h2><div class="grid">${uptimeStrip('Last 24 hours', series.hours, hourOf)}${uptimeStrip('Last 30 days', series.days, dayOf)}</div>
<h2>Over time</h2><div class="grid two">${[switchStrip(series), memoryChart(series)]}</div>
<h2>Also</h2><div class="card"><dl>${projectRows(report).map(row)}</dl></div>
<footer class="soft">Written by <code>npm run status -- --html</code>. This page loads nothing.</footer></main>
${scripts.map((text) => html`<script>${raw(text)}</script>`)}</body></html>
`;
  return page.html;
}

// HTML as text: every value is escaped, so that no container name or error message becomes markup.

type Html = { html: string };
const raw = (text: string): Html => ({ html: text });
const escaped = (text: string) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);

function html(parts: TemplateStringsArray, ...values: (string | number | Html | Html[])[]): Html {
  const render = (value: string | number | Html) =>
    typeof value === 'object' ? value.html : escaped(String(value));
  return raw(String.raw({ raw: parts }, ...values.map((value) => [value].flat().map(render).join(''))));
}

const row = ([title, ...lines]: Row) => html`<dt>${title}</dt><dd>${lines.join('; ')}</dd>`;
// In the time zone of this machine; days are counted in UTC.
const format = (options: Intl.DateTimeFormatOptions) => (at: string) =>
  new Date(at).toLocaleString('en-GB', options);
const moment = format({ dateStyle: 'medium', timeStyle: 'short' });
const hourOf = format({ timeStyle: 'short' });
const dayOf = format({ timeZone: 'UTC', day: 'numeric', month: 'short' });

function card(report: EnvironmentReport): Html {
  const { name, active, health, image, url, healthUrl, digest } = report;
  const isWrong = active && ['stopped', 'absent'].includes(health);
  const rows: Row[] = [['version', describeVersion(report)], ...environmentRows(report)];
  const address = html`<dt>address</dt><dd><a href="${healthUrl}">${url}</a></dd>`;
  return html`<section class="card" title="${digest ?? ''}"><h3>${name}${active ? '' : html` <small>not active</small>`}
<span class="state ${isWrong ? 'unhealthy' : health}">${health}</span></h3>
<dl>${image === null ? '' : [...rows.map(row), address]}</dl></section>`;
}

function target(measure: Measure): Html {
  const { title, value, unit, reached, note } = measure;
  const words = reached === null ? 'not measured yet' : reached ? 'met' : 'missed';
  const state = reached === null ? 'absent' : reached ? 'healthy' : 'unhealthy';
  return html`<section class="card"><p>${title}</p><p class="value">${describeValue(value, unit)}</p>
<p><span class="state ${state}">${words}</span> <span class="soft">target ${describeAim(measure)}</span></p>
<p class="soft">${note}</p></section>`;
}

interface Bar {
  at: string;
  words: string;
  /** State → its share of the bar's height. */
  parts: Record<string, number>;
}

/** Bars to scale, each with its values on hover, and all values as a table; red outlines where something was down. */
function strip(title: string, description: string, bars: Bar[], legend: Record<string, string>): Html {
  const drawn = bars.map(({ at, words, parts }) => {
    const shares = Object.entries(parts).map(
      ([state, share]) => html`<b class="${state}" style="flex-grow:${share}"></b>`,
    );
    return html`<i class="bar${parts.down ? ' troubled' : ''}" title="${at}: ${words}">${shares}</i>`;
  });
  const ends = [bars[0], bars.length > 1 ? bars.at(-1) : undefined];
  return html`<figure class="card"><figcaption><h3>${title}</h3><p class="soft">${description}</p></figcaption>
<div class="strip" role="img" aria-label="${title}: ${description}">${drawn}</div>
<p class="ends" style="max-width:${4 * bars.length}rem">${ends.map((end) => html`<span>${end?.at ?? ''}</span>`)}</p>
<p class="legend">${Object.entries(legend).map(([state, words]) => html`<span><b class="${state}"></b>${words}</span>`)}</p>
<details><summary>As a table</summary><div class="table" tabindex="0"><table>${bars
    .toReversed()
    .map(
      ({ at, words }) => html`<tr><td>${at}</td><td>${words}</td></tr>`,
    )}</table></div></details></figure>`;
}

const STATES = { up: 'up', down: 'down', off: 'off on purpose', unknown: 'not measured' };

function uptimeStrip(title: string, periods: Period[], label: (at: string) => string): Html {
  const bars = periods.map(({ at, memory: _, ...parts }) => {
    const words = (Object.keys(STATES) as (keyof typeof STATES)[])
      .filter((state) => parts[state] > 0)
      .map((state) => `${STATES[state]} ${duration(parts[state])}`);
    return { at: label(at), words: words.join(', '), parts };
  });
  const sum = (state: 'up' | 'down') => periods.reduce((total, period) => total + period[state], 0);
  const [up, down] = [sum('up'), sum('down')];
  const lasted = down > 0 ? `down for ${duration(down)}` : 'no downtime';
  const description = up + down > 0 ? `${percent(up / (up + down))} up, ${lasted}` : 'Not measured yet';
  return strip(title, description, bars, STATES);
}

function switchStrip({ switches }: Series): Html {
  const failed = switches.filter(({ outcome }) => outcome !== 'done').length;
  const longest = Math.max(0, ...switches.map(({ seconds }) => seconds));
  const bars = switches.map(({ at, to, seconds, outcome }) => ({
    ...{ at: moment(at), words: `${to ?? '–'}, ${duration(seconds)}, ${outcome}` },
    parts: { [outcome === 'done' ? 'up' : 'down']: seconds, rest: longest - seconds },
  }));
  const description = `${bars.length} switches, ${failed} failed, the longest took ${duration(longest)}`;
  return strip('Switches', bars.length > 0 ? description : 'None yet', bars, { up: 'done', down: 'failed' });
}

/** uPlot's form of the data: times, then one list for each line. */
function memoryChart({ memory }: Series): Html {
  const used = (name: EnvironmentName) => memory.map((hour) => hour.memory[name] ?? null);
  const [prod, dev] = [used('prod'), used('dev')];
  const peak = (bytes: (number | null)[]) => formatBytes(Math.max(...bytes.map((one) => one ?? 0)));
  const description = memory.length > 0 ? `Peak: prod ${peak(prod)}, dev ${peak(dev)}` : 'Not measured yet';
  const data = JSON.stringify([memory.map(({ at }) => Date.parse(at) / 1000), prod, dev]);
  return html`<figure class="card"><figcaption><h3>Memory in the last 7 days</h3><p class="soft">${description}</p></figcaption>
<div class="chart" id="memory" role="img" aria-label="Memory. ${description}" data-points="${data}"></div></figure>`;
}

/** Runs in the browser. Colours are read at each drawing: the reader's scheme may change. */
const SCRIPT = `
const colour = (name) => () => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
const axis = { stroke: colour('soft'), grid: { stroke: colour('line'), width: 1 }, ticks: { show: false } };
const write = (bytes) => (bytes === null ? '–' : +(bytes / 1e6).toFixed(3) + ' MB');
const day = { day: 'numeric', month: 'short' }, time = { weekday: 'short', hour: '2-digit', minute: '2-digit' };
const moment = (at, options) => (at === null ? '–' : new Date(at * 1000).toLocaleString('en-GB', options));
const line = (label) => ({ label, stroke: colour(label), width: 2, value: (_, bytes) => write(bytes) });
const draw = (place, data, width) => new uPlot({
  width, height: 220, cursor: { y: false, drag: { x: false } },
  scales: { y: { range: (_, low, high) => [0, high * 1.1 || 1] } },
  axes: [{ ...axis, space: 80, values: (_, times, axis, space, step) => times.map((at) => moment(at, step < 86400 ? time : day)) },
    { ...axis, size: 70, values: (_, values) => values.map(write) }],
  series: [{ label: 'at', value: (_, at) => moment(at) }, line('prod'), line('dev')],
}, data, place);
const place = document.getElementById('memory');
const data = JSON.parse(place.dataset.points);
if (data[0].length > 0) {
  const chart = draw(place, data, place.clientWidth);
  new ResizeObserver(() => chart.setSize({ width: place.clientWidth, height: 220 })).observe(place);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => chart.redraw());
}
`;
