// The plan, the state and the outcome in words. Pure.
import { usageError } from '../errors.ts';
import type { LegacyDescription } from '../project-schema.ts';
import { size } from './plan.ts';
import type { MigrationRecord, StoredRecord } from './run.ts';
import { describeOutcome, type NewSettings, type SettingOutcome } from './settings.ts';
import { STEPS, type StepName } from './steps.ts';

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
function describeRecord(record: MigrationRecord, interruptedAt?: string): string {
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

// One step of the plan in words: what it does, what it touches, how long, how it is undone. Pure.

interface Line {
  title: string;
  touches: string;
  /** Seconds, roughly. */
  takes: string;
  undo: string;
}

/** Bytes in a second that a disk which is not fast copies and compares. */
const SPEED = 100e6;
const about = (bytes: number, least = 1) => `about ${Math.max(least, Math.ceil(bytes / SPEED))} s`;

function modelsLine({ plan: { models } }: Subject): Line {
  const { by, from, to, reason, users } = models;
  const also = users.length > 0 ? `; ${users.join(', ')} goes on using it` : '';
  if (by === 'none')
    return { title: 'models: none', touches: reason, takes: 'no time', undo: 'nothing to undo' };
  if (by === 'reuse')
    return {
      title: `use the models volume ${to} as it is`,
      touches: `.env names it: ${reason}${also}`,
      takes: 'no time',
      undo: 'the volume is the same all the time',
    };
  return {
    title: `copy the models volume ${from} to ${to}, compare by size and hash`,
    touches: `${reason}; the old one stays${also}`,
    takes:
      models.bytes === null ? 'as long as copying takes' : `${about(models.bytes)} for ${size(models.bytes)}`,
    undo: 'the copy is removed',
  };
}

function lineOf(subject: Subject, name: StepName): Line {
  const { legacy, plan } = subject;
  const { data } = plan;
  const lines: Record<StepName, () => Line> = {
    prepare: () => ({
      title: 'make this machine ready: base image, .env',
      touches: '.env',
      takes: 'a few seconds',
      undo: '.env as it was',
    }),
    images: () => ({
      title: 'have the images: release if there is none, pull or build',
      touches: 'images, a release; the old service still answers',
      takes: 'seconds if they are here, else minutes',
      undo: 'they stay',
    }),
    stop: () => ({
      title: `stop ${legacy.service}${legacy.state === 'running' ? '' : ` (it is ${legacy.state})`}`,
      touches: `its container${legacy.network ? ` and network ${legacy.network.name}` : ''}; volumes stay`,
      takes: 'up to 10 s',
      undo: `docker compose up with its own file${legacy.isRebuilt ? ', rebuilt from the container' : ''}`,
    }),
    data: () => ({
      title: `copy the data to ${data.to} and compare`,
      touches: data.aside ? `${data.from} waits untouched as ${data.aside}` : `${data.from} stays untouched`,
      takes: about(data.bytes * 2),
      undo: 'the untouched directory is put back, owner and mode included',
    }),
    backup: () => ({
      title: 'back the data up, proven',
      touches: plan.backups,
      takes: about(data.bytes * 2, 2),
      undo: 'the archive stays',
    }),
    compose: () => ({
      title: 'set the old compose file aside',
      touches:
        plan.compose.map(({ path, deprecated }) => `${path} → ${deprecated}`).join(', ') || 'there is none',
      takes: 'no time',
      undo: 'renamed back',
    }),
    models: () => modelsLine(subject),
    settings: () => ({
      title: 'translate the settings',
      touches: 'configs/ and .env (secrets go there alone)',
      takes: 'no time',
      undo: 'files as they were',
    }),
    start: () => ({
      title: `start dev on ${plan.ports.dev} and prod on ${plan.ports.prod}`,
      touches: 'containers and network of the new project',
      takes: 'a few seconds',
      undo: 'they are removed, volumes stay',
    }),
    verify: () => ({
      title: 'verify: every database, old facts through both environments, /health',
      touches: 'nothing',
      takes: about(data.bytes),
      undo: 'nothing to undo',
    }),
    notes: () => ({
      title: 'write it into the release notes and commit what changed',
      touches: 'the notes, configs/; one commit',
      takes: 'no time',
      undo: 'files as they were, in a commit of their own',
    }),
  };
  return lines[name]();
}

export function stepTitle(record: Subject, name: StepName): string {
  return lineOf(record, name).title;
}

// What a migration came to: for people, and for --json.

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
