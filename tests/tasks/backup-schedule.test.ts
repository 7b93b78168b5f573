// A schedule that does not work must not stay quiet: a real cron daemon runs the line, in the environment that cron gives it,
// and status knows that a backup should be there, and which ones are.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { chmod, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ensureProgram } from '../programs.ts';
import { archivesOf, backup, backupsOf, mustBackup, tinyWithData } from './backup-support.ts';
import type { TestProject } from './project.ts';

interface Status {
  backup: { name: string | null; overdue: boolean };
  problems: { code: string; message: string }[];
}

const statusOf = async (project: TestProject, env: Record<string, string>): Promise<Status> =>
  (await project.task('status', ['--json'], { env })).json() as unknown as Status;

/** A `crontab` and a cron daemon with a table of their own. */
async function privateCron(t: TestContext, project: TestProject) {
  const busybox = await ensureProgram('busybox');
  const [bin, tables] = [join(project.directory, 'bin'), join(project.directory, 'crontabs')];
  for (const folder of [bin, tables]) await mkdir(folder);
  const table = join(tables, 'root');
  await writeFile(
    join(bin, 'crontab'),
    `#!/bin/sh\nif [ "$1" = -l ]; then cat ${table}; else cat > ${table}.new && mv ${table}.new ${table}; fi\n`,
  );
  await chmod(join(bin, 'crontab'), 0o755);
  const start = (): ChildProcess => {
    const cron = spawn(busybox, ['crond', '-f', '-c', tables], { stdio: 'ignore', cwd: '/', env: {} });
    t.after(() => void cron.kill());
    return cron;
  };
  return { table, start, env: { PATH: `/npm/puts/node_modules/.bin:${bin}:${process.env.PATH}` } };
}

/** `HH:MM` that begins within the next two minutes. */
function soon(): string {
  const time = new Date(Date.now() + 80_000);
  return `${time.getHours()}:${String(time.getMinutes()).padStart(2, '0')}`;
}

test('scheduled backups', async (t) => {
  const project = await tinyWithData(t);
  const { table, start, env } = await privateCron(t, project);
  const others = '# mine\n\nMAILTO=""\n0 1 1 1 * true\n';
  await writeFile(table, others);
  const schedule = (...argv: string[]) => backup(project, ['schedule', ...argv], { env });

  await t.test('without a schedule, no backup is no problem yet; with one it is', async () => {
    assert.deepEqual((await statusOf(project, env)).problems, []);
    const printed = await schedule('--every', soon());
    assert.equal(await readFile(table, 'utf8'), others, 'printing installs nothing');
    assert.doesNotMatch(
      printed.stdout,
      /node_modules/,
      'what npm puts into PATH for its scripts is not kept',
    );
    const installed = await schedule('--every', soon(), '--install');
    assert.equal(installed.code, 0, installed.stderr);
    const { problems, backup: report } = await statusOf(project, env);
    assert.deepEqual([problems.map(({ code }) => code), report.overdue], [['backup-overdue'], true]);
    assert.match(
      problems[0]!.message,
      /There is no backup yet, although one has been scheduled since 20\d\d/,
    );
  });

  await t.test('cron runs it, although its environment is empty and our folder is gone', async () => {
    const again = await schedule('--every', soon(), '--install');
    assert.equal(again.code, 0, again.stderr);
    const text = await readFile(table, 'utf8');
    assert.equal(text.slice(0, others.length), others, 'lines of others stay, blank ones too');
    assert.equal(text.trimEnd().split('\n').length, 5, 'and ours is there once');
    await rm(join(project.root, '.synapse'), { recursive: true });
    start();
    for (let waited = 0; !(await archivesOf(project)).length; waited += 1) {
      assert.ok(waited < 600, await project.read('.synapse/backup.log').catch(() => 'cron started nothing'));
      await sleep(500);
    }
    while (!/Backed up to/.test(await project.read('.synapse/backup.log'))) await sleep(200);
    assert.match(await project.read('.synapse/backup.log'), /\d\d:\d\d:\d\d.* 20\d\d\n/, 'the log has times');
    assert.deepEqual((await statusOf(project, env)).problems, []);
    await schedule('--uninstall');
    assert.equal(await readFile(table, 'utf8'), others);
  });

  await t.test('status knows the archives that are there, whoever made them, and no others', async () => {
    const { archive } = await mustBackup(project, 'create');
    await rm(join(project.root, '.synapse'), { recursive: true });
    assert.equal((await statusOf(project, env)).backup.name, archive);
    await rm(backupsOf(project), { recursive: true });
    assert.equal((await statusOf(project, env)).backup.name, null);
  });
});
