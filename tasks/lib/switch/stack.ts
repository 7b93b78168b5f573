// The stack file of one environment for `docker stack deploy`, from the compose model: what a swarm calls differently is
// translated, what it does not know is left out, and what only one node has keeps the service on that node. Pure.
import { createHash } from 'node:crypto';
import { type ComposeModel, FILES_LABEL, type InjectedFile } from '../docker/compose.ts';
import { TaskError } from '../errors.ts';
import { ENVIRONMENTS, type EnvironmentName, type Project } from '../project.ts';
import { dependenciesOf } from './dependencies.ts';

/** Services carry this: what they were deployed from. */
export const STACK_LABEL = 'release-flow.stack';

/** A config or secret of the swarm. It cannot be changed: another content is another name. */
interface StackObject extends Pick<InjectedFile, 'content' | 'target' | 'mode'> {
  kind: 'config' | 'secret';
  name: string;
}

export interface Stack {
  text: string;
  objects: StackObject[];
  digest: string;
}

interface Nodes {
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

const sha256 = (content: string | Buffer) => createHash('sha256').update(content).digest('hex');

/** An environment with what it depends on. @throws TaskError where another node could not run it */
export function stackFile(project: Project, model: ComposeModel, name: EnvironmentName, nodes: Nodes): Stack {
  const raw = JSON.parse(model.input) as Record<string, Record<string, Service>>;
  const { service } = project.environments[name];
  const environments = ENVIRONMENTS.map((one) => project.environments[one].service);
  const needed = dependenciesOf(model.services ?? {}, [service], environments).map((one) => one.service);
  const objects: StackObject[] = [];
  const services = [service, ...needed].map((own) => {
    const files = (model.files[own] ?? []).map(({ source, secret, content, target, mode }) => ({
      ...{ kind: secret ? ('secret' as const) : ('config' as const), content, target, mode },
      name: `${project.project.name}_${source}_${sha256(content).slice(0, 12)}`,
    }));
    objects.push(...files);
    return [own, translate(own, raw.services![own]!, files, nodes)] as const;
  });
  const digest = sha256(JSON.stringify(services));
  services[0]![1].deploy.labels = { [STACK_LABEL]: digest };
  const external = (kind: string) =>
    objects
      .filter((one) => one.kind === kind)
      .map(({ name: object }) => [object, { name: object, external: true }]);
  const overlay = { driver: 'overlay', attachable: true };
  const file = {
    version: '3.13',
    services: Object.fromEntries(services),
    networks: Object.fromEntries(Object.keys(raw.networks ?? {}).map((network) => [network, overlay])),
    volumes: raw.volumes ?? {},
    configs: Object.fromEntries(external('config')),
    secrets: Object.fromEntries(external('secret')),
  };
  return { text: JSON.stringify(file, null, 2), objects, digest };
}

function translate(name: string, service: Service, files: readonly StackObject[], nodes: Nodes): Service {
  const mode = nodes.nodes > 1 ? 'ingress' : 'host';
  const order = mode === 'host' && service.ports?.length ? 'stop-first' : 'start-first';
  // A container that fails within two seconds of becoming healthy still makes the swarm roll back.
  const update = { parallelism: 1, order, monitor: '2s', max_failure_ratio: 0 };
  const resources: Service = structuredClone(service.deploy?.resources ?? {});
  for (const part of Object.values(resources)) if (part.cpus !== undefined) part.cpus = String(part.cpus);
  const volumes = volumesOf(service);
  const { image = service.image, constraints } = placement(name, volumes, nodes);
  const references = (kind: string) =>
    files
      .filter((file) => file.kind === kind)
      .map((file) => ({ source: file.name, target: file.target, mode: file.mode }));
  return {
    ...Object.fromEntries(
      Object.entries(service).filter(([key, value]) => value !== null && !UNKNOWN.has(key)),
    ),
    image,
    ports: (service.ports ?? []).map(({ target, published, protocol = 'tcp' }: Service) => ({
      ...{ target, published: Number(published), protocol, mode },
    })),
    volumes,
    configs: references('config'),
    secrets: references('secret'),
    deploy: {
      ...{ placement: { constraints }, resources, replicas: 1, rollback_config: update },
      update_config: { ...update, failure_action: 'rollback' },
      restart_policy: { condition: RESTART[String(service.restart ?? 'no')] ?? 'on-failure', delay: '2s' },
    },
  };
}

/** On one node everything is there. On several, what only this node has keeps the service here. */
function placement(name: string, volumes: readonly Service[], { nodes, node, images }: Nodes) {
  if (nodes === 1) return { constraints: [] };
  if (volumes.some(({ type }) => type !== 'tmpfs')) return { constraints: [`node.id==${node}`] };
  if (images[name]) return { image: images[name], constraints: [] };
  const message = `Cannot run ${name} on a swarm of ${nodes} nodes: the other nodes cannot pull its image`;
  const hint =
    'set [image] registry in configs/release.toml and push the image: npm run build-push -- --push';
  throw new TaskError(message, { code: 'swarm-image', hint });
}

function volumesOf(service: Service): Service[] {
  const folders = service.labels?.[FILES_LABEL]?.split(',') ?? [];
  const volumes = ((service.volumes ?? []) as Service[]).filter(({ target }) => !folders.includes(target));
  return [
    ...volumes.map(({ type, source, target, read_only }) => ({ type, source, target, read_only })),
    // Their size is limited by the container's memory.
    ...((service.tmpfs ?? []) as string[]).map((entry) => ({ type: 'tmpfs', target: entry.split(':')[0] })),
  ];
}
