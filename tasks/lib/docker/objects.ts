// Images, containers, networks and volumes as the Docker engine knows them. Its JSON is checked at this edge.
import { z } from 'zod';
import { probe, run } from '../command.ts';
import { readIfPresent } from '../files.ts';
import type { EnvironmentName, Project } from '../project.ts';
import { environmentOfService } from './compose.ts';
import { docker, queryEngine, withEngine } from './engine.ts';

const texts = z
  .record(z.string(), z.string())
  .nullish()
  .transform((found) => found ?? {});
const identified = z.array(z.object({ Id: z.string() }));

const imageSchema = z
  .object({
    Id: z.string(),
    Architecture: z.string(),
    Size: z.number(),
    RepoDigests: z.array(z.string()).nullish(),
    Config: z.object({ Labels: texts }).nullish(),
  })
  .transform(({ Id, Architecture, Size, RepoDigests, Config }) => ({
    /** What the engine calls the image: the manifest digest in a containerd store, else the config digest. */
    id: Id,
    labels: Config?.Labels ?? {},
    architecture: Architecture,
    /** Bytes. */
    size: Size,
    repoDigests: RepoDigests ?? [],
  }));

export type Image = z.output<typeof imageSchema>;

/** The image, or undefined if the engine does not have it. @throws TaskError when the engine is down */
export async function inspectImage(reference: string): Promise<Image | undefined> {
  const path = reference.split('/').map(encodeURIComponent).join('/');
  return imageSchema.optional().parse(await queryEngine(`/images/${path}/json`));
}

export async function tagImage(source: string, target: string): Promise<void> {
  await run(docker('image', 'tag', source, target));
}

/** Removes a tag, also of an image that a stopped container was made from; the image goes with its last tag. */
export async function untagImage(reference: string): Promise<void> {
  if (await inspectImage(reference)) await run(docker('image', 'rm', '--force', '--no-prune', reference));
}

/** The local names that begin so, e.g. with `synapse:candidate-`. */
export async function imageNames(beginning: string): Promise<string[]> {
  const schema = z.array(z.object({ RepoTags: z.array(z.string()).nullish() }));
  const filters = encodeURIComponent(JSON.stringify({ reference: [`${beginning}*`] }));
  const images = schema.parse(await queryEngine(`/images/json?filters=${filters}`));
  // An image comes with all its names.
  return images.flatMap(({ RepoTags }) => RepoTags ?? []).filter((name) => name.startsWith(beginning));
}

const mountSchema = z
  .object({
    Type: z.string(),
    Name: z.string().default(''),
    Source: z.string().default(''),
    Destination: z.string(),
    RW: z.boolean().default(true),
  })
  .transform(({ Type, Name, Source, Destination, RW }) => ({
    /** bind, volume, tmpfs. */
    type: Type,
    /** Path on the engine's machine, or name of the volume. */
    source: Type === 'volume' ? Name : Source,
    target: Destination,
    isReadOnly: !RW,
  }));

/** A mount, as compose and the engine both describe it. */
export type Mount = z.output<typeof mountSchema>;

