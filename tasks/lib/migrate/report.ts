// The record of a migration, and the migration in words: plan, state, outcome, release notes.
import { basename } from 'node:path';
import { z } from 'zod';
import { containerIds, inspectImage, inspectVolume } from '../docker/objects.ts';
import { TaskError } from '../errors.ts';
import { readIfPresent, statePath, writeFileAtomic } from '../files.ts';
import { duration, formatBytes } from '../format.ts';
import { findEntry, insertAt } from '../release/notes.ts';
import { describeSteps, type Step } from '../steps.ts';
import { allContainers, exists } from './detect.ts';
import { deprecated, type Migration, migrationSchema } from './plan.ts';
import type { Setting } from './settings.ts';

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

const oldData = ({ data }: Migration) => data.aside ?? data.from;

/** The whole plan; `steps` is the list that runs. */
export function describePlan({ legacy, settings }: Migration, steps: readonly Step<Migration>[]): string {
  const titles = describeSteps(steps).map((title, index) => `${String(index + 1).padStart(4)}. ${title}`);
  return [
    `Migrate from ${legacy.service}: the ${legacy.isRunning ? 'running' : 'stopped'} container ${legacy.container}`,
    `  image ${legacy.image}, port ${legacy.ports.join(', ')}, data ${legacy.data}`,
    `  compose file: ${legacy.composeFiles.join(', ')}`,
    ...legacy.readOnlyMounts.map((mount) => `  read-only mount, not carried over: ${mount}`),
    'Steps:',
    ...titles,
    'If a step before "keep what a rollback needs" fails, everything is rolled back.',
    'Settings:',
    ...settings.map(describeSetting),
  ].join('\n');
}

export function nothingFound(service: string): string {
  return `Nothing to migrate: this engine has no container of ${service}. If docker compose down has removed it, create it again: docker compose --file FILE up --no-start`;
}

/** One line a setting; secrets by name only. */
function describeSetting({ key, origin, outcome, reason, path, variable, isSecret, value }: Setting): string {
  if (outcome === 'dropped') return `  dropped  ${key} (${origin}): ${reason}`;
  const to = variable ? `.env: ${variable}` : `synapse.json: ${path}`;
  return `  ${outcome.padEnd(7)}  ${key} (${origin}) → ${to} = ${isSecret ? '***' : JSON.stringify(value)}`;
}

export function describeMigrated(data: Migration): string {
  const { verified, readable, backup, ports } = data;
  const down =
    data.downtimeSeconds === undefined
      ? 'none, the old service was not running'
      : `${duration(data.downtimeSeconds)} (backup ${duration(backup?.seconds ?? 0)})`;
  const facts = Object.entries(readable).map(([name, rows]) => `${rows} facts read through ${name}`);
  return [
    `Migrated: dev http://127.0.0.1:${ports.dev}  prod http://127.0.0.1:${ports.prod}`,
    `Downtime: ${down}`,
    `Verified: ${verified?.databases} databases, ${verified?.tables} tables, ${verified?.rows} rows, ${verified?.files} other files as before; ${facts.join(', ')}`,
    ...(verified?.written ?? []).map((where) => `  written to since: ${where}`),
    `Backup: ${backup?.archive}`,
    `Old data, kept untouched: ${oldData(data)}`,
    data.commit ? `Committed: ${data.commit.slice(0, 7)} (settings, notes); not pushed` : 'Nothing to commit',
    'Roll back: npm run migrate -- --rollback',
    'Clean up later: npm run migrate -- --status   prints the commands that remove the old setup',
  ].join('\n');
}

/** For `--json`. */
export function migrationData(state: string, migration: Migration) {
  const { id, legacy, data, models, settings, verified, readable, commit, tag = null } = migration;
  const { downtimeSeconds = legacy.isRunning ? null : 0, backup = null } = migration;
  return {
    ...{ state, id, service: legacy.service, data, models, settings, tag, downtimeSeconds, backup },
    ...{ verified: verified ?? null, readable, commit },
  };
}

/** The state, and what can be done next. */
export async function describeRecord({ state, at, data }: MigrationRecord): Promise<string> {
  const { service } = data.legacy;
  if (state === 'rolled-back') {
    const isKept = await exists(data.data.kept);
    return [
      `Rolled back at ${at}: ${service} is back as it was`,
      ...(isKept ? [`What the new service wrote is kept: ${data.data.kept}`] : []),
      'Migrate again: npm run migrate',
    ].join('\n');
  }
  const commands = await cleanupCommands(data);
  return [
    `Migrated from ${service} at ${at}`,
    `Old data: ${oldData(data)}`,
    'Roll back: npm run migrate -- --rollback',
    ...(commands.length > 0 ? ['Remove what is left of it (no rollback after that):'] : []),
    ...commands.map((line) => `  ${line}`),
  ].join('\n');
}

