// The stack file of one environment for `docker stack deploy`, from the compose model: what a swarm calls differently is
// translated, what it does not know is left out, and what only one node has keeps the service on that node.
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { modelInput, type ResolvedModel } from '../docker/compose.ts';
import { TaskError } from '../errors.ts';

/** Services carry this: what they were deployed from. */
export const STACK_LABEL = 'release-flow.stack';

export interface Stack {
  text: string;
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

const sha256 = (content: string | Buffer) => createHash('sha256').update(content).digest('hex');

/** `names`: the environment's service and what it depends on. @throws TaskError where another node could not run it */
export async function stackFile(
  project: string,
  model: ResolvedModel,
  names: string[],
  nodes: Nodes,
): Promise<Stack> {
  const services = names.map((name) => [name, translate(name, model.services[name]!, nodes)] as const);
  const used = (kind: 'configs' | 'secrets') =>
    services.flatMap(([, service]) => service[kind].map(({ source }: Service) => source as string));
  const [configs, secrets] = await Promise.all([
    files(project, model.configs, used('configs')),
    files(project, model.secrets, used('secrets')),
  ]);
  const digest = sha256(JSON.stringify([services, configs, secrets]));
  services[0]![1].deploy.labels = { [STACK_LABEL]: digest };
  const overlay = { driver: 'overlay', attachable: true };
  const networks = Object.keys(model.networks ?? {}).map((network) => [network, overlay]);
  const text = modelInput({
    ...{ version: '3.13', services: Object.fromEntries(services), volumes: model.volumes ?? {} },
    ...{ networks: Object.fromEntries(networks), configs, secrets },
  });
  return { text, digest };
}

/** A config or secret of a swarm cannot be changed: another content is another name. */
async function files(project: string, sources: ResolvedModel['configs'] = {}, used: readonly string[]) {
  const named = [...new Set(used)].map(async (source) => {
    const { file } = sources[source] ?? {};
    if (!file)
      throw new TaskError(`Cannot deploy ${source} to a swarm: expected a file`, { code: 'swarm-config' });
    return [source, { name: `${project}_${source}_${sha256(await readFile(file)).slice(0, 12)}`, file }];
  });
  return Object.fromEntries(await Promise.all(named));
}

function translate(name: string, service: Service, nodes: Nodes): Service {
  const mode = nodes.nodes > 1 ? 'ingress' : 'host';
  const order = mode === 'host' && service.ports?.length ? 'stop-first' : 'start-first';
  // A container that fails within two seconds of becoming healthy still makes the swarm roll back.
  const update = { parallelism: 1, order, monitor: '2s', max_failure_ratio: 0 };
  const resources: Service = structuredClone(service.deploy?.resources ?? {});
  for (const part of Object.values(resources)) if (part.cpus !== undefined) part.cpus = String(part.cpus);
  const volumes: Service[] = [
    ...(service.volumes ?? []).map(({ type, source, target, read_only }: Service) => ({
      ...{ type, source, target, read_only },
    })),
    // Their size is limited by the container's memory.
    ...(service.tmpfs ?? []).map((entry: string) => ({ type: 'tmpfs', target: entry.split(':')[0] })),
  ];
  const { image = service.image, constraints } = placement(name, volumes, nodes);
  const references = (found: Service[] = []) =>
    found.map(({ mode = 0o444, ...one }) => ({
      ...one,
      mode: typeof mode === 'number' ? mode : Number.parseInt(mode, 8),
    }));
  const known = ([key, value]: [string, unknown]) => value !== null && !UNKNOWN.has(key);
  return {
    ...Object.fromEntries(Object.entries(service).filter(known)),
    ...{ image, volumes, configs: references(service.configs), secrets: references(service.secrets) },
    ports: (service.ports ?? []).map(({ target, published, protocol = 'tcp' }: Service) => ({
      ...{ target, published: Number(published), protocol, mode },
    })),
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
