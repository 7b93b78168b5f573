// What status makes of what it saw, for situations that no engine produces on request: moods, problems, healing,
// measures, words. What would be lost: an alarm that stays silent, or a nurse that kills.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Container, cpuPercent, parseUsage, type Usage } from '../../tasks/lib/docker/objects.ts';
import { ago, amount, duration, percent } from '../../tasks/lib/format.ts';
import type { HistoryEntry } from '../../tasks/lib/history.ts';
import { decideHealing } from '../../tasks/lib/status/record.ts';
import {
  deployTime,
  type EnvironmentReport,
  environmentProblems,
  lastSwitch,
  moodOf,
  switchTimes,
} from '../../tasks/lib/status/report.ts';
import type { EnvironmentState } from '../../tasks/lib/switch/observe.ts';
import type { Sample } from '../../tasks/lib/uptime.ts';

const NOW = new Date('2026-11-24T12:00:00Z');
const before = (seconds: number) => new Date(NOW.getTime() - seconds * 1000).toISOString();

function state(container: Partial<Container> | undefined, status = 200): EnvironmentState {
  return {
    name: 'prod',
    health: { status, body: {} },
    container: container && {
      state: 'running',
      health: 'healthy',
      restarts: 0,
      startedAt: before(3600),
      ...container,
    },
  } as EnvironmentState;
}

const moods: [mood: string, state: EnvironmentState][] = [
  ['absent', state(undefined)],
  ['stopped', state({ state: 'exited' })],
  ['stopped', state({ state: 'created' })],
  ['stopped', state({ state: 'paused' })],
  ['healthy', state({})],
  ['healthy', state({ health: undefined })],
  ['healthy', state({ restarts: 40, startedAt: before(86_400) })],
  ['starting', state({ health: 'starting' }, 0)],
  ['unhealthy', state({}, 503)],
  ['unhealthy', state({ health: 'unhealthy' }, 200)],
  ['crash-looping', state({ state: 'restarting' }, 0)],
  ['crash-looping', state({ restarts: 5, startedAt: before(2) }, 200)],
];
for (const [mood, one] of moods) {
  const { container, health } = one;
  const about = container
    ? `${container.state}, ${container.health}, ${container.restarts} restarts, answers ${health?.status}`
    : 'no container';
  test(`mood ${mood}: ${about}`, () => assert.equal(moodOf(one, NOW), mood));
}

const WELL: Omit<EnvironmentReport, 'problems'> = {
  name: 'prod',
  active: true,
  mood: 'healthy',
  state: 'running',
  container: 'app-prod',
  url: '',
  port: 1,
  version: '1.0.0',
  image: 'registry.example:5000/app:v1.0.0',
  digest: `sha256:${'0'.repeat(64)}`,
  releasedAs: 'v1.0.0',
  revision: 'abc',
  dirty: false,
  config: {},
  outdated: false,
  uptimeSeconds: 1,
  restarts: 0,
  memory: { bytes: 10, limit: 100, peak: null },
  cpuPercent: 0,
};
const problems: [codes: string[], change: Partial<typeof WELL>, wanted?: string][] = [
  [[], {}],
  [['not-running'], { mood: 'stopped' }],
  [[], { mood: 'stopped', active: false }],
  [['unhealthy'], { mood: 'unhealthy' }],
  [['crash-looping'], { mood: 'crash-looping' }],
  [['not-released'], { releasedAs: null }],
  [['not-released'], { releasedAs: 'v0.9.0' }],
  [[], { name: 'dev', releasedAs: null, dirty: true }],
  [['dirty'], { dirty: true }],
  [['other-release'], {}, 'registry.example:5000/app:v2.0.0'],
  [['memory'], { memory: { bytes: 95, limit: 100, peak: null } }],
  [[], { memory: { bytes: 95, limit: null, peak: null } }],
];
for (const [codes, change, wanted] of problems) {
  test(`problems ${codes.join() || 'none'}: ${JSON.stringify(change)}${wanted ? `, .env names ${wanted}` : ''}`, () => {
    const report = { ...WELL, ...change };
    const found = environmentProblems(report, state(report.mood === 'absent' ? undefined : {}), wanted);
    assert.deepEqual(
      found.map(({ code }) => code),
      codes,
    );
    assert.ok(
      found.every(({ message, hint }) => message && hint),
      'each with what to do',
    );
  });
}

