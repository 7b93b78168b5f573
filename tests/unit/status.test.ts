// What status makes of what it saw, for situations that no engine produces on request: health, problems, healing,
// measures, words. What would be lost: an alarm that stays silent, or a nurse that kills.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Container, cpuPercent, parseUsage, type Usage } from '../../tasks/lib/docker/objects.ts';
import { TaskError } from '../../tasks/lib/errors.ts';
import { ago, duration, formatBytes, percent } from '../../tasks/lib/format.ts';
import { headline } from '../../tasks/lib/status/describe.ts';
import { decideHealing } from '../../tasks/lib/status/record.ts';
import { reportStatus } from '../../tasks/lib/status/report.ts';
import type { Sample } from '../../tasks/lib/uptime.ts';
import {
  before,
  historyEntry,
  NOW,
  runningContainer,
  type Situations,
  statusFacts,
  statusProject,
} from '../tasks/status-facts.ts';

const prodIs = (container: Partial<Container> | null, status = 200): Situations => ({
  prod: { container, status },
});

const healths: [health: string, seen: Situations][] = [
  ['absent', prodIs(null)],
  ['stopped', prodIs({ state: 'exited' })],
  ['stopped', prodIs({ state: 'created' })],
  ['stopped', prodIs({ state: 'paused' })],
  ['healthy', prodIs({})],
  ['healthy', prodIs({ health: undefined })],
  ['healthy', prodIs({ restarts: 40, startedAt: before(86_400) })],
  ['starting', prodIs({ health: 'starting' }, 0)],
  ['unhealthy', prodIs({}, 503)],
  ['unhealthy', prodIs({ health: 'unhealthy' })],
  ['crash-looping', prodIs({ state: 'restarting' }, 0)],
  ['crash-looping', prodIs({ restarts: 5, startedAt: before(2) })],
  ['unknown', { observation: undefined }],
];
for (const [health, seen] of healths) {
  test(`health ${health}: ${JSON.stringify(seen)}`, async () => {
    const { environments } = reportStatus(await statusProject(), statusFacts(seen));
    assert.equal(environments.prod.health, health);
  });
}

type Row = [codes: string[], seen: Situations, hint?: RegExp | undefined, dotenv?: Record<string, string>];
const active = (name: string) => ({ SYNAPSE_ACTIVE_ENV: name });
const stopped = { container: { state: 'exited' } };
const none = { container: null };
/** What an interrupted switch leaves: the new container made, the old one serving under the name it was given. */
const renamed = (prod: Partial<Container> | null): Situations => ({
  prod: { container: prod },
  containers: [runningContainer('dev'), runningContainer('prod', 'synapse-prod.before')],
});
const interrupted = [{ task: 'switch', command: 'npm run switch', at: before(60), step: 'stop prod' }];
const unreadable = new TaskError('Cannot read x.json', { hint: 'rm x.json' });

const problems: Row[] = [
  [[], {}],
  // Starting one never stops the other: it runs, or is meant to.
  [['not-running'], { prod: stopped }, /start it: npm run switch -- both; .* npm run switch -- dev$/],
  [['not-running'], { dev: stopped }, /start it: npm run switch -- both; .* npm run switch -- prod$/],
  [['not-running', 'not-running'], { dev: stopped, prod: none }, /start it: npm run switch -- both; /],
  [
    ['not-running'],
    { dev: none, prod: stopped },
    /start it: npm run switch -- prod; .* none$/,
    active('prod'),
  ],
  [
    ['should-not-run', 'not-running'],
    { prod: stopped },
    /^stop dev: npm run switch -- prod; keep it: npm run switch -- both$/,
    active('prod'),
  ],
  // An engine that was restarted brings back what was stopped.
  [['should-not-run'], { dev: none }, /^stop prod: npm run switch -- none; .* -- prod$/, active('none')],
  [['should-not-run', 'should-not-run'], {}, /^stop dev: npm run switch -- prod; /, active('none')],
  [['should-not-run'], {}, /^stop dev: npm run switch -- prod; keep it: .* both$/, active('prod')],
  [[], { task: 'switch' }, undefined, active('prod')],
  [[], { dev: none, prod: stopped }, undefined, active('none')],
  [
    ['interrupted', 'other-container'],
    { ...renamed({ state: 'exited' }), interrupted },
    /^resume it: npm run switch$/,
  ],
  [['other-container'], renamed(null), /npm run switch -- both/],
  [[], { ...renamed({ state: 'created' }), task: 'switch' }],
  [['interrupted'], { interrupted: [{ task: 'switch', command: '', error: unreadable }] }, /^rm x\.json$/],
  [['unhealthy'], prodIs({}, 503), /docker logs --tail 50 synapse-prod/],
  [['crash-looping'], prodIs({ state: 'restarting' }), /docker logs --tail 50 synapse-prod/],
  [['not-released'], prodIs({ imageId: 'sha256:other' }), /switch -- both --version v1\.3\.0/],
  [['not-released', 'other-release'], prodIs({ image: 'synapse:v0.9.0' }), /both --version v1\.3\.0/],
  [[], { dev: { container: { imageId: 'sha256:other' }, body: { revision: 'abc-dirty' } } }],
  [['dirty'], { prod: { body: { revision: 'abc-dirty' } } }, /switch -- both --version latest-release/],
  [['other-release'], {}, /npm run switch -- both/, { SYNAPSE_PROD_TAG: 'v2.0.0' }],
  [['memory'], { prod: { memory: { bytes: 95, limit: 100 } } }, /limit in \.env/],
  [[], { prod: { memory: { bytes: 95, limit: 100 }, container: { memoryLimit: 0 } } }],
];
for (const [codes, seen, hint, dotenv] of problems) {
  const title = `problems ${codes.join() || 'none'}: ${JSON.stringify({ ...seen, ...dotenv })}`;
  test(title, async () => {
    const report = reportStatus(await statusProject(dotenv), statusFacts(seen));
    assert.deepEqual(
      report.problems.map(({ code }) => code),
      codes,
    );
    if (hint) assert.match(report.problems[0]!.hint, hint);
    assert.ok(
      report.problems.every((one) => one.message && one.hint),
      'each with what to do',
    );
    assert.equal(headline(report) === 'All is well', codes.length === 0);
  });
}

