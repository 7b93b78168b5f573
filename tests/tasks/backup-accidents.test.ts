// What goes wrong around backups: a restore killed at every step, a full disk, a target that cannot be written,
// two at once, foreign files, hooks that fail, a service that does not start on what was restored.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { ensureProgram } from '../programs.ts';
import { chosenSeed, randomNumbers } from '../random.ts';
import {
  archivesOf,
  backup,
  backupsOf,
  dataOf,
  everythingIn,
  mustBackup,
  pinged,
  readData,
  tinyWithData,
  writeData,
} from './backup-support.ts';
import { docker } from './processes.ts';
import type { TestProject } from './project.ts';

const execute = promisify(execFile);

/** Steps of a restore at which it is killed, and what the next run makes of it. All in the soak, one of each line else. */
const KILLS: [point: string, outcome: 'old' | 'new'][][] = [
  [
    ['unpack', 'old'],
    ['unpack/applied', 'old'],
  ],
  [
    ['stop', 'old'],
    ['stop/applied', 'old'],
    ['backup', 'old'],
    ['backup/applied', 'old'],
  ],
  [
    ['swap', 'old'],
    ['swap/applied', 'old'],
    ['start', 'old'],
  ],
  [['start/applied', 'new']],
  [
    ['finish', 'new'],
    ['finish/applied', 'new'],
    ['close', 'new'],
  ],
];

async function verifyServing(project: TestProject): Promise<void> {
  assert.equal((await project.health('prod')).env, 'prod');
}

/** The container of a restore that was killed, as if it had not noticed yet. */
async function stillAtWork(project: TestProject): Promise<string> {
  const name = `${project.name}-backup-swap-in-test`;
  const label = `release-flow.backup=${project.name}`;
  const node = process.env.TEST_BASE_IMAGE ?? 'synapse-node:24';
  await docker('run', '-d', '--rm', '--name', name, '--label', label, '--entrypoint', 'sleep', node, '60');
  return name;
}

/** What a restore may have left in the data directory. */
async function leftInData(project: TestProject): Promise<string[]> {
  return (await readdir(dataOf(project))).filter((name) => /release-flow|before-restore/.test(name));
}

/** The configuration with one rule of retention and no other. */
function keeping(config: string, rule: string): string {
  const others = 'hourly = 0, daily = 0, weekly = 0, monthly = 0, yearly = 0';
  return config.replace('[backup]\n', `[backup]\nkeep = { ${rule}, ${others} }\n`);
}

