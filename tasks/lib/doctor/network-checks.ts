// Are the ports and the subnet that the environments need theirs to take?
import { createServer } from 'node:net';
import { readIfPresent } from '../files.ts';
import { ENVIRONMENTS, type EnvironmentName, portOf, variableName } from '../project.ts';
import { overlaps, parseRoutes } from './addresses.ts';
import { type Check, type Finding, failed, gather, ok } from './check.ts';
import type { Facts } from './facts.ts';

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
  const { z } = await import('#zod');
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