test('all is not well when nothing is wrong now but a target is missed', async () => {
  const history = [historyEntry('switch', 60, { seconds: 31 })];
  const report = reportStatus(await statusProject(), statusFacts({ history }));
  assert.deepEqual([report.problems, headline(report)], [[], 'One target is missed']);
});

const unhealthy = { state: 'running', health: 'unhealthy' };
const down = (seconds: number, healed = false): Sample => ({
  at: before(seconds),
  prod: 'down',
  ...(healed ? { healed } : {}),
});
const up = (seconds: number): Sample => ({ at: before(seconds), prod: 'up' });
const healings: [
  name: string,
  restart: boolean | undefined,
  past: Sample[],
  container: typeof unhealthy | undefined,
  now?: Sample['prod'],
][] = [
  ['Docker calls it unhealthy: at once', true, [up(60)], unhealthy],
  ['it has exited: at once', true, [up(60)], { state: 'exited', health: 'healthy' }],
  ['one bad answer may be a busy moment', false, [up(60)], { state: 'running', health: 'healthy' }],
  ['two bad answers are no moment', true, [up(120), down(60)], { state: 'running', health: 'healthy' }],
  ['restarted in this bout already', false, [up(9000), down(8000, true), down(60)], unhealthy],
  [
    'restarted half an hour ago, healthy since, unhealthy again',
    false,
    [down(1800, true), up(1700), up(60)],
    unhealthy,
  ],
  [
    'restarted two hours ago, healthy since, unhealthy again',
    true,
    [down(7200, true), up(7000), up(60)],
    unhealthy,
  ],
  [
    'a healing that a wrong clock dated into the future does not bind',
    true,
    [up(60), down(-86_400, true)],
    unhealthy,
  ],
  ['Docker restarts it already', false, [down(60)], { state: 'restarting', health: 'unhealthy' }],
  ['it is starting', false, [down(60)], { state: 'running', health: 'starting' }],
  ['there is nothing to restart', false, [down(60)], undefined],
  ['it is healthy', undefined, [down(60)], unhealthy, 'up'],
  ['it is not active', undefined, [down(60)], unhealthy, 'off'],
];
for (const [name, restart, samples, container, prod = 'down'] of healings) {
  test(`healing, ${restart ? 'restart' : 'nothing'}: ${name}`, () => {
    const decision = decideHealing(samples, { at: NOW.toISOString(), prod }, container);
    assert.equal(decision?.restart, restart);
  });
}

test('healing: an illness that no restart cures is restarted once, however long cron goes on', () => {
  const samples: Sample[] = [up(0)];
  let restarts = 0;
  for (let minute = 1; minute <= 24 * 60; minute += 1) {
    const sample: Sample = { at: new Date(NOW.getTime() + minute * 60_000).toISOString(), prod: 'down' };
    const { restart } = decideHealing(samples, sample, unhealthy)!;
    if (restart) restarts += 1;
    samples.push({ ...sample, ...(restart ? { healed: true } : {}) });
  }
  assert.equal(restarts, 1);
});

