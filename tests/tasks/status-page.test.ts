// The status page in a real browser, at phone and desktop width, light and dark. What would be lost: a page that
// loads something from elsewhere, that cannot be read on a phone, or that says nothing to who cannot see its charts.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { type Browser, chromium, type Page } from 'playwright-core';
import { statusPage } from '../../tasks/lib/status/page.ts';
import { ensureProgram } from '../programs.ts';
import {
  EMPTY_SERIES,
  HOSTILE,
  illReport,
  pageProject,
  wellReport,
  wellSeries,
} from './status-page-facts.ts';

const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--in-process-gpu',
  '--disable-software-rasterizer',
];
const VIEWS = [
  { name: 'phone', viewport: { width: 390, height: 844 } },
  { name: 'desktop', viewport: { width: 1280, height: 900 } },
] as const;
const SCHEMES = ['light', 'dark'] as const;

/** Kept for a person to look at; in the temporary directory, so CI keeps nothing. */
const screenshots = mkdtempSync(join(tmpdir(), 'status-page-'));
const pages = mkdtempSync(join(tmpdir(), 'release-flow-pages-'));
let browser: Browser;
/** One for all: each page of its own would be a process of its own, which takes a second to start. */
let page: Page;
/** Of the page that is shown: console messages, errors, and requests other than for the page itself. */
let complaints: string[] = [];
let shown = '';

before(async () => {
  const executablePath = await ensureProgram('chromium');
  // Playwright gives it a fresh user data directory and removes that at the end.
  browser = await chromium.launch({ executablePath, args: FLAGS });
  page = await browser.newPage({ deviceScaleFactor: 1 });
  page.on('console', (message) => complaints.push(`console: ${message.text()}`));
  page.on('pageerror', (error) => complaints.push(`error: ${error.message}`));
  page.on('request', (request) => {
    if (request.url() !== shown) complaints.push(`request: ${request.url()}`);
  });
});

after(async () => {
  await browser?.close();
  rmSync(pages, { recursive: true, force: true });
});

interface View {
  viewport: { width: number; height: number };
  colorScheme?: 'light' | 'dark';
}

async function look(name: string, html: string, { viewport, colorScheme = 'light' }: View): Promise<void> {
  const file = join(pages, `${name}.html`);
  writeFileSync(file, html);
  await page.setViewportSize(viewport);
  await page.emulateMedia({ colorScheme });
  shown = pathToFileURL(file).href;
  complaints = [];
  await page.goto(shown, { waitUntil: 'load' });
}

const CASES = [
  { name: 'well', html: statusPage(pageProject, wellReport, wellSeries) },
  { name: 'ill', html: statusPage(pageProject, illReport, EMPTY_SERIES) },
];

/** The contrast of every visible text with what is behind it (WCAG 2, AA: 4.5, large text 3). */
const LOW_CONTRAST = `(() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('main *')].filter((element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) && !element.closest('svg, details table'))
    .flatMap((element) => {
      const style = getComputedStyle(element);
      const [a, b] = [light(parse(style.color)), light(behind(element))].sort((x, y) => y - x);
      const ratio = (a + 0.05) / (b + 0.05);
      return ratio < (parseFloat(style.fontSize) >= 24 ? 3 : 4.5) ? [element.textContent.trim().slice(0, 40) + ' ' + ratio.toFixed(2)] : [];
    });
})()`;

for (const { name, html } of CASES) {
  for (const { name: view, viewport } of VIEWS) {
    for (const scheme of SCHEMES) {
      test(`${name}, ${view}, ${scheme}: nothing is loaded, nothing overflows, all can be read`, async () => {
        await look(`${name}-${view}-${scheme}`, html, { viewport, colorScheme: scheme });
        assert.deepEqual(complaints, []);
        const width = await page.evaluate('document.documentElement.scrollWidth');
        assert.ok((width as number) <= viewport.width, `${width} px wide`);
        assert.deepEqual(await page.evaluate(LOW_CONTRAST), [], 'contrast');
        const background = (await page.evaluate('getComputedStyle(document.body).backgroundColor')) as string;
        assert.equal(Number(/\d+/.exec(background)?.[0]) > 128, scheme === 'light', background);
        await page.screenshot({ path: join(screenshots, `${name}-${view}-${scheme}.png`), fullPage: true });
      });
    }
  }
}

test('every chart has a name, a description and its numbers as a table', async () => {
  await look('charts', CASES[0]!.html, { viewport: VIEWS[0].viewport });
  const charts = page.getByRole('img');
  assert.equal(await charts.count(), 3);
  for (const [index, name, words] of [
    [0, 'Prod uptime by day', /30 days, 99\.\d+ % up\. Down on 1 of them, longest on 20 Nov: 10 min/],
    [1, 'Memory in the last 7 days', /Peak of prod: .*; of dev: /],
    [2, 'Switch times', /4 switches; the last took .*The aim is below 30 s/],
  ] as const) {
    const snapshot = await page.evaluate(
      `(() => { const chart = document.querySelectorAll('svg[role=img]')[${index}];
        return chart.getAttribute('aria-labelledby').split(' ').map((id) => document.getElementById(id).textContent); })()`,
    );
    const [title, description] = snapshot as [string, string];
    assert.equal(title, name);
    assert.match(description, words);
  }
  assert.equal(await page.locator('figure table').count(), 3);
  assert.equal(await page.locator('figure').nth(0).locator('tbody tr').count(), 30);
  await page.locator('summary').first().click();
  assert.ok(await page.locator('figure table').first().isVisible());
});

test('names and messages stay text: no markup, no script, no style comes out of them', async () => {
  const html = statusPage(
    pageProject,
    { ...illReport, problems: [{ code: 'x', message: HOSTILE, hint: HOSTILE }] },
    EMPTY_SERIES,
  );
  await look('hostile', html, { viewport: VIEWS[1].viewport });
  assert.deepEqual(complaints, []);
  assert.equal(await page.evaluate('window.hacked'), undefined);
  assert.equal(await page.evaluate('document.querySelector(".problems li").firstChild.data'), HOSTILE);
});

test('the page works without a network, and where its screenshots are', (t) => {
  assert.ok(!/(?:src|href)="(?!data:|http:\/\/127\.0\.0\.1)/.test(CASES[0]!.html));
  t.diagnostic(`screenshots: ${screenshots}`);
  console.log(`screenshots: ${screenshots}`);
});
