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
import { dataDirectory, ENVIRONMENTS, type EnvironmentName, portOf, variableName } from '../project.ts';
import { chooseOwner, dataDirectoryProblems, observeDataDirectory } from '../setup/data-directory.ts';
import { OLDEST_ENGINE } from '../setup/detect.ts';
import { isFree } from '../switch/checks.ts';
import { type Check, type Facts, type Finding, failed, gather, ok, unchecked, warning } from './check.ts';

/** `env_file` with `required: false` came with it. */
const OLDEST_COMPOSE = '2.24.0';
const OLDEST_BUILDX = '0.12.0';
const INSTALL =
  'npm run setup installs it on Debian and Raspberry Pi OS; elsewhere see https://docs.docker.com';
/** Raspberry Pi OS leaves the memory cgroup off. */
const ENABLE_MEMORY_CGROUP =
  'Raspberry Pi: add  cgroup_enable=memory cgroup_memory=1  to the end of the one line in /boot/firmware/cmdline.txt ' +
  '(before Debian 12: /boot/cmdline.txt) and reboot; elsewhere enable the memory controller of the kernel';
const GO_NAMES: Record<string, string> = { x86_64: 'amd64', aarch64: 'arm64', armv7l: 'arm' };
const ELSEWHERE = 'the data directory is on another machine: run doctor there';
const LEAST_FREE = 1e9;

export const MACHINE_CHECKS: readonly Check[] = [
  { id: 'engine', withoutDotenv: true, title: 'Docker engine', run: engine },
  {
    ...{ id: 'compose', withoutDotenv: true, title: 'Docker Compose' },
    run: () => plugin(['compose', 'version', '--short'], OLDEST_COMPOSE),
  },
  {
    ...{ id: 'buildx', withoutDotenv: true, title: 'Docker Buildx' },
    run: () => plugin(['buildx', 'version'], OLDEST_BUILDX),
  },
  { id: 'cgroup', withoutDotenv: true, title: 'control groups', run: cgroup },
  { id: 'memory-limits', title: 'memory limits', run: memoryLimits },
  { id: 'cpus', title: 'CPU limits', run: cpus },
  { id: 'architecture', title: 'architecture of the images', run: architecture },
  { id: 'data-directory', title: 'data directory', run: directory },
  { id: 'file-system', title: 'file system', run: fileSystem },
  { id: 'disk', title: 'disk space', run: disk },
  { id: 'ports', title: 'ports', run: ports },
  { id: 'subnet', title: 'subnet', run: subnet },
];

async function engine({ info }: Facts): Promise<Finding> {
  const { version, cpus, memory } = await info();
  if (Number.parseInt(version, 10) < OLDEST_ENGINE) {
    const detail = `engine ${version}, needed is ${OLDEST_ENGINE} or newer`;
    return failed(detail, 'upgrade it: https://docs.docker.com/engine/install/');
  }
  return ok(`engine ${version}, ${cpus} CPUs, ${formatBytes(memory)}`);
}

async function plugin(argv: string[], oldest: string): Promise<Finding> {
  const answer = await probe(docker(...argv), { timeoutMs: 15_000 });
  const version = semver.coerce(answer.stdout)?.version;
  if (!answer.ok || !version) return failed('it is missing', INSTALL);
  if (semver.lt(version, oldest)) return failed(`version ${version}, needed is ${oldest} or newer`, INSTALL);
  return ok(`version ${version}`);
}

async function cgroup({ info }: Facts): Promise<Finding> {
  const { limits, cgroup: version, warnings } = await info();
  const missing = [...(limits.cpu ? [] : ['CPU quota']), ...(limits.pids ? [] : ['process count'])];
  if (missing.length > 0) {
    const detail = `the kernel does not enforce: ${missing.join(', ')}`;
    return failed(detail, 'enable these cgroup controllers in the kernel');
  }
  const notes = warnings.filter((text) => /no .*(memory|cpu|pids) .*support/i.test(text));
  return ok([`version ${version}`, ...notes, ...(limits.swap ? [] : ['swap is not limited'])].join('; '));
}

