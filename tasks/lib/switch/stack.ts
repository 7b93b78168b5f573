// The stack file for a swarm, made from the compose model: the same services, with what a swarm calls
// differently translated and what it does not know left out. Pure.
import { createHash } from 'node:crypto';
import { type ComposeModel, FILES_LABEL, type InjectedFile } from '../docker/compose-model.ts';

export interface StackOptions {
  project: string;
  /** Service → how many containers it shall have; services that are not named are left out. */
  replicas: Record<string, number>;
  /** `host` where ports are published by the node itself: then two containers cannot share one. */
  publish: 'host' | 'ingress';
}

/** A container that fails so soon after it became healthy still makes the swarm take the update back. */
export const MONITOR_SECONDS = 2;

/** A config or secret that must be there before the stack is deployed. Its name tells its content. */
export interface StackObject {
  kind: 'config' | 'secret';
  name: string;
  content: Buffer;
}

export interface Stack {
  text: string;
  objects: StackObject[];
}

/** Services carry this: what they were deployed from. */
export const STACK_LABEL = 'release-flow.stack';

// What compose wrote; only the parts that differ are looked at.
// biome-ignore lint/suspicious/noExplicitAny: a service of the compose format, passed through
type Service = Record<string, any>;

const RESTART: Record<string, string> = { no: 'none', always: 'any', 'unless-stopped': 'any' };

/** What stack files do not have, or a swarm ignores. */
const UNKNOWN = [
  'container_name',
  'depends_on',
  'restart',
  'build',
  'pull_policy',
  'security_opt',
  'tmpfs',
  'scale',
];

export function stackFile(model: ComposeModel, options: StackOptions): Stack {
  const raw = JSON.parse(model.input) as {
    services: Record<string, Service>;
    networks?: object;
    volumes?: object;
  };
  const objects: StackObject[] = [];
  const services = Object.entries(options.replicas).map(([name]) => {
    const files = model.files[name] ?? [];
    const own = files.map((file) => stackObject(options.project, file));
    objects.push(...own);
    return [name, translate(raw.services[name]!, files, own, options, options.replicas[name] ?? 1)];
  });
  const named = (kind: string) =>
    Object.fromEntries(
      objects.filter((one) => one.kind === kind).map(({ name }) => [name, { name, external: true }]),
    );
  const networks = Object.fromEntries(
    Object.keys(raw.networks ?? {}).map((name) => [name, { driver: 'overlay', attachable: true }]),
  );
  const file = {
    version: '3.13',
    services: Object.fromEntries(services),
    networks,
    volumes: raw.volumes ?? {},
    configs: named('config'),
    secrets: named('secret'),
  };
  return { text: JSON.stringify(file, null, 2), objects };
}

/** Objects of a swarm cannot be changed: another content is another object. */
function stackObject(project: string, { source, content, secret }: InjectedFile): StackObject {
  const digest = createHash('sha256').update(content).digest('hex').slice(0, 12);
  return { kind: secret ? 'secret' : 'config', name: `${project}_${source}_${digest}`, content };
}

function translate(
  service: Service,
  files: readonly InjectedFile[],
  objects: readonly StackObject[],
  { publish }: StackOptions,
  replicas: number,
): Service {
  const folders = service.labels?.[FILES_LABEL]?.split(',') ?? [];
  const restart = String(service.restart ?? 'no');
  const order = publish === 'host' && service.ports?.length ? 'stop-first' : 'start-first';
  const update = { parallelism: 1, order, monitor: `${MONITOR_SECONDS}s`, max_failure_ratio: 0 };
  const kept = Object.entries(service).filter(([key, value]) => value !== null && !UNKNOWN.includes(key));
  const references = (kind: StackObject['kind']) =>
    objects.flatMap(({ kind: its, name }, index) =>
      its === kind ? [{ source: name, target: files[index]!.target, mode: files[index]!.mode }] : [],
    );
  const translated: Service = {
    ...Object.fromEntries(kept),
    ports: (service.ports ?? []).map((port: Service) => ({
      target: port.target,
      published: Number(port.published),
      protocol: port.protocol ?? 'tcp',
      mode: publish,
    })),
    volumes: volumesOf(service, folders),
    configs: references('config'),
    secrets: references('secret'),
    deploy: {
      resources: resourcesOf(service),
      replicas,
      update_config: { ...update, failure_action: 'rollback' },
      rollback_config: update,
      restart_policy: { condition: RESTART[restart] ?? 'on-failure', delay: '2s' },
    },
  };
  const { replicas: _, ...lasting } = translated.deploy;
  const digest = createHash('sha256')
    .update(JSON.stringify({ ...translated, deploy: lasting }))
    .digest('hex');
  translated.deploy.labels = { [STACK_LABEL]: digest };
  return translated;
}

function volumesOf(service: Service, folders: readonly string[]): Service[] {
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
