// Backups of the real service while both environments and two more containers write all the while: every archive
// is one moment in which no write is half-done and none that was acknowledged is missing.

import assert from 'node:assert/strict';
import { cp, mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  archivesOf,
  backup,
  backupsOf,
  checkRestored,
  dataOf,
  everythingIn,
  mustBackup,
  startFacts,
  startWriters,
} from './backup-support.ts';
import { callTool } from './mcp.ts';
import { docker } from './processes.ts';
import { synapseProject, type TestProject } from './project.ts';

/** 40 in the soak. */
const BACKUPS = process.env.SOAK ? 40 : 2;

async function factsOf(project: TestProject, environment: 'dev' | 'prod', key: string): Promise<string> {
  const query = { project_id: 'drill', query: key };
  return JSON.stringify(await callTool(project.ports[environment], 'sy.mem.search', query));
}

const addFact = (project: TestProject, environment: 'dev' | 'prod', key: string) =>
  callTool(project.ports[environment], 'sy.mem.fact.add', {
    project_id: 'drill',
    fact_key: key,
    fact_value: `value-${key}`,
  });

test('backups of the running service', async (t) => {
  const project = await synapseProject(t);
  await project.edit('configs/release.toml', (text) =>
    text.replaceAll('/opt/synapse/backups', backupsOf(project)),
  );
  await project.commit('build: places');
  const up = await project.task('up', ['--yes']);
  assert.equal(up.code, 0, up.stderr);
  const image = `${project.name}:v1.0.0`;

  await t.test(
    `${BACKUPS} in a row under writers, each restored elsewhere: invariants hold, nothing acknowledged is missing`,
    async () => {
      const writers = await startWriters(t, project, image);
      const facts = await Promise.all([startFacts(project, 'dev'), startFacts(project, 'prod')]);
      const held: number[] = [];
      for (let round = 0; round < BACKUPS; round += 1) {
        const made = await mustBackup(project, 'create');
        const cutAt = Date.parse(made.at);
        held.push(made.cut.heldMs);
        const target = join(project.directory, `restored-${round}`);
        await mustBackup(project, 'restore', made.archive, '--to', target);
        const found = await checkRestored(target, image);
        assert.deepEqual(found.integrity, ['ok', 'ok', 'ok']);
        assert.deepEqual(found.fromNowhere, [], 'deposited but never withdrawn: the cut is torn');
        assert.deepEqual(found.unannounced, [], 'withdrawn but not announced: the cut is torn');
        assert.ok(
          found.inFlight.length <= 2,
          `${found.inFlight.length} transfers in flight, of two writers: torn`,
        );
        assert.equal(found.total, found.expectedTotal);
        const there = new Set<string>([...found.ids, ...found.keys]);
        const acknowledged = facts.flatMap((one) =>
          one.acknowledged.filter(({ at }) => at < cutAt).map(({ key }) => key),
        );
        const missing = [...(await writers.acknowledgedBefore(cutAt)), ...acknowledged].filter(
          (id) => !there.has(id),
        );
        assert.deepEqual(missing, [], 'acknowledged before the cut');
        assert.ok(found.ids.length > 50 * (round + 1), `writers wrote: ${found.ids.length}`);
      }
      await Promise.all(facts.map((one) => one.stop()));
      await writers.stop();
      t.diagnostic(`write locks held for ${held.join(', ')} ms`);
    },
  );

  await t.test(
    'restore in place: back to that moment, both healthy, and what was written since is in a backup',
    async () => {
      await addFact(project, 'dev', 'before');
      const { archive } = await mustBackup(project, 'create', '--rehearse');
      await addFact(project, 'prod', 'after');
      const restored = await mustBackup(project, 'restore', archive);
      for (const environment of ['dev', 'prod'] as const) {
        assert.equal((await project.health(environment)).status, 'ok');
        assert.match(await factsOf(project, environment, 'before'), /value-before/);
        assert.doesNotMatch(await factsOf(project, environment, 'after'), /value-after/);
      }
      const left = (await readdir(dataOf(project))).filter((name) =>
        /release-flow|before-restore/.test(name),
      );
      assert.deepEqual(left, [], 'nothing is left of it in the data');
      await mustBackup(project, 'restore', restored.before);
      assert.match(
        await factsOf(project, 'dev', 'after'),
        /value-after/,
        'the backup of before the restore has it',
      );
      const listed = await mustBackup(project, 'list');
      const rehearsed = listed.archives.find((one: { archive: string }) => one.archive === archive);
      assert.ok(rehearsed.rehearsed, 'the released image was started on it');
    },
  );

  await t.test(
    'data of an older version (rollback journal, no format number) comes back and is served',
    async () => {
      const keep = join(project.directory, 'kept');
      await docker('stop', `${project.name}-dev`, `${project.name}-prod`);
      await rename(dataOf(project), keep);
      const script = `const fs = require('node:fs'); const { DatabaseSync } = require('node:sqlite');
        fs.mkdirSync('/p/data', { mode: 0o700 }); fs.copyFileSync('/p/kept/memory.db', '/p/data/memory.db');
        const d = new DatabaseSync('/p/data/memory.db'); d.exec('PRAGMA journal_mode = DELETE');
        d.exec("UPDATE memory_facts SET value = '\\"value-old\\"' WHERE key = 'before'"); d.close();
        for (const path of ['/p/data', '/p/data/memory.db']) fs.chownSync(path, 1000, 1000);`;
      const argv = [
        '--rm',
        '--network=none',
        '--user=0',
        '-v',
        `${project.directory}:/p`,
        '--entrypoint=node',
      ];
      await docker('run', ...argv, image, '-e', script);
      const old = await mustBackup(project, 'create');
      assert.equal(old.dataFormat, null);
      await docker('run', ...argv, image, '-e', "require('node:fs').rmSync('/p/data', { recursive: true })");
      await rename(keep, dataOf(project));
      await docker('start', `${project.name}-dev`, `${project.name}-prod`);
      await mustBackup(project, 'restore', old.archive);
      assert.match(await factsOf(project, 'prod', 'before'), /value-old/);
    },
  );

  await t.test(
    'data of a newer format than what runs can read is refused before anything stops',
    async () => {
      const data = dataOf(project);
      const format = (number: number) =>
        docker(
          'exec',
          `${project.name}-dev`,
          'node',
          '-e',
          `require('node:fs').writeFileSync('/app/data/format.json', '{"dataFormat": ${number}}')`,
        );
      await format(99);
      const newer = await mustBackup(project, 'create');
      await format(1);
      const before = await project.snapshot();
      const refused = await backup(project, ['restore', newer.archive]);
      assert.equal(refused.code, 1);
      assert.match(refused.stderr, /(dev|prod) runs .*, which reads data format 1; the archive has 99/);
      assert.deepEqual(await project.snapshot(), before);
      assert.equal((await stat(data)).isDirectory(), true);
    },
  );

  await t.test('restore drill: from nothing but one archive, in a place where nothing is left', async () => {
    const { archive } = await mustBackup(project, 'create');
    const drill = join(project.directory, 'drill');
    await mkdir(drill);
    await cp(join(backupsOf(project), archive), join(drill, archive));
    await docker('rm', '--force', '--volumes', `${project.name}-dev`, `${project.name}-prod`);
    for (const path of [dataOf(project), backupsOf(project), join(project.root, '.synapse')])
      await rm(path, { recursive: true, force: true });
    const restored = await mustBackup(project, 'restore', join(drill, archive));
    assert.equal(restored.before, null);
    const switched = await project.task('switch-env', ['both', '--yes']);
    assert.equal(switched.code, 0, switched.stderr);
    assert.match(await factsOf(project, 'prod', 'before'), /value-old/);
    assert.deepEqual(await archivesOf(project), [], 'a restore from elsewhere makes no archive of nothing');
    await mustBackup(project, 'create');
    assert.equal((await everythingIn(backupsOf(project))).length, 2);
  });
});
