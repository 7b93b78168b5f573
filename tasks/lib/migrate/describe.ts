// The plan, the state and the outcome in words. Pure.

import type { LegacyDescription } from '../migrate-schema.ts';
import { lineOf, stepTitle } from './describe-steps.ts';
import type { NewSettings } from './new-settings.ts';
import type { MigrationRecord } from './record.ts';
import { describeOutcome } from './settings.ts';
import { STEPS } from './step-names.ts';

type Subject = Pick<MigrationRecord, 'legacy' | 'plan'>;

export function describePlan(subject: Subject, settings: NewSettings): string {
  const { legacy } = subject;
  const steps = STEPS.map((name, index) => {
    const { title, touches, takes, undo } = lineOf(subject, name);
    return `${String(index + 1).padStart(3)}. ${title}\n       touches: ${touches}\n       takes: ${takes} · undone: ${undo}`;
  });
  const ignored =
    legacy.readOnlyMounts.length > 0
      ? [`  read-only mounts, not carried: ${legacy.readOnlyMounts.join(', ')}`]
      : [];
  return [
    `Migrate from ${legacy.service}, found by ${legacy.evidence.join(', ')}`,
    `  ${legacy.state}, image ${legacy.image}, port ${legacy.ports.join(', ')}, data ${legacy.data.source}${legacy.data.source === legacy.data.path ? '' : ` → ${legacy.data.path}`}`,
    `  compose file: ${legacy.isRebuilt ? 'missing; it is rebuilt from the container' : legacy.composeFiles.join(', ')}`,
    ...ignored,
    'Steps:',
    ...steps,
    'Settings:',
    ...(settings.outcomes.length > 0
      ? settings.outcomes.map((one) => `  ${describeOutcome(one)}`)
      : ['  none']),
  ].join('\n');
}

/** What stands where, for --status. */
export function describeRecord(record: MigrationRecord, interruptedAt?: string): string {
  const states: Record<MigrationRecord['state'], string> = {
    migrating: `The migration of ${record.startedAt} is not finished`,
    migrated: `Migrated since ${record.endedAt}`,
    'rolling-back': 'A rollback is not finished',
    'rolled-back': `Rolled back at ${record.endedAt}: ${record.legacy.service} runs as before`,
    finishing: 'The old pieces are being removed',
    finished: `Migrated; the old pieces were removed at ${record.endedAt}`,
  };
  const isUnderWay = record.state === 'migrating' || record.state === 'rolling-back';
  const steps = STEPS.map((name) => {
    const state = record.steps[name]?.state;
    return `  ${state === 'done' ? '✓' : state ? '…' : ' '} ${stepTitle(record, name)}`;
  });
  return [
    `${states[record.state]}${interruptedAt ? `; the last thing noted: ${interruptedAt}` : ''}`,
    ...(isUnderWay ? [...steps, ...ways(record)] : ways(record)),
  ].join('\n');
}

function ways({ state, plan, legacy }: MigrationRecord): string[] {
  const old = `the old data: ${plan.data.aside ?? legacy.data.path}`;
  if (state === 'migrating')
    return ['go on: npx tsx tasks/migrate.ts', 'go back: npx tsx tasks/migrate.ts --rollback'];
  if (state === 'rolling-back') return ['go on: npx tsx tasks/migrate.ts --rollback'];
  if (state === 'migrated')
    return [
      old,
      'go back: npx tsx tasks/migrate.ts --rollback',
      'remove the old pieces: npx tsx tasks/migrate.ts --finish',
    ];
  return [];
}

export function nothingFound({ service, places }: LegacyDescription): string {
  return `Nothing to migrate: no container and no compose file of ${service} (looked in ${places.join(', ')}).`;
}
