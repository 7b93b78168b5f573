// `setup` as a user runs it: what it makes, that a second run finds nothing, and that nothing is touched
// where it may not, cannot, or was not asked to.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import {
  chmod,
  chown,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { createServer } from 'node:net';
import { availableParallelism, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type ProcessResult, probe } from '../../tasks/lib/command.ts';
import { ensureEngine } from '../engine.ts';

const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url));
const SELF = { uid: process.getuid?.() ?? 1000, gid: process.getgid?.() ?? 1000 };
const skip = SELF.uid === 0 ? false : 'needs root';
const OWNER = SELF.uid === 0 ? { uid: 1000, gid: 1000 } : SELF;

let root: string;
const roots: string[] = [];
let data: string;
before(() => ensureEngine(async () => {}));
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'setup-test-'));
  roots.push(root);
  data = join(root, 'srv/data');
  const toml = await readFile(join(REPOSITORY, 'configs/release.toml'), 'utf8');
  await mkdir(join(root, 'configs'));
  await writeFile(join(root, 'configs/release.toml'), toml.replaceAll('/opt/synapse', join(root, 'srv')));
});
after(async () => {
  for (const root of roots) await rm(root, { recursive: true, force: true });
});

const SETUP = [process.execPath, join(REPOSITORY, 'tasks/start.mjs'), 'setup'];

/** `through`: a command that runs it. */
function setup(
  argv: string[],
  env: Record<string, string> = {},
  through: readonly string[] = [],
): Promise<ProcessResult> {
  const [program = '', ...rest] = [...through, ...SETUP, ...argv];
  return probe([program, ...rest], { cwd: root, env });
}

/** Runs a command where something else is in the place of the engine's socket. */
function withSocket(path: string): string[] {
  const script = `mount --bind ${path} /var/run/docker.sock && exec "$@"`;
  return ['unshare', '--mount', 'sh', '-c', script, 'sh'];
}

interface Answer {
  ok: boolean;
  changed: boolean;
  plan: string[];
  error?: { code: string; message: string; hint: string };
}

/** Runs it with --json, whose stdout must be exactly one object. */
async function setupJson(argv: string[], env: Record<string, string> = {}, through: readonly string[] = []) {
  const result = await setup([...argv, '--json'], env, through);
  return { ...result, answer: JSON.parse(result.stdout) as Answer };
}

const dotenv = () => readFile(join(root, '.env'), 'utf8');

async function verifyUntouched(): Promise<void> {
  assert.deepEqual(await readdir(root), ['configs']);
}

describe('setup', () => {
  it('makes a private data directory and a private .env; a second run changes nothing', async () => {
    const first = await setupJson(['--yes']);
    assert.equal(first.exitCode, 0, first.stderr);
    const directory = await stat(data);
    assert.deepEqual([directory.mode & 0o777, directory.uid, directory.gid], [0o700, OWNER.uid, OWNER.gid]);
    assert.equal((await stat(join(root, '.env'))).mode & 0o777, 0o600);
    const text = await dotenv();
    assert.match(text, new RegExp(`^SYNAPSE_DATA_DIR=${data}$`, 'm'));
    assert.match(text, new RegExp(`^SYNAPSE_UID=${OWNER.uid}$`, 'm'));
    const cpus = Number(text.match(/^SYNAPSE_CPUS=(.+)$/m)?.[1] ?? 3);
    assert.ok(cpus <= availableParallelism());

    const written = (await stat(join(root, '.env'))).mtimeMs;
    const second = await setupJson(['--yes']);
    assert.deepEqual([second.exitCode, second.answer.changed, second.answer.plan], [0, false, []]);
    assert.equal((await stat(join(root, '.env'))).mtimeMs, written);
    assert.match((await setup([])).stdout, /nothing to do/);
  });

  it('--dry-run prints the plan and the commands, and touches nothing', async () => {
    const { exitCode, stderr, answer } = await setupJson(['--dry-run']);
    assert.equal(exitCode, 0, stderr);
    assert.ok(answer.plan.some((line) => line.includes(data)));
    assert.match(stderr, /would make directory: .*srv\/data/);
    await verifyUntouched();
  });

  it('without a terminal and without --yes asks nobody and changes nothing: exit 2', async () => {
    const { exitCode, answer } = await setupJson([]);
    assert.deepEqual([exitCode, answer.ok, answer.error?.code], [2, false, 'no-terminal']);
    await verifyUntouched();
  });

  it('keeps what a person wrote in .env, but for CPUs that the engine would refuse', async () => {
    await writeFile(join(root, '.env'), '# mine\nSYNAPSE_CPUS=512\nOTHER="a b"\n', { mode: 0o644 });
    assert.equal((await setup(['--yes'])).exitCode, 0);
    const text = await dotenv();
    assert.ok(text.startsWith(`# mine\nSYNAPSE_CPUS=${availableParallelism()}\nOTHER="a b"\n`));
    assert.equal((await stat(join(root, '.env'))).mode & 0o777, 0o600);
  });

  it('a data path that is a file stops it before anything is written', async () => {
    await mkdir(join(root, 'srv'));
    await writeFile(data, '');
    const { exitCode, answer } = await setupJson(['--yes']);
    assert.deepEqual([exitCode, answer.error?.code], [1, 'data-directory']);
    assert.deepEqual((await readdir(root)).sort(), ['configs', 'srv']);
  });
});

