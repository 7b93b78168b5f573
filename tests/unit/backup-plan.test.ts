// What is decided about backups without touching anything: how an archive is called, what may be in one, what a
// schedule consists of, what is done about a restore that died.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Header } from 'tar-stream';
import { nextName, parseName } from '../../service/backup/catalog.ts';
import { compareEntries, type Seen } from '../../service/backup/compare.ts';
import { checkedPath } from '../../service/backup/entry-rules.ts';
import type { Entry } from '../../service/backup/schema.ts';
import { bytesNeeded } from '../../service/backup/space.ts';
import { whyNotKept } from '../../service/backup/walk.ts';
import { checkCommand, forgetCommand } from '../../tasks/lib/backup/notify.ts';
import { progressLine } from '../../tasks/lib/backup/program.ts';
import { verifyBackupFlags } from '../../tasks/lib/backup/report.ts';
import { remedy, STEPS } from '../../tasks/lib/backup/restore.ts';
import {
  calendar,
  crontabLine,
  editCrontab,
  type Job,
  launchdFile,
  parseWhen,
  systemdUnits,
} from '../../tasks/lib/backup/schedule.ts';

describe('names of archives', () => {
  const now = new Date('2026-03-01T12:00:00.700Z');
  const next = (names: string[]) => nextName('synapse', 'v1.2.0', names, now);

  it('say project, UTC time and version', () => {
    assert.equal(next([]), 'synapse-20260301T120000Z-v1.2.0.tar.zst');
    assert.deepEqual(parseName('synapse', next([])), {
      time: new Date('2026-03-01T12:00:00.000Z'),
      version: 'v1.2.0',
    });
  });

  it('sort by time also within a second, after the clock went back, and when only a record is left', () => {
    let names: string[] = ['synapse-20260401T000000Z-v1.2.0.tar.zst.json', 'notes.txt'];
    for (let round = 0; round < 100; round += 1) names = [...names, next(names)];
    const ours = names.slice(2);
    assert.deepEqual([...ours].sort(), ours);
    assert.equal(ours[0], 'synapse-20260401T000001Z-v1.2.0.tar.zst');
  });

  it('of others are never ours', () => {
    for (const name of [
      'synapse-20260301T120000Z-v1.tar.gz',
      'synapse-20261301T120000Z-v1.tar.zst',
      'other-20260301T120000Z-v1.tar.zst',
      '.synapse-20260301T120000Z-v1.tar.zst.partial',
      'synapse-dev-20260301T120000Z-v1.tar.zst',
    ])
      assert.equal(parseName('synapse', name), undefined, name);
  });

  it('keep a version from becoming a path', () => {
    assert.match(nextName('synapse', '../../v1', [], now), /Z-\.\._\.\._v1\.tar\.zst$/);
  });
});

describe('what an archive may contain', () => {
  const header = (name: string, type: Header['type'], linkname = '') => ({ name, type, linkname }) as Header;
  const hostile: [string, Header][] = [
    ['a path that leads out', header('data/../../etc/passwd', 'file')],
    ['an absolute path', header('/etc/passwd', 'file')],
    ['a path beside the data', header('database', 'file')],
    ['an empty part', header('data//x', 'file')],
    ['a hard link', header('data/x', 'link', '/etc/shadow')],
    ['a device', header('data/x', 'block-device')],
    ['a character device', header('data/x', 'character-device')],
    ['a pipe', header('data/x', 'fifo')],
    ['a link to an absolute path', header('data/x', 'symlink', '/etc')],
    ['a link that leads out', header('data/a/x', 'symlink', '../../x')],
    ['a link in place of the directory', header('data', 'symlink', 'x')],
  ];
  for (const [name, one] of hostile) {
    it(`not ${name}`, () => assert.throws(() => checkedPath(one, new Set()), /Refused: the archive has/));
  }

  it('nothing behind a link, nor in its place', () => {
    const links = new Set<string>();
    checkedPath(header('data/link', 'symlink', 'dir'), links);
    assert.throws(() => checkedPath(header('data/link/x', 'file'), links), /behind a link/);
    assert.throws(() => checkedPath(header('data/link', 'file'), links), /link as well/);
  });

  it('files, directories and links inside', () => {
    const links = new Set<string>();
    assert.equal(checkedPath(header('data', 'directory'), links), '');
    assert.equal(checkedPath(header('data/a/b.db', 'file'), links), 'a/b.db');
    assert.equal(checkedPath(header('data/a/up', 'symlink', '../b'), links), 'a/up');
    assert.equal(checkedPath(header('data/..x/ü', 'file'), links), '..x/ü');
  });

  it('links are judged alike when an archive is made', () => {
    assert.equal(whyNotKept('a/b/link', '../../c'), undefined);
    assert.match(whyNotKept('a/link', '../../c')!, /out of the directory/);
    assert.match(whyNotKept('link', '/etc')!, /absolute/);
  });
});

