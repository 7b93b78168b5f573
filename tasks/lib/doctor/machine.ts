// Is this machine, with its engine, kernel, disks and networks, fit to run what the compose files want?
import { stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import semver from 'semver';
import { backupDirectory } from '../backup/places.ts';
import { probe } from '../command.ts';
import { docker } from '../docker/engine.ts';
import { overlaps, parseRoutes } from '../docker/network.ts';
import { parseUsage } from '../docker/objects.ts';
import { readIfPresent } from '../files.ts';
import { formatBytes } from '../format.ts';
import { dataDirectory, ENVIRONMENTS, portOf, variableName } from '../project.ts';
import { chooseOwner, dataDirectoryProblems, observeDataDirectory } from '../setup/data-directory.ts';
import { OLDEST_ENGINE } from '../setup/detect.ts';
import { portProblems } from '../switch/checks.ts';
import { type Check, type Facts, type Report, unchecked } from './check.ts';

const INSTALL =
  'npm run setup installs it on Debian and Raspberry Pi OS; elsewhere see https://docs.docker.com';
/** Raspberry Pi OS leaves the memory cgroup off. */
const ENABLE_MEMORY_CGROUP =
  'Raspberry Pi: add  cgroup_enable=memory cgroup_memory=1  to the end of the one line in /boot/firmware/cmdline.txt ' +
  '(before Debian 12: /boot/cmdline.txt) and reboot; elsewhere enable the memory controller of the kernel';
const GO_NAMES: Record<string, string> = { x86_64: 'amd64', aarch64: 'arm64', armv7l: 'arm' };
const ELSEWHERE = unchecked('the data directory is on another machine: run doctor there');
const LEAST_FREE = 1e9;

export const MACHINE_CHECKS: readonly Check[] = [
  { id: 'engine', withoutDotenv: true, title: 'Docker engine', check: engine },
  // `env_file` with `required: false` came with 2.24.
  {
    id: 'compose',
    withoutDotenv: true,
    title: 'Docker Compose',
    check: plugin('2.24.0', 'compose', 'version', '--short'),
  },
  { id: 'buildx', withoutDotenv: true, title: 'Docker Buildx', check: plugin('0.12.0', 'buildx', 'version') },
  { id: 'cgroup', withoutDotenv: true, title: 'control groups', check: cgroup },
  { id: 'memory-limits', title: 'memory limits', check: memoryLimits },
  { id: 'cpus', title: 'CPU limits', check: cpus },
  { id: 'architecture', title: 'architecture of the images', check: architecture },
  { id: 'data-directory', title: 'data directory', check: directory },
  { id: 'file-system', title: 'file system', check: fileSystem },
  { id: 'disk', title: 'disk space', check: disk },
  { id: 'ports', title: 'ports', check: ports },
  { id: 'subnet', title: 'subnet', check: subnet },
];

async function engine({ info }: Facts, { fail }: Report) {
  const { version, cpus, memory } = await info();
  if (Number.parseInt(version, 10) < OLDEST_ENGINE) {
    const remedy = 'upgrade it: https://docs.docker.com/engine/install/';
    fail(`engine ${version}, expected ${OLDEST_ENGINE} or newer`, remedy);
  }
  return `engine ${version}, ${cpus} CPUs, ${formatBytes(memory)}`;
}

function plugin(oldest: string, ...argv: string[]): Check['check'] {
  return async (_, { fail }) => {
    const answer = await probe(docker(...argv), { timeoutMs: 15_000 });
    const version = answer.ok ? semver.coerce(answer.stdout)?.version : undefined;
    if (!version) fail('not installed', INSTALL);
    else if (semver.lt(version, oldest)) fail(`version ${version}, expected ${oldest} or newer`, INSTALL);
    return `version ${version}`;
  };
}

async function cgroup({ info }: Facts, { fail }: Report) {
  const { limits, cgroup: version, warnings } = await info();
  const missing = [...(limits.cpu ? [] : ['CPU quota']), ...(limits.pids ? [] : ['process count'])];
  if (missing.length > 0) {
    const remedy = 'enable these cgroup controllers in the kernel';
    fail(`the kernel does not enforce: ${missing.join(', ')}`, remedy);
  }
  const notes = warnings.filter((text) => /no .*(memory|cpu|pids) .*support/i.test(text));
  return [`version ${version}`, ...notes, ...(limits.swap ? [] : ['swap is not limited'])].join('; ');
}

async function memoryLimits({ info, containers, ask }: Facts, { fail, warn }: Report) {
  const { limits, cgroup } = await info();
  if (!limits.memory) fail('the kernel does not enforce memory limits', ENABLE_MEMORY_CGROUP);
  const running = limits.memory ? (await containers()).filter(({ state }) => state === 'running') : [];
  for (const { id, name, memoryLimit } of running) {
    const usage = parseUsage(await ask(`/containers/${id}/stats?stream=false&one-shot=true`));
    const enforced = usage ? formatBytes(usage.limit) : 'nothing';
    if (memoryLimit === 0)
      warn(`${name} has no memory limit`, 'set deploy.resources.limits.memory in the compose file');
    else if (usage?.limit !== memoryLimit)
      fail(
        `${name} has a limit of ${formatBytes(memoryLimit)}, the kernel enforces ${enforced}`,
        ENABLE_MEMORY_CGROUP,
      );
  }
  const list = running.map(({ name, memoryLimit }) => `${name} ${formatBytes(memoryLimit)}`).join(', ');
  return `enforced by cgroup version ${cgroup}${list ? `: ${list}` : ''}`;
}

async function cpus({ info, model }: Facts, { fail }: Report) {
  const has = (await info()).cpus;
  const wanted = Object.entries((await model()).services).flatMap(([name, { deploy }]) => {
    const count = deploy?.resources?.limits?.cpus;
    return count === undefined ? [] : [{ name, count: Number(count) }];
  });
  for (const { name, count } of wanted.filter((one) => one.count > has))
    fail(
      `${name} wants ${count} CPUs, the engine has ${has} and refuses more`,
      'npm run setup caps it in .env',
    );
  return wanted.length > 0 ? `${wanted.map(({ count }) => count).join(' and ')} of ${has}` : 'no limits set';
}

async function architecture({ project, info, ask, services }: Facts, { fail }: Report) {
  const machine = GO_NAMES[(await info()).architecture] ?? (await info()).architecture;
  const all = await services();
  const references = ENVIRONMENTS.flatMap((name) => all[project.environments[name].service]?.image || []);
  const present: string[] = [];
  for (const reference of new Set(references)) {
    const image = (await ask(`/images/${encodeURI(reference)}/json`)) as
      | { Architecture?: string }
      | undefined;
    if (!image) continue;
    present.push(reference);
    if (image.Architecture === machine) continue;
    const tag = reference.slice(reference.lastIndexOf(':') + 1);
    const remedy = `build it here: npm run build-push -- ${tag}, or set image.platforms in configs/release.toml`;
    fail(`${reference} is for ${image.Architecture}, this engine runs ${machine}`, remedy);
  }
  if (present.length === 0) return unchecked('there is no image of the project yet');
  return `${machine}: ${present.join(', ')}`;
}

// Is the place of the data private, owned by the containers' user, on a file system that SQLite can trust, not full?

async function directory({ project, isLocal }: Facts, { fail }: Report) {
  if (!(await isLocal())) return ELSEWHERE;
  const path = dataDirectory(project);
  const state = await observeDataDirectory(project);
  // Docker's virtual machine maps owners itself.
  const owner = process.platform === 'linux' ? chooseOwner(project, state) : undefined;
  const place = { path, variable: variableName(project, 'DATA_DIR'), owner };
  for (const { message, hint } of dataDirectoryProblems(state, place)) fail(message, hint);
  return `${path}: 0700${owner ? `, owner ${owner.uid}:${owner.gid}` : ''}`;
}

const NETWORK = 'locks over a network are not reliable: two writers corrupt a database';
const SHARED = "a folder shared with another system does not have SQLite's shared memory";
const LOST = 'it is in memory: everything is lost at the next start';
const LAYER = "it is a container's layer: it is removed with the container";
/** statfs(2) magic numbers of those on which SQLite's locks or its shared memory cannot be trusted. */
const UNFIT: Record<number, [name: string, why: string]> = {
  26985: ['NFS', NETWORK],
  4283649346: ['CIFS', NETWORK],
  4266872130: ['SMB 2', NETWORK],
  20859: ['SMB', NETWORK],
  12805120: ['Ceph', NETWORK],
  16914839: ['9p', SHARED],
  1702057286: ['FUSE', SHARED],
  16914836: ['tmpfs', LOST],
  2240043254: ['ramfs', LOST],
  2035054128: ['overlayfs', LAYER],
};
const FIT: Record<number, string> = { 61267: 'ext4', 1481003842: 'xfs', 2435016766: 'btrfs' };

/** What statfs(2) says of a file system, judged. Pure. */
export function judgeFileSystem(
  type: number,
  path: string,
  variable: string,
  { fail, warn }: Report,
): string {
  const [unfit, why] = UNFIT[type >>> 0] ?? [];
  const remedy = `choose a directory on a local disk (ext4, xfs, btrfs, apfs): ${variable}=… in .env, after moving the data`;
  if (unfit) (why === LAYER ? warn : fail)(`${path} is on ${unfit}: ${why}`, remedy);
  return `${path}: ${FIT[type >>> 0] ?? `type 0x${(type >>> 0).toString(16)}`}, suitable for SQLite`;
}

/** The directory itself, or what it would be made in. */
async function nearest(path: string): Promise<string> {
  const found = await stat(path).catch(() => undefined);
  return found ? path : nearest(dirname(path));
}

async function fileSystem({ project, isLocal }: Facts, report: Report) {
  if (!(await isLocal())) return ELSEWHERE;
  if (process.platform !== 'linux') return unchecked('only Linux reports the type of a file system');
  const path = await nearest(dataDirectory(project));
  return judgeFileSystem((await statfs(path)).type, path, variableName(project, 'DATA_DIR'), report);
}

async function disk({ project, isLocal, info }: Facts, { fail }: Report) {
  if (!(await isLocal())) return ELSEWHERE;
  const engineRoot = process.platform === 'linux' ? [(await info()).dataRoot].filter(Boolean) : [];
  // Several places on one disk are one fact.
  const disks = new Map<number, string>();
  for (const place of [dataDirectory(project), backupDirectory(project), project.root, ...engineRoot]) {
    const there = await nearest(place);
    const [{ bavail, bsize }, { dev }] = await Promise.all([statfs(there), stat(there)]);
    if (disks.has(dev)) continue;
    const found = `${formatBytes(bavail * bsize)} free at ${place}`;
    disks.set(dev, found);
    if (bavail * bsize >= LEAST_FREE) continue;
    const remedy = 'make room: docker image prune, docker builder prune, npm run backup -- prune';
    fail(`${found}, expected ${formatBytes(LEAST_FREE)} or more`, remedy);
  }
  return [...disks.values()].join(', ');
}

// Are the ports and the subnet free, or already the environments' own?

async function ports({ project, services, containers, endpoint }: Facts, { fail }: Report) {
  const [all, engine] = [await services(), { containers: await containers(), endpoint: await endpoint() }];
  for (const name of ENVIRONMENTS) {
    const service = all[project.environments[name].service];
    const problems = service ? await portProblems(project, engine, name, service) : [];
    for (const { message, hint } of problems) fail(message, hint ?? '');
  }
  return ENVIRONMENTS.map((name) => `${name} ${portOf(project, name)}`).join(', ');
}

async function subnet({ project, model, networks, isLocal }: Facts, { fail }: Report) {
  const own = Object.values((await model()).networks ?? {});
  const wanted = own.flatMap(({ ipam }) => (ipam?.config ?? []).flatMap((one) => one.subnet ?? []));
  if (wanted.length === 0) return 'none is fixed: the engine chooses';
  const found = await networks();
  const table = (await isLocal()) ? await readIfPresent('/proc/net/route') : '';
  // The engine's bridges are its networks, seen a second time.
  const bridges = new Set(found.map(({ bridge }) => bridge));
  const routes = parseRoutes(table ?? '').filter((route) => !bridges.has(route.interface));
  const others = found.filter(({ name }) => !own.some((one) => one.name === name));
  const remedy = `choose a free one: ${variableName(project, 'SUBNET')}=10.123.0.0/24 in .env (or in the compose file), then switch again`;
  for (const one of wanted) {
    for (const { name, subnets } of others.filter((other) => other.subnets.some((it) => overlaps(one, it))))
      fail(
        `${one} overlaps the Docker network ${name} (${subnets.join(', ')})`,
        `remove that network if nobody needs it: docker network rm ${name}; or ${remedy}`,
      );
    for (const route of routes.filter((other) => overlaps(one, other.subnet)))
      fail(`${one} overlaps the route to ${route.subnet} through ${route.interface}`, remedy);
  }
  return wanted.join(', ');
}
