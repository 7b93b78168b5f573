// Containers as the engine knows them: what runs, from which image, how it feels, what it said last.
import { probe } from '../command.ts';
import type { Project } from '../project.ts';
import { docker } from './client.ts';
import { type AskEngine, askEngine, withEngine } from './engine-api.ts';

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
  /** Where volumes without a name are mounted: they belong to this container alone. */
  anonymousVolumes: string[];
}

/** Containers by id or name; those that do not exist are left out. @throws TaskError when the engine is down */
export async function inspectContainers(ids: readonly string[]): Promise<Container[]> {
  if (ids.length === 0) return [];
  return withEngine((ask) => inspectAll(ask, ids));
}

async function inspectAll(ask: AskEngine, ids: readonly string[]): Promise<Container[]> {
  const found = await Promise.all(ids.map((id) => ask(`/containers/${encodeURIComponent(id)}/json`)));
  return parseContainers(found.filter((container) => container !== undefined));
}

/** The containers of the project's environments, running or not. @throws TaskError when the engine is down */
export function projectContainers(project: Project, asked?: AskEngine): Promise<Container[]> {
  const label = `com.docker.compose.project=${project.project.name}`;
  const find = async (ask: AskEngine) => inspectAll(ask, await containerIds({ label: [label] }, ask));
  return asked ? find(asked) : withEngine(find);
}

/** The ids of all containers, running or not, that pass the engine's filters, e.g. `{ label: ['a=b'] }`. */
export async function containerIds(filters: Record<string, string[]>, ask = askEngine): Promise<string[]> {
  const { z } = await import('#zod');
  const schema = z.array(z.object({ Id: z.string() }));
  const path = `/containers/json?all=1&filters=${encodeURIComponent(JSON.stringify(filters))}`;
  return schema.parse(await ask(path)).map(({ Id }) => Id);
}

async function containerSchema() {
  const { z } = await import('#zod');
  const schema = z.object({
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
    Mounts: z
      .array(z.object({ Type: z.string(), Name: z.string().default(''), Destination: z.string() }))
      .default([]),
    Config: z.object({
      Image: z.string(),
      Labels: z.record(z.string(), z.string()).nullish(),
      Env: z.array(z.string()).nullish(),
    }),
  });
  return z.array(schema);
}

/** Made once: a start that is waited for parses twenty answers a second. */
let schema: ReturnType<typeof containerSchema> | undefined;

/** A list of what the engine says of single containers, checked. */
export async function parseContainers(inspected: unknown): Promise<Container[]> {
  schema ??= containerSchema();
  return (await schema).parse(inspected).map((container) => ({
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
    anonymousVolumes: container.Mounts.filter(
      ({ Type, Name }) => Type === 'volume' && /^[0-9a-f]{64}$/.test(Name),
    ).map(({ Destination }) => Destination),
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
