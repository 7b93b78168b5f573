// What there is to know about a machine's Docker engine: filled by engine-observe.ts, or by a test, and
// read by the plan and by the advice.
import { readdir, stat } from 'node:fs/promises';
import { probe } from '../command.ts';
import { engineInfo } from '../docker/engine.ts';
import { TaskError } from '../errors.ts';
import { readIfPresent } from '../files.ts';
import { STANDARD_PLACE } from './daemon.ts';
import { DAEMON_CONFIG } from './install.ts';

export const ENGINE_PARTS = [
  'client',
  'daemon',
  'containerd',
  'runc',
  'iptables',
  'init',
  'compose',
  'buildx',
] as const;
type EnginePart = (typeof ENGINE_PARTS)[number];
type ServerAnswer = { state: 'ready'; version: string } | { state: 'denied' | 'unreachable'; detail: string };

export interface EngineObserved {
  platform: NodeJS.Platform;
  /** Node's name of the processor, e.g. `x64`, `arm64`. */
  arch: string;
  root: boolean;
  /** True when systemd is the running init, not merely installed. */
  systemd: boolean;
  /** From os-release: `debian`, 12, `bookworm`. */
  distribution: { id: string; version: number; codename: string; name: string };
  /** Where the client would connect to: DOCKER_HOST, else the current context's endpoint. */
  endpoint: string;
  server: ServerAnswer;
  /** The version, or the path, of each part that is there. */
  parts: Partial<Record<EnginePart, string>>;
  /** Nothing of an earlier engine: neither its configuration nor its data. */
  untouched: boolean;
}

// What this machine has of a Docker engine. Looks, asks through the client (so that DOCKER_HOST and
// contexts count), and changes nothing.

const ASK = { timeoutMs: 15_000 };

async function askServer(): Promise<ServerAnswer> {
  try {
    return { state: 'ready', version: (await engineInfo()).version };
  } catch (error) {
    if (!(error instanceof TaskError) || error.code !== 'engine-down') throw error;
    const state = /permission denied/i.test(error.message) ? 'denied' : 'unreachable';
    return { state, detail: error.message };
  }
}

async function endpoint(): Promise<string> {
  if (process.env.DOCKER_HOST) return process.env.DOCKER_HOST;
  const context = await probe(
    ['docker', 'context', 'inspect', '--format', '{{.Endpoints.docker.Host}}'],
    ASK,
  );
  return context.ok && context.stdout.trim() ? context.stdout.trim() : STANDARD_ENDPOINT;
}

async function whereIs(program: string): Promise<string | undefined> {
  // Debian keeps these in sbin directories, which only root's PATH has.
  const PATH = `${process.env.PATH ?? ''}:/usr/local/sbin:/usr/sbin:/sbin`;
  const found = await probe(['which', program], { env: { PATH } });
  return found.ok ? found.stdout.trim() : undefined;
}

async function pluginVersion(...argv: string[]): Promise<string | undefined> {
  const answer = await probe(['docker', ...argv], ASK);
  const version = answer.ok ? answer.stdout.match(/\d+\.\d+\.\d+/)?.[0] : undefined;
  // Compose v1 answers to no `docker compose`, but a plugin of that name could be anything.
  return version?.startsWith('1.') ? undefined : version;
}

async function observeParts(): Promise<Partial<Record<EnginePart, string>>> {
  const looks: Record<EnginePart, Promise<string | undefined>> = {
    client: whereIs('docker'),
    daemon: whereIs('dockerd'),
    containerd: whereIs('containerd'),
    runc: whereIs('runc'),
    iptables: whereIs('iptables'),
    init: whereIs('docker-init'),
    compose: pluginVersion('compose', 'version', '--short'),
    buildx: pluginVersion('buildx', 'version'),
  };
  const found = await Promise.all(Object.entries(looks).map(async ([part, look]) => [part, await look]));
  return Object.fromEntries(found.filter(([, value]) => value !== undefined));
}

