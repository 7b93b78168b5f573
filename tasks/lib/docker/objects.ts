// Images as the Docker engine knows them. Its JSON is checked at this edge.

import { z } from 'zod';
import { probe, run } from '../command.ts';
import { readIfPresent } from '../files.ts';
import type { EnvironmentName, Project } from '../project.ts';
import { environmentOfService } from './compose.ts';
import { docker, type QueryEngine, queryEngine, withEngine } from './engine.ts';

export interface Image {
  /** What the engine calls the image: the manifest digest in a containerd store, else the config digest. */
  id: string;
  labels: Record<string, string>;
  architecture: string;
  /** Bytes. */
  size: number;
  repoDigests: string[];
}

/** The image, or undefined if the engine does not have it. @throws TaskError when the engine is down */
export async function inspectImage(reference: string): Promise<Image | undefined> {
  const path = reference.split('/').map(encodeURIComponent).join('/');
  const answer = await queryEngine(`/images/${path}/json`);
  if (answer === undefined) return undefined;
  const schema = z.object({
    Id: z.string(),
    Architecture: z.string(),
    Size: z.number(),
    RepoDigests: z.array(z.string()).nullish(),
    Config: z.object({ Labels: z.record(z.string(), z.string()).nullish() }).nullish(),
  });
  const image = schema.parse(answer);
  return {
    id: image.Id,
    labels: image.Config?.Labels ?? {},
    architecture: image.Architecture,
    size: image.Size,
    repoDigests: image.RepoDigests ?? [],
  };
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

// Containers as the engine knows them: what runs, from which image, how it feels, what it said last.

export interface Container {
  id: string;
  name: string;
  service: string;
  /** created, running, paused, restarting, exited, dead. */
  state: string;
  /** healthy, unhealthy, starting; undefined without a health check. */
  health: string | undefined;
  /** The reference it was created from, e.g. `synapse:v1.0.0`. */
  image: string;
  /** The image it really runs, as `Image.id`. */
  imageId: string;
  /** ISO 8601. */
  startedAt: string;
  exitCode: number;
  restarts: number;
  /** Bytes that it was promised at most; 0: no limit. */
  memoryLimit: number;
  environment: Record<string, string>;
  labels: Record<string, string>;
  /** `no`, `always`, `unless-stopped`, `on-failure[:n]`. */
  restartPolicy: string;
  /** Ports of the engine's machine that it publishes while it runs. */
  publishedPorts: number[];
  /** Ids of the networks that it needs to start; none before its first start. */
  networkIds: string[];
  /** Where volumes without a name are mounted: they belong to this container alone. */
  anonymousVolumes: string[];
  mounts: Mount[];
  /** Names of the networks it is in. */
  networks: string[];
}

/** A mount, as compose and the engine both describe it. */
export interface Mount {
  /** bind, volume, tmpfs. */
  type: string;
  /** Path on the engine's machine, or name of the volume. */
  source: string;
  target: string;
  isReadOnly: boolean;
}

/** Containers by id or name; those that do not exist are left out. @throws TaskError when the engine is down */
export async function inspectContainers(ids: readonly string[]): Promise<Container[]> {
  if (ids.length === 0) return [];
  return withEngine((ask) => inspectAll(ask, ids));
}

async function inspectAll(ask: QueryEngine, ids: readonly string[]): Promise<Container[]> {
  const found = await Promise.all(ids.map((id) => ask(`/containers/${encodeURIComponent(id)}/json`)));
  return parseContainers(found.filter((container) => container !== undefined));
}

/** The containers of the project's environments, running or not. @throws TaskError when the engine is down */
export function projectContainers(project: Project, asked?: QueryEngine): Promise<Container[]> {
  const label = `com.docker.compose.project=${project.project.name}`;
  const find = async (ask: QueryEngine) => inspectAll(ask, await containerIds({ label: [label] }, ask));
  return asked ? find(asked) : withEngine(find);
}

/** The ids of all containers, running or not, that pass the engine's filters, e.g. `{ label: ['a=b'] }`. */
export async function containerIds(filters: Record<string, string[]>, ask = queryEngine): Promise<string[]> {
  const schema = z.array(z.object({ Id: z.string() }));
  const path = `/containers/json?all=1&filters=${encodeURIComponent(JSON.stringify(filters))}`;
  return schema.parse(await ask(path)).map(({ Id }) => Id);
}

const containerSchema = z.object({
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
      .record(z.string(), z.array(z.object({ HostPort: z.coerce.number() })).nullable())
      .nullish(),
  }),
  NetworkSettings: z
    .object({ Networks: z.record(z.string(), z.object({ NetworkID: z.string().default('') })).nullish() })
    .nullish(),
  Mounts: z
    .array(
      z.object({
        Type: z.string(),
        Name: z.string().default(''),
        Source: z.string().default(''),
        Destination: z.string(),
        RW: z.boolean().default(true),
      }),
    )
    .default([]),
  Config: z.object({
    Image: z.string(),
    Labels: z.record(z.string(), z.string()).nullish(),
    Env: z.array(z.string()).nullish(),
  }),
});

