// The stack file of one environment for `docker stack deploy`, from the compose model: what a swarm calls differently is
// translated, what it does not know is left out, and what only one node has keeps the service on that node. Pure.
import { createHash } from 'node:crypto';
import { type ComposeModel, FILES_LABEL, type InjectedFile } from '../docker/compose.ts';
import { TaskError } from '../errors.ts';
import { ENVIRONMENTS, type EnvironmentName, type Project } from '../project.ts';
import { dependenciesOf } from './dependencies.ts';

/** Services carry this: what they were deployed from. */
export const STACK_LABEL = 'release-flow.stack';

/** A container that fails so soon after it became healthy still makes the swarm take the update back. */
const MONITOR_SECONDS = 2;

/** A config or secret that must be there before the stack is deployed. Its name tells its content. */
interface StackObject {
  kind: 'config' | 'secret';
  name: string;
  content: Buffer;
}

export interface Stack {
  text: string;
  objects: StackObject[];
  digest: string;
}

export interface Nodes {
  nodes: number;
  /** Id of the node that is asked: it has the local images, volumes and directories. */
  node: string;
  /** Service → its image by registry digest, where every node can pull it. */
  images: Record<string, string | undefined>;
}

// biome-ignore lint/suspicious/noExplicitAny: a service of the compose format, of which only a few parts are looked at
type Service = Record<string, any>;

const RESTART: Record<string, string> = { no: 'none', always: 'any', 'unless-stopped': 'any' };

/** What stack files do not have, or a swarm ignores. */
const UNKNOWN = new Set([
  ...['container_name', 'depends_on', 'restart', 'build', 'pull_policy', 'security_opt', 'tmpfs', 'scale'],
]);

/** An environment with what it depends on. @throws TaskError where another node could not run it */
export function stackFile(project: Project, model: ComposeModel, name: EnvironmentName, nodes: Nodes): Stack {
  const raw = JSON.parse(model.input) as {
    services: Record<string, Service>;
    networks?: object;
    volumes?: object;
  };
  const { service } = project.environments[name];
  const others = ENVIRONMENTS.map((environment) => project.environments[environment].service);
  const needed = dependenciesOf(model.services ?? {}, [service], others).map((one) => one.service);
  const objects: StackObject[] = [];
  const services = [service, ...needed].map((own) => {
    const files = (model.files[own] ?? []).map((file) => ({
      ...file,
      ...stackObject(project.project.name, file),
    }));
    objects.push(...files.map(({ kind, name, content }) => ({ kind, name, content })));
    return [own, translate(own, raw.services[own]!, files, nodes)] as const;
  });
  const digest = createHash('sha256').update(JSON.stringify(services)).digest('hex');
  services[0]![1].deploy.labels = { [STACK_LABEL]: digest };
  const external = (kind: StackObject['kind']) =>
    Object.fromEntries(
      objects.filter((one) => one.kind === kind).map((one) => [one.name, { name: one.name, external: true }]),
    );
  const overlay = { driver: 'overlay', attachable: true };
  const file = {
    version: '3.13',
    services: Object.fromEntries(services),
    networks: Object.fromEntries(Object.keys(raw.networks ?? {}).map((network) => [network, overlay])),
    volumes: raw.volumes ?? {},
    configs: external('config'),
    secrets: external('secret'),
  };
  return { text: JSON.stringify(file, null, 2), objects, digest };
}

/** Objects of a swarm cannot be changed: another content is another object. */
function stackObject(project: string, { source, content, secret }: InjectedFile): StackObject {
  const digest = createHash('sha256').update(content).digest('hex').slice(0, 12);
  return { kind: secret ? 'secret' : 'config', name: `${project}_${source}_${digest}`, content };
}

function translate(
  name: string,
  service: Service,
  files: readonly (InjectedFile & StackObject)[],
  nodes: Nodes,
) {
  const publish = nodes.nodes > 1 ? 'ingress' : 'host';
  const order = publish === 'host' && service.ports?.length ? 'stop-first' : 'start-first';
  const update = { parallelism: 1, order, monitor: `${MONITOR_SECONDS}s`, max_failure_ratio: 0 };
  const kept = Object.entries(service).filter(([key, value]) => value !== null && !UNKNOWN.has(key));
  const volumes = volumesOf(service);
  const { image, constraints } = placement(name, volumes, nodes);
  const references = (kind: StackObject['kind']) =>
    files
      .filter((file) => file.kind === kind)
      .map((file) => ({ source: file.name, target: file.target, mode: file.mode }));
  return {
    ...(Object.fromEntries(kept) as Service),
    image: image ?? service.image,
    ports: (service.ports ?? []).map(({ target, published, protocol = 'tcp' }: Service) => ({
      ...{ target, published: Number(published), protocol, mode: publish },
    })),
    volumes,
    configs: references('config'),
    secrets: references('secret'),
    deploy: {
      placement: { constraints },
      resources: resourcesOf(service),
      replicas: 1,
      update_config: { ...update, failure_action: 'rollback' },
      rollback_config: update,
      restart_policy: { condition: RESTART[String(service.restart ?? 'no')] ?? 'on-failure', delay: '2s' },
    } as Service,
  };
}

/** On one node everything is there. On several, what only this node has keeps the service here. */
function placement(name: string, volumes: readonly Service[], { nodes, node, images }: Nodes) {
  if (nodes === 1) return { constraints: [] };
  if (volumes.some(({ type }) => type !== 'tmpfs')) return { constraints: [`node.id==${node}`] };
  if (images[name]) return { image: images[name], constraints: [] };
  throw new TaskError(
    `Cannot run ${name} on a swarm of ${nodes} nodes: the other nodes cannot pull its image`,
    {
      code: 'swarm-image',
      hint: 'set [image] registry in configs/release.toml and push the image: npm run build-push -- --push',
    },
  );
}

function volumesOf(service: Service): Service[] {
  const folders = service.labels?.[FILES_LABEL]?.split(',') ?? [];
  const volumes = ((service.volumes ?? []) as Service[])
    .filter(({ target }) => !folders.includes(target))
    .map(({ type, source, target, read_only }) => ({
      type,
      source,
      target,
      ...(read_only ? { read_only } : {}),
    }));
  const temporary = ((service.tmpfs ?? []) as string[]).map((entry) => {
    const [target, flags = ''] = entry.split(':');
    const size = /size=(\d+)([kmg]?)/i.exec(flags);
    const bytes = size ? Number(size[1]) * 1024 ** ' kmg'.indexOf((size[2] || ' ').toLowerCase()) : undefined;
    return { type: 'tmpfs', target, ...(bytes ? { tmpfs: { size: bytes } } : {}) };
  });
  return [...volumes, ...temporary];
}

function resourcesOf(service: Service): Service {
  const resources: Service = structuredClone(service.deploy?.resources ?? {});
  for (const part of Object.values(resources)) if (part.cpus !== undefined) part.cpus = String(part.cpus);
  return resources;
}
