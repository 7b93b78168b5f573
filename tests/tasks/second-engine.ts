// A second engine on this machine, in a network namespace of its own: "the Pi" of the tests, and the engine that may
// be killed. Reached by its socket, or as a remote machine is: by ssh, whose server runs inside that namespace.
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { probe, read } from '../../tasks/lib/command.ts';
import { type DaemonPlace, startDaemon } from '../../tasks/lib/setup/engine.ts';
import { stopDaemon } from '../engine.ts';
import { ensureProgram } from '../programs.ts';
import { type Outcome, type RunOptions, runProcess } from './processes.ts';
import type { TestProject } from './project.ts';

export interface SecondEngine {
  folder: string;
  namespace: string;
  host: string;
  /** `docker` of that engine, by its socket. */
  docker: (...argv: string[]) => Promise<string>;
  /** Brings images of a project over from the first engine, by their tags. */
  load: (project: TestProject, ...tags: string[]) => Promise<void>;
  /** Runs a program in a project where the engine's published ports answer: in its network namespace. */
  run: (project: TestProject, command: readonly string[], env?: RunOptions['env']) => Promise<Outcome>;
  pid: () => Promise<number>;
  /** Kills it like a power cut does, unless that has happened, waits until it is gone, and starts it again. */
  restart: () => Promise<void>;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** A killed dockerd leaves the mounts that it made of its data directory and for its containers. */
async function unmountBelow(directory: string): Promise<void> {
  const mounts = (await readFile('/proc/mounts', 'utf8')).split('\n').map((line) => line.split(' ')[1] ?? '');
  for (const mount of mounts.filter((path) => path.startsWith(`${directory}/`)).reverse())
    await probe(['umount', '--lazy', mount]);
}

export async function secondEngine(t: TestContext): Promise<SecondEngine> {
  const folder = await mkdtemp(join(tmpdir(), 'second-engine-'));
  const namespace = `second-${process.pid}`;
  const path = (name: string) => join(folder, name);
  const place: DaemonPlace = {
    host: `unix://${path('docker.sock')}`,
    dataRoot: path('data'),
    execRoot: path('exec'),
    pidFile: path('docker.pid'),
    logFile: path('dockerd.log'),
    namespace,
    flags: ['--config-file', path('daemon.json')],
  };
  t.after(async () => {
    await stopDaemon(place);
    await unmountBelow(folder);
    await probe(['ip', 'netns', 'delete', namespace]);
    await rm(folder, { recursive: true, force: true });
  });
  // The same kind of image store as the first one has: only then do images keep their digests.
  await writeFile(path('daemon.json'), '{"features": {"containerd-snapshotter": true}}');
  await ensureProgram('ip');
  await read(['ip', 'netns', 'add', namespace]);
  await read(['ip', '-n', namespace, 'link', 'set', 'lo', 'up']);
  await startDaemon(place);
  const docker = (...argv: string[]) => read(['docker', '--host', place.host, ...argv]);
  const load = async ({ name }: TestProject, ...tags: string[]) => {
    const images = tags.map((tag) => `${name}:${tag}`);
    await read(['docker', 'save', '--output', path('images.tar'), ...images]);
    await docker('load', '--quiet', '--input', path('images.tar'));
    await rm(path('images.tar'));
  };
  const run = ({ root }: TestProject, command: readonly string[], env: RunOptions['env'] = {}) => {
    const options = { cwd: root, env: { DOCKER_HOST: place.host, ...env } };
    return runProcess('nsenter', [`--net=/run/netns/${namespace}`, ...command], options);
  };
  const pid = async () => Number(await readFile(place.pidFile, 'utf8'));
  const restart = async () => {
    const old = await pid();
    if (isAlive(old)) process.kill(old, 'SIGKILL');
    while (isAlive(old)) await sleep(50);
    await startDaemon(place);
  };
  return { folder, namespace, host: place.host, docker, load, run, pid, restart };
}

/**
 * Makes the engine reachable as `ssh://NAME` with a Docker context of that name; returns what a task needs in
 * its environment. The server is started by ssh for each connection, inside the namespace.
 */
export async function overSsh({ folder, namespace, host }: SecondEngine, name: string) {
  const path = (file: string) => join(folder, file);
  const sshd = await ensureProgram('sshd');
  await mkdir('/run/sshd', { recursive: true });
  for (const key of ['host', 'user'])
    await read(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', path(key)]);
  const server = [
    `HostKey ${path('host')}`,
    `AuthorizedKeysFile ${path('user.pub')}`,
    ...['UsePAM no', 'StrictModes no', 'PermitRootLogin prohibit-password', 'PidFile none'],
    `SetEnv DOCKER_HOST=${host}`,
  ];
  await writeFile(path('sshd_config'), `${server.join('\n')}\n`);
  const client = [
    `Host ${name}`,
    `  ProxyCommand nsenter --net=/run/netns/${namespace} ${sshd} -i -f ${path('sshd_config')}`,
    ...[`  User root`, `  IdentityFile ${path('user')}`, `  UserKnownHostsFile ${path('known')}`],
    ...['  StrictHostKeyChecking accept-new', '  LogLevel ERROR'],
  ];
  await writeFile(path('ssh_config'), `${client.join('\n')}\n`);
  await mkdir(path('bin'));
  await writeFile(path('bin/ssh'), `#!/bin/sh\nexec /usr/bin/ssh -F ${path('ssh_config')} "$@"\n`);
  await chmod(path('bin/ssh'), 0o755);
  const env = { PATH: `${path('bin')}${delimiter}${process.env.PATH}`, DOCKER_CONFIG: path('config') };
  await read(['docker', 'context', 'create', name, '--docker', `host=ssh://${name}`], { env });
  return env;
}
