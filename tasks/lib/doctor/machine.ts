// Does what the compose files want fit the machine of the engine: its processors, and their kind?

import { stat, statfs } from 'node:fs/promises';
import { createServer } from 'node:net';
import { dirname } from 'node:path';
import semver from 'semver';
import { z } from 'zod';
import { backupDirectory } from '../backup/program.ts';
import { probe } from '../command.ts';
import { docker } from '../docker/engine.ts';
import { overlaps, parseRoutes } from '../docker/network.ts';
import { parseUsage } from '../docker/objects.ts';
import { readIfPresent } from '../files.ts';
import { amount } from '../format.ts';
import {
  dataDirectory,
  ENVIRONMENTS,
  type EnvironmentName,
  type Project,
  portOf,
  variableName,
} from '../project.ts';
import { chooseOwner, dataDirectoryProblems, observeDataDirectory } from '../setup/data-directory.ts';
import { OLDEST_ENGINE } from '../setup/detect.ts';
import { type Check, type Facts, type Finding, failed, gather, ok, unchecked, warning } from './check.ts';

async function cpus({ info, resolved }: Facts): Promise<Finding> {
  const limits = z.object({ cpus: z.coerce.number().optional() });
  const service = z.object({
    deploy: z.object({ resources: z.object({ limits: limits.optional() }).optional() }).nullish(),
  });
  const { services } = z
    .object({ services: z.record(z.string(), service) })
    .parse(JSON.parse(await resolved()));
  const has = (await info()).cpus;
  const wanted = Object.entries(services).flatMap(([name, { deploy }]) => {
    const count = deploy?.resources?.limits?.cpus;
    return count === undefined ? [] : [{ name, count }];
  });
  const tooMany = wanted.filter(({ count }) => count > has);
  return gather(
    tooMany.map(({ name, count }) =>
      failed(
        `${name} wants ${count} CPUs, the engine has ${has} and refuses more`,
        'npm run setup caps it in .env',
      ),
    ),
    wanted.length > 0 ? `${wanted.map(({ count }) => count).join(' and ')} of ${has}` : 'no limits set',
  );
}

const GO_NAMES: Record<string, string> = { x86_64: 'amd64', aarch64: 'arm64', armv7l: 'arm' };

async function architecture({ project, info, ask, services }: Facts): Promise<Finding> {
  const machine = GO_NAMES[(await info()).architecture] ?? (await info()).architecture;
  const all = await services();
  const references = [
    ...new Set(ENVIRONMENTS.map((name) => all[project.environments[name].service]?.image ?? '')),
  ];
  const found = await Promise.all(
    references.filter(Boolean).map(async (reference) => {
      const image = (await ask(`/images/${encodeURI(reference)}/json`)) as
        | { Architecture?: string }
        | undefined;
      return { reference, built: image?.Architecture };
    }),
  );
  const present = found.filter(({ built }) => built !== undefined);
  if (present.length === 0) return unchecked('there is no image of the project yet');
  return gather(
    present
      .filter(({ built }) => built !== machine)
      .map(({ reference, built }) =>
        failed(
          `${reference} is for ${built}, this engine runs ${machine}`,
          `build it here: npm run build-push -- ${reference.slice(reference.lastIndexOf(':') + 1)}, or set image.platforms in configs/release.toml`,
        ),
      ),
    `${machine}: ${present.map(({ reference }) => reference).join(', ')}`,
  );
}

export const CAPACITY_CHECKS: readonly Check[] = [
  { id: 'cpus', title: 'CPU limits', run: cpus },
  { id: 'architecture', title: 'architecture of the images', run: architecture },
];

// Is the place of the data private, owned by the containers' user, on a file system that SQLite can trust, and
// not full?

const ELSEWHERE = 'the data directory is on another machine: run doctor there';

