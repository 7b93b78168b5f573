// The status as one self-contained page: the same report as on the terminal, prod's uptime as strips, and two charts.
// Nothing is loaded: the chart library is inlined, and the page's policy lets no script run but these two.
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { duration, formatBytes, percent } from '../format.ts';
import { TASKS_FOLDER } from '../project.ts';
import type { Period } from '../uptime.ts';
import { describeAim, describeBackup, describeLastSwitch, describeValue, headline } from './describe.ts';
import type { EnvironmentReport, Measure, Series, StatusReport } from './report.ts';

/** With `refresh`, in seconds, the browser reads the file again and again. */
export async function statusPage(name: string, report: StatusReport, series: Series, refresh?: number) {
  const library = join(TASKS_FOLDER, '../node_modules/uplot/dist');
  const [uplot, uplotStyle] = await Promise.all(
    ['uPlot.iife.min.js', 'uPlot.min.css'].map((file) => readFile(join(library, file), 'utf8')),
  );
  const scripts = [uplot!, SCRIPT];
  const hashes = scripts.map((text) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`);
  const policy = `default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src ${hashes.join(' ')}`;
  const { environments, measures, active, prodTag, problems, notes, data } = report;
  const attention = [
    ...problems.map(({ message, hint }) => html`<li>${message}<small>${hint}</small></li>`),
    ...notes.map((note) => html`<li class="note">${note}</li>`),
  ];
  const size = data.bytes === null ? '' : `, ${formatBytes(data.bytes)}`;
  const page = html`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${raw(policy)}">
${refresh ? html`<meta http-equiv="refresh" content="${refresh}">` : ''}
<title>${name}: ${headline(report)}</title><link rel="icon" href="data:,"><style>${raw(uplotStyle + STYLE)}</style></head>
<body><main><header><p class="soft">${name}</p><h1>${headline(report)}</h1>
<p class="soft">Active: ${active}${prodTag ? `. Prod runs ${prodTag}` : ''}. As of <time datetime="${report.at}">${moment(report.at)} UTC</time>.</p>
${attention.length > 0 ? html`<ul class="attention">${attention}</ul>` : ''}</header>
<h2>Environments</h2><div class="grid two">${[environments.prod, environments.dev].map(card)}</div>
<h2>Targets</h2><div class="grid four">${measures.map(target)}</div>
<h2>Prod uptime</h2><div class="grid">${uptimeFigure('Last 24 hours', series.hours, hourOf)}${uptimeFigure('Last 30 days', series.days, dayOf)}</div>
<h2>Over time</h2><div class="grid two">${[memoryFigure(series), switchFigure(series)]}</div>
<h2>Also</h2><div class="card"><dl>${row('last switch', describeLastSwitch(report).join('; '))}
${row('data', `${data.directory}${size}`)}${row('last backup', describeBackup(report))}</dl></div>
<footer class="soft">Written by <code>npm run status -- --html</code>. This page loads nothing.</footer></main>
<script type="application/json" id="data">${raw(chartData(series))}</script>
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

const row = (title: string, value: string | Html | null | undefined) =>
  value ? html`<dt>${title}</dt><dd>${value}</dd>` : raw('');
const format = (at: string, options: Intl.DateTimeFormatOptions) =>
  new Date(at).toLocaleString('en-GB', { timeZone: 'UTC', ...options });
const moment = (at: string) => format(at, { dateStyle: 'medium', timeStyle: 'short' });
const hourOf = (at: string) => `${at.slice(11, 13)}:00 UTC`;
const dayOf = (at: string) => format(at, { day: 'numeric', month: 'short' });

function card(report: EnvironmentReport): Html {
  const { name, active, health, revision, dirty, image, digest, memory, url, healthUrl, cpuPercent } = report;
  const isWrong = active && ['stopped', 'absent'].includes(health);
  const commit = revision ? `${revision.slice(0, 12)}${dirty ? ', uncommitted changes' : ''}` : null;
  const limit = memory?.limit ? ` of ${formatBytes(memory.limit)}` : ', no limit';
  const peak = memory?.peak ? `, peak ${formatBytes(memory.peak)}` : '';
  const since = `${duration(report.uptimeSeconds ?? 0)}, ${report.restarts} restarts`;
  return html`<section class="card"><h3>${name}${active ? '' : html` <small>not active</small>`}
<span class="state ${isWrong ? 'unhealthy' : health}">${health}</span></h3><dl>${[
    row('version', report.version),
    row('commit', commit && html`<code title="${revision ?? ''}">${commit}</code>`),
    row('image', image && html`<code>${image}</code>`),
    row('digest', digest && html`<code title="${digest}">${digest.slice(0, 19)}</code>`),
    row('released', image && (report.releasedAs ?? 'not a released image')),
    ...Object.entries(report.config).map(([path, value]) => row(path, String(value))),
    row('address', health === 'absent' ? null : html`<a href="${healthUrl}">${url}</a>`),
    row('running for', report.uptimeSeconds === null ? null : since),
    row('memory', memory && `${formatBytes(memory.bytes)}${limit}${peak}`),
    row('CPU', cpuPercent === null ? null : `${cpuPercent} %`),
  ]}</dl></section>`;
}

function target(measure: Measure): Html {
  const { title, value, unit, reached, note } = measure;
  const words = reached === null ? 'not measured yet' : reached ? 'met' : 'missed';
  const state = reached === null ? 'absent' : reached ? 'healthy' : 'unhealthy';
  return html`<section class="card"><p>${title}</p><p class="value">${describeValue(value, unit)}</p>
<p><span class="state ${state}">${words}</span> <span class="soft">target ${describeAim(measure)}</span></p>
<p class="soft">${note}</p></section>`;
}

/** A picture and, for who cannot see it, its numbers: a table whose first row is the heading. */
function figure(
  title: string,
  description: string,
  picture: Html,
  [columns = [], ...rows]: string[][],
): Html {
  const cells = (line: string[]) => line.map((cell) => html`<td>${cell}</td>`);
  return html`<figure class="card"><figcaption><h3>${title}</h3><p class="soft">${description}</p></figcaption>${picture}
<details><summary>As a table</summary><div class="table" tabindex="0"><table>
<thead><tr>${columns.map((column) => html`<th scope="col">${column}</th>`)}</tr></thead>
<tbody>${rows.reverse().map((line) => html`<tr>${cells(line)}</tr>`)}</tbody></table></div></details></figure>`;
}

const STATES = { up: 'up', down: 'down', off: 'off on purpose', unknown: 'not measured' } as const;

/** One bar for each period, its height shared by the states to scale; a period with downtime has a red foot. */
function uptimeFigure(title: string, periods: Period[], label: (at: string) => string): Html {
  const states = Object.keys(STATES) as (keyof typeof STATES)[];
  const sum = (state: 'up' | 'down') => periods.reduce((total, period) => total + period[state], 0);
  const [up, down] = [sum('up'), sum('down')];
  const lasted = down > 0 ? `, down for ${duration(down)}` : ', no downtime';
  const description = up + down > 0 ? `${percent(up / (up + down))} up${lasted}` : 'Not measured yet';
  const bars = periods.map((period) => {
    const told = states.filter((state) => period[state] > 0);
    const words = told.map((state) => `${STATES[state]} ${duration(period[state])}`);
    const parts = told.map((state) => html`<b class="${state}" style="flex-grow:${period[state]}"></b>`);
    const foot = period.down > 0 ? ' troubled' : '';
    return html`<i class="bar${foot}" title="${label(period.at)}: ${words.join(', ')}">${parts}</i>`;
  });
  const ends = html`<p class="ends"><span>${label(periods[0]!.at)}</span><span>${label(periods.at(-1)!.at)}</span></p>`;
  const legend = html`<p class="legend">${states.map((state) => html`<span><b class="${state}"></b>${STATES[state]}</span>`)}</p>`;
  const picture = html`<div class="strip" role="img" aria-label="${title}: ${description}">${bars}</div>${ends}${legend}`;
  const rows = periods.map((period) => [label(period.at), ...states.map((state) => duration(period[state]))]);
  return figure(title, description, picture, [['From', ...Object.values(STATES)], ...rows]);
}

function chart(id: string, title: string, description: string, table: string[][]): Html {
  const picture = html`<div class="chart" id="${id}" role="img" aria-label="${title}: ${description}"></div>`;
  return figure(title, description, table.length > 1 ? picture : raw(''), table);
}

function memoryFigure({ memory }: Series): Html {
  const bytes = (value: number | null) => (value === null ? '–' : formatBytes(value));
  const rows = memory.map(({ at, prod, dev }) => [moment(at), bytes(prod), bytes(dev)]);
  const description = rows.length > 0 ? 'The peak of each hour' : 'Not measured yet';
  return chart('memory', 'Memory in the last 7 days', description, [['Hour (UTC)', 'prod', 'dev'], ...rows]);
}

function switchFigure({ switches }: Series): Html {
  const failed = switches.filter(({ outcome }) => outcome !== 'done').length;
  const description = switches.length > 0 ? `${switches.length} switches, ${failed} failed` : 'No switch yet';
  const rows = switches.map((one) => [moment(one.at), one.to ?? '–', duration(one.seconds), one.outcome]);
  return chart('switches', 'Switches', description, [['When (UTC)', 'to', 'took', 'outcome'], ...rows]);
}

/** uPlot's form: times, then one list for each line. */
function chartData({ memory, switches }: Series): string {
  const times = (points: { at: string }[]) => points.map(({ at }) => Date.parse(at) / 1000);
  const took = (isDone: boolean) =>
    switches.map((one) => ((one.outcome === 'done') === isDone ? one.seconds : null));
  const lines = {
    memory: [times(memory), memory.map(({ prod }) => prod), memory.map(({ dev }) => dev)],
    switches: [times(switches), took(true), took(false)],
  };
  return JSON.stringify(lines).replaceAll('<', '\\u003c');
}

/** Runs in the browser. Colours are asked for at each drawing: the reader's scheme may change. */
const SCRIPT = `
const data = JSON.parse(document.getElementById('data').textContent);
const colour = (name) => () => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
const axis = { stroke: colour('soft'), grid: { stroke: colour('line'), width: 1 }, ticks: { show: false } };
const line = (label, name, more) => ({ label, stroke: colour(name), width: 2, ...more });
const dots = (label, name) => line(label, name, { paths: () => null, points: { show: true, size: 9, fill: colour(name) } });
const draw = (id, write, series) => {
  const place = document.getElementById(id);
  if (!place) return;
  const size = () => ({ width: place.clientWidth, height: 220 });
  const value = (_, number) => (number === null ? '–' : write(number));
  const chart = new uPlot({
    ...size(), cursor: { y: false, drag: { x: false } }, scales: { y: { range: (_, low, high) => [0, high * 1.1 || 1] } },
    axes: [axis, { ...axis, size: 70, values: (_, splits) => splits.map(write) }],
    series: [{ label: 'at', value: (_, at) => (at === null ? '–' : new Date(at * 1000).toLocaleString()) }, ...series.map((one) => ({ value, ...one }))],
  }, data[id], place);
  new ResizeObserver(() => chart.setSize(size())).observe(place);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => chart.redraw());
};
draw('memory', (bytes) => +(bytes / 1e6).toFixed(3) + ' MB', [line('prod', 'prod'), line('dev', 'dev')]);
draw('switches', (seconds) => +seconds.toFixed(2) + ' s', [dots('done', 'prod'), dots('failed', 'bad')]);
`;

/** One column on a phone, cards beside each other on a desktop, light and dark as the reader's system is. */
const STYLE = `
:root { color-scheme: light dark; --page: #f6f6f3; --card: #fff; --ink: #1c1e22; --soft: #5b616b; --line: #e4e4df;
  --good: #2c7a57; --bad: #b23328; --wait: #8f6200; --prod: #2f68a6; --dev: #a8651a; --none: #dcdcd6; --off: #a9aeb6; }
@media (prefers-color-scheme: dark) { :root { --page: #131518; --card: #1b1e23; --ink: #e7e8ea; --soft: #a0a6b0; --line: #2c3037;
  --good: #62bb93; --bad: #ec8479; --wait: #dcae55; --prod: #84b5ea; --dev: #e2ab66; --none: #343941; --off: #6a717c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; }
main { max-width: 68rem; margin: 0 auto; padding: clamp(1.25rem, 4vw, 3.5rem) clamp(1rem, 4vw, 2.5rem) 2rem; }
h1 { font-size: clamp(1.9rem, 5vw, 2.6rem); line-height: 1.15; letter-spacing: -0.02em; margin: 0.1rem 0 0.5rem; }
h2 { font-size: 0.85rem; color: var(--soft); margin: 2.5rem 0 0.75rem; } h3 { font-size: 1.1rem; margin: 0; } p { margin: 0; }
.soft, dt, summary, small, .ends, .legend { color: var(--soft); } a { color: inherit; }
.grid { display: grid; gap: 1rem; grid-template-columns: minmax(0, 1fr); } .four { grid-template-columns: repeat(2, minmax(0, 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 1.25rem; margin: 0; min-width: 0; }
.value { font-size: clamp(1.3rem, 5vw, 1.7rem); font-weight: 620; }
.state { font-size: 0.9rem; font-weight: 560; } h3 .state { float: right; }
.state { color: var(--soft); } .state::before { content: "● "; } .state.starting { color: var(--wait); }
.state.healthy { color: var(--good); } .state:is(.unhealthy, .crash-looping) { color: var(--bad); }
dl { display: grid; grid-template-columns: minmax(5.5rem, max-content) minmax(0, 1fr); gap: 0.3rem 1rem; margin: 0.8rem 0 0; font-size: 0.93rem; }
dt { max-width: 34vw; } dt, dd { margin: 0; overflow-wrap: anywhere; } code { font: 0.9em ui-monospace, Menlo, monospace; overflow-wrap: anywhere; }
.attention { list-style: none; margin: 1.5rem 0 0; padding: 0; display: grid; gap: 0.75rem; }
.attention li { border-left: 3px solid var(--bad); padding-left: 0.9rem; } .attention .note { border-color: var(--wait); }
.attention small { display: block; white-space: pre-wrap; overflow-wrap: anywhere; }
.strip { display: flex; gap: 2px; height: 3.5rem; margin-top: 0.9rem; } .bar { flex: 1; display: flex; flex-direction: column-reverse; border-radius: 3px; overflow: hidden; }
.bar b { flex-basis: 0; } .troubled { box-shadow: 0 0 0 2px var(--bad); } .bar:hover { opacity: 0.7; }
.up { background: var(--good); } .down { background: var(--bad); order: -1; } .off { background: var(--off); } .unknown { background: var(--none); }
.ends, .legend { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem; font-size: 0.8rem; margin-top: 0.4rem; }
.legend { justify-content: start; } .legend b { display: inline-block; width: 0.65rem; height: 0.65rem; border-radius: 2px; margin-right: 0.35rem; }
.chart { margin-top: 0.9rem; overflow: hidden; } .u-legend { font-size: 0.8rem; } details { margin-top: 0.9rem; font-size: 0.85rem; } summary { cursor: pointer; width: fit-content; }
.table { max-height: 16rem; overflow: auto; margin-top: 0.5rem; } table { border-collapse: collapse; } .table table { width: 100%; }
.table :is(th, td) { text-align: right; padding: 0.2rem 0.6rem; border-bottom: 1px solid var(--line); font-weight: 400; white-space: nowrap; }
.table :is(th, td):first-child { text-align: left; padding-left: 0; } footer { margin-top: 2.5rem; font-size: 0.85rem; }
@media (min-width: 46rem) { .two { grid-template-columns: repeat(2, minmax(0, 1fr)); } .four { grid-template-columns: repeat(4, minmax(0, 1fr)); } }
`;
