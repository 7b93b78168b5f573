// What the engine knows that a migration decides by: all containers, networks and volumes, checked at this edge.
import { askEngine, withEngine } from '../docker/engine-api.ts';
import type { Mount } from './legacy.ts';

export interface EngineContainer {
  id: string;
  name: string;
  isRunning: boolean;
  image: string;
  imageId: string;
  labels: Record<string, string>;
  environment: string[];
  mounts: Mount[];
  /** Host ports, also of a stopped container. */
  ports: { host: number; container: string; address: string }[];
  networks: string[];
  restart: string;
  command: string[] | null;
  entrypoint: string[] | null;
  user: string;
  memory: number;
  nanoCpus: number;
}

export interface EngineNetwork {
  name: string;
  driver: string;
  labels: Record<string, string>;
  subnets: string[];
  gateways: string[];
  /** Ids of running containers in it. */
  containers: string[];
}

export interface EngineVolume {
  name: string;
  driver: string;
  labels: Record<string, string>;
}

/** Everything of a kind, one by one: a list tells less. One that vanishes in between is left out. */
function inspectAll(kind: 'containers' | 'networks', list: string): Promise<unknown[]> {
  return withEngine(async (ask) => {
    const listed = (await ask(list)) as { Id: string }[];
    const found = await Promise.all(
      listed.map(({ Id }) => ask(kind === 'containers' ? `/containers/${Id}/json` : `/networks/${Id}`)),
    );
    return found.filter((one) => one !== undefined);
  });
}

async function containerSchema() {
  const { z } = await import('#zod');
  const binding = z.object({ HostIp: z.string().default(''), HostPort: z.string().default('') });
  return z.object({
    Id: z.string(),
    Name: z.string(),
    Image: z.string(),
    State: z.object({ Status: z.string() }),
    Config: z.object({
      Image: z.string(),
      Labels: z.record(z.string(), z.string()).nullish(),
      Env: z.array(z.string()).nullish(),
      Cmd: z.array(z.string()).nullish(),
      Entrypoint: z.array(z.string()).nullish(),
      User: z.string().default(''),
    }),
    HostConfig: z.object({
      PortBindings: z.record(z.string(), z.array(binding).nullable()).nullish(),
      RestartPolicy: z.object({ Name: z.string() }),
      Memory: z.number().default(0),
      NanoCpus: z.number().default(0),
    }),
    Mounts: z.array(
      z.object({
        Type: z.string(),
        Name: z.string().optional(),
        Source: z.string().default(''),
        Destination: z.string(),
        RW: z.boolean(),
      }),
    ),
    NetworkSettings: z.object({ Networks: z.record(z.string(), z.unknown()).nullish() }),
  });
}

/** Every container, running or not. @throws TaskError when no engine answers */
export async function engineContainers(): Promise<EngineContainer[]> {
  const [{ z }, schema] = await Promise.all([import('#zod'), containerSchema()]);
  const found = z.array(schema).parse(await inspectAll('containers', '/containers/json?all=1'));
  return found.map(({ Config, HostConfig, ...one }) => ({
    id: one.Id,
    name: one.Name.replace(/^\//, ''),
    isRunning: ['running', 'restarting', 'paused'].includes(one.State.Status),
    image: Config.Image,
    imageId: one.Image,
    labels: Config.Labels ?? {},
    environment: Config.Env ?? [],
    mounts: one.Mounts.map((mount) => ({
      type: mount.Type,
      source: mount.Type === 'volume' ? (mount.Name ?? '') : mount.Source,
      target: mount.Destination,
      isReadOnly: !mount.RW,
    })),
    ports: Object.entries(HostConfig.PortBindings ?? {}).flatMap(([container, bindings]) =>
      (bindings ?? []).map(({ HostIp, HostPort }) => ({
        host: Number(HostPort),
        container,
        address: HostIp,
      })),
    ),
    networks: Object.keys(one.NetworkSettings.Networks ?? {}),
    restart: HostConfig.RestartPolicy.Name || 'no',
    command: Config.Cmd ?? null,
    entrypoint: Config.Entrypoint ?? null,
    user: Config.User,
    memory: HostConfig.Memory,
    nanoCpus: HostConfig.NanoCpus,
  }));
}

/** Every network. @throws TaskError when no engine answers */
export async function engineNetworks(): Promise<EngineNetwork[]> {
  const { z } = await import('#zod');
  const range = z.object({ Subnet: z.string().default(''), Gateway: z.string().default('') });
  const schema = z.object({
    Name: z.string(),
    Driver: z.string(),
    Labels: z.record(z.string(), z.string()).nullish(),
    IPAM: z.object({ Config: z.array(range).nullish() }),
    Containers: z.record(z.string(), z.unknown()).nullish(),
  });
  const found = z.array(schema).parse(await inspectAll('networks', '/networks'));
  return found.map((network) => ({
    name: network.Name,
    driver: network.Driver,
    labels: network.Labels ?? {},
    subnets: (network.IPAM.Config ?? []).map(({ Subnet }) => Subnet).filter(Boolean),
    gateways: (network.IPAM.Config ?? []).map(({ Gateway }) => Gateway),
    containers: Object.keys(network.Containers ?? {}),
  }));
}

/** A volume by its name, or undefined. */
export async function engineVolume(name: string): Promise<EngineVolume | undefined> {
  const answer = await askEngine(`/volumes/${encodeURIComponent(name)}`);
  if (answer === undefined) return undefined;
  const { z } = await import('#zod');
  const schema = z.object({
    Name: z.string(),
    Driver: z.string(),
    Labels: z.record(z.string(), z.string()).nullish(),
  });
  const volume = schema.parse(answer);
  return { name: volume.Name, driver: volume.Driver, labels: volume.Labels ?? {} };
}