async function memoryLimits({ info, containers, ask }: Facts): Promise<Finding> {
  const { limits, cgroup } = await info();
  if (!limits.memory) return failed('the kernel does not enforce memory limits', ENABLE_MEMORY_CGROUP);
  const running = (await containers()).filter(({ state }) => state === 'running');
  const problems: Finding[] = [];
  for (const { id, name, memoryLimit } of running) {
    const usage = parseUsage(await ask(`/containers/${id}/stats?stream=false&one-shot=true`));
    if (memoryLimit === 0) {
      const remedy = 'set deploy.resources.limits.memory in the compose file';
      problems.push(warning(`${name} has no memory limit`, remedy));
    } else if (usage?.limit !== memoryLimit) {
      const enforced = usage ? formatBytes(usage.limit) : 'nothing';
      const detail = `${name} was promised at most ${formatBytes(memoryLimit)}, the kernel enforces ${enforced}`;
      problems.push(failed(detail, ENABLE_MEMORY_CGROUP));
    }
  }
  const list = running.map(({ name, memoryLimit }) => `${name} ${formatBytes(memoryLimit)}`).join(', ');
  return gather(problems, `enforced by cgroup version ${cgroup}${list ? `: ${list}` : ''}`);
}

async function cpus({ info, model }: Facts): Promise<Finding> {
  const has = (await info()).cpus;
  const wanted = Object.entries((await model()).services).flatMap(([name, { deploy }]) => {
    const count = deploy?.resources?.limits?.cpus;
    return count === undefined ? [] : [{ name, count }];
  });
  const problems = wanted
    .filter(({ count }) => count > has)
    .map(({ name, count }) => `${name} wants ${count} CPUs, the engine has ${has} and refuses more`);
  return gather(
    problems.map((detail) => failed(detail, 'npm run setup caps it in .env')),
    wanted.length > 0 ? `${wanted.map(({ count }) => count).join(' and ')} of ${has}` : 'no limits set',
  );
}

async function architecture({ project, info, ask, services }: Facts): Promise<Finding> {
  const machine = GO_NAMES[(await info()).architecture] ?? (await info()).architecture;
  const all = await services();
  const names = ENVIRONMENTS.map((name) => all[project.environments[name].service]?.image);
  const references = [...new Set(names.filter((reference) => reference !== undefined && reference !== ''))];
  const problems: Finding[] = [];
  const present: string[] = [];
  for (const reference of references) {
    const image = (await ask(`/images/${encodeURI(reference!)}/json`)) as
      | { Architecture?: string }
      | undefined;
    if (!image) continue;
    present.push(reference!);
    if (image.Architecture === machine) continue;
    const tag = reference!.slice(reference!.lastIndexOf(':') + 1);
    const detail = `${reference} is for ${image.Architecture}, this engine runs ${machine}`;
    const remedy = `build it here: npm run build-push -- ${tag}, or set image.platforms in configs/release.toml`;
    problems.push(failed(detail, remedy));
  }
  if (present.length === 0) return unchecked('there is no image of the project yet');
  return gather(problems, `${machine}: ${present.join(', ')}`);
}

// Is the place of the data private, owned by the containers' user, on a file system that SQLite can trust, and
// not full?

async function directory({ project, isLocal }: Facts): Promise<Finding> {
  if (!(await isLocal())) return unchecked(ELSEWHERE);
  const path = dataDirectory(project);
  const state = await observeDataDirectory(project);
  // Docker's virtual machine maps owners itself.
  const owner = process.platform === 'linux' ? chooseOwner(project, state) : undefined;
  const problems = dataDirectoryProblems(state, { path, variable: variableName(project, 'DATA_DIR'), owner });
  return gather(
    problems.map(({ message, hint }) => failed(message, hint)),
    `${path}: 0700${owner ? `, owner ${owner.uid}:${owner.gid}` : ''}`,
  );
}

const NETWORK = 'locks over a network are not reliable: two writers corrupt a database';
const SHARED = "a folder shared with another system does not have SQLite's shared memory";
const LOST = 'it is in memory: everything is lost at the next start';
const LAYER = "it is a container's layer: it goes with the container";
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
export function judgeFileSystem(type: number, path: string, variableToSet: string): Finding {
  const unfit = UNFIT[type >>> 0];
  const name = FIT[type >>> 0] ?? `type 0x${(type >>> 0).toString(16)}`;
  if (!unfit) return ok(`${path}: ${name}, suitable for SQLite`);
  const remedy = `choose a directory on a local disk (ext4, xfs, btrfs, apfs): ${variableToSet}=… in .env, after moving the data`;
  const verdict = unfit[1] === LAYER ? warning : failed;
  return verdict(`${path} is on ${unfit[0]}: ${unfit[1]}`, remedy);
}

/** The directory itself, or what it would be made in. */
async function nearest(path: string): Promise<string> {
  const found = await stat(path).catch(() => undefined);
  return found ? path : nearest(dirname(path));
}