const containerSchema = z
  .object({
    Id: z.string(),
    Name: z.string(),
    Image: z.string(),
    RestartCount: z.number(),
    State: z.object({
      Status: z.string(),
      ExitCode: z.number(),
      StartedAt: z.string(),
      Health: z.object({ Status: z.string() }).nullish(),
    }),
    HostConfig: z.object({
      Memory: z.number().default(0),
      RestartPolicy: z.object({ Name: z.string(), MaximumRetryCount: z.number().default(0) }),
      PortBindings: z
        .record(
          z.string(),
          z.array(z.object({ HostPort: z.coerce.number(), HostIp: z.string().default('') })).nullable(),
        )
        .nullish(),
    }),
    NetworkSettings: z
      .object({
        Networks: z.record(z.string(), z.object({ NetworkID: z.string().default('') })).nullish(),
      })
      .nullish(),
    Mounts: z.array(mountSchema).default([]),
    Config: z.object({ Image: z.string(), Labels: texts, Env: z.array(z.string()).nullish() }),
  })
  .transform(({ State, HostConfig, NetworkSettings, Mounts, Config, ...container }) => ({
    id: container.Id,
    name: container.Name.replace(/^\//, ''),
    service: Config.Labels['com.docker.compose.service'] ?? '',
    /** created, running, paused, restarting, exited, dead. */
    state: State.Status,
    /** healthy, unhealthy, starting; undefined without a health check. */
    health: State.Health?.Status,
    /** The reference it was created from, e.g. `synapse:v1.0.0`. */
    image: Config.Image,
    /** The image it really runs, as `Image.id`. */
    imageId: container.Image,
    /** ISO 8601. */
    startedAt: State.StartedAt,
    exitCode: State.ExitCode,
    restarts: container.RestartCount,
    /** Bytes that it was promised at most; 0: no limit. */
    memoryLimit: HostConfig.Memory,
    environment: Object.fromEntries((Config.Env ?? []).map(splitVariable)),
    labels: Config.Labels,
    /** `no`, `always`, `unless-stopped`, `on-failure[:n]`. */
    restartPolicy: policyName(HostConfig.RestartPolicy),
    /** Ports of the engine's machine that it publishes while it runs. */
    publishedPorts: Object.values(HostConfig.PortBindings ?? {}).flatMap((bindings) =>
      (bindings ?? []).map(({ HostPort }) => HostPort),
    ),
    /** The same with their addresses: `127.0.0.1:8002`, `0.0.0.0:8002`. */
    publishedAddresses: Object.values(HostConfig.PortBindings ?? {}).flatMap((bindings) =>
      (bindings ?? []).map(({ HostIp, HostPort }) => `${HostIp || '0.0.0.0'}:${HostPort}`),
    ),
    /** Names of the networks it is in. */
    networks: Object.keys(NetworkSettings?.Networks ?? {}),
    /** Ids of the networks that it needs to start; none before its first start. */
    networkIds: Object.values(NetworkSettings?.Networks ?? {})
      .map(({ NetworkID }) => NetworkID)
      .filter(Boolean),
    mounts: Mounts,
    /** Where volumes without a name are mounted: they belong to this container alone. */
    anonymousVolumes: Mounts.filter(
      ({ type, source }) => type === 'volume' && /^[0-9a-f]{64}$/.test(source),
    ).map(({ target }) => target),
  }));

/** What runs, from which image, how it feels. */
export type Container = z.output<typeof containerSchema>;

/** Containers by id or name; those that do not exist are left out. @throws TaskError when the engine is down */
export function inspectContainers(ids: readonly string[]): Promise<Container[]> {
  return inspectAll(containerSchema, 'containers', ids, '/json');
}

/** The objects of a kind that are there, in full. */
async function inspectAll<T>(
  schema: z.ZodType<T>,
  kind: string,
  ids: readonly string[],
  end = '',
): Promise<T[]> {
  if (ids.length === 0) return [];
  return withEngine(async () => {
    const found = await Promise.all(ids.map((id) => queryEngine(`/${kind}/${encodeURIComponent(id)}${end}`)));
    return z.array(schema).parse(found.filter((one) => one !== undefined));
  });
}

/** The containers of the project's environments, running or not. @throws TaskError when the engine is down */
export function projectContainers(project: Project): Promise<Container[]> {
  const label = `com.docker.compose.project=${project.project.name}`;
  return withEngine(async () => inspectContainers(await containerIds({ label: [label] })));
}

/** The ids of all containers, running or not, that pass the engine's filters, e.g. `{ label: ['a=b'] }`. */
export async function containerIds(filters: Record<string, string[]>): Promise<string[]> {
  const path = `/containers/json?all=1&filters=${encodeURIComponent(JSON.stringify(filters))}`;
  return identified.parse(await queryEngine(path)).map(({ Id }) => Id);
}

function policyName({ Name, MaximumRetryCount }: { Name: string; MaximumRetryCount: number }): string {
  return MaximumRetryCount > 0 ? `${Name}:${MaximumRetryCount}` : Name || 'no';
}

function splitVariable(line: string): [name: string, value: string] {
  const [name = '', ...rest] = line.split('=');
  return [name, rest.join('=')];
}

/** The last lines that a container logged, stdout and stderr together. */
export async function lastLogLines(container: string, lines = 15): Promise<string> {
  const answer = await probe(docker('logs', '--tail', String(lines), container));
  return `${answer.stdout}${answer.stderr}`.trimEnd();
}

const networkSchema = z
  .object({
    Id: z.string(),
    Name: z.string(),
    Labels: texts,
    IPAM: z.object({ Config: z.array(z.object({ Subnet: z.string().default('') })).nullish() }),
    Options: texts,
    Containers: z.record(z.string(), z.unknown()).nullish(),
  })
  .transform(({ Id, Name, Labels, IPAM, Options, Containers }) => ({
    name: Name,
    labels: Labels,
    subnets: (IPAM.Config ?? []).map(({ Subnet }) => Subnet).filter(Boolean),
    /** Its interface on the engine's machine. */
    bridge: Options['com.docker.network.bridge.name'] ?? `br-${Id.slice(0, 12)}`,
    /** Ids of the running containers in it. */
    containers: Object.keys(Containers ?? {}),
  }));

/** Every network of the engine. @throws TaskError when the engine is down */
export async function listNetworks() {
  return withEngine(async () => {
    const listed = identified.parse(await queryEngine('/networks'));
    // One by one: the list leaves their containers out.
    return inspectAll(
      networkSchema,
      'networks',
      listed.map(({ Id }) => Id),
    );
  });
}

const volumeSchema = z
  .object({ Name: z.string(), Driver: z.string(), Labels: texts })
  .transform(({ Name, Driver, Labels }) => ({ name: Name, driver: Driver, labels: Labels }));

export type Volume = z.output<typeof volumeSchema>;

/** The volume of that name, or undefined. @throws TaskError when the engine is down */
export async function inspectVolume(name: string): Promise<Volume | undefined> {
  return volumeSchema.optional().parse(await queryEngine(`/volumes/${encodeURIComponent(name)}`));
}

// What a container uses, from the engine's one-shot statistics: `docker stats` takes two seconds for the same.

const usageSchema = z
  .object({
    memory_stats: z.object({
      usage: z.number(),
      limit: z.number(),
      max_usage: z.number().optional(),
      stats: z.record(z.string(), z.number()).default({}),
    }),
    cpu_stats: z.object({
      cpu_usage: z.object({ total_usage: z.number() }),
      system_cpu_usage: z.number().default(0),
      online_cpus: z.number().default(1),
    }),
  })
  .transform(({ memory_stats: memory, cpu_stats: cpu }) => ({
    /**
     * Bytes in use, without page cache that can be dropped at once: what `docker stats` shows. cgroup v1 has a name of
     * its own for the whole hierarchy.
     */
    memory: Math.max(0, memory.usage - (memory.stats.total_inactive_file ?? memory.stats.inactive_file ?? 0)),
    /** Bytes that the kernel enforces; the machine's memory where there is no limit. */
    limit: memory.limit,
    /** Highest bytes ever, page cache included, where the engine or the kernel tells. */
    peak: memory.max_usage,
    /** Nanoseconds of CPU time: of the container, and of the whole machine. */
    cpu: cpu.cpu_usage.total_usage,
    system: cpu.system_cpu_usage,
    cpus: cpu.online_cpus,
  }));

export type Usage = z.output<typeof usageSchema>;
export type Usages = Partial<Record<EnvironmentName, Usage>>;

/** The answer to `/containers/ID/stats`; undefined when the container does not run, or memory is not counted. */
export function parseUsage(stats: unknown): Usage | undefined {
  return usageSchema.safeParse(stats).data;
}

/** What each running environment uses now; cheap, because it does not wait for a second reading. */
export async function usagesOf(project: Project, containers: readonly Container[]): Promise<Usages> {
  const usages: Usages = {};
  for (const { id, service, state } of containers) {
    const name = environmentOfService(project, service);
    if (!name || state !== 'running') continue;
    const usage = parseUsage(await queryEngine(`/containers/${id}/stats?stream=false&one-shot=true`));
    if (usage) usages[name] = { ...usage, peak: usage.peak ?? (await kernelPeak(id)) };
  }
  return usages;
}

/** Per cent of one CPU between two readings, as `docker stats` counts; undefined if no time passed. */
export function cpuPercent(first: Usage | undefined, second: Usage | undefined): number | undefined {
  if (!first || !second || second.system <= first.system || second.cpu < first.cpu) return undefined;
  return Math.round(((second.cpu - first.cpu) / (second.system - first.system)) * second.cpus * 1000) / 10;
}

/** The kernel's high-water mark on cgroup v2, which the engine does not tell; only of containers on this machine. */
async function kernelPeak(id: string): Promise<number | undefined> {
  const folders = [`system.slice/docker-${id}.scope`, `docker/${id}`];
  const texts = await Promise.all(
    folders.map((folder) => readIfPresent(`/sys/fs/cgroup/${folder}/memory.peak`).catch(() => undefined)),
  );
  const text = texts.find((found) => found !== undefined);
  return text === undefined ? undefined : Number(text);
}
