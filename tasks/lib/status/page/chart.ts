// A small chart as inline SVG. The drawing stretches with the page and holds no text; scales, dates and legends
// are HTML, so they keep their size on a phone. Each has a description and its numbers as a table.
import { type Html, html } from './html.ts';

export interface Chart {
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

export function figure(chart: Chart): Html {
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

export function emptyFigure(title: string, text: string, wide = false): Html {
  return html`<figure class="card${wide ? ' wide' : ''}"><figcaption><h3>${title}</h3></figcaption><p class="empty">${text}</p></figure>`;
}

export const round = (value: number) => Math.round(value * 100) / 100;
export const day = (date: string) =>
  new Date(`${date.slice(0, 10)}T00:00:00Z`).toLocaleDateString('en-GB', {
    day: 'numeric',
    month: 'short',
    timeZone: 'UTC',
  });

/** Evenly chosen labels below a plot. */
export function dates<T>(items: readonly T[], label: (item: T) => string): string[] {
  const [first, middle, last] = [items[0], items[Math.floor((items.length - 1) / 2)], items.at(-1)];
  return [first, middle, last].flatMap((item) => (item === undefined ? [] : [label(item)]));
}
