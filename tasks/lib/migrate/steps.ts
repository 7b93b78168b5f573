// The migration as a list of steps with one commit point: a failure before it is undone until the old service answers
// again. A rollback undoes the same list, days later if need be. The old data is never written to.

import { inspectImage } from '../docker/objects.ts';
import { dotenvPath } from '../dotenv.ts';
import { statePath } from '../files.ts';
import { formatBytes } from '../format.ts';
import { imageReference, loadProject, type Project, variable } from '../project.ts';
import type { LegacyDescription } from '../project-schema.ts';
import { newestRelease } from '../release/record.ts';
import { planSetup } from '../setup/setup.ts';
import type { Journey, Step } from '../steps.ts';
import { fetchRelease } from '../switch/checks.ts';
import { runOtherTask } from '../task.ts';
import {
  backUp,
  carryModels,
  copyData,
  displaceData,
  placeData,
  rehearse,
  removeCopy,
  removeModels,
  removeRehearsal,
} from './data.ts';
import { detectLegacy } from './detect.ts';
import {
  removeNotes,
  renameComposeFile,
  restoreComposeFile,
  undoSettings,
  writeNotes,
  writeSettings,
  writtenFiles,
} from './files.ts';
import { commitFiles, excludeFile, excludePaths, keepFile, restoreFile, untrackedPaths } from './kept.ts';
import { describedLegacy, oldPaths, planMigration } from './plan.ts';
import { type Migration, migrationSchema, readRecord, writeRecord } from './report.ts';
import { removeNew, startNew, startOld, stopOld, verifyFacts, verifyFirst } from './service.ts';
import { planNewSettings, verifyOpening } from './settings.ts';

type Act = (project: Project, data: Migration) => Promise<unknown>;
type Row = [name: string, title: string, apply: Act, undo?: Act];

export function migrationJourney({ root }: Project): Journey<Migration> {
  return {
    root,
    task: 'migrate',
    command: 'npm run migrate',
    schema: migrationSchema,
    steps: (data) => rows(data).map((row) => stepOf(root, row)),
    history: ({ legacy, rollsBack }) =>
      rollsBack ? { from: 'both', to: legacy.service } : { from: legacy.service, to: 'both' },
  };
}

/** .env changes on the way: each step reads the project anew. */
function stepOf(root: string, [name, title, apply, undo]: Row): Step<Migration> {
  const step: Step<Migration> = { name, title, apply: async (data) => apply(await loadProject(root), data) };
  if (undo) step.undo = async (data) => undo(await loadProject(root), data);
  if (name !== 'record') return step;
  const isDone = async ({ id }: Migration) => {
    const record = await readRecord(root);
    return record?.state === 'migrated' && record.data.id === id;
  };
  return { ...step, commits: true, isDone };
}

function rows({ legacy, plan }: Migration): Row[] {
  const { first, ports, data, compose } = plan;
  const other = first === 'dev' ? 'prod' : 'dev';
  const stop = `stop ${legacy.service}${legacy.state === 'running' ? '' : ` (it is ${legacy.state})`}`;
  const copy = `copy ${formatBytes(data.bytes)} of data from ${data.from}, and compare`;
  const place = data.aside
    ? `put the copy in its place; ${data.from} is kept untouched as ${data.aside}`
    : `put the copy at ${data.to}; ${data.from} is kept untouched`;
  const aside = `rename the old compose file: ${compose.map(({ deprecated }) => deprecated).join(', ')}`;
  return [
    ['prepare', 'set up this machine: base image, .env', prepare, unprepare],
    ['images', 'get the images: release if there is none, pull or build', ensureImages],
    ['rehearse', 'rehearse: start the new version on a copy of the data', rehearse, removeRehearsal],
    ['stop', stop, stopOld, startOld],
    ['copy', copy, copyData, removeCopy],
    ['place', place, placeData, displaceData],
    ['backup', 'back up and verify; count every row, hash every file', backUp],
    ['compose', aside, renameComposeFile, restoreComposeFile],
    ['models', describeModels(plan), carryModels, removeModels],
    ['settings', 'translate the settings: configs/ and .env', writeSettings, undoSettings],
    ['start', `start ${first} on ${ports[first]}`, startNew(first), removeNew],
    ['verify', `verify every table and file, and old facts through ${first}`, verifyFirst],
    ['notes', 'add it to the release notes and commit', writeNotes, removeNotes],
    ['record', 'keep what a rollback needs', ({ root }, found) => writeRecord(root, 'migrated', found)],
    [`start-${other}`, `start ${other} on ${ports[other]}`, startNew(other)],
    [`verify-${other}`, `verify old facts through ${other}`, verifyFacts(other)],
  ];
}

