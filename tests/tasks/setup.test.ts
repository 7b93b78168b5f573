// `setup` as root runs it: what it makes, that a second run finds nothing, and that nothing is touched where it may not,
// cannot, or was not asked to.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { chmod, chown, lstat, mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { ensureEngine } from '../engine.ts';
import { REPOSITORY, runProcess, temporaryFolder } from './processes.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const START = join(REPOSITORY, 'tasks/start.mjs');
const scratch = temporaryFolder({ after });
let count = 0;
let root: string;
let data: string;

before(() => ensureEngine(async () => {}));
beforeEach(async () => {
  root = join(scratch, String(++count));
  data = join(root, 'srv/data');
  const toml = await readFile(join(REPOSITORY, 'configs/release.toml'), 'utf8');
  await mkdir(join(root, 'configs'), { recursive: true });
  await writeFile(join(root, 'configs/release.toml'), toml.replaceAll('/opt/synapse', join(root, 'srv')));
});

interface Answer {
  changed: boolean;
  plan: string[];
  error?: { code: string; message: string; hint: string };
}

/** Runs it with --json, whose stdout must be exactly one object. `through`: a command that runs it. */
async function setup(argv: string[], env: Record<string, string> = {}, through: readonly string[] = []) {
  const [program = '', ...rest] = [...through, process.execPath, START, 'setup', ...argv, '--json'];
  const outcome = await runProcess(program, rest, { cwd: root, env });
  return { ...outcome, answer: JSON.parse(outcome.stdout) as Answer };
}

/** Runs a command where something else is in the place of the engine's socket. */
function withSocket(path: string): string[] {
  const script = `mount --bind ${path} /var/run/docker.sock && exec "$@"`;
  return ['unshare', '--mount', 'sh', '-c', script, 'sh'];
}

const dotenv = () => readFile(join(root, '.env'), 'utf8');
const modeOf = async (path: string) => (await stat(path)).mode & 0o777;

describe('setup', { skip }, () => {
  it('makes a private data directory and a private .env; a second run changes nothing', async () => {
    const first = await setup(['--yes']);
    assert.equal(first.code, 0, first.stderr);
    const { uid, gid } = await stat(data);
    assert.deepEqual([await modeOf(data), uid, gid], [0o700, 1000, 1000]);
    assert.equal(await modeOf(join(root, '.env')), 0o600);
    const text = await dotenv();
    assert.match(text, new RegExp(`^SYNAPSE_DATA_DIR=${data}$`, 'm'));
    assert.match(text, /^SYNAPSE_UID=1000$/m);
    assert.ok(Number(/^SYNAPSE_CPUS=(.+)$/m.exec(text)?.[1] ?? 3) <= availableParallelism());

    const written = (await stat(join(root, '.env'))).mtimeMs;
    const second = await setup(['--yes']);
    assert.deepEqual([second.code, second.answer.changed, second.answer.plan], [0, false, []]);
    assert.equal((await stat(join(root, '.env'))).mtimeMs, written);
  });

  it('--dry-run prints the plan and the commands', async () => {
    const { code, stderr, answer } = await setup(['--dry-run']);
    assert.equal(code, 0, stderr);
    assert.ok(answer.plan.some((line) => line.includes(data)));
    assert.match(stderr, /would make directory: .*srv\/data/);
    assert.deepEqual(await readdir(root), ['configs']);
  });

  it('keeps what a person wrote in .env, but for CPUs that the engine would refuse', async () => {
    await writeFile(join(root, '.env'), '# mine\nSYNAPSE_CPUS=512\nOTHER="a b"\n', { mode: 0o644 });
    assert.equal((await setup(['--yes'])).code, 0);
    assert.ok((await dotenv()).startsWith(`# mine\nSYNAPSE_CPUS=${availableParallelism()}\nOTHER="a b"\n`));
    assert.equal(await modeOf(join(root, '.env')), 0o600);
  });

  it('refuses, and changes nothing, where it may not go on', async (t) => {
    const socket = join(scratch, 'docker.sock');
    const server = createServer().listen(socket);
    t.after(() => server.close());
    await once(server, 'listening');
    await chmod(socket, 0o600);
    await chown(socket, 65_534, 65_534);
    // Root is not asked for permission unless this right of root's is taken away.
    const denied = [...withSocket(socket), 'setpriv', '--bounding-set=-dac_override'];
    const down = { DOCKER_HOST: 'tcp://127.0.0.1:9' };
    const rows: [what: string, refused: ReturnType<typeof setup>, code: string, exitCode: number][] = [
      ['nobody to ask', setup([]), 'no-terminal', 2],
      ['an engine elsewhere that is down', setup(['--yes'], down), 'engine-unreachable', 1],
      ['an engine that this user may not use', setup(['--yes'], {}, denied), 'engine-denied', 1],
    ];
    for (const [what, refused, code, exitCode] of rows) {
      const { answer, ...outcome } = await refused;
      assert.deepEqual([outcome.code, answer.error?.code], [exitCode, code], what);
    }
    assert.deepEqual(await readdir(root), ['configs']);
    await mkdir(join(root, 'srv'));
    await writeFile(data, '');
    const { code, answer } = await setup(['--yes']);
    assert.deepEqual([code, answer.error?.code], [1, 'data-directory'], 'a file in its place');
    assert.deepEqual((await readdir(root)).sort(), ['configs', 'srv']);
  });

  it('a daemon that is dead: the start is planned, and only printed in a dry run', async () => {
    const { code, stderr, answer } = await setup(['--dry-run'], {}, withSocket('/dev/null'));
    assert.equal(code, 0, stderr);
    assert.match(answer.plan[0] ?? '', /start the Docker engine/);
    assert.match(stderr, /would run: (start-stop-daemon --start|systemctl enable --now docker)/);
    assert.deepEqual(await readdir(root), ['configs']);
  });

  async function existingData(owner: number, mode: number): Promise<void> {
    await mkdir(data, { recursive: true });
    await writeFile(join(data, 'memory.db'), 'x');
    await chown(join(data, 'memory.db'), owner, owner);
    await chown(data, owner, owner);
    await chmod(data, mode);
  }

  it('data of a root-run service: the plan says what changes owner, and links lead nowhere', async () => {
    await existingData(0, 0o755);
    await writeFile(join(root, 'configs/foreign'), '');
    await symlink(join(root, 'configs/foreign'), join(data, 'link'));
    const { code, answer } = await setup(['--yes']);
    assert.equal(code, 0);
    assert.ok(answer.plan.some((line) => /everything in it \(2 entries\).*0:0 → 1000:1000/.test(line)));
    assert.ok(answer.plan.some((line) => line.includes('0755 → 0700')));
    assert.equal((await stat(join(data, 'memory.db'))).uid, 1000);
    assert.equal((await lstat(join(data, 'link'))).uid, 1000);
    assert.equal((await stat(join(root, 'configs/foreign'))).uid, 0);
  });

  it('data that a user owns stays that user’s: the containers will run as its owner', async () => {
    await existingData(1234, 0o700);
    assert.equal((await setup(['--yes'])).code, 0);
    assert.match(await dotenv(), /^SYNAPSE_UID=1234\nSYNAPSE_GID=1234$/m);
    assert.equal((await stat(join(data, 'memory.db'))).uid, 1234);
  });
});
