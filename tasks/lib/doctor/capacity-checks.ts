// Does what the compose files want fit the machine of the engine: its processors, and their kind?
import { ENVIRONMENTS } from '../project.ts';
import { type Check, type Finding, failed, gather, unchecked } from './check.ts';
import type { Facts } from './facts.ts';

async function cpus({ info, resolved }: Facts): Promise<Finding> {
  const { z } = await import('#zod');
  const limits = z.object({ cpus: z.coerce.number().optional() });
  const service = z.object({
    deploy: z.object({ resources: z.object({ limits: limits.optional() }).optional() }).nullish(),
  });
  const { services } = z
    .object({ services: z.record(z.string(), service) })
    .parse(JSON.parse(await resolved()));
  const has = (await info()).cpus;
  const wanted = Object.entries(services).flatMap(([name, { deploy }]) => {
    const count = deploy?.resources?.limits?.cpus;
    return count === undefined ? [] : [{ name, count }];
  });
  const tooMany = wanted.filter(({ count }) => count > has);
  return gather(
    tooMany.map(({ name, count }) =>
      failed(
        `${name} wants ${count} CPUs, the engine has ${has} and refuses more`,
        'npm run setup caps it in .env',
      ),
    ),
    wanted.length > 0 ? `${wanted.map(({ count }) => count).join(' and ')} of ${has}` : 'no limits set',
  );
}

const GO_NAMES: Record<string, string> = { x86_64: 'amd64', aarch64: 'arm64', armv7l: 'arm' };

async function architecture({ project, info, ask, services }: Facts): Promise<Finding> {
  const machine = GO_NAMES[(await info()).architecture] ?? (await info()).architecture;
  const all = await services();
  const references = [
    ...new Set(ENVIRONMENTS.map((name) => all[project.environments[name].service]?.image ?? '')),
  ];
  const found = await Promise.all(
    references.filter(Boolean).map(async (reference) => {
      const image = (await ask(`/images/${encodeURI(reference)}/json`)) as
        | { Architecture?: string }
        | undefined;
      return { reference, built: image?.Architecture };
    }),
  );
  const present = found.filter(({ built }) => built !== undefined);
  if (present.length === 0) return unchecked('there is no image of the project yet');
  return gather(
    present
      .filter(({ built }) => built !== machine)
      .map(({ reference, built }) =>
        failed(
          `${reference} is for ${built}, this engine runs ${machine}`,
          `build it here: npm run build-push -- ${reference.slice(reference.lastIndexOf(':') + 1)}, or set image.platforms in configs/release.toml`,
        ),
      ),
    `${machine}: ${present.map(({ reference }) => reference).join(', ')}`,
  );
}

export const CAPACITY_CHECKS: readonly Check[] = [
  { id: 'cpus', title: 'CPU limits', run: cpus },
  { id: 'architecture', title: 'architecture of the images', run: architecture },
];