async function fileSystem({ project, isLocal }: Facts): Promise<Finding> {
  if (!(await isLocal())) return unchecked(ELSEWHERE);
  if (process.platform !== 'linux') return unchecked('only Linux tells the type of a file system');
  const path = await nearest(dataDirectory(project));
  return judgeFileSystem((await statfs(path)).type, path, variableName(project, 'DATA_DIR'));
}

async function disk({ project, isLocal, info }: Facts): Promise<Finding> {
  if (!(await isLocal())) return unchecked(ELSEWHERE);
  const engineRoot = process.platform === 'linux' ? [(await info()).dataRoot].filter(Boolean) : [];
  // Several places on one disk are one fact.
  const disks = new Map<number, { place: string; free: number }>();
  for (const place of [dataDirectory(project), backupDirectory(project), project.root, ...engineRoot]) {
    const there = await nearest(place);
    const [{ bavail, bsize }, { dev }] = await Promise.all([statfs(there), stat(there)]);
    if (!disks.has(dev)) disks.set(dev, { place, free: bavail * bsize });
  }
  const found = [...disks.values()];
  const few = found.filter(({ free }) => free < LEAST_FREE);
  const describe = ({ place, free }: { place: string; free: number }) =>
    `${formatBytes(free)} free at ${place}`;
  const remedy = 'make room: docker image prune, docker builder prune, npm run backup -- prune';
  return gather(
    few.map((one) => failed(`${describe(one)}, expected ${formatBytes(LEAST_FREE)} or more`, remedy)),
    found.map(describe).join(', '),
  );
}

// Are the ports and the subnet that the environments need theirs to take?

async function ports(facts: Facts): Promise<Finding> {
  const problems = await Promise.all(ENVIRONMENTS.map((name) => portProblem(facts, name)));
  const numbers = ENVIRONMENTS.map((name) => `${name} ${portOf(facts.project, name)}`);
  return gather(problems.flat(), numbers.join(', '));
}

async function portProblem(facts: Facts, name: EnvironmentName): Promise<Finding[]> {
  const { project, listed, services, isLocal } = facts;
  const port = portOf(project, name);
  const holder = (await listed()).find((container) => container.ports.includes(port));
  if (holder?.labels['com.docker.compose.project'] === project.project.name) return [];
  const instead = `or choose another: ${variableName(project, `${name.toUpperCase()}_PORT`)}=… in .env`;
  if (holder) {
    const detail = `${port} (${name}) is taken by container ${holder.name}`;
    return [failed(detail, `docker stop ${holder.name}, ${instead}`)];
  }
  if (!(await isLocal())) return [];
  const service = (await services())[project.environments[name].service];
  const wanted = service?.publishes.find(({ published }) => published === port);
  if (await isFree(wanted ?? { published: port, target: port, address: '' })) return [];
  const remedy = `see which: ss -ltnp 'sport = :${port}'; stop it, ${instead}`;
  return [failed(`${port} (${name}) is taken by another program`, remedy)];
}

async function subnet({ project, model, networks, isLocal }: Facts): Promise<Finding> {
  const own = Object.values((await model()).networks);
  const wanted = own.flatMap(({ ipam }) => (ipam?.config ?? []).flatMap((one) => one.subnet ?? []));
  if (wanted.length === 0) return ok('none is fixed: the engine chooses');
  const found = await networks();
  const others = found.filter(({ name }) => !own.some((one) => one.name === name));
  const table = (await isLocal()) ? await readIfPresent('/proc/net/route') : '';
  // The engine's bridges are its networks, seen a second time.
  const bridges = new Set(found.map(({ bridge }) => bridge));
  const routes = parseRoutes(table ?? '').filter((route) => !bridges.has(route.interface));
  const remedy = `choose a free one: ${variableName(project, 'SUBNET')}=10.123.0.0/24 in .env (or in the compose file), then switch again`;
  const problems = wanted.flatMap((one) => [
    ...others
      .filter(({ subnets }) => subnets.some((other) => overlaps(one, other)))
      .map(({ name, subnets }) =>
        failed(
          `${one} overlaps the Docker network ${name} (${subnets.join(', ')})`,
          `remove that network if nobody needs it: docker network rm ${name}; or ${remedy}`,
        ),
      ),
    ...routes
      .filter((route) => overlaps(one, route.subnet))
      .map((route) =>
        failed(`${one} overlaps the route to ${route.subnet} through ${route.interface}`, remedy),
      ),
  ]);
  return gather(problems, wanted.join(', '));
}
