// The record of a migration, and the migration in words: plan, state, outcome, release notes.
import { basename } from 'node:path';
import { z } from 'zod';
import { inspectImage, inspectVolume } from '../docker/objects.ts';
import { TaskError } from '../errors.ts';
import { readIfPresent, statePath, writeFileAtomic } from '../files.ts';
import { duration, formatBytes } from '../format.ts';
import type { LegacyDescription } from '../project-schema.ts';
import { findEntry, insertAt } from '../release/notes.ts';
import { describeSteps, type Step } from '../steps.ts';
import { allContainers, legacySchema } from './detect.ts';
import { exists, keptFileSchema } from './kept.ts';
import { planSchema } from './plan.ts';
import { type SettingOutcome, settingOutcomeSchema } from './settings.ts';
import { comparisonSchema } from './verify.ts';

/** What was planned, and what the steps found out. */
export const migrationSchema = z.strictObject({
  /** Distinguishes what this migration sets aside from what another one did: its time, `20260131-235959`. */
  id: z.string(),
  legacy: legacySchema,
  plan: planSchema,
  settings: z.strictObject({
    outcomes: z.array(settingOutcomeSchema),
    files: z.record(z.string(), z.strictObject({ before: z.string().nullable(), after: z.string() })),
  }),
  /** .env and git's exclude file as they were. */
  dotenv: keptFileSchema,
  exclude: keptFileSchema,
  rollsBack: z.boolean(),
  /** The release that prod runs. */
  tag: z.string().optional(),
  /** ISO 8601: from then on nobody but the new service's clients can have written. */
  stoppedAt: z.string().optional(),
  backup: z.strictObject({ archive: z.string(), seconds: z.number() }).optional(),
  downtimeSeconds: z.number().optional(),
  /** The new service ran: its data may hold what is nowhere else. */
  hasStarted: z.boolean(),
  verified: comparisonSchema.optional(),
  /** Facts that were read through each environment. */
  readable: z.partialRecord(z.enum(['dev', 'prod']), z.number()),
  /** The lines in the release notes. */
  entry: z.string().optional(),
  commit: z.string().nullable(),
});

export type Migration = z.output<typeof migrationSchema>;

/** What a migration that has ended leaves for a rollback in days to come. */
const recordSchema = z.strictObject({
  state: z.enum(['migrated', 'rolled-back']),
  /** ISO 8601, UTC. */
  at: z.string(),
  data: migrationSchema,
});

export type MigrationRecord = z.output<typeof recordSchema>;

const recordPath = (root: string) => statePath(root, 'migration.json');

/** @throws TaskError if there is one that cannot be read */
export async function readRecord(root: string): Promise<MigrationRecord | undefined> {
  const path = recordPath(root);
  const text = await readIfPresent(path);
  if (text === undefined) return undefined;
  try {
    return recordSchema.parse(JSON.parse(text));
  } catch (cause) {
    throw new TaskError(`Cannot read the record of the migration: ${path} has another format`, {
      code: 'record-unreadable',
      hint: `the old data is beside the new one, as *.before-migration-*; to forget the migration: rm ${path}`,
      cause,
    });
  }
}

export async function writeRecord(
  root: string,
  state: MigrationRecord['state'],
  data: Migration,
): Promise<void> {
  const record = { state, at: new Date().toISOString(), data };
  await writeFileAtomic(recordPath(root), `${JSON.stringify(record, null, 2)}\n`, { mode: 0o600 });
}

// In words.

/** The whole plan; `steps` is the list that runs. */
export function describePlan({ legacy, settings }: Migration, steps: readonly Step<Migration>[]): string {
  const { source, path } = legacy.data;
  const titles = describeSteps(steps).map((title, index) => `${String(index + 1).padStart(4)}. ${title}`);
  return [
    `Migrate from ${legacy.service}, found by: ${legacy.evidence.join(', ')}`,
    `  ${legacy.state}, image ${legacy.image}, port ${legacy.ports.join(', ')}, data ${source}${source === path ? '' : ` → ${path}`}`,
    `  compose file: ${legacy.composeFiles.join(', ')}`,
    ...legacy.readOnlyMounts.map((mount) => `  read-only mount, not carried over: ${mount}`),
    'Steps:',
    ...titles,
    'A failure before the rollback record is kept is rolled back until the old service answers.',
    'Settings:',
    ...settings.outcomes.map((one) => `  ${describeOutcome(one)}`),
  ].join('\n');
}