describe('setup with an engine that is down', () => {
  it('where it may not start one: says which, exit 1, nothing changed', async () => {
    const { exitCode, answer } = await setupJson(['--yes'], { DOCKER_HOST: 'tcp://127.0.0.1:9' });
    assert.deepEqual([exitCode, answer.error?.code], [1, 'engine-unreachable']);
    assert.match(answer.error?.hint ?? '', /DOCKER_HOST/);
    await verifyUntouched();
  });

  it('a daemon that is dead: the start is planned, and only printed in a dry run', { skip }, async () => {
    const { exitCode, stderr, answer } = await setupJson(['--dry-run'], {}, withSocket('/dev/null'));
    assert.equal(exitCode, 0, stderr);
    assert.match(answer.plan[0] ?? '', /start the Docker engine/);
    assert.match(stderr, /would run: (start-stop-daemon --start|systemctl enable --now docker)/);
    await verifyUntouched();
  });

  it('an engine that this user may not use is not started a second time', { skip }, async (t) => {
    const socket = join(await mkdtemp(join(tmpdir(), 'setup-socket-')), 'docker.sock');
    const server = createServer().listen(socket);
    t.after(() => server.close());
    roots.push(dirname(socket));
    while (!existsSync(socket)) await sleep(10);
    await chmod(socket, 0o600);
    await chown(socket, 65_534, 65_534);
    // Root is not asked for permission unless this right of root's is taken away.
    const through = [...withSocket(socket), 'setpriv', '--bounding-set=-dac_override'];
    const { exitCode, answer } = await setupJson(['--yes'], {}, through);
    assert.deepEqual([exitCode, answer.error?.code], [1, 'engine-denied'], answer.error?.message);
    await verifyUntouched();
  });
});

describe('setup as root', { skip }, () => {
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
    const { exitCode, answer } = await setupJson(['--yes']);
    assert.equal(exitCode, 0);
    assert.ok(answer.plan.some((line) => /everything in it \(2 entries\).*0:0 → 1000:1000/.test(line)));
    assert.ok(answer.plan.some((line) => line.includes('0755 → 0700')));
    assert.equal((await stat(join(data, 'memory.db'))).uid, 1000);
    assert.equal((await lstat(join(data, 'link'))).uid, 1000);
    assert.equal((await stat(join(root, 'configs/foreign'))).uid, 0);
  });

  it('data that a user owns stays that user’s: the containers will run as its owner', async () => {
    await existingData(1234, 0o700);
    assert.equal((await setup(['--yes'])).exitCode, 0);
    assert.match(await dotenv(), /^SYNAPSE_UID=1234\nSYNAPSE_GID=1234$/m);
    assert.equal((await stat(join(data, 'memory.db'))).uid, 1234);
  });
});