async function directory(facts: Facts): Promise<Finding> {
  if (!(await facts.isLocal())) return unchecked(ELSEWHERE);
  const { project } = facts;
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

type Fitness = 'network' | 'lost' | 'layer' | 'shared';
/** statfs(2) magic numbers of those on which SQLite's locks or its shared memory cannot be trusted. */
const UNFIT: Record<number, [name: string, why: Fitness]> = {
  26985: ['NFS', 'network'],
  4283649346: ['CIFS', 'network'],
  4266872130: ['SMB 2', 'network'],
  20859: ['SMB', 'network'],
  12805120: ['Ceph', 'network'],
  16914839: ['9p', 'shared'],
  1702057286: ['FUSE', 'shared'],
  16914836: ['tmpfs', 'lost'],
  2240043254: ['ramfs', 'lost'],
  2035054128: ['overlayfs', 'layer'],
};
const WHY: Record<Fitness, string> = {
  network: 'locks over a network are not reliable: two writers corrupt a database',
  shared: "a folder shared with another system does not have SQLite's shared memory",
  lost: 'it is in memory: everything is lost at the next start',
  layer: "it is a container's layer: it goes with the container",
};

/** What statfs(2) says of a file system, judged. Pure. */
export function judgeFileSystem(type: number, path: string, variableToSet: string): Finding {
  const unfit = UNFIT[type >>> 0];
  if (!unfit) return ok(`${path}: fit for SQLite (type 0x${(type >>> 0).toString(16)})`);
  const [name, why] = unfit;
  const remedy = `choose a directory on a local disk (ext4, xfs, btrfs, apfs): ${variableToSet}=… in .env, after moving the data`;
  const verdict = why === 'layer' ? warning : failed;
  return verdict(`${path} is on ${name}: ${WHY[why]}`, remedy);
}

/** The directory itself, or what it would be made in. */
async function nearest(path: string): Promise<string> {
  const found = await stat(path).then(
    () => true,
    () => false,
  );
  return found ? path : nearest(dirname(path));
}

async function fileSystem(facts: Facts): Promise<Finding> {
  if (!(await facts.isLocal())) return unchecked(ELSEWHERE);
  if (process.platform !== 'linux') return unchecked('only Linux tells the type of a file system');
  const path = await nearest(dataDirectory(facts.project));
  return judgeFileSystem((await statfs(path)).type, path, variableName(facts.project, 'DATA_DIR'));
}

const LEAST_FREE = 1024 ** 3;

function places(project: Project, engineRoot: string | undefined): string[] {
  return [
    dataDirectory(project),
    backupDirectory(project),
    project.root,
    ...(engineRoot ? [engineRoot] : []),
  ];
}

async function disk(facts: Facts): Promise<Finding> {
  if (!(await facts.isLocal())) return unchecked(ELSEWHERE);
  const root = process.platform === 'linux' ? (await facts.info()).dataRoot : undefined;
  const found = await Promise.all(
    places(facts.project, root).map(async (place) => {
      const there = await nearest(place);
      const [{ bavail, bsize }, { dev }] = await Promise.all([statfs(there), stat(there)]);
      return { place, free: bavail * bsize, disk: dev };
    }),
  );
  // Several places on one disk are one fact.
  const disks = found.filter((one, index) => found.findIndex(({ disk: id }) => id === one.disk) === index);
  return gather(
    disks
      .filter(({ free }) => free < LEAST_FREE)
      .map(({ place, free }) =>
        failed(
          `${amount(free)} free at ${place}, expected ${amount(LEAST_FREE)} or more`,
          'make room: docker image prune, docker builder prune, npm run backup -- prune',
        ),
      ),
    disks.map(({ place, free }) => `${amount(free)} free at ${place}`).join(', '),
  );
}

export const STORAGE_CHECKS: readonly Check[] = [
  { id: 'data-directory', title: 'data directory', run: directory },
  { id: 'file-system', title: 'file system', run: fileSystem },
  { id: 'disk', title: 'disk space', run: disk },
];

// Are the ports and the subnet that the environments need theirs to take?

/** Listening for a moment is the only sure way to know; nothing is accepted. */
function isFree(port: number, address: string): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'EADDRINUSE'));
    server.listen({ port, host: address || '0.0.0.0', exclusive: true }, () =>
      server.close(() => resolve(true)),
    );
  });
}

async function portProblem(facts: Facts, name: EnvironmentName): Promise<Finding | undefined> {
  const { project, listed, services, isLocal } = facts;
  const port = portOf(project, name);
  const holder = (await listed()).find(({ ports }) => ports.includes(port));
  if (holder?.project === project.project.name) return undefined;
  const instead = `or choose another: ${variableName(project, `${name.toUpperCase()}_PORT`)}=… in .env`;
  if (holder) {
    return failed(
      `${port} (${name}) is taken by container ${holder.name}`,
      `docker stop ${holder.name}, ${instead}`,
    );
  }
  if (!(await isLocal())) return undefined;
  const service = (await services())[project.environments[name].service];
  const address = service?.publishes.find(({ published }) => published === port)?.address ?? '';
  if (await isFree(port, address)) return undefined;
  return failed(
    `${port} (${name}) is taken by another program`,
    `see which: ss -ltnp 'sport = :${port}'; stop it, ${instead}`,
  );
}

async function ports(facts: Facts): Promise<Finding> {
  const problems = await Promise.all(ENVIRONMENTS.map((name) => portProblem(facts, name)));
  const numbers = ENVIRONMENTS.map((name) => `${name} ${portOf(facts.project, name)}`);
  return gather(
    problems.filter((one) => one !== undefined),
    numbers.join(', '),
  );
}

async function ownNetworks({ resolved }: Facts): Promise<{ name: string; subnets: string[] }[]> {
  const config = z.array(z.object({ subnet: z.string().optional() })).nullish();
  const network = z.object({ name: z.string(), ipam: z.object({ config: config.optional() }).nullish() });
  const { networks } = z
    .object({ networks: z.record(z.string(), network).default({}) })
    .parse(JSON.parse(await resolved()));
  return Object.values(networks).map(({ name, ipam }) => ({
    name,
    subnets: (ipam?.config ?? []).flatMap(({ subnet }) => subnet ?? []),
  }));
}

