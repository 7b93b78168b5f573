// Which archives stay and which go: a mistake here deletes somebody's last good backup.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Keep, mondayOf, planRetention } from '../../tasks/lib/backup/archives.ts';
import type { Listed } from '../../tasks/lib/backup/program/directory.ts';
import { chosenSeed, randomFrom } from '../random.ts';

type State = 'proven' | 'incomplete' | 'unproven' | 'damaged' | 'adopted' | 'foreign';

function archive(time: string, state: State = 'proven'): Listed {
  const name = `synapse-${time.replace(/[-:]|\.\d+/g, '')}-v1.0.0.tar.zst`;
  const record = {
    format: 1 as const,
    sha256: '',
    archive: name,
    source: state === 'adopted' ? ('adopted' as const) : ('created' as const),
    at: time,
    version: 'v1.0.0',
    dataFormat: 1,
    bytes: 1,
    dataBytes: 3,
    files: 1,
    databases: 1,
    proof: ['proven', 'adopted', 'incomplete'].includes(state)
      ? { at: time, seconds: 1, rehearsed: null }
      : null,
    problems: state === 'damaged' ? ['changed'] : [],
    missing: state === 'incomplete' ? 1 : 0,
  };
  return { archive: name, time, version: 'v1.0.0', bytes: 1, record: state === 'foreign' ? null : record };
}

const NOTHING: Keep = { last: 0, hourly: 0, daily: 0, weekly: 0, monthly: 0, yearly: 0 };
const keep = (rules: Partial<Keep>): Keep => ({ ...NOTHING, ...rules });

/** The times that stay, oldest first, without what all have in common. */
function kept(archives: Listed[], policy: Keep): string[] {
  const names = planRetention(archives, policy).filter((one) => one.keep);
  return archives
    .filter(({ archive: name }) => names.some((one) => one.archive === name))
    .map(({ time }) => time);
}

const days = Array.from({ length: 40 }, (_, day) =>
  archive(new Date(Date.UTC(2026, 0, 1 + day, 3, 17)).toISOString()),
);
const at = (day: number) => days[day]!.time;

