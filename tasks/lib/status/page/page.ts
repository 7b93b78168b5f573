// The status as one self-contained page: the same facts as on the terminal, and three charts. Pure.
import type { Project } from '../../project.ts';
import { describeSilences } from '../describe.ts';
import { ago, amount, duration } from '../format.ts';
import { AIMS } from '../measures.ts';
import type { StatusReport } from '../reported.ts';
import type { DayRow, HourRow } from '../uptime.ts';
import { environmentCard, measureCard, row } from './cards.ts';
import { type Html, html, raw } from './html.ts';
import { memoryChart } from './memory-chart.ts';
import { STYLE } from './style.ts';
import { switchChart } from './switch-chart.ts';
import { uptimeChart } from './uptime-chart.ts';

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
