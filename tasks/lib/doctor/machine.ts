// Is this machine, with its engine, kernel, disks and networks, fit to run what the compose files want?
import { stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import semver from 'semver';
import { backupDirectory, backupPlaces } from '../backup/places.ts';
import { probe, read } from '../command.ts';
import { docker } from '../docker/engine.ts';
import { overlaps, parseRoutes } from '../docker/network.ts';
import type { TaskError } from '../errors.ts';
import { readIfPresent } from '../files.ts';
import { formatBytes } from '../format.ts';
import { dataDirectory, ENVIRONMENTS, portOf, variableName } from '../project.ts';
import { chooseOwner, dataDirectoryProblems, observeDataDirectory } from '../setup/data-directory.ts';
import { OLDEST_ENGINE } from '../setup/engine.ts';
import { portProblems } from '../switch/checks.ts';
import { type Check, type Facts, type Report, unchecked } from './check.ts';

const ELSEWHERE = unchecked('the data directory is on another machine: run doctor there');

/** `env_file` with `required: false` came with Compose 2.24. */
const compose = plugin('2.24.0', 'compose', 'version', '--short');
const buildx = plugin('0.12.0', 'buildx', 'version');

export const MACHINE_CHECKS: readonly Check[] = [
  { id: 'engine', withoutDotenv: true, title: 'Docker engine', look: engine },
  { id: 'compose', withoutDotenv: true, title: 'Docker Compose', look: compose },
  { id: 'buildx', withoutDotenv: true, title: 'Docker Buildx', look: buildx },
  { id: 'cgroup', withoutDotenv: true, title: 'control groups', look: cgroup },
  { id: 'memory-limits', title: 'memory limits', look: memoryLimits },
  { id: 'cpus', title: 'CPU limits', look: cpus },
  { id: 'architecture', title: 'architecture of the images', look: architecture },
  { id: 'data-directory', title: 'data directory', look: directory },
  { id: 'file-system', title: 'file system', look: fileSystem },
  { id: 'disk', title: 'disk space', look: disk },
  { id: 'ports', title: 'ports', look: ports },
  { id: 'subnet', title: 'subnet', look: subnet },
];

async function engine({ info }: Facts, { fail }: Report) {
  const { version, cpus, memory } = await info();
  if (Number.parseInt(version, 10) < OLDEST_ENGINE) {
    const remedy = 'upgrade it: https://docs.docker.com/engine/install/';
    fail(`engine ${version}, expected ${OLDEST_ENGINE} or newer`, remedy);
  }
  return `engine ${version}, ${cpus} CPUs, ${formatBytes(memory)}`;
}

function plugin(oldest: string, ...argv: string[]): Check['look'] {
  const remedy =
    'npm run setup installs it on Debian and Raspberry Pi OS; elsewhere see https://docs.docker.com';
  return async (_, { fail }) => {
    const answer = await probe(docker(...argv), { timeoutMs: 15_000 });
    const version = answer.ok ? semver.coerce(answer.stdout)?.version : undefined;
    if (!version) fail('not installed', remedy);
    else if (semver.lt(version, oldest)) fail(`version ${version}, expected ${oldest} or newer`, remedy);
    return `version ${version}`;
  };
}

async function cgroup({ info }: Facts, { fail }: Report) {
  const { limits, cgroup: version } = await info();
  const missing = [...(limits.cpu ? [] : ['CPU quota']), ...(limits.pids ? [] : ['process count'])];
  if (missing.length > 0)
    fail(`the kernel does not enforce: ${missing.join(', ')}`, 'enable these cgroup controllers');
  return `version ${version}`;
}

/** Raspberry Pi OS leaves the memory cgroup off; the engine then makes containers without the limit that was asked for. */
const ENABLE_MEMORY_CGROUP =
  'Raspberry Pi: add  cgroup_enable=memory cgroup_memory=1  to the end of the one line in /boot/firmware/cmdline.txt ' +
  '(before Debian 12: /boot/cmdline.txt) and reboot; elsewhere enable the memory controller of the kernel';

async function memoryLimits({ info, containers }: Facts, { fail, warn }: Report) {
  const { limits, cgroup } = await info();
  if (!limits.memory) fail('the kernel does not enforce memory limits', ENABLE_MEMORY_CGROUP);
  const running = limits.memory ? (await containers()).filter(({ state }) => state === 'running') : [];
  for (const { name } of running.filter(({ memoryLimit }) => memoryLimit === 0)) {
    const remedy = 'set deploy.resources.limits.memory in the compose file, then switch again';
    warn(`${name} has no memory limit`, remedy);
  }
  const list = running.map(({ name, memoryLimit }) => `${name} ${formatBytes(memoryLimit)}`).join(', ');
  return `enforced by cgroup version ${cgroup}${list ? `: ${list}` : ''}`;
}

async function cpus({ info, model }: Facts, { fail }: Report) {
  const has = (await info()).cpus;
  for (const [name, { deploy }] of Object.entries((await model()).services)) {
    const count = Number(deploy?.resources?.limits?.cpus ?? 0);
    const remedy = 'npm run setup caps it in .env';
    if (count > has) fail(`${name} wants ${count} CPUs, the engine has ${has} and refuses more`, remedy);
  }
  return `${has}, the limits fit`;
}

/** Docker's names. */
const ARCHITECTURES: Record<string, string> = { x86_64: 'amd64', aarch64: 'arm64', armv7l: 'arm' };

async function architecture({ project, info, ask, services }: Facts, { fail }: Report) {
  const { architecture: name } = await info();
  const machine = ARCHITECTURES[name] ?? name;
  const all = await services();
  const references = new Set(ENVIRONMENTS.map((one) => all[project.environments[one].service]?.image ?? ''));
  const present: string[] = [];
  for (const reference of [...references].filter(Boolean)) {
    const image = await ask(`/images/${encodeURI(reference)}/json`);
    if (!image) continue;
    present.push(reference);
    const { Architecture: found } = image as { Architecture?: string };
    const tag = reference.slice(reference.lastIndexOf(':') + 1);
    const remedy = `build it here: npm run build-push -- ${tag}, or set image.platforms in configs/release.toml`;
    if (found !== machine) fail(`${reference} is for ${found}, this engine runs ${machine}`, remedy);
  }
  if (present.length === 0) return unchecked('there is no image of the project yet');
  return `${machine}: ${present.join(', ')}`;
}

// Is the place of the data prod's, private, owned by the containers' user, on a file system that SQLite can trust, not full?

async function directory({ project, isLocal, services }: Facts, { fail }: Report) {
  if (!(await isLocal())) return ELSEWHERE;
  const path = dataDirectory(project);
  const state = await observeDataDirectory(project);
  // Docker's virtual machine maps owners itself.
  const owner = process.platform === 'linux' ? chooseOwner(project, state) : undefined;
  const place = { path, variable: variableName(project, 'DATA_DIR'), owner };
  for (const { message, hint } of dataDirectoryProblems(state, place)) fail(message, hint);
  // An app without any mount has no data that could be elsewhere.
  const prod = (await services())[project.environments.prod.service];
  if (prod && prod.binds.length > 0)
    await backupPlaces(project).catch((error: TaskError) => {
      if (error.code !== 'wrong-data') throw error;
      fail(error.message, error.hint ?? '');
    });
  return `${path}: 0700${owner ? `, owner ${owner.uid}:${owner.gid}` : ''}`;
}

/** File systems, by the names of stat(1), on which SQLite's locks or its shared memory cannot be trusted, or data is lost. */
const UNFIT: [names: RegExp, why: string][] = [
  [/^(nfs|cifs|smb|ceph)/, 'locks over a network are not reliable: two writers corrupt a database'],
  [/^(v9fs|fuse)/, "a folder shared with another system does not have SQLite's shared memory"],
  [/^(tmpfs|ramfs)/, 'it is in memory: everything is lost at the next start'],
];

/** Pure. */
export function judgeFileSystem(type: string, path: string, variable: string, { fail, warn }: Report) {
  const why = UNFIT.find(([names]) => names.test(type))?.[1];
  const remedy = `choose a directory on a local disk (ext4, xfs, btrfs, apfs): ${variable}=… in .env, after moving the data`;
  if (why) fail(`${path} is on ${type}: ${why}`, remedy);
  // Only inside a container.
  if (/^overlay/.test(type)) warn(`${path} is on ${type}: it is removed with the container`, remedy);
  return `${path}: ${type}, suitable for SQLite`;
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
  const type = await read(['stat', '-f', '-c', '%T', path]);
  return judgeFileSystem(type, path, variableName(project, 'DATA_DIR'), report);
}

const LEAST_FREE = 1e9;

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
    const remedy = 'make room: docker image prune, docker builder prune, npm run backup -- prune';
    if (bavail * bsize < LEAST_FREE) fail(`${found}, expected ${formatBytes(LEAST_FREE)} or more`, remedy);
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
  const others = found.filter(({ name }) => !own.some((one) => one.name === name));
  // The engine's bridges are its networks, seen a second time.
  const bridges = new Set(found.map(({ bridge }) => bridge));
  const table = (await isLocal()) ? await readIfPresent('/proc/net/route') : '';
  const routes = parseRoutes(table ?? '').filter((route) => !bridges.has(route.interface));
  const taken = [
    ...others.map(({ name, subnets }) => ({ subnets, by: `the Docker network ${name}` })),
    ...routes.map((route) => ({ subnets: [route.subnet], by: `a route through ${route.interface}` })),
  ];
  const remedy = `choose a free one: ${variableName(project, 'SUBNET')}=10.123.0.0/24 in .env (or in the compose file), then switch again`;
  for (const one of wanted)
    for (const { subnets, by } of taken.filter((other) => other.subnets.some((it) => overlaps(one, it))))
      fail(`${one} overlaps ${by} (${subnets.join(', ')})`, remedy);
  return wanted.join(', ');
}
