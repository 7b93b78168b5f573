// The image in both environments: no acknowledged write is lost while both write, the containers are confined as the
// compose file says, and they stop on request.
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { postCall } from './mcp.ts';
import { docker } from './processes.ts';
import type { TestProject } from './project.ts';

const FACTS = 2000;
/** Calls that are under way at the same time. */
const AT_ONCE = 8;
const MAX_LAYERS_BYTES = 5 * 1000 * 1000;

interface Inspected {
  State: { ExitCode: number };
  Config: { User: string; Image: string };
  Mounts: { Type: string; Destination: string; RW: boolean }[];
  HostConfig: {
    ReadonlyRootfs: boolean;
    CapDrop: string[] | null;
    CapAdd: string[] | null;
    SecurityOpt: string[] | null;
    Privileged: boolean;
    Init: boolean | null;
    PidsLimit: number;
    Memory: number;
    NanoCpus: number;
    RestartPolicy: { Name: string };
    LogConfig: { Type: string; Config: Record<string, string> };
    Tmpfs: Record<string, string> | null;
  };
}

async function inspect(name: string): Promise<Inspected> {
  return (JSON.parse(await docker('inspect', name)) as Inspected[])[0]!;
}

/** Writes FACTS facts through one container, several calls at a time; returns how many were acknowledged. */
async function writeFacts(port: number, writer: string): Promise<number> {
  let next = 0;
  let acknowledged = 0;
  const work = async () => {
    while (next < FACTS) {
      const number = next++;
      const fact = { project_id: 'load', fact_key: `${writer}-${number}`, fact_value: number };
      await postCall(port, 'sy.mem.fact.add', fact);
      acknowledged += 1;
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return acknowledged;
}

/** Queries the database inside a container: the host's node may have no SQLite. */
async function queryDatabase(container: string, sql: string): Promise<Record<string, unknown>> {
  const script = `const { DatabaseSync } = require('node:sqlite');
    const db = new DatabaseSync('/app/data/memory.db', { readOnly: true });
    console.log(JSON.stringify(db.prepare(process.argv[1]).get()));`;
  return JSON.parse(await docker('exec', container, 'node', '-e', script, sql));
}

/** The places in which the service's user can create a file. */
async function writablePlaces(container: string): Promise<string[]> {
  const script = `const fs = require('node:fs');
    console.log(JSON.stringify(process.argv.slice(1).filter((place) => {
      try { fs.rmSync(place + '/probe', (fs.writeFileSync(place + '/probe', ''), {})); return true; } catch { return false; }
    })));`;
  const places = ['/', '/app', '/app/configs', '/app/data', '/app/models', '/etc', '/tmp', '/usr/local/bin'];
  return JSON.parse(await docker('exec', container, 'node', '-e', script, ...places));
}

/** Bytes of the layers that our Dockerfile adds to the base image. */
async function layerBytes(image: string, baseImage: string): Promise<number> {
  const sizes = async (name: string) =>
    (await docker('history', '--human=false', '--format', '{{.Size}}', name)).split('\n').map(Number);
  const [all, base] = await Promise.all([sizes(image), sizes(baseImage)]);
  return all.slice(0, all.length - base.length).reduce((sum, size) => sum + size, 0);
}

/** In a project that is up; leaves both environments stopped. */
export async function testService(t: TestContext, project: TestProject): Promise<void> {
  const both = await project.task('switch-env', ['both', '--yes', '--json']);
  assert.equal(both.code, 0, both.stderr);
  const environments = [
    { container: `${project.name}-dev`, restart: 'no' },
    { container: `${project.name}-prod`, restart: 'always' },
  ];

  await t.test('our layers over the base image are at most 5 MB', async (t) => {
    const base = process.env.TEST_BASE_IMAGE ?? 'synapse-node:24';
    const bytes = await layerBytes(`${project.name}:v1.0.0`, base);
    t.diagnostic(`layers over the base image: ${(bytes / 1e6).toFixed(2)} MB`);
    assert.ok(bytes > 0 && bytes <= MAX_LAYERS_BYTES, `${bytes} bytes`);
  });

  await t.test('containers are confined as the compose file says', async () => {
    for (const { container, restart } of environments) {
      const { HostConfig: host, Config: config, Mounts: mounts } = await inspect(container);
      assert.equal(host.ReadonlyRootfs, true, 'read-only root');
      assert.deepEqual([host.CapDrop, host.CapAdd, host.Privileged], [['ALL'], null, false]);
      assert.deepEqual(host.SecurityOpt, ['no-new-privileges:true']);
      assert.match(config.User, /^[1-9]\d*:[1-9]\d*$/, 'not root');
      assert.equal(host.Init, true);
      assert.equal(host.PidsLimit, 256);
      assert.equal(host.Memory, 3 * 1024 ** 3);
      assert.ok(host.NanoCpus > 0 && host.NanoCpus <= 3e9, `${host.NanoCpus}`);
      assert.equal(host.RestartPolicy.Name, restart);
      const { Type, Config } = host.LogConfig;
      assert.deepEqual([Type, Config], ['json-file', { 'max-file': '3', 'max-size': '10m' }]);
      assert.deepEqual(Object.keys(host.Tmpfs ?? {}), ['/tmp']);
      const shared = mounts.filter(({ Destination }) => Destination !== '/app/configs');
      assert.deepEqual(shared.map(({ Type, Destination }) => `${Type} ${Destination}`).sort(), [
        'bind /app/data',
        'volume /app/models',
      ]);
      assert.deepEqual(await writablePlaces(container), ['/app/data', '/app/models', '/tmp']);
    }
  });

  await t.test('both write 2,000 facts each at the same time and lose none', async (t) => {
    const began = performance.now();
    const { dev, prod } = project.ports;
    const acknowledged = await Promise.all([writeFacts(dev, 'dev'), writeFacts(prod, 'prod')]);
    assert.deepEqual(acknowledged, [FACTS, FACTS]);
    t.diagnostic(`${2 * FACTS} acknowledged facts in ${((performance.now() - began) / 1000).toFixed(1)} s`);
    const facts = "FROM memory_facts WHERE scope = 'load'";
    for (const { container } of environments) {
      const count = await queryDatabase(container, `SELECT count(DISTINCT key) AS facts ${facts}`);
      assert.deepEqual(count, { facts: 2 * FACTS }, container);
    }
    const sound = await queryDatabase(`${project.name}-dev`, 'PRAGMA integrity_check');
    assert.deepEqual(sound, { integrity_check: 'ok' });
  });

  await t.test('a container that is asked to stop ends before it would be killed', async (t) => {
    for (const { container } of environments) {
      const began = performance.now();
      await docker('stop', '--time', '10', container);
      t.diagnostic(`${container}: stopped in ${((performance.now() - began) / 1000).toFixed(2)} s`);
      assert.equal((await inspect(container)).State.ExitCode, 0, 'killed would be 137');
    }
  });
}