async function subnet(facts: Facts): Promise<Finding> {
  const own = await ownNetworks(facts);
  const wanted = own.flatMap(({ subnets }) => subnets);
  if (wanted.length === 0) return ok('none is fixed: the engine chooses');
  const networks = await facts.networks();
  const others = networks.filter(({ name }) => !own.some((one) => one.name === name));
  const routes = (await facts.isLocal()) ? parseRoutes((await readIfPresent('/proc/net/route')) ?? '') : [];
  // The engine's bridges are its networks, seen a second time.
  const bridges = new Set(networks.map(({ bridge }) => bridge));
  const remedy = `choose a free one: ${variableName(facts.project, 'SUBNET')}=10.123.0.0/24 in .env (or in the compose file), then switch again`;
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
      .filter((route) => !bridges.has(route.interface) && overlaps(one, route.subnet))
      .map((route) =>
        failed(`${one} overlaps the route to ${route.subnet} through ${route.interface}`, remedy),
      ),
  ]);
  return gather(problems, wanted.join(', '));
}

export const NETWORK_CHECKS: readonly Check[] = [
  { id: 'ports', title: 'ports', run: ports },
  { id: 'subnet', title: 'subnet', run: subnet },
];

// Is the Docker engine, with its plugins and its kernel, fit to run the project?

/** `env_file` with `required: false` came with it. */
const OLDEST_COMPOSE = '2.24.0';
const INSTALL =
  'npm run setup installs it on Debian and Raspberry Pi OS; elsewhere see https://docs.docker.com';
/** Raspberry Pi OS leaves the memory cgroup off. */
const ENABLE_MEMORY_CGROUP =
  'Raspberry Pi: add  cgroup_enable=memory cgroup_memory=1  to the end of the one line in /boot/firmware/cmdline.txt ' +
  '(before Debian 12: /boot/cmdline.txt) and reboot; elsewhere enable the memory controller of the kernel';

async function engine({ info }: Facts): Promise<Finding> {
  const { version, cpus, memory } = await info();
  if (Number.parseInt(version, 10) < OLDEST_ENGINE) {
    return failed(
      `engine ${version}, needed is ${OLDEST_ENGINE} or newer`,
      'upgrade it: https://docs.docker.com/engine/install/',
    );
  }
  return ok(`engine ${version}, ${cpus} CPUs, ${amount(memory)}`);
}

async function plugin(argv: string[], oldest: string): Promise<Finding> {
  const answer = await probe(docker(...argv), { timeoutMs: 15_000 });
  const version = semver.coerce(answer.stdout)?.version;
  if (!answer.ok || !version) return failed('it is missing', INSTALL);
  if (semver.lt(version, oldest)) return failed(`version ${version}, needed is ${oldest} or newer`, INSTALL);
  return ok(`version ${version}`);
}

async function memoryLimits({ info, containers, ask }: Facts): Promise<Finding> {
  const { limits, cgroup } = await info();
  if (!limits.memory) return failed('the kernel does not enforce memory limits', ENABLE_MEMORY_CGROUP);
  const running = (await containers()).filter(({ state }) => state === 'running');
  const problems = await Promise.all(
    running.map(async ({ id, name, memoryLimit }) => {
      if (memoryLimit === 0) {
        return warning(
          `${name} has no memory limit`,
          'set deploy.resources.limits.memory in the compose file',
        );
      }
      const usage = await parseUsage(await ask(`/containers/${id}/stats?stream=false&one-shot=true`));
      return usage?.limit === memoryLimit
        ? undefined
        : failed(
            `${name} was promised at most ${amount(memoryLimit)}, the kernel enforces ${usage ? amount(usage.limit) : 'nothing'}`,
            ENABLE_MEMORY_CGROUP,
          );
    }),
  );
  const list = running.map(({ name, memoryLimit }) => `${name} ${amount(memoryLimit)}`).join(', ');
  return gather(
    problems.filter((one) => one !== undefined),
    `enforced by cgroup version ${cgroup}${list ? `: ${list}` : ''}`,
  );
}

async function cgroup({ info }: Facts): Promise<Finding> {
  const { limits, cgroup: version, warnings } = await info();
  const missing = [...(limits.cpu ? [] : ['CPU quota']), ...(limits.pids ? [] : ['process count'])];
  if (missing.length > 0) {
    return failed(
      `the kernel does not enforce: ${missing.join(', ')}`,
      'enable these cgroup controllers in the kernel',
    );
  }
  const notes = warnings.filter((text) => /no .*(memory|cpu|pids) .*support/i.test(text));
  const swap = limits.swap ? [] : ['swap is not limited'];
  return ok([`version ${version}`, ...notes, ...swap].join('; '));
}

export const ENGINE_CHECKS: readonly Check[] = [
  { id: 'engine', withoutDotenv: true, title: 'Docker engine', run: engine },
  {
    id: 'compose',
    withoutDotenv: true,
    title: 'Docker Compose',
    run: () => plugin(['compose', 'version', '--short'], OLDEST_COMPOSE),
  },
  {
    id: 'buildx',
    withoutDotenv: true,
    title: 'Docker Buildx',
    run: () => plugin(['buildx', 'version'], '0.12.0'),
  },
  { id: 'cgroup', withoutDotenv: true, title: 'control groups', run: cgroup },
  { id: 'memory-limits', title: 'memory limits', run: memoryLimits },
];