function describeModels({ models }: Migration['plan']): string {
  const { by, from, to, reason, users, bytes } = models;
  const also = users.length > 0 ? `; ${users.join(', ')} still uses it` : '';
  if (by === 'none') return `models: none, ${reason}`;
  if (by === 'reuse') return `use the models volume ${to} as it is: ${reason}${also}`;
  const size = bytes === null ? '' : ` (${formatBytes(bytes)})`;
  return `copy the models volume ${from}${size} to ${to} and compare: ${reason}${also}`;
}

// What can be done while the old service still answers: this machine, and the images.

async function prepare(project: Project, { legacy, plan }: Migration): Promise<void> {
  const old = oldPaths(legacy, plan.compose, describedLegacy(project).config_files);
  await excludePaths(project, await untrackedPaths(project, old));
  // The directory is still the old service's; its copy gets owner and mode.
  const setup = (await planSetup(project)).filter(({ name }) => !name.endsWith('data-directory'));
  for (const { apply } of setup) await apply(undefined);
}

/** Undone last: then everything else is as it was. */
async function unprepare(project: Project, data: Migration): Promise<void> {
  const { id, legacy, dotenv, exclude } = data;
  const { root } = project;
  await restoreFile(dotenvPath(root), dotenv, statePath(root, `env-before-rollback-${id}`));
  // As long as the old files are still excluded.
  await commitFiles(project, writtenFiles(project, data), `chore: go back to ${legacy.service}`);
  await restoreFile(await excludeFile(project), exclude, statePath(root, `exclude-before-rollback-${id}`));
  await writeRecord(root, 'rolled-back', data);
}

/** A rollback keeps the release and the images: the next run needs them. */
async function ensureImages(project: Project, data: Migration): Promise<void> {
  if (!variable(project, 'PROD_TAG') && !(await newestRelease(project)))
    await runOtherTask(project, 'release', 'auto');
  const released = await loadProject(project.root);
  const tag = variable(released, 'PROD_TAG') ?? (await newestRelease(released));
  if (tag) data.tag = tag;
  const isHere = (one: string) => inspectImage(imageReference(released, one));
  if (tag && !(await isHere(tag))) await fetchRelease(released, tag);
  if (!(await isHere('latest'))) await runOtherTask(released, 'build-push', 'latest', '--no-push');
}

/** Everything that is checked before the first step; undefined if there is no older setup. @throws TaskError */
export async function prepareMigration(
  project: Project,
  description: LegacyDescription,
  from: string | undefined,
): Promise<Migration | undefined> {
  const legacy = await detectLegacy(project, description, from);
  if (!legacy) return undefined;
  const id = new Date()
    .toISOString()
    .replace(/\D/g, '')
    .replace(/^(\d{8})(\d{6}).*/, '$1-$2');
  const plan = await planMigration(project, description, legacy, id);
  const settings = await planNewSettings(project, description, legacy);
  verifyOpening(project, legacy, settings);
  const { outcomes, files } = settings;
  return {
    ...{ id, legacy, plan, rollsBack: false, hasStarted: false, readable: {}, commit: null },
    settings: { outcomes: outcomes.map((one) => (one.isSecret ? { ...one, value: '***' } : one)), files },
    dotenv: await keepFile(dotenvPath(project.root)),
    exclude: await keepFile(await excludeFile(project)),
  };
}
