// What this machine has of a Docker engine, and the steps from there to a usable one. The decision is pure, so that
// every kind of machine can be tested without owning one. A running engine is always reused, never replaced.
import { existsSync, readdirSync } from 'node:fs';
import { which } from 'zx/core';
import { probe, searchPath } from '../command.ts';
import { engineEndpoint, engineInfo } from '../docker/engine.ts';
import { TaskError } from '../errors.ts';
import type { Step } from '../steps.ts';
import { STANDARD_PLACE, startDaemon, startService } from './daemon.ts';
import {
  configureEngine,
  DAEMON_CONFIG,
  type Distribution,
  installEngine,
  loadDistribution,
  unpackEngine,
} from './install.ts';

const PROGRAMS = {
  client: 'docker',
  daemon: 'dockerd',
  containerd: 'containerd',
  runc: 'runc',
  iptables: 'iptables',
  init: 'docker-init',
} as const;
const PLUGINS = ['compose', 'buildx'] as const;
type EnginePart = keyof typeof PROGRAMS | (typeof PLUGINS)[number];
export const ENGINE_PARTS = [...Object.keys(PROGRAMS), ...PLUGINS] as EnginePart[];
/** What a running engine still needs beside it. */
const CLIENT_PARTS: readonly EnginePart[] = ['client', 'compose', 'buildx'];

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
  const programs = Object.entries(PROGRAMS).map(async ([part, name]) => {
    return [part, await which(name, { path, nothrow: true })] as const;
  });
  const plugins = PLUGINS.map(async (part) => [part, await pluginVersion(part)] as const);
  const found = await Promise.all([...programs, ...plugins]);
  return Object.fromEntries(found.filter(([, value]) => value));
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
    return { state, detail: error.message };
  }
}

function isEmpty(path: string): boolean {
  return !existsSync(path) || readdirSync(path).length === 0;
}

/** Older engines refuse a health check's start interval, which the compose file uses. */
export const OLDEST_ENGINE = 25;

type PackageNames = Partial<Record<EnginePart, string>>;
interface Recipe {
  apt: PackageNames;
  /** Packages of a newer suite, unpacked beside the system: nothing that is installed gets upgraded. */
  unpack?: { suite: string; packages: PackageNames };
}

const DOCKER_PACKAGES: PackageNames = {
  client: 'docker-cli',
  daemon: 'docker.io',
  containerd: 'containerd',
  compose: 'docker-compose',
  buildx: 'docker-buildx',
};
const SYSTEM_PACKAGES: PackageNames = { runc: 'runc', iptables: 'iptables', init: 'tini' };

/** By Debian's version. Debian 12 has engine 20.10 and neither Compose v2 nor Buildx. */
const RECIPES: Record<number, Recipe> = {
  12: { apt: SYSTEM_PACKAGES, unpack: { suite: 'trixie', packages: DOCKER_PACKAGES } },
  13: { apt: { ...SYSTEM_PACKAGES, ...DOCKER_PACKAGES } },
};

function recipeFor({ platform, arch, distribution }: EngineObserved): Recipe | undefined {
  if (platform !== 'linux' || !['x64', 'arm64'].includes(arch)) return undefined;
  // The 64-bit Raspberry Pi OS calls itself debian, too.
  return distribution.id === 'debian' ? RECIPES[distribution.version] : undefined;
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

function installSteps(observed: EngineObserved, missing: readonly EnginePart[]): Step<unknown>[] {
  const { apt, unpack } = recipeFor(observed) ?? { apt: {} };
  const installed = missing.flatMap((part) => apt[part] ?? []);
  const unpacked = missing.flatMap((part) => unpack?.packages[part] ?? []);
  const steps: Step<unknown>[] = [];
  if (installed.length > 0) {
    const title = `install Debian packages: ${installed.join(', ')}`;
    steps.push({ name: 'install-packages', title, apply: () => installEngine(installed) });
  }
  if (unpack && unpacked.length > 0) {
    const title = `add to /usr/local from Debian ${unpack.suite}: ${unpacked.join(', ')}`;
    const apply = () => unpackEngine(unpack.suite, unpacked, observed.systemd);
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
  if (missing.length > 0 && !(root && recipeFor(observed))) {
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
  if (recipeFor(observed))
    return `run it as root once: ${AS_ROOT}\nand let yourself use the engine: ${JOIN_GROUP}`;
  if (distribution.id === 'ubuntu')
    return `${root ? '' : 'sudo '}apt-get install docker.io docker-compose-v2 docker-buildx`;
  const page = distribution.id && distribution.id !== 'debian' ? DOCS + distribution.id : DOCS;
  return `install Docker Engine ${OLDEST_ENGINE} or newer with its Compose and Buildx plugins: ${page}`;
}
