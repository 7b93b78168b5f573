// What it takes to have a Docker engine on this machine: a pure decision from what was observed, so that
// every kind of machine can be tested without owning one. Doing is in engine-install.ts, engine-daemon.ts.
import { engineDenied, engineMissing, engineTooOld, engineUnreachable } from './advice.ts';
import { ENGINE_PARTS, type EngineObserved, type EnginePart } from './observed.ts';

/** What a running engine still needs beside it. */
const CLIENT_PARTS: readonly EnginePart[] = ['client', 'compose', 'buildx'];

export type EngineStep =
  | { act: 'configure' }
  | { act: 'install'; packages: string[] }
  | { act: 'unpack'; suite: string; packages: string[] }
  | { act: 'start'; by: 'systemd' | 'process' };

/** The endpoint of an engine on this machine in its standard place: the only one that we may start. */
export const STANDARD_ENDPOINT = 'unix:///var/run/docker.sock';
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
export function missingParts({ platform, server, parts }: EngineObserved): EnginePart[] {
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
