// The migration as a list of steps with one commit point: a failure before it is undone until the old service answers
// again. A rollback undoes the same list, days later if need be. The old data is never written to: it is set aside as it
// is, and the new service works on a copy that was compared with it.
import { join, relative } from 'node:path';
import { performBackup } from '../backup/create.ts';
import { backupDirectory } from '../backup/places.ts';
import { read, run } from '../command.ts';
import { tryCandidate } from '../docker/candidate.ts';
import { docker } from '../docker/engine.ts';
import { queryHealth } from '../docker/health.ts';
import {
  containerIds,
  inspectContainers,
  inspectVolume,
  lastLogLines,
  listNetworks,
  projectContainers,
} from '../docker/objects.ts';
import { dotenvPath, updateDotenv } from '../dotenv.ts';
import { CommandError, errorSummary, TaskError } from '../errors.ts';
import { readIfPresent, statePath, writeFileAtomic } from '../files.ts';
import { formatBytes } from '../format.ts';
import { git } from '../git.ts';
import { log } from '../log.ts';
import {
  type EnvironmentName,
  imageReference,
  loadProject,
  type Project,
  variable,
  variableName,
} from '../project.ts';
import { releaseIdentity } from '../release/git-write.ts';
import { newestRelease, versionOfTag } from '../release/record.ts';
import { waitUntil } from '../session.ts';
import type { Journey, Step } from '../steps.ts';
import { ensureImages } from '../switch/checks.ts';
import { resumeSwitch } from '../switch/run.ts';
import { runOtherTask } from '../task.ts';
import { describedLegacy, detectLegacy, exists, legacyCommand, projectOf } from './detect.ts';
import { deprecated, type Migration, migrationSchema } from './plan.ts';
import { migrationEntry, readRecord, withEntry, withoutEntry, writeRecord } from './report.ts';
import { planSettings } from './settings.ts';
import {
  containerUser,
  copyFor,
  type Inventory,
  takeInventory,
  verifyData,
  verifyReadable,
} from './verify.ts';

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

function rows({ legacy, data, models, first, ports }: Migration): Row[] {
  const other = first === 'dev' ? 'prod' : 'dev';
  const stop = `stop ${legacy.service}${legacy.isRunning ? '' : ' (it is stopped)'}`;
  const copy = `copy ${formatBytes(data.bytes)} of data from ${data.from}, and compare`;
  const place = `put the copy at ${data.to}; the old data is kept untouched at ${data.aside ?? data.from}`;
  const files = legacy.composeFiles.map(deprecated).join(', ');
  const commit = `rename the old compose file to ${files}, add the migration to the release notes, commit`;
  return [
    ['images', 'get the images: release if there is none, pull or build', getImages],
    ['settings', 'translate the settings: configs/ and .env', writeSettings, undoSettings],
    [
      'rehearse',
      'rehearse: start the new version on a copy of the data',
      rehearse,
      () => remove(data.rehearsal),
    ],
    ['stop', stop, stopOld, startOld],
    ['copy', copy, copyData, () => remove(data.copy)],
    ['place', place, placeData, displaceData],
    ['backup', 'back up and verify; count every row, hash every file', backUp],
    // After the backup, which would hold them.
    ['models', describeModels(models), carryModels, removeModels],
    ['start', `start ${first} on ${ports[first]}`, startNew(first), removeNew],
    ['verify', `verify every table and file, and old facts through ${first}`, verify(first)],
    ['commit', commit, writeNotes, removeNotes],
    ['record', 'keep what a rollback needs', ({ root }, found) => writeRecord(root, 'migrated', found)],
    [`start-${other}`, `start ${other} on ${ports[other]}`, startNew(other)],
    [`verify-${other}`, `verify old facts through ${other}`, verify(other)],
  ];
}

function describeModels(models: Migration['models']): string {
  if (!models) return 'models: the old service has no models volume';
  const { from, to, copied, bytes } = models;
  if (!copied) return `use the models volume ${to} as it is`;
  return `copy the models volume ${from} (${formatBytes(bytes)}) to ${to}, and compare: ${copied}`;
}

// While the old service still answers: images, settings, a rehearsal.

