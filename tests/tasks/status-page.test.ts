// The status page in a real browser, at phone and desktop width, light and dark. What would be lost: a page that
// loads something from elsewhere, that cannot be read on a phone, or that hides a failure.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { type Browser, chromium, type Page } from 'playwright-core';
import { statusPage } from '../../tasks/lib/status/page.ts';
import { reportStatus, seriesOf } from '../../tasks/lib/status/report.ts';
import { ensureProgram } from '../programs.ts';
import { historyEntry, monthOfSamples, type Situations, statusFacts, statusProject } from './status-facts.ts';

// The page's times are those of this machine.
process.env.TZ = 'UTC';

const FLAGS = [
  ...['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync'],
  ...['--disable-background-networking', '--disable-component-update', '--in-process-gpu'],
  '--disable-software-rasterizer',
];
const VIEWS = { phone: { width: 390, height: 844 }, desktop: { width: 1280, height: 900 } };

/** What an attacker would write into a container's name or a log line. */
const HOSTILE = `</li></ul></script><script>window.hacked = 1</script><img src="https://example.org/x.png" onerror=alert(1)>'&"`;
const problem = (message: string, hint: string) => ({ code: 'x', message, hint });
const backup = (message: string, hint: string) => ({
  report: { at: null, name: null, ageSeconds: null, overdue: true, failure: message },
  problem: problem(message, hint),
});
const DAY = 86_400;
const SWITCHES = [
  historyEntry('switch', 9 * DAY, { to: 'both', seconds: 4.1 }),
  historyEntry('switch', 5 * DAY, { to: 'prod', seconds: 17.2, outcome: 'failed' }),
  historyEntry('switch', 3 * DAY, { to: 'both', phases: { 'start prod': 1.7 }, gaps: { prod: 210 } }),
];

const CASES: Record<string, Situations> = {
  well: { samples: monthOfSamples(), history: SWITCHES },
  ill: {
    dev: { container: null },
    prod: { status: 503, memory: { bytes: 2.95e9, limit: 3e9 }, body: { revision: 'a5198f2-dirty' } },
    backup: backup('no space left on device', `df -h /a/${'very-long-name-'.repeat(9)}`),
  },
  hostile: {
    prod: { container: { name: HOSTILE, image: HOSTILE }, body: { version: HOSTILE }, status: 503 },
    history: [historyEntry('switch', 60, { to: HOSTILE })],
    backup: backup(HOSTILE, HOSTILE),
  },
};

/** Kept for a person to look at; in the temporary directory, so CI keeps nothing. */
const screenshots = mkdtempSync(join(tmpdir(), 'status-page-'));
const pages = mkdtempSync(join(tmpdir(), 'release-flow-pages-'));
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
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
  console.log(`screenshots: ${screenshots}`);
});

async function show(
  name: string,
  view: keyof typeof VIEWS = 'desktop',
  colorScheme: 'light' | 'dark' = 'light',
) {
  const project = await statusProject();
  const facts = statusFacts(CASES[name]);
  const html = await statusPage('synapse', reportStatus(project, facts), seriesOf(facts));
  const file = join(pages, `${name}.html`);
  writeFileSync(file, html);
  await page.setViewportSize(VIEWS[view]);
  await page.emulateMedia({ colorScheme });
  shown = pathToFileURL(file).href;
  complaints = [];
  await page.goto(shown, { waitUntil: 'load' });
  return html;
}

/** What axe-core, the usual judge of accessibility, finds: contrast, names, structure. */
async function violations(): Promise<string[]> {
  await page.evaluate(axe);
  return (await page.evaluate(`axe.run().then(({ violations }) => violations.flatMap(({ id, nodes }) =>
    nodes.map(({ html, failureSummary }) => id + ': ' + html + ' ' + failureSummary)))`)) as string[];
}

for (const name of ['well', 'ill']) {
  for (const view of ['phone', 'desktop'] as const) {
    for (const scheme of ['light', 'dark'] as const) {
      test(`${name}, ${view}, ${scheme}: nothing is loaded, nothing overflows, all can be read`, async () => {
        await show(name, view, scheme);
        const width = (await page.evaluate('document.documentElement.scrollWidth')) as number;
        assert.ok(width <= VIEWS[view].width, `${width} px wide`);
        const background = (await page.evaluate('getComputedStyle(document.body).backgroundColor')) as string;
        assert.equal(Number(/\d+/.exec(background)?.[0]) > 128, scheme === 'light', background);
        assert.deepEqual(complaints, []);
        await page.screenshot({ path: join(screenshots, `${name}-${view}-${scheme}.png`), fullPage: true });
        assert.deepEqual(await violations(), []);
      });
    }
  }
}

