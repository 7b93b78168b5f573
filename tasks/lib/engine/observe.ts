// What this machine has of a Docker engine. Looks, asks through the client (so that DOCKER_HOST and
// contexts count), and changes nothing.
import { readdir, stat } from 'node:fs/promises';
import { probe } from '../command.ts';
import { engineInfo } from '../docker/engine-info.ts';
import { TaskError } from '../errors.ts';
import { readIfPresent } from '../files.ts';
import { STANDARD_PLACE } from './daemon.ts';
import { DAEMON_CONFIG } from './install.ts';
import type { EngineObserved, EnginePart, ServerAnswer } from './observed.ts';
import { STANDARD_ENDPOINT } from './plan.ts';

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
