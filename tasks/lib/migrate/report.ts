// What a migration came to: for people, and for --json.
import { usageError } from '../errors.ts';
import { describeRecord } from './describe.ts';
import type { MigrationRecord, StoredRecord } from './record.ts';
import { describeOutcome, type SettingOutcome } from './settings.ts';
import { STEPS } from './step-names.ts';

/** The same for `--json`. */
export function migrationData(record?: MigrationRecord, interruptedAt?: { step: string; at: string }) {
  if (!record) return { state: 'none' };
  const { id, state, startedAt, endedAt, legacy, plan, steps } = record;
  const { downtimeSeconds } = steps.start?.evidence ?? {};
  return {
    state,
    id,
    startedAt,
    endedAt: endedAt ?? null,
    interruptedAt: interruptedAt ?? null,
    service: legacy.service,
    steps: Object.fromEntries(STEPS.map((name) => [name, steps[name] ?? null])),
    data: plan.data,
    models: plan.models,
    downtimeSeconds: downtimeSeconds ?? null,
  };
}

export function summary(record: MigrationRecord): string {
  const { legacy, plan, steps } = record;
  const evidence = (name: (typeof STEPS)[number]) => steps[name]?.evidence ?? {};
  const { databases, tables, rows, files, readThroughBoth, written } = evidence('verify');
  const outcomes = (evidence('settings').outcomes ?? []) as SettingOutcome[];
  const count = (outcome: string) => outcomes.filter((one) => one.outcome === outcome).length;
  const { downtimeSeconds } = evidence('start') as { downtimeSeconds?: number };
  const { archive, seconds } = evidence('backup');
  const down =
    legacy.state === 'running'
      ? `Nobody answered for ${downtimeSeconds?.toFixed(1)} s (of which backup ${seconds} s)`
      : 'There was no downtime: the old service did not run';
  return [
    `Migrated: dev http://127.0.0.1:${plan.ports.dev}  prod http://127.0.0.1:${plan.ports.prod}`,
    down,
    `Verified: ${databases} databases, ${tables} tables, ${rows} rows, ${files} other files as before; ${readThroughBoth} facts read through both`,
    ...((written as string[] | undefined)?.map((where) => `  written to since: ${where}`) ?? []),
    `Settings: ${count('carried')} carried, ${count('renamed')} renamed, ${count('dropped')} dropped`,
    ...outcomes.map((one) => `  ${describeOutcome(one)}`),
    `Backup: ${archive}`,
    `The old data waits untouched: ${plan.data.aside ?? plan.data.from}`,
    evidence('notes').commit
      ? `Committed: ${String(evidence('notes').commit).slice(0, 7)} (settings, notes); push it when you like`
      : 'Nothing had to be committed',
    'Back:   npx tsx tasks/migrate.ts --rollback',
    'Finish: npx tsx tasks/migrate.ts --finish   removes the old pieces, after the grace period',
  ].join('\n');
}

/** Where a migration stands, as a task's result. */
export function told(stored: Partial<StoredRecord> | undefined) {
  const { record, interruptedAt } = stored ?? {};
  return {
    data: migrationData(record, interruptedAt),
    text: record ? describeRecord(record, interruptedAt?.step) : 'Nothing was migrated here.',
  };
}

interface MigrateFlags {
  status: boolean;
  rollback: boolean;
  finish: boolean;
  from: string | undefined;
  'keep-new-data': boolean;
}

/** @throws TaskError (exit 2) for flags that contradict each other */
export function verifyMigrateFlags(flags: MigrateFlags): void {
  const { status, rollback, finish, from } = flags;
  const modes = [status, rollback, finish, from !== undefined].filter(Boolean);
  if (modes.length <= 1 && (rollback || !flags['keep-new-data'])) return;
  throw usageError('migrate: --status, --rollback, --finish and --from stand alone', {
    hint: '--keep-new-data goes with --rollback',
  });
}
