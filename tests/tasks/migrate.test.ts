// The migration on a real older setup: to both environments with everything that was remembered, and back to
// the last byte. What would be lost here is somebody's memory.
import assert from 'node:assert/strict';
import { readFile, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { legacySetup, TOKEN, treeOf } from './legacy.ts';
import { postCall } from './mcp.ts';
import { docker } from './processes.ts';
import { synapseProject } from './project.ts';

interface Migrated {
  state: string;
  downtimeSeconds: number;
  data: { aside: string; kept: string };
  backup: { seconds: number };
  verified: { rows: number };
  readable: Record<string, number>;
}

/** A tool call with the token that the older service used. */
const call = async (port: number, name: string, input: Record<string, unknown>) =>
  JSON.stringify(await postCall(port, name, input, TOKEN));

const search = (query: string, memory_type: string) => ({ project_id: 'old', query, memory_type });

test('migrate, work, go back: nothing of the old memory, settings and models is lost on either way', async (t) => {
  const project = await synapseProject(t);
  await project.edit('.env', (text) => `${text}SYNAPSE_BACKUP_DIR=${project.directory}/backups\n`);
  const old = await legacySetup(t, project, { modelsMegabytes: 200 });
  const before = await old.snapshot();
  const facts = await old.facts();
  const migrate = (...argv: string[]) => project.task('migrate', ['--yes', '--json', ...argv]);
  let migrated: Migrated | undefined;

  await t.test(
    'setup, where the old service runs, touches nothing of it, by whatever path it is named',
    async () => {
      const env = await project.read('.env');
      const link = join(project.directory, 'a-link');
      await symlink(old.data, link);
      for (const path of [old.data, link, join(old.data, 'semantic_index')]) {
        await project.write('.env', env.replace(/^SYNAPSE_DATA_DIR=.*$/m, `SYNAPSE_DATA_DIR=${path}`));
        const done = await project.task('setup', ['--yes', '--json']);
        assert.equal(done.code, 0, done.stderr);
        assert.match(
          done.stderr,
          new RegExp(`${path} is the data of the older service ${old.service}; it is not changed`),
        );
        assert.deepEqual((await old.snapshot()).data, before.data, path);
      }
      await project.write('.env', env);
      assert.deepEqual(await old.snapshot(), before);
      assert.deepEqual(await old.facts(), facts);
    },
  );

  await t.test('a dry run shows every step and changes nothing', async () => {
    const dry = await project.task('migrate', ['--dry-run']);
    assert.equal(dry.code, 0, dry.stderr);
    for (const step of [/ 4\. stop rag-mcp/, / 5\. copy .* of data/, /14\. verify old facts through dev$/])
      assert.match(dry.stdout, new RegExp(`^ +${step.source}`, 'm'));
    for (const setting of [
      /renamed +chunk_size .* synapse.json: semantic.chunk_size = 900$/,
      /dropped +top_k .*/,
    ])
      assert.match(dry.stdout, new RegExp(`^ +${setting.source}`, 'm'));
    assert.match(dry.stderr, /would run: docker compose .* down$/m, 'commands of the steps are shown');
    assert.ok(!(dry.stderr + dry.stdout).includes(TOKEN), 'the secret is not printed');
    assert.deepEqual(await old.snapshot(), before);
  });

  await t.test(
    'both environments serve the old facts, episodes and documents, with the old token',
    async () => {
      const done = await migrate();
      assert.equal(done.code, 0, done.stderr);
      assert.ok(!(done.stderr + done.stdout).includes(TOKEN));
      migrated = done.json() as unknown as Migrated;
      assert.equal(migrated.state, 'migrated');
      t.diagnostic(`downtime ${migrated.downtimeSeconds} s, backup ${migrated.backup.seconds} s`);
      for (const port of [project.ports.dev, project.ports.prod]) {
        assert.match(await call(port, 'sy.mem.search', search('key-00017', 'symbolic')), /old-fact-00017/);
        assert.match(await call(port, 'sy.mem.search', search('s', 'episodic')), /episode-/);
        assert.match(await call(port, 'sy.mem.search', search('helix', 'semantic')), /chunk 4 about helix/);
      }
      assert.equal(migrated.verified.rows, 450, '200 facts, 200 lines of audit, 50 episodes');
      assert.deepEqual(migrated.readable, { dev: 3, prod: 3 });
    },
  );

  await t.test('the models are there, byte for byte, and were not copied', async () => {
    const inspect = '{{range .Mounts}}{{if eq .Type "volume"}}{{.Name}} {{end}}{{end}}';
    const volumes = await docker('inspect', '--format', inspect, `${project.name}-prod`);
    assert.match(volumes, new RegExp(`(^| )${old.volume}( |$)`));
    assert.equal((await old.snapshot()).newVolumes, '');
  });

  await t.test('settings are where they belong: files, .env, and the secret in .env alone', async () => {
    const base = JSON.parse(await project.read('configs/synapse.json')) as Record<
      string,
      Record<string, unknown>
    >;
    assert.deepEqual(
      [base.semantic, base.metrics?.retention_days],
      [{ chunk_size: 900, chunk_overlap: 100 }, 3650],
    );
    const prod = await project.health('prod');
    assert.deepEqual([prod.automaticLearning, prod.logLevel], ['moderate', 'WARN']);
    assert.ok((await project.read('.env')).includes(TOKEN));
    const shown = await project.git('show', 'HEAD');
    assert.match(shown, /chore: migrate from rag-mcp/);
    assert.ok(!shown.includes(TOKEN));
    assert.equal(await project.git('status', '--porcelain'), '', 'the next release finds a clean tree');
    const notes = await project.read('release-notes.md');
    assert.match(notes, /^## Migrated from rag-mcp-.* \(\d{4}-\d\d-\d\d\)$/m);
    assert.doesNotMatch(notes, /\/(tmp|opt)\//, 'no path of this machine');
  });

  await t.test('the old data waits untouched, to the last byte', async () => {
    assert.deepEqual(await treeOf(migrated!.data.aside), before.data);
  });

  await t.test('a second run finds nothing to do, --status says where it stands', async () => {
    const again = await migrate();
    assert.deepEqual([again.code, again.json().state], [0, 'migrated']);
    assert.equal((await migrate('--status')).json().state, 'migrated');
  });

  await t.test('back: the old service answers again, and everything is as it was', async () => {
    await call(project.ports.dev, 'sy.mem.fact.add', { project_id: 'old', fact_key: 'later', fact_value: 1 });
    const back = await migrate('--rollback');
    assert.equal(back.code, 0, back.stderr);
    assert.deepEqual(await old.facts(), facts);
    assert.deepEqual(await old.snapshot(), before);
    const twice = await migrate('--rollback');
    assert.deepEqual([twice.code, twice.json().changed], [0, false]);
    assert.deepEqual(await old.snapshot(), before);
  });

  await t.test('what was written through the new service is kept, and --status says where', async () => {
    const { stdout } = await project.task('migrate', ['--status']);
    assert.match(stdout, new RegExp(`^What the new service wrote is kept: ${migrated?.data.kept}$`, 'm'));
    const files = ['memory.db', 'memory.db-wal'].map((name) =>
      readFile(join(migrated!.data.kept, name), 'latin1').catch(() => ''),
    );
    assert.match((await Promise.all(files)).join(), /later/);
  });
});
