// Older setups in every state that they are met in: moved, linked, stopped, without their compose file, in the
// way of somebody else. What cannot be migrated is refused with the remedy, and then nothing has changed.
import assert from 'node:assert/strict';
import { chmod, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { type LegacySetup, MIGRATE, placeOf, TOKEN, tinyLegacy, treeOf } from './legacy.ts';
import { docker, runProcess } from './processes.ts';
import { tinyProject } from './project.ts';

const migrate = (old: Pick<LegacySetup, 'project'>, ...argv: string[]) =>
  old.project.task('migrate', ['--yes', '--json', ...argv]);

const errorOf = (outcome: { json: () => Record<string, unknown> }) =>
  outcome.json().error as { code: string; message: string; hint: string };

/** Path, size and hash of every file in a volume. */
async function volumeContent(volume: string): Promise<string[]> {
  const tree = await treeOf(await placeOf(volume), 'without times');
  return Object.entries(tree).map(([path, facts]) => [path, ...facts.split(' ').slice(2)].join(' '));
}

/** Somebody else's container, of the old image, that does nothing. */
const runIdle = (old: LegacySetup, name: string, ...options: string[]) =>
  docker(
    'run',
    ...['--detach', '--name', name, ...options, '--entrypoint=node', old.image],
    ...['-e', 'setInterval(()=>{},1e6)'],
  );

test('nothing to come from: said, and exit 0', async (t) => {
  const project = await tinyProject(t);
  const undescribed = await migrate({ project });
  assert.deepEqual([undescribed.code, errorOf(undescribed).code], [2, 'config-invalid']);
  const nobody = MIGRATE.replaceAll('rag-mcp', `nobody-${project.name}`);
  await project.edit('configs/release.toml', (text) => text + nobody);
  const before = await project.snapshot();
  const nothing = await project.task('migrate');
  assert.deepEqual(
    [nothing.code, /^Nothing to migrate: this engine has no container of nobody-/.test(nothing.stdout)],
    [0, true],
  );
  assert.equal((await migrate({ project }, '--rollback')).code, 0);
  assert.deepEqual(await project.snapshot(), before);
});

/** One older setup for all of them, moved and linked: each leaves it as it was, the last one finishes with it. */
test('an older setup on the port of dev, its data linked from a place of its own', async (t) => {
  const old = await tinyLegacy(t, { isMoved: true });
  const { project } = old;
  const [before, facts] = [await old.snapshot(), await old.facts()];
  const composeText = await readFile(old.composeFile, 'utf8');
  const refused = async (what: string) => {
    const outcome = await migrate(old);
    assert.equal(outcome.code, 1, `${what}: ${outcome.stderr}`);
    return errorOf(outcome);
  };

  await t.test('what stands in the way is refused, all at once', async () => {
    const env = await project.read('.env');
    const subnet = /TINY_SUBNET=(.*)/.exec(env)![1]!;
    const other = `10.63.${Number(subnet.split('.')[2])}.0/24`;
    const [network, neighbour] = [`${project.name}-third`, `${project.name}-neighbour`];
    t.after(() => docker('network', 'rm', network).catch(() => ''));
    t.after(() => docker('rm', '--force', neighbour).catch(() => ''));
    const label = 'com.docker.compose.project=neighbour';
    await docker('network', 'create', '--subnet', other, '--label', label, network);
    await runIdle(old, neighbour, `--network=${old.id}_rag-net`);
    const server = createServer().listen(project.ports.prod, '0.0.0.0');
    await project.write('.env', env.replace(subnet, other).replace(/^TINY_UID=.*\n/m, ''));
    await project.write('note', 'not committed');
    await writeFile(`${old.composeFile}.deprecated`, '');
    const { message } = await refused('six problems');
    server.close();
    for (const problem of [
      `the network ${network} of the project neighbour has ${other}`,
      'TINY_SUBNET=… in \\.env',
      `Port ${project.ports.prod}, which prod needs, is taken by node`,
      'uncommitted changes in note',
      'docker-compose\\.mcp\\.yml\\.deprecated is in the way',
      `container ${neighbour} uses the network [\\s\\S]*docker network disconnect`,
      'not set up: write \\.env: TINY_UID=[\\s\\S]*npm run setup',
    ])
      assert.match(message, new RegExp(problem));
    await project.write('.env', env);
    await rm(join(project.root, 'note'));
    await rm(`${old.composeFile}.deprecated`);
    await docker('rm', '--force', neighbour);
    await docker('network', 'rm', network);
  });

  await t.test('a second container of its compose project, which would be removed with it', async () => {
    const beside = `${project.name}-beside`;
    t.after(() => docker('rm', '--force', beside).catch(() => ''));
    await runIdle(old, beside, '--label', `com.docker.compose.project=${old.id}`);
    const { code, message } = await refused('two containers');
    assert.deepEqual([code, message.includes(beside)], ['unknown-shape', true], message);
    await docker('rm', '--force', beside);
  });

  await t.test('no room for two copies: found before the old service stops', async () => {
    const small = join(project.directory, 'small');
    await mkdir(small);
    await runProcess('mount', ['-t', 'tmpfs', '-o', 'size=200k', 'tmpfs', small]);
    t.after(() => runProcess('umount', [small]));
    const env = await project.read('.env');
    const place = (_line: string, what: string) => `TINY_${what}_DIR=${small}/${what.toLowerCase()}`;
    await project.write('.env', env.replace(/^TINY_(DATA|BACKUP)_DIR=.*$/gm, place));
    const { code, message } = await refused('a small disk');
    assert.equal(code, 'disk-full', message);
    assert.match(message, /free, needed \d+ kB for the copy at .*small\/data, \d+ kB for the backup/);
    await project.write('.env', env);
    await runProcess('umount', [small]);
    await rm(small, { recursive: true });
  });

  await t.test('what was refused has changed nothing', async () => {
    assert.equal((await migrate(old, '--status')).json().state, 'none');
    assert.deepEqual(await old.snapshot(), before);
  });

  const good = await docker('image', 'inspect', '--format', '{{.Id}}', `${project.name}:latest`);
  await t.test(
    'the new service does not start: rolled back by itself until the old one answers',
    async () => {
      await docker('image', 'tag', old.image, `${project.name}:latest`);
      const { message, hint } = await refused('a dev that is something else');
      assert.match(message, /^The migration failed: .*Cannot start dev/s);
      assert.match(hint, /rolled back: rag-mcp.* is running as before/s);
      assert.deepEqual(await old.facts(), facts);
      assert.equal((await migrate(old, '--status')).json().state, 'rolled-back');
      assert.deepEqual(await old.snapshot(), before);
      await docker('image', 'tag', good, `${project.name}:latest`);
    },
  );

  // From here on the old service is stopped: it has to be so again in the end.
  await old.compose('stop');
  const stopped = await old.snapshot();
  await t.test('stopped, with a compose file that is none any more', async () => {
    await writeFile(old.composeFile, composeText.replace(/^services:/m, 'service:'));
    assert.equal((await refused('no compose file')).code, 'unknown-shape');
    await writeFile(old.composeFile, composeText);
    assert.deepEqual(await old.snapshot(), stopped);
  });

  await t.test('two at once: one does it, the other says who does; and back', async () => {
    const both = await Promise.all([migrate(old), migrate(old)]);
    const [winner, loser] = both.sort((a, b) => a.code - b.code);
    assert.deepEqual([winner!.code, loser!.code], [0, 1], loser!.stderr);
    assert.equal(errorOf(loser!).code, 'locked');
    const { state, downtimeSeconds } = winner!.json();
    assert.deepEqual([state, downtimeSeconds], ['migrated', 0]);
    assert.ok((await project.read('.env')).includes(`TINY_TOKEN='${TOKEN}'`));
    const ports = await docker('port', `${project.name}-dev`, '8002/tcp');
    assert.match(ports, /^0\.0\.0\.0:/, 'the network reaches it as it reached the old one');
    const back = await migrate(old, '--rollback');
    assert.equal(back.code, 0, back.stderr);
    const after = await old.snapshot();
    const containers = String(after.containers).replace('created', 'exited');
    assert.deepEqual({ ...after, containers }, stopped, 'stopped as it was, with everything else');
  });
  await old.compose('start');
  await old.isAnswering();
  assert.deepEqual(await old.facts(), facts);

  await t.test(
    'running without its compose file: refused, with which one, where, and how to write it',
    async () => {
      await rm(old.composeFile);
      const { code, message, hint } = await refused('no compose file');
      assert.equal(code, 'no-compose-file', message);
      assert.match(message, new RegExp(`is gone: ${old.composeFile}`));
      assert.match(hint, new RegExp(`service ${old.service} .*docker inspect ${old.service}`, 's'));
      await writeFile(old.composeFile, composeText);
    },
  );

  await chmod(join(await placeOf(old.volume), 'model.gguf'), 0o600);
  const user = `${project.name}-models-user`;
  t.after(() => docker('rm', '--force', user).catch(() => ''));
  t.after(() => docker('volume', 'rm', '--force', `${project.name}-models`).catch(() => ''));
  await runIdle(old, user, `--volume=${old.volume}:/m`);
  await t.test('models in use elsewhere, and not for all to read: they are copied', async () => {
    const models = await volumeContent(old.volume);
    const done = await migrate(old);
    assert.equal(done.code, 0, done.stderr);
    assert.match(done.stderr, /the new containers' user may not read 1 of its files/);
    assert.deepEqual(await volumeContent(`${project.name}-models`), models);
    assert.deepEqual(await treeOf(old.data), before.data, 'the old place is not touched');
    assert.equal((await treeOf(join(project.directory, 'data')))['/'], '1000:1000 700');
  });

  await t.test('--status prints how to remove what nobody uses; after that no rollback begins', async () => {
    const asked = await project.task('migrate', ['--rollback', '--json']);
    assert.deepEqual([asked.code, errorOf(asked).code], [2, 'no-terminal'], 'it asks');
    assert.match(asked.stderr, /downtime: .*\n +what was written since then .* is kept as .*data\.migrated-/);
    const { stdout } = await project.task('migrate', ['--status']);
    assert.match(stdout, new RegExp(`^ +rm -rf ${old.data}$`, 'm'));
    assert.doesNotMatch(stdout, /docker volume rm/, `${user} uses it`);
    await docker('rm', '--force', user);
    const { stdout: later } = await project.task('migrate', ['--status']);
    assert.match(later, new RegExp(`^ +docker volume rm ${old.volume}$`, 'm'));
    for (const command of later.match(/(?<=^ +)(rm|docker) .*$/gm) ?? [])
      await runProcess('sh', ['-c', command]);
    assert.deepEqual(await treeOf(old.data), {}, 'the old data is gone');
    const never = await migrate(old, '--rollback');
    assert.deepEqual([never.code, errorOf(never).code], [1, 'old-pieces-gone'], never.stderr);
    assert.match(errorOf(never).hint, /backups\/.*\.tar\.zst/);
    assert.equal((await project.health('prod')).env, 'prod');
  });
});
