// The Docker engine of this machine: what there is of it, the steps to a usable one, and how it is started. The plan is
// pure, so that every kind of machine can be tested without owning one. A running engine is always reused, never replaced.
import { existsSync, readdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { which } from 'zx/core';
import { probe, run, searchPath } from '../command.ts';
import { engineEndpoint, engineInfo } from '../docker/engine.ts';
import { lastLines, TaskError } from '../errors.ts';
import { makeDirectory, readIfPresent } from '../files.ts';
import { log } from '../log.ts';
import { waitUntil } from '../session.ts';
import type { Step } from '../steps.ts';
import {
  configureEngine,
  DAEMON_CONFIG,
  type Distribution,
  installEngine,
  loadDistribution,
  unpackEngine,
} from './install.ts';

/** What an engine consists of: its program (none: a plugin of the client) and Debian's package of it. */
const PARTS = {
  client: { program: 'docker', package: 'docker-cli' },
  daemon: { program: 'dockerd', package: 'docker.io' },
  containerd: { program: 'containerd', package: 'containerd' },
  runc: { program: 'runc', package: 'runc' },
  iptables: { program: 'iptables', package: 'iptables' },
  init: { program: 'docker-init', package: 'tini' },
  compose: { program: undefined, package: 'docker-compose' },
  buildx: { program: undefined, package: 'docker-buildx' },
} as const;
type EnginePart = keyof typeof PARTS;
export const ENGINE_PARTS = Object.keys(PARTS) as EnginePart[];
/** What a running engine still needs beside it. */
const CLIENT_PARTS: readonly EnginePart[] = ['client', 'compose', 'buildx'];

/** Older engines refuse a health check's start interval, which the compose file uses. */
export const OLDEST_ENGINE = 25;
/** Debian 12 has engine 20.10 and neither Compose v2 nor Buildx: they come from this suite, unpacked beside the system. */
const NEWER_SUITE = 'trixie';
const GOOD_IN_DEBIAN_12: readonly EnginePart[] = ['runc', 'iptables', 'init'];

export interface EngineObserved {
  platform: NodeJS.Platform;
  /** Node's name of the processor, e.g. `x64`, `arm64`. */
  arch: string;
  root: boolean;
  /** True when systemd is the running init, not merely installed. */
  systemd: boolean;
  distribution: Distribution;
  /** Where the client would connect to: DOCKER_HOST, else the current context's endpoint. */
  endpoint: string;
  server: { state: 'ready'; version: string } | { state: 'denied' | 'unreachable'; detail: string };
  /** The version, or the path, of each part that is there. */
  parts: Partial<Record<EnginePart, string>>;
  /** Nothing of an earlier engine: neither its configuration nor its data. */
  untouched: boolean;
}

/** Looks at this machine and asks its engine; changes nothing. */
export async function observeEngine(): Promise<EngineObserved> {
  const parts = await observeParts();
  return {
    platform: process.platform,
    arch: process.arch,
    root: process.getuid?.() === 0,
    systemd: existsSync('/run/systemd/system'),
    distribution: await loadDistribution(),
    endpoint: parts.client ? await engineEndpoint() : (process.env.DOCKER_HOST ?? STANDARD_PLACE.host),
    server: await askServer(),
    parts,
    untouched: !existsSync(DAEMON_CONFIG) && isEmpty(STANDARD_PLACE.dataRoot),
  };
}

async function observeParts(): Promise<EngineObserved['parts']> {
  const path = searchPath(process.env.PATH);
  const found = ENGINE_PARTS.map(async (part) => {
    const { program } = PARTS[part];
    return [part, await (program ? which(program, { path, nothrow: true }) : pluginVersion(part))] as const;
  });
  return Object.fromEntries((await Promise.all(found)).filter(([, value]) => value));
}

async function pluginVersion(name: string): Promise<string | undefined> {
  const answer = await probe(['docker', name, 'version'], { timeoutMs: 15_000 });
  const version = answer.ok ? answer.stdout.match(/\d+\.\d+\.\d+/)?.[0] : undefined;
  // Compose v1 answers to no `docker compose`, but a plugin of that name could be anything.
  return version?.startsWith('1.') ? undefined : version;
}

async function askServer(): Promise<EngineObserved['server']> {
  try {
    return { state: 'ready', version: (await engineInfo()).version };
  } catch (error) {
    if (!(error instanceof TaskError) || error.code !== 'engine-down') throw error;
    const state = /permission denied/i.test(error.message) ? 'denied' : 'unreachable';
    return { state, detail: error.message.replace(/^No Docker engine answers: /, '') };
  }
}

function isEmpty(path: string): boolean {
  return !existsSync(path) || readdirSync(path).length === 0;
}

/** The 64-bit Raspberry Pi OS calls itself debian, too. */
function isInstallable({ platform, arch, distribution: { id, version } }: EngineObserved): boolean {
  return (
    platform === 'linux' && ['x64', 'arm64'].includes(arch) && id === 'debian' && [12, 13].includes(version)
  );
}

/**
 * The steps to a usable engine, in order; none if there is one.
 * @throws TaskError where this program cannot help, with what a person has to do
 */
export function planEngine(observed: EngineObserved): Step<unknown>[] {
  const { platform, server, parts, systemd, untouched } = observed;
  const running = server.state === 'ready';
  // Elsewhere than on Linux the daemon lives in a virtual machine.
  const needed = running || platform !== 'linux' ? CLIENT_PARTS : ENGINE_PARTS;
  const missing = needed.filter((part) => !parts[part]);
  verifyPossible(observed, missing);
  const steps = installSteps(observed, missing);
  if (running) return steps;
  const start = {
    name: 'start-engine',
    title: `start the Docker engine (${systemd ? 'systemd service' : 'dockerd, detached'})`,
    apply: async () => {
      await (systemd ? startService() : startDaemon());
      // One that was installed before us may turn out to be too old, now that it answers.
      planEngine(await observeEngine());
    },
  };
  if (!untouched) return [...steps, start];
  const title = 'configure the Docker engine: containerd image store';
  // Before the packages: those of Debian 13 start the daemon themselves.
  return [{ name: 'configure-engine', title, apply: configureEngine }, ...steps, start];
}

function installSteps(
  { distribution, systemd }: EngineObserved,
  missing: readonly EnginePart[],
): Step<unknown>[] {
  const isOld = (part: EnginePart) => distribution.version === 12 && !GOOD_IN_DEBIAN_12.includes(part);
  const packages = (parts: readonly EnginePart[]) => parts.map((part) => PARTS[part].package);
  const installed = packages(missing.filter((part) => !isOld(part)));
  const unpacked = packages(missing.filter(isOld));
  const steps: Step<unknown>[] = [];
  if (installed.length > 0) {
    const title = `install Debian packages: ${installed.join(', ')}`;
    steps.push({ name: 'install-packages', title, apply: () => installEngine(installed) });
  }
  if (unpacked.length > 0) {
    const title = `add to /usr/local from Debian ${NEWER_SUITE}: ${unpacked.join(', ')}`;
    const apply = () => unpackEngine(NEWER_SUITE, unpacked, systemd);
    steps.push({ name: 'unpack-packages', title, apply });
  }
  return steps;
}

const DOCS = 'https://docs.docker.com/engine/install/';
const AS_ROOT = 'sudo env "PATH=$PATH" npm run setup -- --yes';
const JOIN_GROUP = 'sudo usermod -aG docker "$USER", then log in again';

/** @throws TaskError where this program may not, or cannot, bring an engine up: with the command for this machine */
function verifyPossible(observed: EngineObserved, missing: readonly EnginePart[]): void {
  const { platform, server, endpoint, root, systemd, distribution, arch } = observed;
  const refuse = (code: string, message: string, hint: string) => {
    const detail = server.state !== 'ready' && server.detail ? `\n${server.detail}` : '';
    return new TaskError(message + detail, { code, hint });
  };
  const system = platform === 'darwin' ? 'macOS' : distribution.name || platform;
  const machine = `${system}, ${arch}, ${root ? 'root' : 'not root'}`;

  if (server.state === 'denied') {
    const hint = root ? 'check the owner and the mode of the socket' : JOIN_GROUP;
    throw refuse('engine-denied', `This user may not use the Docker engine at ${endpoint}`, hint);
  }
  if (server.state === 'ready' && Number.parseInt(server.version, 10) < OLDEST_ENGINE) {
    const message = `Docker engine ${server.version} at ${endpoint} is too old: ${OLDEST_ENGINE} or newer is needed`;
    throw refuse('engine-too-old', message, `setup never replaces a running engine. Upgrade it: ${DOCS}`);
  }
  if (server.state !== 'ready' && platform === 'linux' && endpoint !== STANDARD_PLACE.host) {
    const message = `No Docker engine answers at ${endpoint}, set by DOCKER_HOST or the context`;
    const hint =
      'start that engine, or use the one of this machine: unset DOCKER_HOST; docker context use default';
    throw refuse('engine-unreachable', message, hint);
  }
  if (missing.length > 0 && !(root && isInstallable(observed))) {
    const message = `No usable Docker engine: ${missing.join(', ')} missing (${machine})`;
    throw refuse('engine-missing', message, howToInstall(observed));
  }
  if (server.state !== 'ready' && !(root && platform === 'linux')) {
    const start = systemd ? 'sudo systemctl start docker' : AS_ROOT;
    const hint = `start it: ${platform === 'darwin' ? 'open -a Docker, or OrbStack, or: colima start' : start}`;
    throw refuse('engine-down', `The Docker engine is installed but not running (${machine})`, hint);
  }
}

function howToInstall(observed: EngineObserved): string {
  const { platform, distribution, root } = observed;
  if (platform === 'darwin') {
    return [
      'install and start Docker Desktop (https://docs.docker.com/desktop/) or OrbStack (https://orbstack.dev),',
      'or: brew install colima docker docker-compose docker-buildx && colima start',
    ].join('\n');
  }
  if (isInstallable(observed))
    return `run it as root once: ${AS_ROOT}\nand let yourself use the engine: ${JOIN_GROUP}`;
  if (distribution.id === 'ubuntu')
    return `${root ? '' : 'sudo '}apt-get install docker.io docker-compose-v2 docker-buildx`;
  const page = distribution.id && distribution.id !== 'debian' ? DOCS + distribution.id : DOCS;
  return `install Docker Engine ${OLDEST_ENGINE} or newer with its Compose and Buildx plugins: ${page}`;
}

// Starting dockerd: by systemd where it is the init, else as a detached process of our own, in the standard place or in a
// private one (tests, a second engine on one machine).

/** Where one daemon lives. Two on one machine share none of these paths. */
export interface DaemonPlace {
  host: string;
  dataRoot: string;
  execRoot: string;
  pidFile: string;
  logFile: string;
  /** A network namespace under /run/netns: two daemons in one would take each other's bridge away. */
  namespace?: string;
  /** Further flags of dockerd. */
  flags?: readonly string[];
}

export const STANDARD_PLACE: DaemonPlace = {
  host: 'unix:///var/run/docker.sock',
  dataRoot: '/var/lib/docker',
  execRoot: '/var/run/docker',
  pidFile: '/var/run/docker.pid',
  logFile: '/var/log/dockerd.log',
};

const READY_WITHIN_MS = 60_000;
const POLL_MS = 200;
/** A daemon that has no process after this long has died of its configuration. */
const GRACE_MS = 2_000;
/** A root daemon runs the system's programs, never those of a project folder on our PATH. */
const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * Starts a detached dockerd and waits until it answers; a running one is left as it is.
 * @throws TaskError `engine-start-failed` with the log's last lines
 */
export async function startDaemon(place: DaemonPlace = STANDARD_PLACE): Promise<void> {
  const { pidFile, logFile, namespace } = place;
  const dockerd = (await probe(['which', 'dockerd'])).stdout.trim() || '/usr/local/bin/dockerd';
  await removeStalePidFile(pidFile, 'dockerd');
  await removeStalePidFile(`${place.execRoot}/containerd/containerd.pid`, 'containerd');
  await makeDirectory(place.dataRoot, 0o710);
  // start-stop-daemon is part of every Debian.
  const options = ['--start', '--oknodo', '--background', '--pidfile', pidFile, '--exec', dockerd];
  const startAs = ['--startas', namespace ? '/usr/bin/nsenter' : dockerd, '--output', logFile, '--'];
  const entered = namespace ? [`--net=/run/netns/${namespace}`, dockerd] : [];
  const places = ['--host', place.host, '--data-root', place.dataRoot, '--exec-root', place.execRoot];
  const daemon = [...entered, ...places, '--pidfile', pidFile, ...(place.flags ?? [])];
  await run(['start-stop-daemon', ...options, ...startAs, ...daemon], { env: daemonEnvironment() });
  if (await isReady(place.host, () => isRunning(pidFile, 'dockerd'))) return;
  throw startFailed('dockerd', lastLines((await readIfPresent(logFile)) ?? '', 12), logFile);
}

/** @throws TaskError `engine-start-failed` with the journal's last lines */
export async function startService(): Promise<void> {
  await run(['systemctl', 'enable', '--now', 'docker.service'], { okExitCodes: [1, 5] });
  const isActive = async () => /^activ/.test((await probe(['systemctl', 'is-active', 'docker'])).stdout);
  if (await isReady(STANDARD_PLACE.host, isActive)) return;
  const journal = await probe(['journalctl', '--unit=docker', '--lines=12', '--no-pager', '--output=cat']);
  throw startFailed('docker.service', journal.stdout, 'journalctl -u docker');
}

function startFailed(name: string, lastLines: string, wholeLog: string): TaskError {
  return new TaskError(`${name} did not become ready:\n${lastLines}`, {
    code: 'engine-start-failed',
    hint: `the whole log: ${wholeLog}`,
  });
}

/** Waits until an engine answers at `host`; false if it died or took too long. */
async function isReady(host: string, isAlive: () => Promise<boolean>): Promise<boolean> {
  if (log.withhold(`wait until the engine answers at ${host}`)) return true;
  const question = ['docker', '--host', host, 'version', '--format', '{{.Server.Version}}'] as const;
  const began = Date.now();
  const ask = async () => {
    if ((await probe(question, { timeoutMs: 5_000 })).ok) return true;
    return Date.now() - began > GRACE_MS && !(await isAlive()) ? false : undefined;
  };
  return (await waitUntil(ask, { withinMs: READY_WITHIN_MS, everyMs: POLL_MS })) === true;
}

/**
 * The daemon outlives us and shows its environment to whoever may read it, so it gets what it needs to find proxies
 * and certificates, and no secret of the shell that started it.
 */
function daemonEnvironment(): Record<string, string | undefined> {
  const needed = /^(HOME|TMPDIR|LANG|(https?|no|all)_proxy|SSL_CERT_(FILE|DIR))$/i;
  const removed = Object.keys(process.env).filter((name) => !needed.test(name));
  return { ...Object.fromEntries(removed.map((name) => [name, undefined])), PATH: SYSTEM_PATH };
}

/** True if the process that the file names runs, and is this program: its number may be another's today. */
async function isRunning(pidFile: string, program: string): Promise<boolean> {
  const pid = (await readIfPresent(pidFile))?.trim();
  const name = pid && (await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => ''));
  return name?.trim() === program;
}

/** The pid file of a dead daemon would prevent the start if another process has its number. */
async function removeStalePidFile(path: string, program: string): Promise<void> {
  if ((await readIfPresent(path)) !== undefined && !(await isRunning(path, program)))
    await run(['rm', '-f', path]);
}