/** A rollback keeps the release and the images: the next run needs them. */
async function getImages(project: Project, data: Migration): Promise<void> {
  if (!variable(project, 'PROD_TAG') && !(await newestRelease(project)))
    await runOtherTask(project, 'release', 'auto');
  const tag = await ensureImages(await loadProject(project.root));
  if (tag) data.tag = tag;
}

const keptDotenv = (root: string, { id }: Migration) => statePath(root, `env-before-migration-${id}`);

/** The secrets are read again from the old container: no journal holds them. */
async function writeSettings(project: Project, data: Migration): Promise<void> {
  const { root } = project;
  const [env, kept] = [dotenvPath(root), keptDotenv(root, data)];
  if (!(await exists(kept))) await writeFileAtomic(kept, (await readIfPresent(env)) ?? '', { mode: 0o600 });
  const found = await detectLegacy(project);
  if (!found) throw new TaskError(`The container ${data.legacy.container} is gone`, { code: 'old-gone' });
  const { variables } = await planSettings(project, found.legacy, found.variables);
  if (data.config) await writeFileAtomic(join(root, data.config.path), data.config.after);
  await updateDotenv(root, variables);
}

/** Undone last: then everything else is as it was. */
async function undoSettings(project: Project, data: Migration): Promise<void> {
  const { root } = project;
  const { config, legacy, id } = data;
  const [env, kept] = [dotenvPath(root), keptDotenv(root, data)];
  if (config) {
    const path = join(root, config.path);
    const now = await readIfPresent(path);
    if (now === config.after) await writeFileAtomic(path, config.before);
    else if (now !== config.before) log.warn(`${config.path} was edited since: it is left as it is`);
  }
  if (await exists(kept)) {
    await run(['cp', '-p', '--', env, statePath(root, `env-before-rollback-${id}`)]);
    await run(['mv', '--', kept, env]);
  }
  await commitFiles(project, data, `chore: go back to ${legacy.service}`);
  await writeRecord(root, 'rolled-back', data);
}

const remove = (path: string) => run(['rm', '-rf', '--', path]);

async function rehearse(project: Project, { tag, data }: Migration): Promise<void> {
  if (!tag) return;
  await remove(data.rehearsal);
  await run(['mkdir', '-m', '0700', '--', data.rehearsal]);
  await copyFor(project, data.from, data.rehearsal);
  const expected = { env: 'prod', version: versionOfTag(project, tag) };
  try {
    await tryCandidate(project, { image: imageReference(project, tag), expected, data: data.rehearsal });
  } catch (error) {
    if (!(error instanceof TaskError) || error.code === 'interrupted') throw error;
    throw new TaskError(`The new version does not start on a copy of the data: ${error.message}`, {
      code: 'rehearsal-failed',
      hint: 'the old service was not stopped; fix the new version, release it, then migrate again',
      cause: error,
    });
  }
  await remove(data.rehearsal);
}

// The old service, which must answer again if anything goes wrong.

/** For how long a service that answered before may take to answer again. */
const ANSWER_SECONDS = 60;

async function oldContainers({ legacy }: Migration) {
  const labels = { project: legacy.project, service: legacy.service };
  const label = Object.entries(labels).map(([name, value]) => `com.docker.compose.${name}=${value}`);
  return inspectContainers(await containerIds({ label }));
}

async function stopOld(_project: Project, data: Migration): Promise<void> {
  data.stoppedAt = new Date().toISOString();
  // Never with volumes: they hold what is carried over.
  await run(legacyCommand(data.legacy, 'down'));
  const left = await oldContainers(data);
  if (left.length > 0)
    throw new TaskError(`The old service did not stop: ${left.map(({ name }) => name).join(', ')}`);
}