/** The fields of os-release that matter; a machine without that file has an empty id. */
export function parseDistribution(osRelease: string): EngineObserved['distribution'] {
  const field = (name: string) => osRelease.match(new RegExp(`^${name}="?([^"\n]*)"?$`, 'm'))?.[1] ?? '';
  return {
    id: field('ID'),
    version: Number.parseInt(field('VERSION_ID'), 10) || 0,
    codename: field('VERSION_CODENAME'),
    name: field('PRETTY_NAME'),
  };
}

export async function loadDistribution(): Promise<EngineObserved['distribution']> {
  return parseDistribution((await readIfPresent('/etc/os-release')) ?? '');
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

/** Looks at this machine and its engine. */
export async function observeEngine(): Promise<EngineObserved> {
  const data = await readdir(STANDARD_PLACE.dataRoot).catch(() => []);
  return {
    platform: process.platform,
    arch: process.arch,
    root: process.getuid?.() === 0,
    systemd: await exists('/run/systemd/system'),
    distribution: await loadDistribution(),
    endpoint: await endpoint(),
    server: await askServer(),
    parts: await observeParts(),
    untouched: data.length === 0 && !(await exists(DAEMON_CONFIG)),
  };
}

// What it takes to have a Docker engine on this machine: a pure decision from what was observed, so that
// every kind of machine can be tested without owning one. Doing is in engine-install.ts, engine-daemon.ts.

/** What a running engine still needs beside it. */
const CLIENT_PARTS: readonly EnginePart[] = ['client', 'compose', 'buildx'];

export type EngineStep =
  | { act: 'configure' }
  | { act: 'install'; packages: string[] }
  | { act: 'unpack'; suite: string; packages: string[] }
  | { act: 'start'; by: 'systemd' | 'process' };

/** The endpoint of an engine on this machine in its standard place: the only one that we may start. */
const STANDARD_ENDPOINT = 'unix:///var/run/docker.sock';
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
  // The 64-bit Raspberry Pi OS names itself debian, too.
  return distribution.id === 'debian' ? RECIPES[distribution.version] : undefined;
}

/** The parts that stand between this machine and a usable engine. */
function missingParts({ platform, server, parts }: EngineObserved): EnginePart[] {
  // Elsewhere than on Linux the daemon lives in a virtual machine.
  const needed = server.state === 'ready' || platform !== 'linux' ? CLIENT_PARTS : ENGINE_PARTS;
  return needed.filter((part) => !parts[part]);
}

function installSteps(recipe: Recipe, missing: readonly EnginePart[]): EngineStep[] {
  const named = (from: PackageNames = {}) => missing.flatMap((part) => from[part] ?? []);
  const packages = named(recipe.apt);
  const unpacked = named(recipe.unpack?.packages);
  const steps: EngineStep[] = [];
  if (packages.length > 0) steps.push({ act: 'install', packages });
  if (recipe.unpack && unpacked.length > 0) {
    steps.push({ act: 'unpack', suite: recipe.unpack.suite, packages: unpacked });
  }
  return steps;
}

/**
 * The steps to a usable engine, in order; none if there is one. A running engine is never replaced.
 * @throws TaskError where this program cannot help, with what a person has to do.
 */
export function planEngine(observed: EngineObserved): EngineStep[] {
  const { platform, server, endpoint, root, systemd, untouched } = observed;
  const running = server.state === 'ready';
  if (server.state === 'denied') throw engineDenied(observed, server.detail);
  if (running && Number.parseInt(server.version, 10) < OLDEST_ENGINE) {
    throw engineTooOld(observed, server.version, OLDEST_ENGINE);
  }
  const local = platform !== 'linux' || endpoint === STANDARD_ENDPOINT;
  if (!running && !local) throw engineUnreachable(observed, server.detail, local);
  const missing = missingParts(observed);
  const recipe = recipeFor(observed);
  if (missing.length > 0 && !(recipe && root)) {
    throw engineMissing(observed, missing, recipe !== undefined, OLDEST_ENGINE);
  }
  if (!running && !(root && platform === 'linux')) throw engineUnreachable(observed, server.detail, local);
  const steps = recipe ? installSteps(recipe, missing) : [];
  if (running) return steps;
  // Before the packages: those of Debian 13 start the daemon themselves.
  if (untouched) steps.unshift({ act: 'configure' });
  return [...steps, { act: 'start', by: systemd ? 'systemd' : 'process' }];
}