/** A list of what the engine says of single containers, checked. */
export function parseContainers(inspected: unknown): Container[] {
  return z
    .array(containerSchema)
    .parse(inspected)
    .map((container) => ({
      id: container.Id,
      name: container.Name.replace(/^\//, ''),
      service: container.Config.Labels?.['com.docker.compose.service'] ?? '',
      state: container.State.Status,
      health: container.State.Health?.Status,
      image: container.Config.Image,
      imageId: container.Image,
      startedAt: container.State.StartedAt,
      exitCode: container.State.ExitCode,
      restarts: container.RestartCount,
      memoryLimit: container.HostConfig.Memory,
      environment: Object.fromEntries((container.Config.Env ?? []).map(splitVariable)),
      labels: container.Config.Labels ?? {},
      restartPolicy: policyName(container.HostConfig.RestartPolicy),
      publishedPorts: Object.values(container.HostConfig.PortBindings ?? {}).flatMap((bindings) =>
        (bindings ?? []).map(({ HostPort }) => HostPort),
      ),
      networkIds: Object.values(container.NetworkSettings?.Networks ?? {})
        .map(({ NetworkID }) => NetworkID)
        .filter(Boolean),
      anonymousVolumes: container.Mounts.filter(
        ({ Type, Name }) => Type === 'volume' && /^[0-9a-f]{64}$/.test(Name),
      ).map(({ Destination }) => Destination),
      mounts: container.Mounts.map(({ Type, Name, Source, Destination, RW }) => ({
        type: Type,
        source: Type === 'volume' ? Name : Source,
        target: Destination,
        isReadOnly: !RW,
      })),
      networks: Object.keys(container.NetworkSettings?.Networks ?? {}),
    }));
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
    Labels: z.record(z.string(), z.string()).nullish(),
    IPAM: z.object({ Config: z.array(z.object({ Subnet: z.string().default('') })).nullish() }),
    Options: z.record(z.string(), z.string()).nullish(),
    Containers: z.record(z.string(), z.unknown()).nullish(),
  })
  .transform(({ Id, Name, Labels, IPAM, Options, Containers }) => ({
    name: Name,
    labels: Labels ?? {},
    subnets: (IPAM.Config ?? []).map(({ Subnet }) => Subnet).filter(Boolean),
    /** Its interface on the engine's machine. */
    bridge: Options?.['com.docker.network.bridge.name'] ?? `br-${Id.slice(0, 12)}`,
    /** Ids of the running containers in it. */
    containers: Object.keys(Containers ?? {}),
  }));

/** Every network of the engine. @throws TaskError when the engine is down */
export async function listNetworks(asked?: QueryEngine) {
  const find = async (ask: QueryEngine) => {
    const listed = z.array(z.object({ Id: z.string() })).parse(await ask('/networks'));
    // One by one: the list leaves their containers out.
    const found = await Promise.all(listed.map(({ Id }) => ask(`/networks/${Id}`)));
    return z.array(networkSchema).parse(found.filter((network) => network !== undefined));
  };
  return asked ? find(asked) : withEngine(find);
}

export interface Volume {
  name: string;
  driver: string;
  labels: Record<string, string>;
}

/** The volume of that name, or undefined. @throws TaskError when the engine is down */
export async function inspectVolume(name: string): Promise<Volume | undefined> {
  const answer = await queryEngine(`/volumes/${encodeURIComponent(name)}`);
  if (answer === undefined) return undefined;
  const schema = z.object({
    Name: z.string(),
    Driver: z.string(),
    Labels: z.record(z.string(), z.string()).nullish(),
  });
  const { Name, Driver, Labels } = schema.parse(answer);
  return { name: Name, driver: Driver, labels: Labels ?? {} };
}

// What the engine knows of the project's containers, asked over one connection: who runs, and what each uses.

export type Usages = Partial<Record<EnvironmentName, Usage>>;

/** What each running environment uses now; cheap, because it does not wait for a second reading. */
export async function usagesOf(
  ask: QueryEngine,
  project: Project,
  containers: readonly Container[],
): Promise<Usages> {
  const usages: Usages = {};
  for (const { id, service, state } of containers) {
    const name = environmentOfService(project, service);
    if (!name || state !== 'running') continue;
    const usage = parseUsage(await ask(`/containers/${id}/stats?stream=false&one-shot=true`));
    if (usage) usages[name] = { ...usage, peak: usage.peak ?? (await kernelPeak(id)) };
  }
  return usages;
}

// What a container uses, from the engine's one-shot statistics: `docker stats` takes two seconds for the same.

export interface Usage {
  /** Bytes in use, without page cache that can be dropped at once: what `docker stats` shows. */
  memory: number;
  /** Bytes that the kernel enforces; the machine's memory where there is no limit. */
  limit: number;
  /** Highest bytes ever, page cache included, where the engine or the kernel tells. */
  peak: number | undefined;
  /** Nanoseconds of CPU time: of the container, and of the whole machine. */
  cpu: number;
  system: number;
  cpus: number;
}

/** The answer to `/containers/ID/stats`; undefined when the container does not run, or memory is not counted. */
export function parseUsage(stats: unknown): Usage | undefined {
  const schema = z.object({
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
  });
  const parsed = schema.safeParse(stats);
  if (!parsed.success) return undefined;
  const { memory_stats: memory, cpu_stats: cpu } = parsed.data;
  // cgroup v1 names it for the whole hierarchy, v2 has one name only.
  const cache = memory.stats.total_inactive_file ?? memory.stats.inactive_file ?? 0;
  return {
    memory: Math.max(0, memory.usage - cache),
    limit: memory.limit,
    peak: memory.max_usage,
    cpu: cpu.cpu_usage.total_usage,
    system: cpu.system_cpu_usage,
    cpus: cpu.online_cpus,
  };
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