test('accidents', async (t) => {
  const seed = chosenSeed();
  t.diagnostic(`SEED=${seed}`);
  const random = randomNumbers(seed);
  const project = await tinyWithData(t);

  await t.test(
    'a restore killed at any step is finished or undone by the next command, never half of it',
    async () => {
      await writeData(project, 'new');
      const { archive } = await mustBackup(project, 'create');
      const chosen = KILLS.flatMap((kills) =>
        process.env.SOAK ? kills : [kills[Math.floor(random() * kills.length)]!],
      );
      for (const [point, outcome] of chosen) {
        await writeData(project, 'old');
        const env = { RELEASE_FLOW_FAULT: `SIGKILL@backup-restore/${point}` };
        const killed = await backup(project, ['restore', archive], { env });
        assert.equal(killed.code, 137, `${point}: ${killed.stderr}`);
        const leftover = await stillAtWork(project);
        await mustBackup(project, 'verify');
        assert.equal(
          await docker('ps', '--quiet', '--filter', `name=${leftover}`),
          '',
          'it was stopped first',
        );
        assert.equal(await readData(dataOf(project)), outcome, point);
        assert.deepEqual(await leftInData(project), [], point);
        await verifyServing(project);
      }
      assert.deepEqual(
        (await everythingIn(backupsOf(project))).filter((name) => name.startsWith('.')),
        [],
      );
      const { verdicts } = await mustBackup(project, 'verify', '--all');
      assert.ok(verdicts.every(({ ok }: { ok: boolean }) => ok));
    },
  );

  await t.test('a restore after which the service does not start puts everything back', async () => {
    await writeData(project, 'old');
    const archives = await archivesOf(project);
    const before = await project.snapshot();
    // The container cannot come up: its port is taken in the moment in which it is stopped.
    const name = `${project.name}-prod`;
    await docker('update', '--restart=no', name);
    const blocker = createServer();
    const stopped = docker('wait', name);
    const restoring = backup(project, ['restore', archives[0]!]);
    await stopped;
    blocker.listen(project.ports.prod, '127.0.0.1');
    const failed = await restoring;
    blocker.close();
    assert.equal(failed.code, 1, failed.stderr);
    assert.match(failed.stderr, /rolling back/);
    assert.equal(await readData(dataOf(project)), 'old');
    assert.deepEqual(await leftInData(project), []);
    await docker('start', name);
    const after = await project.snapshot();
    assert.deepEqual({ ...after, containers: '' }, { ...before, containers: '' });
  });

  await t.test('two at once: the second says who is at work; --wait waits its turn', async () => {
    // The first one is at work until it may go on.
    const go = join(project.directory, 'go');
    const config = await project.read('configs/release.toml');
    const hook = `until [ -e ${go} ]; do echo > ${go}.asked; sleep 0.1; done`;
    await project.write(
      'configs/release.toml',
      `${config}\n[backup.hooks]\nbefore = [["sh", "-c", "${hook}"]]\n`,
    );
    const first = backup(project, ['create']);
    while (!existsSync(`${go}.asked`)) await sleep(20);
    await project.write('configs/release.toml', config);
    const waiting = backup(project, ['create', '--wait', '60']);
    const second = await backup(project, ['create']);
    const listed = await backup(project, ['list']);
    await writeFile(go, '');
    const waited = await waiting;
    assert.equal((await first).code, 0, (await first).stderr);
    assert.equal(second.code, 1);
    assert.match(second.stderr, /Cannot start backup: backup runs since/);
    assert.equal(listed.code, 0, listed.stderr);
    assert.equal(waited.code, 0, waited.stderr);
  });

  await t.test(
    'prune says why, keeps to the policy, refuses an empty one, and never touches what is not ours',
    async () => {
      const foreign = join(backupsOf(project), `${project.name}-20200101T000000Z-v0.0.1.tar.zst`);
      await writeFile(foreign, 'somebody else’s');
      await writeFile(join(backupsOf(project), 'notes.txt'), 'mine');
      const config = await project.read('configs/release.toml');
      await project.write('configs/release.toml', keeping(config, 'last = 0'));
      const refused = await backup(project, ['prune']);
      assert.deepEqual([refused.code, (refused.json().error as { code: string }).code], [2, 'empty-policy']);
      await project.write('configs/release.toml', keeping(config, 'last = 1'));
      const archives = await archivesOf(project);
      const planned = await backup(project, ['prune', '--dry-run']);
      assert.match(
        planned.stderr,
        /keep {4}.*last 1[\s\S]*remove {2}.*no rule keeps it[\s\S]*keep {4}.*not created here/,
      );
      assert.deepEqual(await archivesOf(project), archives, 'a dry run removes nothing');
      await mustBackup(project, 'prune');
      assert.deepEqual(await archivesOf(project), [foreign.split('/').at(-1), archives.at(-1)].sort());
      assert.equal(await readFile(foreign, 'utf8'), 'somebody else’s');
      assert.ok((await everythingIn(backupsOf(project))).includes('notes.txt'));
      await rm(foreign);
      await project.write('configs/release.toml', config);
    },
  );

  await t.test(
    'hooks, and a dead-man’s switch that hears of good and bad; a failed backup shows until a good one',
    async (s) => {
      const { asked, url } = await pinged(s, '/secret-id');
      const config = await project.read('configs/release.toml');
      const hook = (text: string) => `["sh", "-c", "${text} >> ${project.directory}/hooks"]`;
      const tables = (first: string) =>
        `\n[backup.ping]\nsuccess = "${url}"\n[backup.hooks]\nbefore = [${first}]\nafter = [${hook('echo $BACKUP_OUTCOME $BACKUP_ARCHIVE')}]\n`;
      await project.write('configs/release.toml', config + tables(hook('echo before')));
      const made = await mustBackup(project, 'create');
      await project.write('configs/release.toml', config + tables('["false"]'));
      const count = (await archivesOf(project)).length;
      const failed = await backup(project, ['create']);
      assert.equal(failed.code, 1);
      assert.doesNotMatch(failed.stderr, /secret-id/);
      assert.equal((await archivesOf(project)).length, count, 'a failed hook stops the backup');
      assert.deepEqual(asked, ['/secret-id', '/secret-id/fail']);
      const written = await readFile(join(project.directory, 'hooks'), 'utf8');
      assert.equal(written, `before\ndone ${backupsOf(project)}/${made.archive}\nfailed\n`);
      const { health } = await mustBackup(project, 'list');
      assert.match(health.failure, /false/);
      assert.equal(health.name, made.archive);
      await project.write('configs/release.toml', keeping(config, 'last = 1'));
      const again = await backup(project, ['create']);
      assert.deepEqual(await archivesOf(project), [again.json().archive]);
      await project.write('configs/release.toml', config);
      assert.equal((await mustBackup(project, 'list')).health.failure, null);
    },
  );

  await t.test(
    'a backup directory that cannot be written says so; what is there can be listed',
    async (s) => {
      const small = join(project.directory, 'small');
      await mkdir(small);
      await execute('mount', ['-t', 'tmpfs', '-o', 'size=3m,mode=0700,uid=1000,gid=1000', 'tmpfs', small]);
      s.after(() => execute('umount', ['-l', small]));
      const config = await project.read('configs/release.toml');
      await project.write('configs/release.toml', config.replace(backupsOf(project), small));
      const { archive } = await mustBackup(project, 'create');
      await execute('mount', ['-o', 'remount,ro', small]);
      const readOnly = await backup(project, ['create']);
      assert.equal(readOnly.code, 1);
      assert.match(readOnly.stderr, /Cannot write to the backup directory.*read-only/i);
      assert.equal((await mustBackup(project, 'list')).archives[0].archive, archive);
      await project.write('configs/release.toml', config);
    },
  );

  await t.test(
    'off-site: sent by restic, checked, and brought back from there when all else is lost',
    async () => {
      await ensureProgram('restic');
      const repository = join(project.directory, 'repository');
      await writeFile(join(project.directory, 'password'), 'not a secret here', { mode: 0o600 });
      const config = await project.read('configs/release.toml');
      const table = `\n[backup.offsite]\nrepository = "${repository}"\npassword_file = "../password"\n`;
      await project.write('configs/release.toml', config + table);
      await writeData(project, 'offsite');
      const { archive } = await mustBackup(project, 'create');
      const target = join(project.directory, 'fetched');
      const env = { ...process.env, RESTIC_PASSWORD_FILE: join(project.directory, 'password') };
      await execute('restic', ['-r', repository, 'restore', 'latest', '--target', target], { env });
      const restored = join(project.directory, 'from-offsite');
      await mustBackup(project, 'restore', join(target, backupsOf(project), archive), '--to', restored);
      assert.equal(await readData(restored), 'offsite');
      await writeFile(join(repository, 'config'), 'damaged');
      const failed = await backup(project, ['create']);
      assert.equal(failed.code, 1, 'a backup that did not get there is a failed one');
      await project.write('configs/release.toml', config);
    },
  );
});