/** What removes what is still there of the older setup and of no use to anybody. */
async function cleanupCommands(migration: Migration): Promise<string[]> {
  const { legacy, models } = migration;
  const containers = await allContainers();
  const isUsed = containers.some(({ image }) => image === legacy.image);
  const volume = models?.copied ? await inspectVolume(models.from) : undefined;
  const users = volume ? await containerIds({ volume: [volume.name] }) : [];
  return [
    ...((await exists(oldData(migration))) ? [`rm -rf ${oldData(migration)}`] : []),
    ...(!isUsed && (await inspectImage(legacy.image)) ? [`docker image rm ${legacy.image}`] : []),
    ...(volume && users.length === 0 ? [`docker volume rm ${volume.name}`] : []),
  ];
}

/** What a rollback does, before it is asked for. */
export function describeRollback({ legacy, data, downtimeSeconds }: Migration): string {
  const { service, isRunning } = legacy;
  const measured = downtimeSeconds === undefined ? '' : ` (the migration: ${duration(downtimeSeconds)})`;
  return [
    `Roll back to ${service}, with its data as it was at the migration:`,
    isRunning
      ? `  downtime: a few seconds, until ${service} answers${measured}`
      : `  downtime: dev and prod stop, and ${service} is stopped as before`,
    `  what was written since then is not in the old data; it is kept as ${data.kept}`,
  ].join('\n');
}

/** @throws TaskError naming everything that a rollback needs and that is gone; nothing was changed then */
export async function verifyRollback(migration: Migration): Promise<void> {
  const { legacy, backup } = migration;
  const missing: string[] = [];
  if (!(await exists(oldData(migration)))) missing.push(`the old data ${oldData(migration)}`);
  for (const path of legacy.composeFiles)
    if (!(await exists(path)) && !(await exists(deprecated(path))))
      missing.push(`the old compose file ${deprecated(path)}`);
  if (!(await inspectImage(legacy.image))) missing.push(`the old image ${legacy.image}`);
  if (legacy.models !== null && !(await inspectVolume(legacy.models)))
    missing.push(`the models volume ${legacy.models}`);
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

export function migrationEntry({ id, legacy, ports, data, models, settings, backup }: Migration): string {
  const keys = (outcome: Setting['outcome']) =>
    settings.flatMap((one) => (one.outcome === outcome ? [`\`${one.key}\``] : [])).join(', ') || 'none';
  const how = models?.copied ? 'a copy, compared file by file' : 'the old one, used as it is';
  return [
    `## Migrated from ${legacy.service} (${id.replace(/^(\d{4})(\d\d)(\d\d).*/, '$1-$2-$3')})`,
    '',
    `- \`${legacy.service}\` on port ${legacy.ports.join(', ')} is replaced by dev on ${ports.dev} and prod on ${ports.prod}`,
    `- Data: ${formatBytes(data.bytes)}, copied and compared; the old directory is kept untouched`,
    ...(models ? [`- Models: volume \`${models.to}\` (${how})`] : []),
    `- Settings: carried ${keys('carried')}; renamed ${keys('renamed')}; dropped ${keys('dropped')}`,
    `- Old compose file: now ${legacy.composeFiles.map((path) => `\`${basename(deprecated(path))}\``).join(', ')}`,
    `- Backup: \`${basename(backup?.archive ?? 'none')}\``,
    '- Roll back: `npm run migrate -- --rollback`',
  ].join('\n');
}

/** The notes with the entry at the end of what is said of `tag`; a file that has it is left as it is. */
export function withEntry(text: string, tag: string | undefined, entry: string): string {
  const [heading = ''] = entry.split('\n', 1);
  if (text.split(/\r?\n/).includes(heading)) return text;
  const release = tag === undefined ? undefined : findEntry(text, tag);
  // The end of an entry is the end of its last line; what is inserted begins a line of its own.
  const end = release ? text.indexOf('\n', release.end) : -1;
  return insertAt(text, end < 0 ? text.length : end + 1, entry);
}

/** The notes without it: the very bytes from before, unless somebody has edited it. */
export function withoutEntry(text: string, entry: string): string {
  const lineEnd = text.includes('\r\n') ? '\r\n' : '\n';
  const lines = entry.replaceAll('\n', lineEnd) + lineEnd;
  const at = text.indexOf(lines);
  if (at < 0) return text;
  const before = text.slice(0, at);
  const isSetOff = before.endsWith(lineEnd + lineEnd);
  return before.slice(0, isSetOff ? -lineEnd.length : undefined) + text.slice(at + lines.length);
}
