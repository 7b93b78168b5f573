// Everything that stands in the way of a migration, found before anything is touched, each with its remedy. Pure.
import { overlaps } from '../doctor/addresses.ts';
import { TaskError } from '../errors.ts';
import type { EnvironmentName } from '../project.ts';
import type { MigrationPlan } from './plan.ts';
import type { MigrationFacts } from './plan-facts.ts';

/** Everything that stands in the way; empty if nothing does. */
export function planProblems(facts: MigrationFacts, plan: MigrationPlan): TaskError[] {
  return [
    ...spaceProblems(facts, plan),
    ...portProblems(facts),
    ...subnetProblems(facts),
    ...dataProblems(facts, plan),
    ...otherProblems(facts, plan),
  ];
}

const problem = (message: string, code: string, hint: string) => new TaskError(message, { code, hint });

export function size(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  const step = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(bytes, 1)) / 3));
  const value = bytes / 1000 ** step;
  return `${value.toFixed(step > 0 && value < 10 ? 1 : 0)} ${units[step]}`;
}

/** Two copies of the data: the one that the new service works on, and the archive. */
function spaceProblems({ room }: MigrationFacts, { data, models }: MigrationPlan): TaskError[] {
  const needs = {
    copy: data.bytes,
    backup: data.bytes,
    models: models.by === 'copy' ? (models.bytes ?? 0) : 0,
  };
  const filesystems = new Set(room.map(({ filesystem }) => filesystem));
  return [...filesystems].flatMap((filesystem) => {
    const here = room.filter((one) => one.filesystem === filesystem);
    const needed = here.reduce((sum, { what }) => sum + needs[what], 0);
    const free = Math.min(...here.map((one) => one.free));
    if (free >= needed) return [];
    const parts = here.map(({ what, place }) => `${size(needs[what])} for the ${what} at ${place}`);
    const hint =
      'make room; a backup directory on another disk also helps: BACKUP_DIR in .env, with its prefix';
    return [problem(`Not enough space: ${size(free)} free, needed ${parts.join(', ')}`, 'disk-full', hint)];
  });
}

function portProblems({ ports, variables }: MigrationFacts): TaskError[] {
  return Object.entries(ports).flatMap(([name, { port, holder }]) =>
    holder
      ? [
          problem(
            `Port ${port}, which ${name} needs, is taken by ${holder}`,
            'port-taken',
            `stop it, or choose another: ${variables.port[name as EnvironmentName]}=… in .env`,
          ),
        ]
      : [],
  );
}

function subnetProblems({ subnets, legacy, variables }: MigrationFacts): TaskError[] {
  const others = subnets.networks.filter(
    ({ name }) => name !== legacy.network?.name && !subnets.ownNetworks.includes(name),
  );
  return subnets.wanted.flatMap((wanted) =>
    others
      .filter((network) => network.subnets.some((subnet) => overlaps(wanted, subnet)))
      .map(({ name, labels, subnets: [subnet] }) => {
        const owner = labels['com.docker.compose.project'];
        return problem(
          `The new network needs ${wanted}, but the network ${name}${owner ? ` of the project ${owner}` : ''} has ${subnet}`,
          'subnet-taken',
          `give the new one another subnet: ${variables.subnet}=${subnets.free} in .env\nor remove the other one, if nothing needs it: docker network rm ${name}`,
        );
      }),
  );
}

function dataProblems(
  { data, target, variables, inTheWay }: MigrationFacts,
  plan: MigrationPlan,
): TaskError[] {
  const { from, to, aside } = plan.data;
  const choose = `or choose another place for the new data: ${variables.data}=… in .env`;
  return [
    ...(aside && data.isMount
      ? [problem(`${from} is a mount point, it cannot be set aside`, 'data-mount', choose.slice(3))]
      : []),
    ...(data.mayMove
      ? []
      : [problem(`This user may not read and move all of ${from}`, 'data-directory', 'run it with sudo')]),
    ...(!aside && (target.entries ?? 0) > 0
      ? [
          problem(
            `There is data already at ${to}, where the new data would go`,
            'data-exists',
            `move it away, ${choose}`,
          ),
        ]
      : []),
    ...inTheWay.map((path) =>
      problem(`${path} is in the way`, 'in-the-way', `move it away: mv ${path} ${path}.old`),
    ),
  ];
}

function otherProblems(
  { running, neighbours, legacy, hasOldImage }: MigrationFacts,
  plan: MigrationPlan,
): TaskError[] {
  return [
    ...(running.length > 0
      ? [
          problem(
            `The new service runs already: ${running.join(', ')}`,
            'already-running',
            'stop it first: npm run switch -- none',
          ),
        ]
      : []),
    ...(neighbours.length > 0
      ? [
          problem(
            `Other containers use the network ${legacy.network?.name}, which goes with the old service: ${neighbours.join(', ')}`,
            'network-in-use',
            `docker network disconnect ${legacy.network?.name} ${neighbours[0]}`,
          ),
        ]
      : []),
    ...(hasOldImage
      ? []
      : [
          problem(
            `The image ${legacy.image} of the old service is not here: it could not be brought back`,
            'image-missing',
            `build or pull it first, in ${legacy.directory}`,
          ),
        ]),
    ...(plan.models.by === 'copy' && plan.models.to === plan.models.from
      ? [
          problem(
            `The models volume ${plan.models.from} cannot be copied onto itself`,
            'models',
            'name another one',
          ),
        ]
      : []),
  ];
}