/** One line for a plan. */
export function describeEngineStep(step: EngineStep): string {
  switch (step.act) {
    case 'configure':
      return 'configure the Docker engine: containerd image store';
    case 'install':
      return `install Debian packages: ${step.packages.join(', ')}`;
    case 'unpack':
      return `add to /usr/local from Debian ${step.suite}: ${step.packages.join(', ')}`;
    case 'start':
      return `start the Docker engine (${step.by === 'systemd' ? 'systemd service' : 'dockerd, detached'})`;
  }
}

// What a person has to do about the Docker engine where this program may not, or cannot: one error for
// each case, with the very command for that kind of machine. Pure.

const DOCS = 'https://docs.docker.com/engine/install/';
const AS_ROOT = 'sudo env "PATH=$PATH" npx tsx tasks/setup.ts --yes';
const JOIN_GROUP = 'sudo usermod -aG docker "$USER", then log in again';

function machine({ platform, distribution, root, arch }: EngineObserved): string {
  const system = platform === 'darwin' ? 'macOS' : distribution.name || platform;
  return `${system}, ${arch}, ${root ? 'root' : 'not root'}`;
}

function withDetail(message: string, detail: string): string {
  return detail ? `${message}\n${detail}` : message;
}

function howToInstall(observed: EngineObserved, supported: boolean, oldest: number): string {
  const { platform, distribution, root } = observed;
  if (platform === 'darwin') {
    return [
      'Install and start Docker Desktop (https://docs.docker.com/desktop/) or OrbStack (https://orbstack.dev),',
      'or: brew install colima docker docker-compose docker-buildx && colima start',
    ].join('\n');
  }
  if (supported) return `Run it as root once: ${AS_ROOT}\nand let yourself use the engine: ${JOIN_GROUP}`;
  if (distribution.id === 'ubuntu') {
    return `${root ? '' : 'sudo '}apt-get install docker.io docker-compose-v2 docker-buildx`;
  }
  const page = distribution.id && distribution.id !== 'debian' ? DOCS + distribution.id : DOCS;
  return `Install Docker Engine ${oldest} or newer with its Compose and Buildx plugins: ${page}`;
}

/** Parts are missing, and this is no machine (or no user) to install them with. */
function engineMissing(
  observed: EngineObserved,
  missing: readonly EnginePart[],
  supported: boolean,
  oldest: number,
): TaskError {
  const what = `No usable Docker engine: ${missing.join(', ')} missing (${machine(observed)})`;
  return new TaskError(what, { code: 'engine-missing', hint: howToInstall(observed, supported, oldest) });
}

/** It is there, but does not answer; `local` is an engine on this machine in its standard place. */
function engineUnreachable(observed: EngineObserved, detail: string, local: boolean): TaskError {
  if (!local) {
    const what = `No Docker engine answers at ${observed.endpoint}, which DOCKER_HOST or the context names`;
    return new TaskError(withDetail(what, detail), {
      code: 'engine-unreachable',
      hint: 'Start that engine, or choose this machine’s: unset DOCKER_HOST; docker context use default',
    });
  }
  const start = observed.systemd ? 'sudo systemctl start docker' : AS_ROOT;
  const what = `The Docker engine is installed but does not run (${machine(observed)})`;
  return new TaskError(withDetail(what, detail), {
    code: 'engine-down',
    hint: `Start it: ${observed.platform === 'darwin' ? 'open -a Docker, or OrbStack, or: colima start' : start}`,
  });
}

function engineDenied({ endpoint, root }: EngineObserved, detail: string): TaskError {
  return new TaskError(withDetail(`This user may not use the Docker engine at ${endpoint}`, detail), {
    code: 'engine-denied',
    hint: root ? 'Look at the owner and the mode of the socket.' : JOIN_GROUP,
  });
}

function engineTooOld({ endpoint }: EngineObserved, version: string, oldest: number): TaskError {
  return new TaskError(`Docker engine ${version} at ${endpoint} is too old: ${oldest} or newer is needed`, {
    code: 'engine-too-old',
    hint: `A running engine is never replaced by this task. Upgrade it: ${DOCS}`,
  });
}
