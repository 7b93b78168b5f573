// What is decided about backups without touching anything: how an archive is called, what may be in one, what is left out,
// what a line of the crontab says.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import type { Header } from 'tar-stream';
import { forgetCommand } from '../../tasks/lib/backup/create.ts';
import { checkedPath } from '../../tasks/lib/backup/program/archive.ts';
import { bytesNeeded, nextName, parseName } from '../../tasks/lib/backup/program/directory.ts';
import {
  decodeName,
  encodeName,
  isExcluded,
  shown,
  whyNotKept,
} from '../../tasks/lib/backup/program/files.ts';
import { verifyBackupFlags } from '../../tasks/lib/backup/report.ts';
import { describeRestore, type RestorePlan } from '../../tasks/lib/backup/restore.ts';
import { cronTime, crontabLine, editCrontab, type Job } from '../../tasks/lib/backup/schedule.ts';
import { loadProject } from '../../tasks/lib/project.ts';

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
    ['a link that turns back behind another', header('data/a/b/x', 'symlink', 'up/..')],
    ['a link out of a volume', header('volumes/models/x', 'symlink', '../other/x')],
    ['a link in place of the directory', header('data', 'symlink', 'x')],
    ['a link in place of a volume', header('volumes/models', 'symlink', 'x')],
  ];
  for (const [name, one] of hostile) {
    it(`not ${name}`, () => assert.throws(() => checkedPath(one, new Map()), /Refused: the archive has/));
  }

  it('nothing behind a link, nor in its place', () => {
    const links = new Map<string, unknown>();
    checkedPath(header('data/link', 'symlink', 'dir'), links);
    assert.throws(() => checkedPath(header('data/link/x', 'file'), links), /behind a symlink/);
    assert.throws(() => checkedPath(header('data/link', 'file'), links), /there already, as a symlink/);
    assert.throws(() => checkedPath(header('data/link', 'symlink', 'x'), links), /there already/);
    checkedPath(header('data/file', 'file'), links);
    assert.throws(() => checkedPath(header('data/file', 'file'), links), /there already/);
    assert.throws(() => checkedPath(header('data/file/x', 'file'), links), /behind a file/);
    assert.throws(() => checkedPath(header('data/file', 'directory'), links), /there already/);
  });

  it('files, directories and links inside', () => {
    const links = new Map<string, unknown>();
    assert.equal(checkedPath(header('data', 'directory'), links), 'data');
    assert.equal(checkedPath(header('data/a/b.db', 'file'), links), 'data/a/b.db');
    assert.equal(checkedPath(header('data/a/up', 'symlink', '../b'), links), 'data/a/up');
    assert.equal(checkedPath(header('volumes/models/..x/ü', 'file'), links), 'volumes/models/..x/ü');
  });

  it('links are judged alike when an archive is made', () => {
    assert.equal(whyNotKept('data/a/b/link', '../../c'), undefined);
    assert.match(whyNotKept('data/a/link', '../../c')!, /out of the directory/);
    assert.match(whyNotKept('data/a/b/link', 'c/../../../../d')!, /turns back|out of the directory/);
    assert.match(whyNotKept('data/link', '/etc')!, /absolute/);
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

describe('what is left out', () => {
  it('by name at any depth, by path, and nothing that is only called alike', () => {
    const globs = ['lost+found', '*.tmp', 'data/cache/**', 'volumes/models'];
    const table: [path: string, isExcluded: boolean][] = [
      ['data/lost+found', true],
      ['data/deep/lost+found', true],
      ['data/lost-and-found', false],
      ['data/a/b.tmp', true],
      ['data/tmp', false],
      ['data/cache/a/b', true],
      ['data/cache', false],
      ['data/my/cache/a', false],
      ['volumes/models', true],
      ['volumes/models2', false],
    ];
    for (const [path, expected] of table) assert.equal(isExcluded(path, globs), expected, path);
  });
});

describe('names in bytes', () => {
  it('go through text and JSON and come out as they were', () => {
    for (const hex of ['636166e9', 'ff', 'c3a9', 'f09f9880', 'c328', '61ff62c3a9', 'e282', 'efbfbd']) {
      const text = JSON.parse(JSON.stringify(decodeName(Buffer.from(hex, 'hex'))));
      assert.equal(encodeName(text).toString('hex'), hex);
    }
    assert.equal(shown(decodeName(Buffer.from('636166e9', 'hex'))), 'caf\\xe9');
  });
});

describe('a schedule', () => {
  const job: Job = {
    project: 'synapse',
    root: '/srv/my synapse',
    time: cronTime('02:05'),
    node: '/root/.nvm/versions/node/v22.3.0/bin/node',
    path: '/usr/bin:/bin',
    argv: ['/srv/my synapse/tasks/start.mjs', 'backup', 'create', '100%'],
    since: '2026-11-28T00:00:00.000Z',
  };

  it('takes hourly, daily, weekly or a time of day', () => {
    const times = ['hourly', 'daily', 'weekly', '23:59'].map(cronTime);
    assert.deepEqual(times, ['17 * * * *', '17 3 * * *', '17 3 * * 0', '59 23 * * *']);
    for (const text of ['24:00', 'often', '1', '12:60', 'toString'])
      assert.throws(() => cronTime(text), /expected hourly/);
  });

  it('is one line, which finds any version of its node, makes its folder, and dates its log', () => {
    assert.equal(
      crontabLine(job),
      "5 2 * * * cd '/srv/my synapse' && mkdir -p .synapse && (PATH=/usr/bin:/bin; " +
        'for d in /root/.nvm/versions/node/*/bin /root/.nvm/versions/node/v22.3.0/bin; do PATH=$d:$PATH; done; ' +
        "export PATH; date; node '/srv/my synapse/tasks/start.mjs' backup create 100\\%) >> .synapse/backup.log 2>&1 " +
        '# synapse-backup /srv/my synapse, since 2026-11-28T00:00:00.000Z',
    );
  });

  it('looks for node once where its folder names no version', () => {
    assert.match(crontabLine({ ...job, node: '/usr/bin/node' }), / for d in \/usr\/bin; do /);
  });

  it('runs by another version of node where the one that it was made with was removed', (t) => {
    const home = mkdtempSync(join(tmpdir(), 'schedule-'));
    t.after(() => rmSync(home, { recursive: true }));
    const node = join(home, 'versions/v99.0.1/bin/node');
    mkdirSync(dirname(node), { recursive: true });
    writeFileSync(node, '#!/bin/sh\necho "ran $*"\n', { mode: 0o755 });
    const gone = { root: home, node: join(home, 'versions/v22.3.0/bin/node'), path: '/usr/bin:/bin' };
    const line = crontabLine({ ...job, ...gone, argv: ['start.mjs', '100%'] });
    const command = line.replace(/^(\S+ ){5}/, '').replaceAll('\\%', '%');
    execFileSync('/bin/sh', ['-c', command], { env: {}, cwd: '/' });
    assert.match(readFileSync(join(home, '.synapse/backup.log'), 'utf8'), /20\d\d\nran start\.mjs 100%\n$/);
  });

  it('leaves every line of others as it is, blank ones too, and never comes twice', () => {
    const other = crontabLine({ ...job, root: '/srv/my synapse 2' });
    const others = `# mine\n\nMAILTO=me\n0 0 * * * true # synapse-backup-2\n\n${other}\n`;
    const once = editCrontab(others, job, crontabLine(job));
    assert.equal(once, `${others}${crontabLine(job)}\n`);
    assert.equal(editCrontab(once, job, crontabLine(job)), once);
    assert.equal(editCrontab(once, job, undefined), others);
    assert.equal(editCrontab(`${crontabLine(job)}\n`, job, undefined), '');
  });
});

describe('the plan of a restore names what will be lost', () => {
  const summary = {
    ...{ at: '2026-03-01', origin: { version: 'v1.0.0' }, dataFormat: 1, files: 2, bytes: 3, skipped: [] },
    ...{ missing: [{ path: 'data/key.pem', reason: 'unreadable' }], places: ['data', 'volumes/up'] },
  };
  const archive = { name: 'a.tar.zst' };
  const restore = {
    archive,
    places: { data: '/d' },
    replaces: true,
    running: [{ environment: 'prod' }],
    prodTag: null,
  };
  const plan = (changes: object) =>
    ({
      ...{ archive, summary, present: { files: 4, bytes: 5 }, to: undefined },
      restore: { ...restore, ...changes },
    }) as unknown as RestorePlan;
  const all = [
    '  ! data/key.pem is not in it: unreadable',
    '  ! volumes/up is not restored: prod does not mount it',
    '  replaces  4 files, 5 B: they are backed up first',
    '  new data  what was written after 2026-03-01 is only in that backup afterwards',
    '  downtime  prod, from "stop prod" until "start prod and wait until it is healthy"',
  ];
  const cases: [name: string, changes: object, lines: string[]][] = [
    ['over live data', {}, all],
    ['where nothing runs', { running: [] }, all.slice(0, 4)],
    ['where nothing is', { running: [], replaces: false }, all.slice(0, 2)],
    ['of every place', { places: { data: '/d', 'volumes/up': 'v' } }, [all[0]!, ...all.slice(2)]],
  ];
  for (const [name, changes, expected] of cases)
    it(name, async () => {
      const lines = describeRestore(await loadProject(), plan(changes), 'a.tar.zst').split('\n');
      assert.deepEqual(
        lines.filter((line) => /^ {2}(!|replaces|new data|downtime)/.test(line)),
        expected,
      );
    });
});

describe('the command line', () => {
  const none = { rehearse: false, all: false, to: undefined, wait: undefined };
  it('refuses a flag that the command would ignore', () => {
    assert.throws(
      () => verifyBackupFlags('list', { ...none, rehearse: true }, undefined),
      /--rehearse is for create, not for list/,
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
  });
});
