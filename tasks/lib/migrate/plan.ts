// From what is found to what is to be done: the plan with every path and name in it. Pure; what stands in the
// way of it is plan-problems.ts.
import type { EnvironmentName } from '../project.ts';
import type { MigrationFacts, Owner } from './plan-facts.ts';

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

export interface ModelsPlan {
  by: 'none' | 'reuse' | 'copy';
  from: string;
  to: string;
  reason: string;
  bytes: number | null;
  /** The volume it is copied to was there before. */
  existed: boolean;
  /** Containers beside the old service that use it. */
  users: string[];
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
