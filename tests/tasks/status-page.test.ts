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
    ['09:00 UTC: up 53 min, down 7 min'],
  );
  assert.ok(Math.abs(bad[0]!.share - 420 / 3600) < 0.02, `${bad[0]!.share}`);
  assert.equal(await strip('Last 30 days').locator('i').count(), 30);
  assert.equal(await strip('Last 30 days').locator('.troubled').count(), 2);
});

test('charts: drawn by uPlot with a value for each axis label and under the pointer; a failed switch is seen', async () => {
  await show('well');
  for (const [id, description, labels] of [
    ['memory', /The peak of each hour/, ['prod', 'dev']],
    ['switches', /3 switches, 1 failed/, ['done', 'failed']],
  ] as const) {
    const chart = page.locator(`#${id}`);
    assert.match((await chart.getAttribute('aria-label')) ?? '', description);
    assert.equal(await chart.locator('canvas').count(), 1);
    const legend = await chart.locator('.u-legend .u-label').allTextContents();
    assert.deepEqual(legend, ['at', ...labels]);
  }
  await page.locator('#memory .u-over').hover();
  const values = await page.locator('#memory .u-value').allTextContents();
  assert.match(values.join(' | '), /^.+ \| [\d.]+ MB \| [\d.]+ MB$/);
  // The failed switch's dot, in its own colour.
  const red = await page.evaluate(`(() => {
    const canvas = document.querySelector('#switches canvas');
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    for (let at = 0; at < data.length; at += 4)
      if (data[at] > 150 && data[at + 1] < 80 && data[at + 2] < 80 && data[at + 3] > 200) count += 1;
    return count;
  })()`);
  assert.ok((red as number) > 20, `${red} red pixels`);
});

test('each picture has its numbers as a table', async () => {
  await show('well');
  assert.equal(await page.locator('figure table tbody').count(), 4 + 2, 'four of ours, two legends of uPlot');
  await page.locator('summary').last().click();
  assert.match(
    (await page.locator('figure .table').last().textContent()) ?? '',
    /both3\.8 sdone[\s\S]*failed/,
  );
});

test('the headline never says that all is well over a problem or a missed target', async () => {
  for (const [name, headline] of [
    ['well', 'All is well'],
    ['ill', '5 things need attention'],
  ] as const) {
    await show(name);
    assert.equal(await page.locator('h1').textContent(), headline);
  }
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