export function nothingFound({ service, places }: LegacyDescription): string {
  return `Nothing to migrate: no container and no compose file of ${service} (looked in ${places.join(', ')}).`;
}

/** One line a setting; secrets by name only. */
function describeOutcome({ key, origin, outcome, reason, to, isSecret, value }: SettingOutcome): string {
  if (outcome === 'dropped') return `dropped  ${key} (${origin}): ${reason}`;
  return `${outcome.padEnd(7)}  ${key} (${origin}) → ${to} = ${isSecret ? '***' : JSON.stringify(value)}`;
}

export function describeMigrated({ legacy, plan, settings, ...data }: Migration): string {
  const { verified, readable, backup } = data;
  const count = (outcome: string) => settings.outcomes.filter((one) => one.outcome === outcome).length;
  const down =
    data.downtimeSeconds === undefined
      ? 'Downtime: none, the old service was not running'
      : `Downtime: ${duration(data.downtimeSeconds)} (backup ${duration(backup?.seconds ?? 0)})`;
  const facts = Object.entries(readable).map(([name, rows]) => `${rows} facts read through ${name}`);
  return [
    `Migrated: dev http://127.0.0.1:${plan.ports.dev}  prod http://127.0.0.1:${plan.ports.prod}`,
    down,
    `Verified: ${verified?.databases} databases, ${verified?.tables} tables, ${verified?.rows} rows, ${verified?.files} other files as before; ${facts.join(', ')}`,
    ...(verified?.written ?? []).map((where) => `  written to since: ${where}`),
    `Settings: ${count('carried')} carried, ${count('renamed')} renamed, ${count('dropped')} dropped`,
    ...settings.outcomes.map((one) => `  ${describeOutcome(one)}`),
    `Backup: ${backup?.archive}`,
    `Old data, kept untouched: ${plan.data.aside ?? plan.data.from}`,
    data.commit ? `Committed: ${data.commit.slice(0, 7)} (settings, notes); not pushed` : 'Nothing to commit',
    'Roll back: npm run migrate -- --rollback',
    `Clean up later: npm run migrate -- --status   prints the commands that remove ${legacy.service}`,
  ].join('\n');
}

/** For `--json`. */
export function migrationData(state: string, { id, legacy, plan, settings, ...data }: Migration) {
  const isDown = legacy.state !== 'running';
  const { downtimeSeconds = isDown ? 0 : null, backup, verified, readable, commit, tag = null } = data;
  const outcomes = settings.outcomes.map((one) => (one.isSecret ? { ...one, value: '***' } : one));
  return {
    ...{ state, id, service: legacy.service, data: plan.data, models: plan.models, settings: outcomes },
    ...{ tag, downtimeSeconds, backup: backup ?? null, verified: verified ?? null, readable, commit },
  };
}

/** The state, and what can be done next. */
export async function describeRecord({ state, at, data }: MigrationRecord): Promise<string> {
  const { legacy, plan } = data;
  const isKept = await exists(plan.data.kept);
  if (state === 'rolled-back') {
    return [
      `Rolled back at ${at}: ${legacy.service} runs as before`,
      ...(isKept ? [`What the new service wrote is kept: ${plan.data.kept}`] : []),
      'Migrate again: npm run migrate',
    ].join('\n');
  }
  const leftovers = await legacyLeftovers(data);
  return [
    `Migrated from ${legacy.service} at ${at}`,
    `Old data: ${plan.data.aside ?? plan.data.from}`,
    'Roll back: npm run migrate -- --rollback',
    ...(leftovers.length > 0
      ? ['Remove what is left of it (no rollback after that):', ...leftovers.map((line) => `  ${line}`)]
      : []),
  ].join('\n');
}

/** The commands that remove what is still there of the older setup and of no use to anybody. */
async function legacyLeftovers({ legacy, plan }: Migration): Promise<string[]> {
  const { aside, from } = plan.data;
  const containers = await allContainers();
  const isUsed = containers.some(({ image }) => image === legacy.image);
  const volume = plan.models.by === 'copy' ? plan.models.from : '';
  const isMounted = containers.some(({ mounts }) => mounts.some(({ source }) => source === volume));
  return [
    ...((await exists(aside ?? from)) ? [`rm -rf ${aside ?? from}`] : []),
    ...(!isUsed && (await inspectImage(legacy.image)) ? [`docker image rm ${legacy.image}`] : []),
    ...(volume && !isMounted && (await inspectVolume(volume)) ? [`docker volume rm ${volume}`] : []),
  ];
}

