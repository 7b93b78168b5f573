// From what is found to what is to be done: the plan with every path and name in it. Pure; what stands in the
// way of it is plan-problems.ts.

import { overlaps } from '../docker/network.ts';
import { combinedError, TaskError, usageError } from '../errors.ts';
import { workTree } from '../git.ts';
import type { EnvironmentName, Project } from '../project.ts';
import type { LegacyDescription } from '../project-schema.ts';
import { workTreeProblems } from '../release/preflight.ts';
import {
  detectLegacy,
  type Legacy,
  type MigrationFacts,
  type ModelsPlan,
  type Owner,
  surveyMigration,
} from './detect.ts';
import { type NewSettings, planNewSettings } from './settings.ts';
import { oldPaths, strangers } from './steps.ts';

export interface DataPlan {
  /** Where the old service has its data; links resolved. */
  from: string;
  /** Where the new one will have it. */
  to: string;
  /** The copy while it is made. */
  copy: string;
  /** Where the old data waits untouched; null: it stays where it is. */
  aside: string | null;
  /** Where what the new service wrote goes at a rollback. */
  kept: string;
  owner: Owner;
  /** The empty directory that is where the new data goes; null: nothing is. */
  emptyTarget: Owner | null;
  bytes: number;
}

export interface MigrationPlan {
  id: string;
  data: DataPlan;
  compose: { path: string; deprecated: string }[];
  models: ModelsPlan;
  ports: Record<EnvironmentName, number>;
  /** The old service answered before. */
  answered: boolean;
  oldUrl: string;
  backups: string;
}

const time = (now: Date) =>
  now
    .toISOString()
    .replace(/\D/g, '')
    .slice(0, 14)
    .replace(/^(\d{8})/, '$1-');

export function planMigration(facts: MigrationFacts): MigrationPlan {
  const { legacy, target, now } = facts;
  const id = time(now);
  const from = legacy.data.path;
  const to = target.path;
  return {
    id,
    data: {
      from,
      to,
      copy: `${to}.migrating`,
      aside: from === to ? `${from}.before-migration-${id}` : null,
      kept: `${to}.migrated-${id}`,
      owner: facts.data.owner,
      emptyTarget: from === to ? null : target.owner,
      bytes: facts.data.bytes,
    },
    compose: legacy.isRebuilt
      ? []
      : legacy.composeFiles.map((path) => ({ path, deprecated: `${path}.deprecated` })),
    models: planModels(facts),
    ports: { dev: facts.ports.dev.port, prod: facts.ports.prod.port },
    answered: facts.answered,
    oldUrl: `http://127.0.0.1:${legacy.ports[0]}${facts.healthPath}`,
    backups: facts.backups,
  };
}

function planModels({ models }: MigrationFacts): ModelsPlan {
  const { old, wanted, bytes, users } = models;
  const plan = (by: ModelsPlan['by'], to: string, reason: string): ModelsPlan => ({
    by,
    from: old?.name ?? '',
    to,
    reason,
    bytes,
    existed: models.exists,
    users,
  });
  if (!old) return plan('none', wanted, 'the old service has no models volume');
  if (old.name === wanted) return plan('reuse', wanted, 'it is the very volume that the new service uses');
  const why = !models.canReuse
    ? 'the new compose file cannot name another volume'
    : old.driver !== 'local'
      ? `its driver is ${old.driver}`
      : old.labels['com.docker.compose.config-hash']
        ? 'this compose would want to make it anew for another project'
        : models.unreadable > 0
          ? `the new containers' user may not read ${models.unreadable} of its files`
          : undefined;
  return why ? plan('copy', wanted, why) : plan('reuse', old.name, 'the engine lets the new service use it');
}

// Everything that stands in the way of a migration, found before anything is touched, each with its remedy. Pure.

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

// From the command line to a plan that can be confirmed: find, understand, look at everything, refuse or go.

interface Prepared {
  legacy: Legacy;
  plan: MigrationPlan;
  settings: NewSettings;
}

/** @throws TaskError (exit 2) if release.toml describes no older setup */
export function describedLegacy(project: Project): LegacyDescription {
  if (project.migrate) return project.migrate;
  throw usageError('configs/release.toml has no [migrate]: there is no older setup to come from', {
    code: 'config-invalid',
  });
}

/** The whole plan, or undefined when there is no older setup. @throws TaskError with every problem found */
export async function prepareMigration(
  project: Project,
  description: LegacyDescription,
  from?: string,
): Promise<Prepared | undefined> {
  const legacy = await detectLegacy(project, description, from);
  if (!legacy) return undefined;
  const facts = await surveyMigration(project, description, legacy);
  const plan = planMigration(facts);
  const problems = [
    ...planProblems(facts, plan),
    ...(await treeProblems(project, description, { legacy, plan })),
  ];
  const settings = await planNewSettings(project, description, legacy);
  if (problems.length > 0) {
    throw combinedError('Cannot migrate; nothing was changed:', problems, { code: problems[0]!.code });
  }
  return { legacy, plan, settings };
}

/** The repository must be fit for a release, and for a commit of what changes; the old files do not count. */
async function treeProblems(
  project: Project,
  description: LegacyDescription,
  subject: { legacy: Legacy; plan: MigrationPlan },
): Promise<TaskError[]> {
  const tree = await workTree(project.root);
  const old = await strangers(project, oldPaths(subject, description.config_files));
  const changes = tree.changes.filter(
    (path) => !old.some((one) => one === path || (path.endsWith('/') && one.startsWith(path))),
  );
  return workTreeProblems(project, { ...tree, changes }).map(
    (one) =>
      new TaskError(one.message.replace('Cannot release', 'Cannot commit the new settings'), {
        code: one.code,
        hint: one.hint,
      }),
  );
}