describe('retention', () => {
  const table: [name: string, archives: Listed[], policy: Keep, expected: string[]][] = [
    ['the newest n', days, keep({ last: 3 }), [at(37), at(38), at(39)]],
    ['one a day, for days that have one', days, keep({ daily: 2 }), [at(38), at(39)]],
    // 2026-02-09 is a Monday; the newest of the week before it is Sunday the 8th.
    ['one an ISO week', days, keep({ weekly: 2 }), [at(38), at(39)]],
    ['one a month: the newest of it', days, keep({ monthly: 12 }), [at(30), at(39)]],
    ['one a year', days, keep({ yearly: 5 }), [at(39)]],
    ['rules add up', days, keep({ last: 1, monthly: 2 }), [at(30), at(39)]],
    ['the last proven one stays whatever the policy says', days, NOTHING, [at(39)]],
    [
      'of two in an hour the newer one stands for it',
      [
        archive('2026-01-01T03:10:00.000Z'),
        archive('2026-01-01T03:50:00.000Z'),
        archive('2026-01-01T04:10:00.000Z'),
      ],
      keep({ hourly: 5 }),
      ['2026-01-01T03:50:00.000Z', '2026-01-01T04:10:00.000Z'],
    ],
    [
      'a period without an archive does not use up a rule',
      [archive('2025-03-01T00:00:00.000Z'), archive('2026-01-01T00:00:00.000Z')],
      keep({ monthly: 2 }),
      ['2025-03-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z'],
    ],
    [
      'unproven ones do not count for a rule: the proven one before them stays',
      [archive('2026-01-01T00:00:00.000Z'), archive('2026-01-02T00:00:00.000Z', 'unproven')],
      keep({ last: 1 }),
      ['2026-01-01T00:00:00.000Z', '2026-01-02T00:00:00.000Z'],
    ],
    [
      'one that was never proven goes when a newer one is',
      [archive('2026-01-01T00:00:00.000Z', 'damaged'), archive('2026-01-02T00:00:00.000Z')],
      keep({ last: 9 }),
      ['2026-01-02T00:00:00.000Z'],
    ],
    [
      'without any proven one nothing goes',
      [archive('2026-01-01T00:00:00.000Z', 'damaged'), archive('2026-01-02T00:00:00.000Z', 'unproven')],
      keep({ last: 1 }),
      ['2026-01-01T00:00:00.000Z', '2026-01-02T00:00:00.000Z'],
    ],
    [
      'what was not made here is never touched, and counts for nothing',
      [
        archive('2026-01-01T00:00:00.000Z', 'foreign'),
        archive('2026-01-02T00:00:00.000Z'),
        archive('2026-01-03T00:00:00.000Z', 'adopted'),
      ],
      keep({ last: 1 }),
      ['2026-01-01T00:00:00.000Z', '2026-01-02T00:00:00.000Z', '2026-01-03T00:00:00.000Z'],
    ],
    ['nothing there, nothing to do', [], keep({ last: 1 }), []],
  ];
  for (const [name, archives, policy, expected] of table) {
    it(name, () => assert.deepEqual(kept(archives, policy), expected));
  }

  it('says of each archive which rule keeps it, or why it goes', () => {
    const decisions = planRetention(days.slice(-9), keep({ last: 1, daily: 2, monthly: 2 }));
    assert.deepEqual(
      decisions.slice(0, 3).map(({ keep: stays, reason }) => [stays, reason]),
      [
        [true, 'last 1, daily 2026-02-09, monthly 2026-02'],
        [true, 'daily 2026-02-08'],
        [false, 'no rule keeps it'],
      ],
    );
  });

  it('for random archives and policies: never removes the last proven one, nothing foreign, and is stable', () => {
    const seed = chosenSeed();
    console.log(`SEED=${seed}`);
    const { below, pick } = randomFrom(seed);
    const states: State[] = ['proven', 'proven', 'incomplete', 'unproven', 'damaged', 'adopted', 'foreign'];
    for (let round = 0; round < 300; round += 1) {
      const times = new Set(Array.from({ length: below(30) }, () => 1_767_225_600 + below(90 * 86_400)));
      const archives = [...times]
        .sort((a, b) => a - b)
        .map((time) => archive(new Date(time * 1000).toISOString(), pick(states)));
      const rules = ['last', 'hourly', 'daily', 'weekly', 'monthly', 'yearly'] as const;
      const policy = keep(Object.fromEntries(rules.map((rule) => [rule, below(4)])));
      const first = planRetention(archives, policy);
      const staying = archives.filter((one) => first.find((two) => two.archive === one.archive)!.keep);
      const proven = archives.filter(({ record }) => record?.source === 'created' && record.proof);
      const last = proven.at(-1);
      assert.ok(!last || staying.includes(last), 'the last proven one');
      const complete = proven.findLast(({ record }) => record?.missing === 0);
      assert.ok(!complete || staying.includes(complete), 'the last complete one');
      for (const one of archives) {
        const isForeign = one.record?.source !== 'created';
        assert.ok(!isForeign || staying.includes(one), 'what is not ours');
      }
      assert.ok(
        planRetention(staying, policy).every((one) => one.keep),
        'a second run removes nothing more',
      );
    }
  });

  it('counts weeks from Monday, also over the end of a year', () => {
    const table: [string, string][] = [
      ['2025-12-28T23:59:59Z', '2025-12-22'],
      ['2025-12-29T00:00:00Z', '2025-12-29'],
      ['2026-01-04T23:59:59Z', '2025-12-29'],
    ];
    for (const [time, monday] of table) assert.equal(mondayOf(time), monday, time);
  });
});