describe('an archive that differs from its manifest', () => {
  const entry = (path: string, more: Partial<Entry> = {}): Entry => ({
    path,
    type: 'file',
    size: 3,
    sha256: 'a'.repeat(64),
    mode: 0o600,
    uid: 1,
    gid: 1,
    mtimeMs: 0,
    ...more,
  });
  const seen = (one: Entry, more: Partial<Seen> = {}): Seen => ({
    ...one,
    linkname: one.linkname ?? '',
    sha256: one.sha256 ?? '',
    ...more,
  });
  const [a, b] = [entry('a'), entry('b')];
  const table: [name: string, there: Seen[], expected: RegExp][] = [
    ['missing', [seen(a)], /^missing: b$/],
    ['extra', [seen(a), seen(b), seen(entry('c'))], /^extra: c$/],
    ['appended', [seen(a), seen(b, { size: 4 })], /^appended: b has 4 bytes, expected 3$/],
    ['truncated', [seen(a), seen(b, { size: 2 })], /^truncated: b/],
    [
      'same size, other content',
      [seen(a), seen(b, { sha256: 'b'.repeat(64) })],
      /^changed: b has another content$/,
    ],
    [
      'another type',
      [seen(a), seen(b, { type: 'directory' })],
      /^changed: b is a directory, expected a file$/,
    ],
    ['another mode', [seen(a), seen(b, { mode: 0o666 })], /^changed: b has mode/],
    ['another owner', [seen(a), seen(b, { uid: 0 })], /^changed: b has uid 0, expected 1$/],
    ['twice', [seen(a), seen(b), seen(b)], /^extra: b$/],
  ];
  for (const [name, there, expected] of table) {
    it(name, () => {
      const problems = compareEntries(there, [a, b]);
      assert.equal(problems.length, 1);
      assert.match(problems[0]!, expected);
    });
  }
  it('a file that was read twice is there twice, and both are compared', () => {
    const torn = entry('a', { superseded: true, sha256: 'c'.repeat(64) });
    assert.deepEqual(compareEntries([seen(torn), seen(a)], [torn, a]), []);
    assert.equal(compareEntries([seen(a), seen(torn)], [torn, a]).length, 2);
  });
});

describe('room for an archive', () => {
  it('is guessed at first, then known from the last proven archive', () => {
    assert.equal(bytesNeeded(1000, 400, []), 1000);
    const record = { bytes: 200, dataBytes: 1000, proof: {} } as never;
    const listed = [{ archive: 'x', time: '', version: '', bytes: 200, record }];
    assert.equal(bytesNeeded(1000, 400, listed), 620);
  });
});