async function startOld(_project: Project, data: Migration): Promise<void> {
  const { legacy, oldUrl, answered } = data;
  const how = [legacy.isRunning ? '--detach' : '--no-start', '--no-build', '--pull', 'never'];
  await run(legacyCommand(legacy, 'up', ...how, legacy.service));
  if (!legacy.isRunning || log.withhold(`wait until ${oldUrl} answers`)) return;
  const answers = await waitUntil(
    async () => {
      const [container] = await oldContainers(data);
      if (container && container.state !== 'running') return false;
      return (container && (!answered || (await queryHealth(oldUrl)).status === 200)) || undefined;
    },
    { withinMs: ANSWER_SECONDS * 1000, everyMs: 200 },
  );
  if (answers) return;
  const [container] = await oldContainers(data);
  const logs = container ? await lastLogLines(container.id) : 'it has no container';
  throw new TaskError(`The old service does not answer at ${oldUrl}:\n${logs}`, {
    code: 'old-unhealthy',
    hint: 'its data and files are restored; see its log',
  });
}

// The data.

/** Renames, if only the source is there: a step may find its work done. */
async function move(from: string, to: string): Promise<void> {
  if ((await exists(from)) && !(await exists(to))) await run(['mv', '--', from, to]);
}

/** On disk before the journal says so: after a power cut the copy must be there. */
const flush = (path: string) => run(process.platform === 'linux' ? ['sync', '-f', path] : ['sync']);

async function copyData(project: Project, { data }: Migration): Promise<void> {
  await remove(data.copy);
  await run(['cp', '-a', '--', data.from, data.copy]);
  try {
    await run(['diff', '-rq', '--no-dereference', data.from, data.copy]);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    throw new TaskError(`The copy of ${data.from} differs: ${error.stderr}${error.stdout}`, {
      code: 'copy-differs',
      hint: 'does another program write there?',
    });
  }
  const { uid, gid } = containerUser(project);
  await run(['chown', '-h', '-R', `${uid}:${gid}`, data.copy]);
  await run(['chmod', '0700', data.copy]);
  await flush(data.copy);
}

async function placeData(_project: Project, { data }: Migration): Promise<void> {
  if (data.aside) await move(data.from, data.aside);
  // An empty directory that setup has made.
  else if (await exists(data.to)) await run(['rmdir', data.to]);
  await run(['mv', '--', data.copy, data.to]);
  await flush(data.to);
}

async function displaceData(_project: Project, { data, hasStarted }: Migration): Promise<void> {
  // With two places: as long as there is a copy, what is at the new one is not ours.
  const isPlaced = data.aside ? await exists(data.aside) : !(await exists(data.copy));
  if (!isPlaced) return;
  if (hasStarted) await move(data.to, data.kept);
  else await remove(data.to);
  if (data.aside) await move(data.aside, data.from);
}

const inventoryPath = ({ root }: Project) => statePath(root, 'migration-inventory.json');

async function backUp(project: Project, migration: Migration): Promise<void> {
  const began = performance.now();
  // Both services are stopped: a large database may take its time.
  const patient = { ...project, backup: { ...project.backup, max_block: 86_400 } };
  const { created } = await performBackup(patient, { rehearse: false }, {});
  const seconds = Math.round(performance.now() - began) / 1000;
  if (created) migration.backup = { archive: join(backupDirectory(project), created.archive), seconds };
  const inventory = await takeInventory(project, migration.data.to, migration.stoppedAt!);
  if (inventory) await writeFileAtomic(inventoryPath(project), JSON.stringify(inventory), { mode: 0o600 });
}

// The models.

const MADE_BY = 'release-flow.migration';

async function carryModels(project: Project, { models, id }: Migration): Promise<void> {
  if (!models) return;
  const { models_variable, models_volume } = describedLegacy(project);
  if (!models.copied) {
    if (models_variable)
      await updateDotenv(project.root, { [variableName(project, models_variable)]: models.to });
    return;
  }
  if (!(await inspectVolume(models.to))) {
    // Compose takes a volume with its labels for its own; the last one says that a rollback may remove it.
    const compose = 'com.docker.compose';
    const own = [`${compose}.project=${project.project.name}`, `${compose}.volume=${models_volume}`];
    const labels = [...own, `${MADE_BY}=${id}`].map((label) => `--label=${label}`);
    await run(docker('volume', 'create', ...labels, models.to));
  }
  await copyFor(project, `${models.from}:ro`, models.to);
}

async function removeModels(_project: Project, { models, id }: Migration): Promise<void> {
  const volume = models?.copied ? await inspectVolume(models.to) : undefined;
  if (volume?.labels[MADE_BY] !== id) return;
  const users = await containerIds({ volume: [volume.name] });
  if (users.length === 0) await run(docker('volume', 'rm', volume.name));
}

