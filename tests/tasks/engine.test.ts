// The engine and the base image, on the real thing: a private one is
// started, survives what kills daemons, and is stopped; the base image runs what the builds need.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { type Command, probe, read } from '../../tasks/lib/command.ts';
import { engineEndpoint, queryEngine, withEngine } from '../../tasks/lib/docker/engine.ts';
import { ensureBaseImage } from '../../tasks/lib/setup/base-image.ts';
import { type DaemonPlace, startDaemon } from '../../tasks/lib/setup/engine.ts';
import { ensureEngine, stopDaemon } from '../engine.ts';
import { temporaryFolder } from './processes.ts';

const BASE = 'node:24-bookworm-slim';
const STAND_IN = 'synapse-node:24';

const scratch = temporaryFolder({ after });
before(() => ensureEngine(async () => {}));

describe('DOCKER_HOST', () => {
  const { DOCKER_HOST } = process.env;
  afterEach(() => {
    if (DOCKER_HOST === undefined) delete process.env.DOCKER_HOST;
    else process.env.DOCKER_HOST = DOCKER_HOST;
  });

  it('is read as the client reads it; what is no address is refused by its name', async () => {
    const rows: [host: string, endpoint: string | undefined][] = [
      ['unix:///var/run/docker.sock', 'unix:///var/run/docker.sock'],
      ['ssh://me@pi', 'ssh://me@pi'],
      ['127.0.0.1:2375', 'tcp://127.0.0.1:2375'],
      ['bogus', 'tcp://bogus:2375'],
      ['ftp://pi:21', undefined],
      ['tcp://pi:99999', undefined],
    ];
    for (const [host, endpoint] of rows) {
      process.env.DOCKER_HOST = host;
      if (endpoint) assert.equal(await engineEndpoint(), endpoint);
      else
        await assert.rejects(engineEndpoint(), {
          exitCode: 2,
          message: new RegExp(`is "${host}", expected`),
        });
    }
  });

  it('of an engine that is not there: all questions are refused, also those that wait for their turn', async (t) => {
    // One that dies with the question in its hands.
    const socket = join(scratch, 'dying.sock');
    const dying = createServer((connection) => connection.once('data', () => connection.destroy()));
    t.after(() => dying.close());
    await once(dying.listen(socket), 'listening');
    for (const host of ['tcp://127.0.0.1:9', 'unix:///nowhere/docker.sock', `unix://${socket}`]) {
      process.env.DOCKER_HOST = host;
      const answers = withEngine(() => Promise.allSettled(['/info', '/version', '/_ping'].map(queryEngine)));
      for (const answer of await answers) {
        assert.equal(answer.status, 'rejected');
        assert.equal((answer as PromiseRejectedResult).reason.code, 'engine-down', host);
      }
    }
  });
});

const skip = process.platform === 'linux' && process.getuid?.() === 0 ? false : 'needs root on Linux';