test('uptime: downtime is drawn to scale, each bar names its values, a picture its sum', async () => {
  await show('well');
  const strip = (title: string) => page.getByRole('img', { name: title });
  assert.match(
    (await strip('Last 30 days').getAttribute('aria-label')) ?? '',
    /99\.\d+ % up, down for 17 min$/,
  );
  assert.match((await strip('Last 24 hours').getAttribute('aria-label')) ?? '', /down for 7 min$/);
  const bars = await strip('Last 24 hours')
    .locator('i')
    .evaluateAll((found) =>
      found.map((bar) => {
        const down = bar.querySelector('.down');
        const share = (down?.getBoundingClientRect().height ?? 0) / bar.getBoundingClientRect().height;
        return { title: bar.getAttribute('title') ?? '', share };
      }),
    );
  assert.equal(bars.length, 24);
  const bad = bars.filter(({ share }) => share > 0);
  assert.deepEqual(
    bad.map(({ title }) => title),
    ['09:00: up 53 min, down 7 min'],
  );
  assert.ok(Math.abs(bad[0]!.share - 420 / 3600) < 0.02, `${bad[0]!.share}`);
  assert.equal(await strip('Last 30 days').locator('i').count(), 30);
  assert.equal(await strip('Last 30 days').locator('.troubled').count(), 2);
});

test('switches: each is a bar, to scale, and a failed one is red and said', async () => {
  await show('well');
  const strip = page.getByRole('img', { name: 'Switches' });
  assert.match((await strip.getAttribute('aria-label')) ?? '', /3 switches, 1 failed, the longest took 17 s/);
  const bars = await page.evaluate(`[...document.querySelectorAll('[aria-label^=Switches] i')].map((bar) => {
    const part = bar.querySelector('.up, .down');
    const share = part.getBoundingClientRect().height / bar.getBoundingClientRect().height;
    const [red, green] = getComputedStyle(part).backgroundColor.match(/\\d+/g);
    return [bar.title, Math.round(100 * share), red > 2 * green];
  })`);
  assert.deepEqual(bars, [
    ['15 Nov 2026, 21:30: both, 4.1 s, done', 24, false],
    ['19 Nov 2026, 21:30: prod, 17 s, failed', 100, true],
    ['21 Nov 2026, 21:30: both, 3.8 s, done', 22, false],
  ]);
});

test('memory: drawn by uPlot, its labels distinct, with the values under the pointer', async () => {
  await show('well');
  const chart = page.locator('#memory');
  assert.match((await chart.getAttribute('aria-label')) ?? '', /Peak: prod [\d.]+ MB, dev [\d.]+ MB/);
  assert.equal(await chart.locator('canvas').count(), 1);
  assert.deepEqual(await chart.locator('.u-legend .u-label').allTextContents(), ['at', 'prod', 'dev']);
  await chart.locator('.u-over').hover();
  const values = await chart.locator('.u-value').allTextContents();
  assert.match(values.join(' | '), /^.+ \| [\d.]+ MB \| [\d.]+ MB$/);
  for (const hours of [2, 60, 168]) {
    const labels = (await page.evaluate(`(async () => {
      const place = document.createElement('div');
      document.body.append(place);
      const times = Array.from({ length: ${hours} * 12 }, (_, index) => 1764000000 + index * 300);
      const chart = draw(place, [times, times.map(() => 1e6), times.map(() => 2e6)], 600);
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
      return chart.axes[0]._values;
    })()`)) as string[];
    const shown = labels.filter(Boolean);
    assert.ok(shown.length > 1 && new Set(shown).size === shown.length, shown.join(' '));
  }
});

test('each strip has its values as a table', async () => {
  await show('well');
  assert.equal(await page.locator('figure table').count(), 3 + 1, 'three of ours, the legend of uPlot');
  const rows = await page.locator('figure .table').last().locator('td').allTextContents();
  assert.deepEqual(rows.slice(0, 2), ['21 Nov 2026, 21:30', 'both, 3.8 s, done'], 'the newest first');
});

test('names and messages stay text: no markup, no script, no style comes out of them', async () => {
  await show('hostile');
  assert.deepEqual(complaints, []);
  assert.equal(await page.evaluate('window.hacked'), undefined);
  const texts = await page
    .locator('.attention li')
    .evaluateAll((items) => items.map((item) => item.firstChild?.textContent));
  assert.ok(texts.includes(HOSTILE), texts.join('\n'));
});

test('a link leads to what answers; watching makes the page read itself again', async () => {
  const html = await show('well');
  assert.deepEqual(
    await page.locator('a').evaluateAll((links) => links.map((link) => link.getAttribute('href'))),
    ['http://127.0.0.1:8002/health', 'http://127.0.0.1:8003/health'],
  );
  assert.ok(!/http-equiv="refresh"/.test(html));
  const facts = statusFacts();
  const watched = await statusPage('synapse', reportStatus(await statusProject(), facts), seriesOf(facts), 2);
  assert.match(watched, /<meta http-equiv="refresh" content="2">/);
});
