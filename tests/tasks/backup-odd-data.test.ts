// Data that is not as simple as files and good databases: what cannot be read is named and keeps nothing else from being
// backed up, and no restore destroys it; names are bytes; the directory may be a link, or a mount point.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmod, chown, mkdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { promisify } from 'node:util';
import { backup, dataOf, mustBackup, pinged, readData, tinyWithData, writeData } from './backup-support.ts';
import type { TestProject } from './project.ts';

const execute = promisify(execFile);

interface Made {
  archive: string;
  error: { code: string };
  missing: { path: string }[];
  skipped: { path: string }[];
  proof: object;
}

interface OddEntry {
  name: string | Buffer;
  content?: (project: TestProject) => Promise<Buffer>;
  /** Root's, and for nobody else to read. */
  isRoots?: true;
  becomes: 'kept' | 'skipped' | 'missing';
}

const text = (content: string) => async () => Buffer.from(content);

const ENTRIES: OddEntry[] = [
  { name: 'lost+found', isRoots: true, becomes: 'skipped' },
  { name: 'key.pem', content: text('secret'), isRoots: true, becomes: 'missing' },
  { name: 'looks.db', content: text('SQLite format 3\0 and then something else'), becomes: 'kept' },
  {
    name: 'malformed.db',
    content: async (project) => {
      const bytes = await readFile(join(dataOf(project), 'letters.db'));
      return bytes.fill(0xff, 4096, 4096 + 512);
    },
    becomes: 'missing',
  },
  { name: Buffer.from('caf\xe9', 'latin1'), content: text('coffee'), becomes: 'kept' },
  { name: Buffer.from('\xff\xfe', 'latin1'), content: text('bytes'), becomes: 'kept' },
];

const pathOf = (project: TestProject, name: string | Buffer) =>
  Buffer.concat([Buffer.from(`${dataOf(project)}/`), Buffer.from(name)]);

async function writeEntries(project: TestProject): Promise<void> {
  for (const { name, content, isRoots } of ENTRIES) {
    const path = pathOf(project, name);
    if (content) await writeFile(path, await content(project));
    else await mkdir(path);
    await chmod(path, isRoots ? 0o700 : 0o644);
    if (!isRoots) await chown(path, 1000, 1000);
  }
}

/** What a person must know before a restore. */
const PLAN = [
  /^ {2}replaces {2}2 files, .*: they are backed up first$/m,
  /^ {2}new data {2}what was written after 20.* is only in that backup afterwards$/m,
  /^ {2}downtime {2}prod, from "stop prod" until "start prod and wait until it is healthy"$/m,
];

async function problemCodes(project: TestProject): Promise<string[]> {
  const { problems } = (await project.task('status', ['--json'])).json() as { problems: { code: string }[] };
  return problems.map(({ code }) => code);
}

test('data that is not simple', async (t) => {
  const project = await tinyWithData(t);
  const config = await project.read('configs/release.toml');

  await t.test(
    'what cannot be read is named by the archive, the history, the ping and status; a restore keeps it',
    async (s) => {
      const { asked, url } = await pinged(s, '/ping');
      const hook = `["sh", "-c", "echo $BACKUP_OUTCOME >> ${project.directory}/hooks"]`;
      const tables = `\n[backup.ping]\nsuccess = "${url}"\n[backup.hooks]\nafter = [${hook}]\n`;
      await project.write('configs/release.toml', config + tables);
      await writeData(project, 'old');
      await writeEntries(project);
      const made = await backup(project, ['create']);
      const { archive, error, missing, skipped, proof } = made.json() as unknown as Made;
      const paths = (list: { path: string }[]) => list.map(({ path }) => path);
      const expected = (what: OddEntry['becomes']) =>
        ENTRIES.filter(({ becomes }) => becomes === what).map(({ name }) => `data/${name}`);
      assert.deepEqual([made.code, error.code], [1, 'incomplete'], made.stderr);
      assert.deepEqual(paths(missing).sort(), expected('missing'));
      assert.deepEqual(paths(skipped), expected('skipped'));
      assert.ok(proof, 'what it holds was verified');
      const history = (await project.read('.synapse/history.jsonl')).trim().split('\n');
      assert.match(history.at(-1)!, /"outcome":"incomplete".*2 entries are missing: data\/key\.pem/);
      assert.deepEqual(asked, ['/ping/fail']);
      assert.equal(await readFile(join(project.directory, 'hooks'), 'utf8'), 'incomplete\n');
      assert.deepEqual(await problemCodes(project), ['backup-incomplete']);
      await writeFile(join(dataOf(project), 'text'), 'new');
      // In the backup of the current data, but not in the archive.
      await chown(pathOf(project, 'key.pem'), 1000, 1000);
      for (const { name, becomes } of ENTRIES)
        if (becomes === 'kept') await rm(pathOf(project, name), { recursive: true });
      await mustBackup(project, 'restore', archive);
      assert.equal(await readData(dataOf(project)), 'old');
      for (const { name, content } of ENTRIES) {
        const path = pathOf(project, name);
        const is = content ? await readFile(path) : (await stat(path)).isDirectory();
        assert.deepEqual(is, content ? await content(project) : true, String(name));
      }
      await rm(join(dataOf(project), 'key.pem'));
      await rm(join(dataOf(project), 'malformed.db'));
      await mustBackup(project, 'create');
      assert.deepEqual(await problemCodes(project), []);
      assert.deepEqual(asked.slice(-1), ['/ping']);
      await project.write('configs/release.toml', config);
    },
  );

  const data = dataOf(project);
  const forms: [name: string, make: (s: TestContext) => Promise<unknown>][] = [
    [
      'a symbolic link',
      async (s) => {
        await rename(data, `${data}-real`);
        await symlink(`${data}-real`, data);
        s.after(async () => {
          await rm(data);
          await rename(`${data}-real`, data);
        });
      },
    ],
    [
      'a mount point',
      async (s) => {
        await execute('mount', ['-t', 'tmpfs', '-o', 'size=9m,mode=0700,uid=1000,gid=1000', 'tmpfs', data]);
        s.after(() => execute('umount', ['-l', data]));
      },
    ],
  ];
  for (const [name, make] of forms)
    await t.test(`data in a directory that is ${name} is restored in place`, async (s) => {
      await make(s);
      await writeData(project, 'old');
      const { archive } = await mustBackup(project, 'create');
      await writeData(project, 'new');
      const { stdout } = await project.task('backup', ['restore', '--dry-run', '--yes']);
      for (const line of PLAN) assert.match(stdout, line);
      assert.match(stdout, new RegExp(`^Restore ${archive} \\(the latest verified archive\\)$`, 'm'));
      assert.equal(await readData(data), 'new', 'a dry run restores nothing');
      await mustBackup(project, 'restore', archive);
      assert.equal(await readData(data), 'old');
      assert.equal((await project.health('prod')).env, 'prod');
    });
});
