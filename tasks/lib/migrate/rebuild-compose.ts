// A compose file made from a container whose own is gone, so that the container can be brought back. JSON is
// YAML, too. Pure.
import type { EngineContainer, EngineNetwork } from './engine-view.ts';

const label = (labels: Record<string, string>, name: string) => labels[`com.docker.compose.${name}`];

/** `imageEnvironment`: what the image sets by itself and the file need not say. */
export function rebuildCompose(
  container: EngineContainer,
  network: EngineNetwork | undefined,
  image: { environment: readonly string[]; command: string[] | null; entrypoint: string[] | null },
): string {
  const project = label(container.labels, 'project') ?? 'legacy';
  const service = label(container.labels, 'service') ?? 'legacy';
  const same = (a: string[] | null, b: string[] | null) =>
    JSON.stringify(a ?? []) === JSON.stringify(b ?? []);
  const isDefaultName = container.name === `${project}-${service}-1`;
  const volumes = container.mounts.filter(({ type }) => type === 'volume').map(({ source }) => source);
  const key = network && (label(network.labels, 'network') ?? 'default');
  const file = {
    name: project,
    services: {
      [service]: {
        image: container.image,
        ...(isDefaultName ? {} : { container_name: container.name }),
        environment: container.environment.filter((line) => !image.environment.includes(line)),
        ports: container.ports.map(
          ({ host, container: target, address }) =>
            `${address.includes(':') ? `[${address}]:` : address ? `${address}:` : ''}${host}:${target}`,
        ),
        volumes: container.mounts.map(({ type, source, target, isReadOnly }) => ({
          type,
          source,
          target,
          read_only: isReadOnly,
        })),
        restart: container.restart,
        ...(key ? { networks: [key] } : {}),
        ...(container.user ? { user: container.user } : {}),
        ...(same(container.command, image.command) ? {} : { command: container.command }),
        ...(same(container.entrypoint, image.entrypoint) ? {} : { entrypoint: container.entrypoint }),
        ...(container.memory > 0 ? { mem_limit: container.memory } : {}),
        ...(container.nanoCpus > 0 ? { cpus: container.nanoCpus / 1e9 } : {}),
      },
    },
    volumes: Object.fromEntries(volumes.map((name) => [name, { name, external: true }])),
    networks: network && key ? { [key]: networkEntry(network) } : {},
  };
  return `${JSON.stringify(file, null, 2).replaceAll('$', '$$$$')}\n`;
}

function networkEntry({ name, driver, subnets, gateways, labels }: EngineNetwork): object {
  // A network that compose did not make for this project is not compose's to remove.
  if (!label(labels, 'project')) return { name, external: true };
  const config = subnets.map((subnet, index) => ({
    subnet,
    ...(gateways[index] ? { gateway: gateways[index] } : {}),
  }));
  return { name, driver, ipam: { config } };
}