describe('a schedule', () => {
  const job: Job = {
    name: 'synapse-backup',
    root: '/srv/my synapse',
    command: ['/usr/bin/node', '/srv/my synapse/tasks/backup.ts', 'create', '100%'],
    log: '/srv/my synapse/.synapse/backup.log',
    path: '/usr/bin:/bin',
    when: parseWhen('02:05'),
  };

  it('takes hourly, daily, weekly or a time of day', () => {
    assert.equal(calendar(parseWhen('hourly')), '*-*-* *:17:00');
    assert.equal(calendar(parseWhen('daily')), '*-*-* 03:17:00');
    assert.equal(calendar(parseWhen('weekly')), 'Sun *-*-* 03:17:00');
    assert.equal(calendar(parseWhen('23:59')), '*-*-* 23:59:00');
    for (const text of ['24:00', 'often', '1', '12:60'])
      assert.throws(() => parseWhen(text), /expected hourly/);
  });

  it('by systemd makes up for a missed run, and survives blanks and percent signs', () => {
    const units = systemdUnits(job);
    assert.match(units['synapse-backup.timer']!, /^Persistent=true$/m);
    assert.match(units['synapse-backup.timer']!, /^OnCalendar=\*-\*-\* 02:05:00$/m);
    assert.match(
      units['synapse-backup.service']!,
      /^ExecStart=\/usr\/bin\/node "\/srv\/my synapse\/tasks\/backup.ts" create 100%%$/m,
    );
  });

  it('by cron is one line, with its output in a file', () => {
    assert.equal(
      crontabLine(job),
      "5 2 * * * cd '/srv/my synapse' && PATH=/usr/bin:/bin /usr/bin/node '/srv/my synapse/tasks/backup.ts' create 100\\% >> '/srv/my synapse/.synapse/backup.log' 2>&1 # synapse-backup",
    );
  });

  it('leaves every line of others in the crontab as it is, and never comes twice', () => {
    const others = '# mine\nMAILTO=me\n0 0 * * * true # synapse-backup-2\n';
    const once = editCrontab(others, job, crontabLine(job));
    assert.equal(once, `${others}${crontabLine(job)}\n`);
    assert.equal(editCrontab(once, job, crontabLine(job)), once);
    assert.equal(editCrontab(once, job, undefined), others);
    assert.equal(editCrontab(`${crontabLine(job)}\n`, job, undefined), '');
  });

  it('by launchd is a property list with everything escaped', () => {
    const text = launchdFile({ ...job, root: '/a&b' });
    assert.match(text, /<key>WorkingDirectory<\/key><string>\/a&amp;b<\/string>/);
    assert.match(text, /<key>Minute<\/key><integer>5<\/integer>\n {4}<key>Hour<\/key><integer>2<\/integer>/);
  });
});

describe('a restore that died', () => {
  it('is undone before the directories changed places for good, else finished', () => {
    assert.deepEqual(
      STEPS.map((step) => [step, remedy(step)]),
      [
        ['unpack', 'undo'],
        ['stop', 'undo'],
        ['backup', 'undo'],
        ['swap', 'undo'],
        ['start', 'start'],
        ['finish', 'finish'],
      ],
    );
  });
});

describe('the command line', () => {
  const none = { pause: false, rehearse: false, all: false, to: undefined, wait: undefined };
  it('refuses a flag that the command would ignore', () => {
    assert.throws(
      () => verifyBackupFlags('list', { ...none, pause: true }, undefined),
      /--pause is for create, not for list/,
    );
    assert.throws(() => verifyBackupFlags('create', { ...none, to: '/x' }, undefined), /--to is for restore/);
    assert.throws(() => verifyBackupFlags('prune', none, 'x.tar.zst'), /takes no archive/);
    assert.throws(() => verifyBackupFlags('verify', { ...none, all: true }, 'x'), /not both/);
    assert.throws(
      () => verifyBackupFlags('create', { ...none, wait: 'long' }, undefined),
      /number of seconds/,
    );
    verifyBackupFlags('restore', { ...none, to: '/x' }, 'latest');
  });
});

describe('off-site', () => {
  it('restic forgets by its own retention, and rules of 0 are left out', () => {
    const keep = { last: 0, hourly: 0, daily: 7, weekly: 0, monthly: 2, yearly: 0 };
    assert.deepEqual(forgetCommand('synapse', keep).slice(-2), ['--keep-daily=7', '--keep-monthly=2']);
    assert.equal(checkCommand('none'), undefined);
    assert.deepEqual(checkCommand('5%')?.at(-1), '--read-data-subset=5%');
  });
});

describe('progress', () => {
  it('has a bar where the total is known', () => {
    assert.equal(
      progressLine('archive', 5e8, 1e9),
      `archive ${'█'.repeat(12)}${'░'.repeat(12)} 500.0 MB of 1.00 GB`,
    );
    assert.equal(progressLine('prove', 2000, 0), 'prove 2.0 kB');
  });
});