const ill = { state: 'running', health: 'unhealthy' };
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
  container: typeof ill | undefined,
  now?: Sample['prod'],
][] = [
  ['Docker calls it unhealthy: at once', true, [up(60)], ill],
  ['it has exited: at once', true, [up(60)], { state: 'exited', health: 'healthy' }],
  ['one bad answer may be a busy moment', false, [up(60)], { state: 'running', health: 'healthy' }],
  ['two bad answers are no moment', true, [up(120), down(60)], { state: 'running', health: 'healthy' }],
  ['restarted in this bout already', false, [up(9000), down(8000, true), down(60)], ill],
  ['restarted half an hour ago, well since, ill again', false, [down(1800, true), up(1700), up(60)], ill],
  ['restarted two hours ago, well since, ill again', true, [down(7200, true), up(7000), up(60)], ill],
  [
    'a healing that a wrong clock dated into the future does not bind',
    true,
    [up(60), down(-86_400, true)],
    ill,
  ],
  ['Docker restarts it already', false, [down(60)], { state: 'restarting', health: 'unhealthy' }],
  ['it is starting', false, [down(60)], { state: 'running', health: 'starting' }],
  ['there is nothing to restart', false, [down(60)], undefined],
  ['it is well', undefined, [down(60)], ill, 'up'],
  ['it is not meant to run', undefined, [down(60)], ill, 'off'],
];
for (const [name, restart, samples, container, prod = 'down'] of healings) {
  test(`healing, ${restart ? 'restart' : 'nothing'}: ${name}`, () => {
    const decision = decideHealing({ samples, sample: { at: NOW.toISOString(), prod }, container });
    assert.equal(decision?.restart, restart);
  });
}

test('healing: an illness that no restart cures is restarted once, however long cron goes on', () => {
  const samples: Sample[] = [up(0)];
  let restarts = 0;
  for (let minute = 1; minute <= 24 * 60; minute += 1) {
    const sample: Sample = { at: new Date(NOW.getTime() + minute * 60_000).toISOString(), prod: 'down' };
    const { restart } = decideHealing({ samples, sample, container: ill })!;
    if (restart) restarts += 1;
    samples.push({ ...sample, ...(restart ? { healed: true } : {}) });
  }
  assert.equal(restarts, 1);
});

test('healing: one that falls ill every ten minutes is restarted once an hour at most', () => {
  const samples: Sample[] = [];
  let restarts = 0;
  for (let minute = 0; minute < 10 * 60; minute += 1) {
    const at = new Date(NOW.getTime() + minute * 60_000).toISOString();
    const sample: Sample = { at, prod: minute % 10 === 9 ? 'down' : 'up' };
    const restart = decideHealing({ samples, sample, container: ill })?.restart === true;
    if (restart) restarts += 1;
    samples.push({ ...sample, ...(restart ? { healed: true } : {}) });
  }
  assert.ok(restarts >= 8 && restarts <= 10, String(restarts));
});

function entry(task: string, seconds: number, change: Partial<HistoryEntry> = {}): HistoryEntry {
  return {
    at: before(1000 - seconds),
    task,
    who: 'me',
    from: null,
    to: null,
    seconds,
    outcome: 'done',
    ...change,
  };
}

test('measures: the last switch that succeeded counts, the last one at all is told', () => {
  const history = [entry('switch', 3), entry('backup', 9), entry('switch', 60, { outcome: 'failed' })];
  assert.deepEqual(
    switchTimes(history).map(({ seconds }) => seconds),
    [3],
  );
  assert.equal(lastSwitch(history)?.outcome, 'failed');
  assert.equal(lastSwitch([]), null);
});

test('measures: a deployment is a release and the first switch to it, not a later one', () => {
  const history = [
    entry('release', 100, { to: '1.0.0' }),
    entry('switch', 5, { prod: 'v1.0.0' }),
    entry('release', 20, { to: '1.1.0' }),
    entry('switch', 3, { prod: 'v1.0.0' }),
    entry('switch', 4, { prod: 'v1.1.0' }),
    entry('switch', 50, { prod: 'v1.1.0' }),
  ];
  assert.equal(deployTime(history, 'v')?.seconds, 24);
  assert.match(deployTime(history.slice(0, 3), 'v')!.note, /not switched to yet/);
  assert.equal(deployTime([], 'v'), null);
});

const V1 = { usage: 300, limit: 1000, max_usage: 400, stats: { total_inactive_file: 50, inactive_file: 9 } };
const CPU = { cpu_usage: { total_usage: 1000 }, system_cpu_usage: 50_000, online_cpus: 2 };

test('usage: as docker stats counts it, on both cgroup versions', async () => {
  const v1 = await parseUsage({ memory_stats: V1, cpu_stats: CPU });
  assert.deepEqual([v1?.memory, v1?.limit, v1?.peak], [250, 1000, 400]);
  const v2 = await parseUsage({
    memory_stats: { usage: 300, limit: 1000, stats: { inactive_file: 20 } },
    cpu_stats: CPU,
  });
  assert.deepEqual([v2?.memory, v2?.peak], [280, undefined]);
  assert.equal(await parseUsage({ memory_stats: {}, cpu_stats: CPU }), undefined, 'the memory cgroup is off');
  assert.equal(await parseUsage(undefined), undefined);
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
  assert.deepEqual([0, 512, 2048, 3 * 2 ** 30, 1.5 * 2 ** 20].map(amount), [
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
