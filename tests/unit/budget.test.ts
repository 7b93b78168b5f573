// Uptime and error budget from samples. What would be lost if these failed: a month's uptime that is too good
// (downtime that nobody saw counted as up) or too bad (a machine that slept counted as down).

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  byHour,
  byPeriod,
  compact,
  type ProdState,
  type Sample,
  type SampleLog,
  uptimeOf,
} from '../../tasks/lib/uptime.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const NOON = Date.parse('2026-11-24T12:00:00Z');

/** One sample a minute from `from` until before `to`. */
function minutes(from: number, to: number, prod: ProdState = 'up'): Sample[] {
  const count = Math.ceil((to - from) / MINUTE);
  return Array.from({ length: count }, (_, index) => ({
    at: new Date(from + index * MINUTE).toISOString(),
    prod,
  }));
}

const log = (...samples: Sample[][]): SampleLog => ({ hours: [], samples: samples.flat() });
const sums = (samples: SampleLog, now = NOON) => {
  const { up, down, off } = uptimeOf(samples, now);
  return { up, down, off };
};

const arithmetic: [name: string, samples: SampleLog, expected: { up: number; down: number; off: number }][] =
  [
    ['nothing was measured', log(), { up: 0, down: 0, off: 0 }],
    ['an hour without a gap', log(minutes(NOON - HOUR, NOON)), { up: 3600, down: 0, off: 0 }],
    [
      'one sample speaks for at most two and a half minutes',
      log([minutes(NOON - HOUR, NOON)[0]!]),
      { up: 150, down: 0, off: 0 },
    ],
    [
      'the newest sample speaks until now, not beyond',
      log(minutes(NOON - MINUTE, NOON)),
      { up: 60, down: 0, off: 0 },
    ],
    [
      'one missed sample is bridged',
      log(minutes(NOON - 4 * MINUTE, NOON).filter((_, index) => index !== 1)),
      { up: 240, down: 0, off: 0 },
    ],
    [
      'a machine that slept for an hour is neither up nor down meanwhile',
      log(minutes(NOON - 2 * HOUR, NOON - HOUR), minutes(NOON - MINUTE, NOON)),
      { up: 3600 + 90 + 60, down: 0, off: 0 },
    ],
    [
      'five bad minutes are five minutes',
      log(
        minutes(NOON - HOUR, NOON - 30 * MINUTE),
        minutes(NOON - 30 * MINUTE, NOON - 25 * MINUTE, 'down'),
        minutes(NOON - 25 * MINUTE, NOON),
      ),
      { up: 3300, down: 300, off: 0 },
    ],
    [
      'stopped on purpose is no downtime',
      log(minutes(NOON - HOUR, NOON - 30 * MINUTE), minutes(NOON - 30 * MINUTE, NOON, 'off')),
      { up: 1800, down: 0, off: 1800 },
    ],
    [
      'a clock set back by an hour counts no time twice',
      log(minutes(NOON - HOUR, NOON), minutes(NOON - HOUR, NOON)),
      { up: 3600, down: 0, off: 0 },
    ],
    [
      'a clock that was a year ahead for a while leaves nothing behind',
      log(minutes(NOON - HOUR, NOON), minutes(NOON + 365 * DAY, NOON + 365 * DAY + HOUR, 'down')),
      { up: 3600, down: 0, off: 0 },
    ],
    [
      'hours before the window do not count',
      {
        hours: [
          { hour: '2026-10-20T00', up: 0, down: 3600, off: 0 },
          { hour: '2026-10-25T12', up: 0, down: 3600, off: 0 },
          { hour: '2026-10-25T13', up: 0, down: 1800, off: 0 },
        ],
        samples: [],
      },
      { up: 0, down: 1800, off: 0 },
    ],
  ];

for (const [name, samples, expected] of arithmetic) {
  test(`uptime: ${name}`, () => assert.deepEqual(sums(samples), expected));
}

test('budget: 99.9 % of 30 days allow 43.2 minutes; 10 bad minutes leave 33.2, 50 overspend it', () => {
  const bad = (count: number) =>
    uptimeOf(
      log(minutes(NOON - HOUR, NOON - count * MINUTE), minutes(NOON - count * MINUTE, NOON, 'down')),
      NOON,
    ).budget;
  assert.deepEqual(bad(0), { allowed: 2592, left: 2592 });
  assert.deepEqual(bad(10), { allowed: 2592, left: 1992 });
  assert.deepEqual(bad(50), { allowed: 2592, left: -408 });
});

test('budget: time off on purpose is no time in which prod may fail', () => {
  const hours = Array.from({ length: 15 * 24 }, (_, index) => ({
    hour: new Date(NOON - (index + 1) * HOUR).toISOString().slice(0, 13),
    up: 0,
    down: 0,
    off: 3600,
  }));
  assert.equal(uptimeOf({ hours, samples: [] }, NOON).budget.allowed, 1296);
});

