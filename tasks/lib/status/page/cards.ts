// The cards of the page: one for each environment, one for each measure.
import { amount, duration } from '../format.ts';
import { describeMeasure } from '../measures.ts';
import { short } from '../problems.ts';
import type { EnvironmentReport, Measure } from '../reported.ts';
import { type Html, html, raw } from './html.ts';

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
export function row(title: string, value: Html | string | null): Html {
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

export function environmentCard(report: EnvironmentReport, activeNames: boolean): Html {
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

export function measureCard({ title, value, unit, aim, reached, note }: Measure): Html {
  const state = reached === null ? 'idle' : reached ? 'good' : 'bad';
  const words = reached === null ? 'not measured yet' : reached ? 'reached' : 'missed';
  return html`<article class="card measure"><p class="soft">${title}</p><p class="value">${describeMeasure(value, unit)}</p>
<p class="aim"><span class="mood ${state}">${words}</span> <span class="soft">aim ${unit === 'ratio' ? '≥' : '<'} ${describeMeasure(aim, unit)}</span></p>
${note ? html`<p class="note">${note}</p>` : ''}</article>`;
}