test('healing: one that becomes unhealthy every ten minutes is restarted once an hour at most', () => {
  const samples: Sample[] = [];
  let restarts = 0;
  for (let minute = 0; minute < 10 * 60; minute += 1) {
    const at = new Date(NOW.getTime() + minute * 60_000).toISOString();
    const sample: Sample = { at, prod: minute % 10 === 9 ? 'down' : 'up' };
    const restart = decideHealing(samples, sample, unhealthy)?.restart === true;
    if (restart) restarts += 1;
    samples.push({ ...sample, ...(restart ? { healed: true } : {}) });
  }
  assert.ok(restarts >= 8 && restarts <= 10, String(restarts));
});

const measure = async (history: ReturnType<typeof historyEntry>[], id: string) => {
  const report = reportStatus(await statusProject(), statusFacts({ history }));
  return { ...report.measures.find((one) => one.id === id)!, lastSwitch: report.lastSwitch };
};

test('measures: the last switch that succeeded counts, the last one at all is shown', async () => {
  const failed = historyEntry('switch', 10, { seconds: 60, outcome: 'failed' });
  const history = [historyEntry('switch', 30, { seconds: 3 }), historyEntry('backup', 20), failed];
  const { value, lastSwitch } = await measure(history, 'switch');
  assert.deepEqual([value, lastSwitch?.outcome], [3, 'failed']);
  assert.equal((await measure([], 'switch')).lastSwitch, null);
});

test('measures: a deployment is a release and the first switch to it, not a later one', async () => {
  const history = [
    historyEntry('release', 6, { seconds: 100, to: '1.0.0' }),
    historyEntry('switch', 5, { seconds: 5, prod: 'v1.0.0' }),
    historyEntry('release', 4, { seconds: 20, to: '1.1.0' }),
    historyEntry('switch', 3, { seconds: 3, prod: 'v1.0.0' }),
    historyEntry('switch', 2, { seconds: 4, prod: 'v1.1.0' }),
    historyEntry('switch', 1, { seconds: 50, prod: 'v1.1.0' }),
  ];
  assert.equal((await measure(history, 'deploy')).value, 24);
  assert.match((await measure(history.slice(0, 3), 'deploy')).note, /not switched to yet/);
  assert.equal((await measure([], 'deploy')).value, null);
});

const V1 = { usage: 300, limit: 1000, max_usage: 400, stats: { total_inactive_file: 50, inactive_file: 9 } };
const CPU = { cpu_usage: { total_usage: 1000 }, system_cpu_usage: 50_000, online_cpus: 2 };

test('usage: as docker stats counts it, on both cgroup versions', async () => {
  const v1 = parseUsage({ memory_stats: V1, cpu_stats: CPU });
  assert.deepEqual([v1?.memory, v1?.limit, v1?.peak], [250, 1000, 400]);
  const v2 = parseUsage({
    memory_stats: { usage: 300, limit: 1000, stats: { inactive_file: 20 } },
    cpu_stats: CPU,
  });
  assert.deepEqual([v2?.memory, v2?.peak], [280, undefined]);
  assert.equal(parseUsage({ memory_stats: {}, cpu_stats: CPU }), undefined, 'the memory cgroup is off');
  assert.equal(parseUsage(undefined), undefined);
});

test('CPU: the share of the time between two readings; none where no time passed or the container is another', () => {
  const at = (cpu: number, system: number): Usage => ({
    memory: 0,
    limit: 0,
    peak: undefined,
    cpu,
    system,
    cpus: 2,
  });
  assert.equal(cpuPercent(at(0, 0), at(500, 1000)), 100);
  assert.equal(cpuPercent(at(0, 0), at(5, 1000)), 1);
  assert.equal(cpuPercent(at(0, 1000), at(5, 1000)), undefined);
  assert.equal(cpuPercent(at(900, 0), at(5, 1000)), undefined);
  assert.equal(cpuPercent(undefined, at(5, 1000)), undefined);
});

test('numbers are never rounded into something better than they are', () => {
  assert.deepEqual([0.99999, 0.9995, 1, 0.5, 0.0012, 0].map(percent), [
    '99.999 %',
    '99.95 %',
    '100 %',
    '50 %',
    '0.12 %',
    '0 %',
  ]);
  assert.equal(percent(0.9999999), '99.999 %');
  assert.deepEqual([0.04, 9.96, 42, 89, 300, 3599, 7200, 12_000, 864_000].map(duration), [
    '0.0 s',
    '10.0 s',
    '42 s',
    '89 s',
    '5 min',
    '1 h',
    '2 h',
    '3 h 20 min',
    '10 d',
  ]);
  assert.deepEqual([0, 512, 2000, 3e9, 1.5e6].map(formatBytes), [
    '0 B',
    '512 B',
    '2.0 kB',
    '3.0 GB',
    '1.5 MB',
  ]);
  assert.deepEqual(
    [ago(before(2), NOW), ago(before(-60), NOW), ago(before(720), NOW)],
    ['just now', 'just now', '12 min ago'],
  );
});