describe('a private engine', { skip }, () => {
  const namespace = `engine-test-${process.pid}`;
  let place: DaemonPlace;
  before(async () => {
    const path = (name: string) => join(scratch, name);
    place = {
      host: `unix://${path('docker.sock')}`,
      dataRoot: path('data'),
      execRoot: path('exec'),
      pidFile: path('docker.pid'),
      logFile: path('dockerd.log'),
      namespace,
      flags: ['--config-file', path('daemon.json')],
    };
    await writeFile(path('daemon.json'), '{}');
    await read(['ip', 'netns', 'add', namespace]);
  });
  after(async () => {
    await stopDaemon(place);
    // A killed dockerd leaves the mount that it made of its data directory.
    await probe(['umount', place.dataRoot]);
    await read(['ip', 'netns', 'delete', namespace]);
  });

  const pid = async () => Number(await readFile(place.pidFile, 'utf8'));
  const ask = (...argv: string[]): Command => ['docker', '--host', place.host, ...argv];

  it('starts, answers in a data directory of its own, and leaves the first one be', async () => {
    const name = `${namespace}-bystander`;
    const image = process.env.TEST_BASE_IMAGE ?? 'synapse-node:24';
    await read(['docker', 'run', '--detach', '--rm', '--name', name, '--network=none', image, 'sleep', '60']);
    const before = await read(['docker', 'inspect', '--format', '{{.State.StartedAt}}', name]);
    await startDaemon(place);
    assert.equal(await read(ask('info', '--format', '{{.DockerRootDir}}')), place.dataRoot);
    assert.equal(await read(['docker', 'inspect', '--format', '{{.State.StartedAt}}', name]), before);
    await read(['docker', 'rm', '--force', name]);
  });

  it('outlives the task that started it: it has no session and no parent of ours', async () => {
    const stat = async (of: number) => {
      const [, parent, , session] = (await readFile(`/proc/${of}/stat`, 'utf8')).split(') ')[1]!.split(' ');
      return { parent: Number(parent), session };
    };
    const { parent, session } = await stat(await pid());
    assert.notEqual(parent, process.pid);
    assert.notEqual(session, (await stat(process.pid)).session);
  });

  it('is not started twice', async () => {
    const running = await pid();
    await startDaemon(place);
    assert.equal(await pid(), running);
  });

  it('does not see the secrets of the shell that started it', async () => {
    const environment = await readFile(`/proc/${await pid()}/environ`, 'utf8');
    const names = environment.split('\0').map((entry) => entry.split('=')[0]);
    // The last three are the shell's that zx goes through.
    const allowed = /^(PATH|HOME|TMPDIR|LANG|SSL_CERT_FILE|SSL_CERT_DIR|\w*_proxy|PWD|SHLVL|_|)$/i;
    assert.deepEqual(
      names.filter((name) => !allowed.test(name ?? '')),
      [],
    );
  });

  it('starts again after kill -9, even when another process has the dead one’s number', async () => {
    process.kill(await pid(), 'SIGKILL');
    while ((await probe(ask('version'))).ok) await new Promise((resolve) => setTimeout(resolve, 50));
    await writeFile(place.pidFile, String(process.pid));
    await startDaemon(place);
    assert.notEqual(await pid(), process.pid);
    assert.ok((await probe(ask('version'))).ok);
  });

  it('stops, with everything that belongs to it', async () => {
    await stopDaemon(place);
    assert.ok(!(await probe(ask('version'))).ok);
    const left = await probe(['pgrep', '--full', '--list-full', place.execRoot]);
    assert.equal(left.stdout, '');
    await stopDaemon(place);
  });

  it('that cannot start shows its log’s last lines', async () => {
    await writeFile(join(scratch, 'daemon.json'), '{"no-such-setting": true}');
    await assert.rejects(startDaemon(place), {
      code: 'engine-start-failed',
      message: /no-such-setting/,
      hint: new RegExp(place.logFile),
    });
  });
});

describe('the base image', () => {
  let image: string;
  before(async () => {
    image = await ensureBaseImage(BASE, STAND_IN);
  });
  const inside = (...argv: string[]) => read(['docker', 'run', '--rm', '--network', 'none', image, ...argv]);

  it('is not fetched or made again', async () => {
    const made = () =>
      read(['docker', 'image', 'inspect', '--format', '{{.Id}} {{.Metadata.LastTagTime}}', image]);
    const before = await made();
    assert.equal(await ensureBaseImage(BASE, STAND_IN), image);
    assert.equal(await made(), before);
  });

  it('runs node 24 with SQLite, npm and a shell', async () => {
    assert.match(await inside('node', '--version'), /^v24\./);
    assert.match(await inside('npm', '--version'), /^\d+\./);
    const query = `import('node:sqlite').then((m) => console.log(new m.DatabaseSync(':memory:').prepare('select 7 n').get().n))`;
    assert.equal(await inside('node', '-e', query), '7');
    assert.equal(await inside('sh', '-c', 'cd /tmp && echo $((6*7)) > f && cat f'), '42');
  });

  it('runs as its user 1000 with nothing to write to but /tmp, as the containers do', async () => {
    const locked = ['--user', '1000:1000', '--read-only', '--cap-drop', 'ALL', '--tmpfs', '/tmp', '--init'];
    const limits = ['--memory', '256m', '--pids-limit', '100', '--network', 'none'];
    const argv = [...locked, ...limits, image, 'sh', '-c', 'touch /tmp/x; whoami'];
    assert.equal(await read(['docker', 'run', '--rm', ...argv]), 'node');
  });
});