// The new service.

/** Starts this environment: the first alone, the other one beside it. */
const startNew = (name: EnvironmentName) => async (project: Project, data: Migration) => {
  const isFirst = name === data.first;
  const version = data.tag && (name === 'prod' || !isFirst) ? ['--version', data.tag] : [];
  await runOtherTask(project, 'switch-env', isFirst ? name : 'both', ...version);
  if (isFirst && data.stoppedAt && data.legacy.isRunning)
    data.downtimeSeconds = (Date.now() - Date.parse(data.stoppedAt)) / 1000;
};

/** Removes everything of the new project but its volumes: the old service may need its ports and its subnet. */
async function removeNew(project: Project, data: Migration): Promise<void> {
  // A switch that was killed with us would be resumed by the next one.
  await resumeSwitch(project).catch((error) => log.warn(`the interrupted switch: ${errorSummary(error)}`));
  data.hasStarted = true;
  const own = await projectContainers(project);
  const running = own.filter(({ state }) => state === 'running').map(({ id }) => id);
  if (running.length > 0) await run(docker('stop', ...running));
  if (own.length > 0) await run(docker('rm', '--force', '--volumes', ...own.map(({ id }) => id)));
  for (const network of await listNetworks())
    if (projectOf(network) === project.project.name) await run(docker('network', 'rm', network.name));
}

const verify = (name: EnvironmentName) => async (project: Project, migration: Migration) => {
  const { first, ports, data, stoppedAt } = migration;
  if (name === first) {
    const before = JSON.parse((await readIfPresent(inventoryPath(project))) ?? '') as Inventory;
    const { pruned } = describedLegacy(project);
    migration.verified = await verifyData(project, pruned, before, data.to, stoppedAt!);
  }
  migration.readable[name] = await verifyReadable(project, data.to, name, ports[name]);
};

// The repository.

async function editNotes({ root, release }: Project, edit: (text: string) => string): Promise<void> {
  const path = join(root, release.notes);
  const text = (await readIfPresent(path)) ?? '';
  const edited = edit(text);
  if (edited !== text) await writeFileAtomic(path, edited);
}

async function writeNotes(project: Project, data: Migration): Promise<void> {
  for (const path of data.legacy.composeFiles) await move(path, deprecated(path));
  await editNotes(project, (text) => withEntry(text, data.tag, migrationEntry(data)));
  data.commit = await commitFiles(project, data, `chore: migrate from ${data.legacy.service}`);
}

/** Only its own lines: later releases have written there since. */
async function removeNotes(project: Project, data: Migration): Promise<void> {
  await editNotes(project, (text) => withoutEntry(text, migrationEntry(data)));
  for (const path of data.legacy.composeFiles) await move(deprecated(path), path);
}

/**
 * Commits what a migration writes, and nothing else; returns the commit, or null if nothing had changed. Hooks are left
 * out, as for a release: they may ask, and nobody may be there.
 */
async function commitFiles(
  { root, release }: Project,
  { config, legacy }: Migration,
  message: string,
): Promise<string | null> {
  const compose = legacy.composeFiles.flatMap((path) => [path, deprecated(path)]);
  const inside = compose.map((path) => relative(root, path)).filter((path) => !path.startsWith('..'));
  // What git did not know stays unknown to it: it may hold secrets.
  const isKnown = inside.length > 0 && (await read(git(root, 'ls-files', '--', ...inside))) !== '';
  const own = [release.notes, ...(config ? [config.path] : []), ...(isKnown ? inside : [])];
  const answer = await read(git(root, 'status', '--porcelain', '-z', '--no-renames', '--', ...own));
  const changed = answer.split('\0').flatMap((entry) => entry.slice(3) || []);
  if (changed.length === 0) return null;
  const env = await releaseIdentity(root);
  await run(git(root, 'add', '--all', '--', ...changed));
  const commit = ['-c', 'core.hooksPath=/dev/null', 'commit', '--quiet', '--only', '-m', message];
  await run(git(root, ...commit, '--', ...changed), { env });
  return read(git(root, 'rev-parse', 'HEAD'));
}