test('no ratio without a measurement: an empty log is not 100 %', () => {
  assert.equal(uptimeOf(log(), NOON).ratio, null);
  assert.equal(uptimeOf(log(minutes(NOON - HOUR, NOON, 'off')), NOON).ratio, null);
});

const borders: [name: string, now: string, first: string, last: string][] = [
  ['in the middle of a month', '2026-11-24T12:00:00Z', '2026-10-26', '2026-11-24'],
  ['on the first of a month', '2026-12-01T00:00:30Z', '2026-11-02', '2026-12-01'],
  ['across February of a leap year', '2028-03-01T10:00:00Z', '2028-02-01', '2028-03-01'],
  ['across the turn of the year', '2027-01-05T23:59:59Z', '2026-12-07', '2027-01-05'],
];
for (const [name, now, first, last] of borders) {
  test(`days ${name}: thirty of them, none twice, none missing`, () => {
    const days = byPeriod(log(), Date.parse(now), DAY, 30).map(({ at }) => at.slice(0, 10));
    assert.deepEqual([days.length, new Set(days).size], [30, 30]);
    assert.deepEqual([days[0], days.at(-1)], [first, last]);
  });
}

test('a night of downtime over a month border belongs to both days, by its parts', () => {
  const midnight = Date.parse('2026-12-01T00:00:00Z');
  const night = log(minutes(midnight - 20 * MINUTE, midnight + 10 * MINUTE, 'down'));
  const days = byPeriod(night, midnight + 10 * MINUTE, DAY, 2);
  assert.deepEqual(
    days.map(({ at, down, unknown }) => [at.slice(0, 10), down, unknown]),
    [
      ['2026-11-30', 1200, 86_400 - 1200],
      ['2026-12-01', 600, 0],
    ],
  );
});

test('the highest memory of an hour survives, of each environment by itself', () => {
  const at = (minute: number) => new Date(NOON - HOUR + minute * MINUTE).toISOString();
  const samples: Sample[] = [
    { at: at(0), prod: 'up', memory: { dev: 5, prod: 10 } },
    { at: at(1), prod: 'up', memory: { prod: 30 } },
    { at: at(2), prod: 'up', memory: { dev: 7, prod: 20 } },
  ];
  assert.deepEqual(byHour({ hours: [], samples }, NOON)[0]!.memory, { dev: 7, prod: 30 });
});

test('compacting keeps every second, drops nothing recent, and bounds the file', () => {
  let kept: SampleLog = { hours: [], samples: [] };
  const all: Sample[] = [];
  const start = Date.parse('2026-10-29T22:30:20Z');
  for (let time = start; time < start + 3 * DAY; time += MINUTE) {
    // Every seventh hour is bad, every eleventh nobody looks.
    const hour = Math.floor((time - start) / HOUR);
    if (hour % 11 === 10) continue;
    const sample: Sample = { at: new Date(time).toISOString(), prod: hour % 7 === 6 ? 'down' : 'up' };
    all.push(sample);
    kept = { hours: kept.hours, samples: [...kept.samples, sample] };
    kept = compact(kept, time) ?? kept;
    assert.ok(kept.samples.length < 6 * 60, 'a few hours of samples at most');
  }
  const now = start + 3 * DAY;
  assert.deepEqual(byHour(kept, now), byHour({ hours: [], samples: all }, now));
  assert.ok(kept.hours.length <= 72);
});

test('compacting forgets what a clock that was ahead has left, and counts none of it before', () => {
  const ahead = NOON + 365 * DAY;
  const wrong = compact(log(minutes(ahead - 6 * HOUR, ahead)), ahead)!;
  const recorded = { hours: wrong.hours, samples: [...wrong.samples, ...minutes(NOON - MINUTE, NOON)] };
  assert.deepEqual(sums(recorded), { up: 60, down: 0, off: 0 });
  const later = compact(recorded, NOON + 6 * HOUR)!;
  const kept = [...later.hours.map(({ hour }) => hour), ...later.samples.map(({ at }) => at)];
  assert.ok(kept.length > 1 && kept.every((time) => time.startsWith('2026')), kept.join());
});

test('a year of hours is forgotten, the window is not', () => {
  const hours = Array.from({ length: 365 * 24 }, (_, index) => ({
    hour: new Date(NOON - (365 * 24 - index) * HOUR).toISOString().slice(0, 13),
    up: 3600,
    down: 0,
    off: 0,
  }));
  const kept = compact({ hours, samples: minutes(NOON - 5 * HOUR, NOON) }, NOON)!;
  assert.ok(kept.hours.length <= 40 * 24);
  assert.equal(uptimeOf(kept, NOON).up, (30 * 24 - 1) * 3600, 'the present hour has just begun');
});