/** What a rollback does, before it is asked for. */
export function describeRollback({ legacy, plan, downtimeSeconds }: Migration): string {
  const { service, state } = legacy;
  const measured = downtimeSeconds === undefined ? '' : ` (the migration: ${duration(downtimeSeconds)})`;
  return [
    `Roll back to ${service}, with its data as it was at the migration:`,
    state === 'running'
      ? `  downtime: a few seconds, until ${service} answers${measured}`
      : `  downtime: dev and prod stop, and ${service} is ${state} as before`,
    `  what was written since then is not in the old data; it is kept as ${plan.data.kept}`,
  ].join('\n');
}

/** @throws TaskError naming everything that a rollback needs and that is gone; nothing was changed then */
export async function verifyRollback({ legacy, plan, backup }: Migration): Promise<void> {
  const old = plan.data.aside ?? legacy.data.path;
  const isGone = async (path: string) => !(await exists(path));
  const missing = [
    (await isGone(old)) && `the old data ${old}`,
    ...(await Promise.all(
      plan.compose.map(
        async ({ path, deprecated }) =>
          (await isGone(path)) && (await isGone(deprecated)) && `the old compose file ${deprecated}`,
      ),
    )),
    legacy.state !== 'absent' && !(await inspectImage(legacy.image)) && `the old image ${legacy.image}`,
    legacy.models !== null && !(await inspectVolume(legacy.models)) && `the models volume ${legacy.models}`,
  ].filter((what) => what !== false);
  if (missing.length === 0) return;
  throw new TaskError(
    `Cannot roll back to the old service; nothing was changed. Missing: ${missing.join('; ')}`,
    {
      code: 'old-pieces-gone',
      hint: `the old data is in the backup ${backup?.archive ?? '(none was made)'}`,
    },
  );
}

// The migration in the release notes: a section of its own below the release that it brought, so that later releases still
// come first. Anybody may read the notes: no paths of this machine. Pure.

export function migrationEntry({ id, legacy, plan, settings, backup }: Migration): string {
  const keys = (outcome: SettingOutcome['outcome']) =>
    settings.outcomes
      .filter((one) => one.outcome === outcome)
      .map(({ key }) => `\`${key}\``)
      .join(', ') || 'none';
  const { by, to } = plan.models;
  const how = by === 'reuse' ? 'the old one, used as it is' : 'a copy, compared file by file';
  return [
    `## Migrated from ${legacy.service} (${id.replace(/^(\d{4})(\d\d)(\d\d).*/, '$1-$2-$3')})`,
    '',
    `- \`${legacy.service}\` on port ${legacy.ports.join(', ')} is replaced by dev on ${plan.ports.dev} and prod on ${plan.ports.prod}`,
    `- Data: ${formatBytes(plan.data.bytes)}, copied and compared; the old directory is kept untouched`,
    ...(by === 'none' ? [] : [`- Models: volume \`${to}\` (${how})`]),
    `- Settings: carried ${keys('carried')}; renamed ${keys('renamed')}; dropped ${keys('dropped')}`,
    `- Old compose file: now ${plan.compose.map(({ deprecated }) => `\`${basename(deprecated)}\``).join(', ')}`,
    `- Backup: \`${basename(backup?.archive ?? 'none')}\``,
    '- Roll back: `npm run migrate -- --rollback`',
  ].join('\n');
}

/** The notes with the entry at the end of what is said of `tag`; a file that has it is left as it is. */
export function withEntry(text: string, tag: string | undefined, entry: string): string {
  const [heading = ''] = entry.split('\n', 1);
  if (text.split(/\r?\n/).includes(heading)) return text;
  const release = tag === undefined ? undefined : findEntry(text, tag);
  if (!release) return insertAt(text, text.length, entry);
  // The end of an entry is the end of its last line; what is inserted begins a line of its own.
  const end = text.indexOf('\n', release.end);
  return insertAt(text, end < 0 ? text.length : end + 1, entry);
}

/** The notes without it: the very bytes from before, unless somebody has edited it. */
export function withoutEntry(text: string, entry: string): string {
  const lineEnd = text.includes('\r\n') ? '\r\n' : '\n';
  const lines = entry.replaceAll('\n', lineEnd) + lineEnd;
  const at = text.indexOf(lines);
  if (at < 0) return text;
  const before = text.slice(0, at);
  return (
    (before.endsWith(lineEnd + lineEnd) ? before.slice(0, -lineEnd.length) : before) +
    text.slice(at + lines.length)
  );
}
