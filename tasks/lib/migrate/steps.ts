// The migration as a list of steps with one commit point: what fails before it is undone until the old service answers
// again, and a rollback undoes the same list, days later if need be. The old data is never written to.

import { join } from 'node:path';
import { performBackup } from '../backup/create.ts';
import { backupDirectory, verifyDirectories } from '../backup/places.ts';
import { resumeRestore } from '../backup/restore.ts';
import { run } from '../command.ts';
import { tryCandidate } from '../docker/candidate.ts';
import { docker } from '../docker/engine.ts';
import { askHealth } from '../docker/health.ts';
import {
  inspectImage,
  inspectVolume,
  lastLogLines,
  listNetworks,
  projectContainers,
} from '../docker/objects.ts';
import { dotenvPath, updateDotenv } from '../dotenv.ts';
import { CommandError, errorSummary, TaskError } from '../errors.ts';
import { readIfPresent, statePath, writeFileAtomic } from '../files.ts';
import { formatBytes } from '../format.ts';
import { log } from '../log.ts';
import {
  type EnvironmentName,
  imageReference,
  loadProject,
  type Project,
  registryReference,
  variable,
  variableName,
} from '../project.ts';
import type { LegacyDescription } from '../project-schema.ts';
import { newestRelease, versionOfTag } from '../release/record.ts';
import { waitUntil } from '../session.ts';
import { planSetup } from '../setup/setup.ts';
import type { Journey, Step } from '../steps.ts';
import { resumeSwitch } from '../switch/run.ts';
import { fetchRelease } from '../switch/target.ts';
import { runOtherTask } from '../task.ts';
import { allContainers, type ComposeHandle, detectLegacy, legacyCommand } from './detect.ts';
import {
  commitFiles,
  excludeFile,
  excludePaths,
  exists,
  keepFile,
  restoreFile,
  untrackedPaths,
} from './kept.ts';
import { describedLegacy, oldPaths, planMigration } from './plan.ts';
import {
  type Migration,
  migrationEntry,
  migrationSchema,
  readRecord,
  withEntry,
  withoutEntry,
  writeRecord,
} from './report.ts';
import { planNewSettings, verifyOpening } from './settings.ts';
import {
  containerUser,
  copyFor,
  inventorySchema,
  takeInventory,
  verifyData,
  verifyReadable,
} from './verify.ts';

export function migrationJourney(project: Project): Journey<Migration> {
  return {
    root: project.root,
    task: 'migrate',
    command: 'npx tsx tasks/migrate.ts',
    schema: migrationSchema,
    steps: (data) => migrationSteps(project.root, data),
    history: ({ legacy, rollsBack }) =>
      rollsBack ? { from: 'both', to: legacy.service } : { from: legacy.service, to: 'both' },
  };
}

function migrationSteps(root: string, { legacy, plan }: Migration): Step<Migration>[] {
  const other = plan.first === 'dev' ? 'prod' : 'dev';
  const name = legacy.service;
  const { data } = plan;
  /** .env changes on the way: each step reads the project anew. */
  const step = (
    name: string,
    title: string,
    apply: (project: Project, data: Migration) => Promise<unknown>,
    undo?: (project: Project, data: Migration) => Promise<unknown>,
  ): Step<Migration> => ({
    ...{ name, title, apply: async (data) => apply(await loadProject(root), data) },
    ...(undo ? { undo: async (data) => undo(await loadProject(root), data) } : {}),
  });
  return [
    step('prepare', 'make this machine ready: base image, .env', prepare, unprepare),
    step('images', 'have the images: release if there is none, pull or build', ensureImages),
    step(
      'rehearse',
      'rehearse: start the new version on a copy of the data, while the old service still answers',
      rehearse,
      (_project, { plan }) => remove(plan.data.rehearsal),
    ),
    step(
      'stop',
      `stop ${name}${legacy.state === 'running' ? '' : ` (it is ${legacy.state})`}`,
      stop,
      startOld,
    ),
    step(
      'copy',
      `copy ${formatBytes(data.bytes)} of data from ${data.from}, and compare`,
      copyData,
      removeCopy,
    ),
    step('place', describePlacing(plan), placeData, displaceData),
    step('backup', 'back up the data, proven; count every row, hash every file', backUp),
    step('compose', describeComposeFiles(plan), setComposeAside, bringComposeBack),
    step('models', describeModels(plan), carryModels, removeModels),
    step(
      'settings',
      'translate the settings: configs/ and .env (secrets go there alone)',
      writeSettings,
      undoSettings,
    ),
    step(
      'start',
      `start ${plan.first} on ${plan.ports[plan.first]}`,
      (project, found) => start(project, found, plan.first),
      stopNew,
    ),
    step(
      'verify',
      `verify every table and file, and old facts through ${plan.first}`,
      async (project, found) => {
        await verifyAll(project, found);
        await verifyFacts(project, found, plan.first);
      },
    ),
    step('notes', 'write it into the release notes and commit what changed', writeNotes, removeNotes),
    {
      ...step('record', 'keep what a rollback needs', (_project, found) =>
        writeRecord(root, 'migrated', found),
      ),
      commits: true,
      isDone: async ({ id }) => {
        const record = await readRecord(root);
        return record?.state === 'migrated' && record.data.id === id;
      },
    },
    step(`start-${other}`, `start ${other} on ${plan.ports[other]}`, (project, found) =>
      start(project, found, other),
    ),
    step(`verify-${other}`, `verify old facts through ${other}`, (project, found) =>
      verifyFacts(project, found, other),
    ),
  ];
}

// What can be made ready while the old service still answers: this machine, and the images.

async function prepare(project: Project, { legacy, plan }: Migration): Promise<void> {
  const old = oldPaths(legacy, plan.compose, describedLegacy(project).config_files);
  await excludePaths(project, await untrackedPaths(project, old));
  // The directory is still the old service's; its copy gets owner and mode.
  const setup = (await planSetup(project)).filter(({ name }) => !name.endsWith('data-directory'));
  for (const { apply } of setup) await apply(undefined);
}

/** The last to be undone: then everything else is as it was. */
async function unprepare(project: Project, data: Migration): Promise<void> {
  const { id, legacy, dotenv, exclude } = data;
  const { root } = project;
  await restoreFile(dotenvPath(root), dotenv, statePath(root, `env-before-rollback-${id}`));
  // As long as the old files are still excluded.
  await commitFiles(project, writtenFiles(project, data), `chore: go back to ${legacy.service}`);
  await restoreFile(await excludeFile(project), exclude, statePath(root, `exclude-before-rollback-${id}`));
  await writeRecord(root, 'rolled-back', data);
}

/** A release and images stay at a rollback: they are nobody's old state, and the next run needs them. */
async function ensureImages(project: Project, data: Migration): Promise<void> {
  if (!variable(project, 'PROD_TAG') && !(await newestRelease(project)))
    await runOtherTask(project, 'release', 'auto');
  const released = await loadProject(project.root);
  const tag = variable(released, 'PROD_TAG') ?? (await newestRelease(released));
  if (tag) data.tag = tag;
  const isHere = async (one: string) => (await inspectImage(imageReference(released, one))) !== undefined;
  if (tag && !(await isHere(tag))) {
    const by = registryReference(released, tag) ? 'pull' : 'build';
    await fetchRelease(released, tag, by);
  }
  if (!(await isHere('latest'))) await runOtherTask(released, 'build-push', 'latest', '--no-push');
}

/** What does not run on the old data is found out before the old service stops. */
async function rehearse(project: Project, { tag, plan: { data } }: Migration): Promise<void> {
  if (!tag) return;
  await remove(data.rehearsal);
  await run(['mkdir', '-m', '0700', '--', data.rehearsal]);
  await copyFor(project, data.from, data.rehearsal);
  const expected = { env: 'prod', version: versionOfTag(project, tag) };
  try {
    await tryCandidate(project, { image: imageReference(project, tag), expected, data: data.rehearsal });
  } catch (error) {
    if (!(error instanceof TaskError) || error.code === 'interrupted') throw error;
    throw new TaskError(`The new version does not run on a copy of the old data: ${error.message}`, {
      code: 'rehearsal-failed',
      hint: 'the old service was not stopped; repair the new one, release it, and migrate again',
      cause: error,
    });
  }
  await remove(data.rehearsal);
}

// The old service: it stops, and it is what must answer again if anything goes wrong.

/** Seconds that a service which answered before may take to answer again. */
const ANSWER_SECONDS = 60;

/** Its compose files where they lie at the moment. */
async function oldCompose({ legacy, plan }: Migration): Promise<ComposeHandle> {
  const { project, directory } = legacy;
  const files = plan.compose.map(async ({ path, deprecated }) => ((await exists(path)) ? path : deprecated));
  return { project, directory, composeFiles: await Promise.all(files) };
}

async function oldContainers({ legacy }: Migration) {
  return (await allContainers()).filter(
    ({ labels }) =>
      labels['com.docker.compose.project'] === legacy.project &&
      labels['com.docker.compose.service'] === legacy.service,
  );
}

async function stop(_project: Project, data: Migration): Promise<void> {
  data.stoppedAt = new Date().toISOString();
  const compose = await oldCompose(data);
  // Never with volumes: they hold what is carried over.
  await run(legacyCommand(compose, 'down'));
  const left = await oldContainers(data);
  if (left.length > 0)
    throw new TaskError(`The old service did not stop: ${left.map(({ name }) => name).join(', ')}`);
}

async function startOld(_project: Project, data: Migration): Promise<void> {
  const { legacy, plan } = data;
  if (legacy.state === 'absent') return;
  const compose = await oldCompose(data);
  const how = legacy.state === 'running' ? '--detach' : '--no-start';
  await run(legacyCommand(compose, 'up', how, '--no-build', '--pull', 'never'));
  if (legacy.state !== 'running' || log.withhold(`wait until ${plan.oldUrl} answers`)) return;
  const answers = await waitUntil(
    async () => {
      const [container] = await oldContainers(data);
      if (container && container.state !== 'running') return false;
      const isWell = !plan.answered || (await askHealth(plan.oldUrl)).status === 200;
      return (container && isWell) || undefined;
    },
    { withinMs: ANSWER_SECONDS * 1000, everyMs: 200 },
  );
  if (answers) return;
  const [container] = await oldContainers(data);
  const logs = container ? await lastLogLines(container.id) : 'it has no container';
  throw new TaskError(`The old service does not answer at ${plan.oldUrl}:\n${logs}`, {
    code: 'old-unhealthy',
    hint: 'its data and files are as they were; see its log',
  });
}

// The data: the old directory is set aside as it is, to the last byte, and the new service works on a copy that was
// compared with it. So going back needs no restore, and no mistake of the new service can touch the old data.

const remove = (path: string) => run(['rm', '-rf', '--', path]);

/** On disk before the journal says so: a power cut must not leave a copy that is only remembered. */
const flush = (path: string) => run(process.platform === 'linux' ? ['sync', '-f', path] : ['sync']);

/** Renames, if only the source is there: a step may find its work done. */
async function move(from: string, to: string): Promise<void> {
  if ((await exists(from)) && !(await exists(to))) await run(['mv', '--', from, to]);
}

async function copyData(project: Project, { plan: { data } }: Migration): Promise<void> {
  await remove(data.copy);
  await run(['cp', '-a', '--', data.from, data.copy]);
  try {
    await run(['diff', '-rq', '--no-dereference', data.from, data.copy]);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    throw new TaskError(`The copy of ${data.from} is not the same: ${error.stderr}${error.stdout}`, {
      code: 'copy-differs',
      hint: 'does something else still write there?',
    });
  }
  const { uid, gid } = containerUser(project);
  await run(['chown', '-h', '-R', `${uid}:${gid}`, data.copy]);
  await run(['chmod', '0700', data.copy]);
  await flush(data.copy);
}

const removeCopy = (_project: Project, { plan }: Migration) => remove(plan.data.copy);

function describePlacing({ data }: Migration['plan']): string {
  return data.aside
    ? `put the copy in its place; ${data.from} waits untouched as ${data.aside}`
    : `put the copy at ${data.to}; ${data.from} stays untouched`;
}

async function placeData(_project: Project, { plan: { data } }: Migration): Promise<void> {
  if (data.aside) await move(data.from, data.aside);
  // An empty directory that setup has made.
  else if (await exists(data.to)) await run(['rmdir', data.to]);
  await run(['mv', '--', data.copy, data.to]);
  await flush(data.to);
}

async function displaceData(_project: Project, { plan: { data }, hasStarted }: Migration): Promise<void> {
  // With two places: while there is a copy, what is at the new one is not ours.
  const isPlaced = data.aside ? await exists(data.aside) : !(await exists(data.copy));
  if (!isPlaced) return;
  if (hasStarted) await move(data.to, data.kept);
  else if (await exists(data.to)) await remove(data.to);
  if (data.aside) await move(data.aside, data.from);
}

const inventoryPath = ({ root }: Project) => statePath(root, 'migration-inventory.json');

async function backUp(project: Project, data: Migration): Promise<void> {
  const began = performance.now();
  verifyDirectories(project);
  await resumeRestore(project);
  // Nobody waits while both services are stopped: a large database may take its time.
  const patient = { ...project, backup: { ...project.backup, max_block: 86_400 } };
  const { created } = await performBackup(patient, { rehearse: false }, {});
  const seconds = Math.round(performance.now() - began) / 1000;
  if (created) data.backup = { archive: join(backupDirectory(project), created.archive), seconds };
  const inventory = await takeInventory(project, data.plan.data.to, data.stoppedAt!);
  if (inventory) await writeFileAtomic(inventoryPath(project), JSON.stringify(inventory), { mode: 0o600 });
}

// What is renamed and written: the old compose file, the models volume's name, settings, the notes.

function describeComposeFiles({ compose }: Migration['plan']): string {
  return `set the old compose file aside: ${compose.map(({ deprecated }) => deprecated).join(', ')}`;
}

async function setComposeAside(_project: Project, { plan }: Migration): Promise<void> {
  for (const { path, deprecated } of plan.compose) await move(path, deprecated);
}

async function bringComposeBack(_project: Project, { plan }: Migration): Promise<void> {
  for (const { path, deprecated } of plan.compose) await move(deprecated, path);
}

function describeModels({ models }: Migration['plan']): string {
  const { by, from, to, reason, users, bytes } = models;
  const also = users.length > 0 ? `; ${users.join(', ')} goes on using it` : '';
  if (by === 'none') return `models: none, ${reason}`;
  if (by === 'reuse') return `use the models volume ${to} as it is: ${reason}${also}`;
  const size = bytes === null ? '' : ` (${formatBytes(bytes)})`;
  return `copy the models volume ${from}${size} to ${to}, compare by size and hash: ${reason}${also}`;
}

async function carryModels(project: Project, { plan: { models } }: Migration): Promise<void> {
  const { models_variable, models_volume } = describedLegacy(project);
  if (models.by === 'reuse' && models_variable)
    await updateDotenv(project.root, { [variableName(project, models_variable)]: models.to });
  if (models.by !== 'copy') return;
  if (!(await inspectVolume(models.to))) {
    // By these labels compose takes it for its own.
    const labels = { project: project.project.name, volume: models_volume };
    const flags = Object.entries(labels).map(
      ([name, value]) => `--label=com.docker.compose.${name}=${value}`,
    );
    await run(docker('volume', 'create', ...flags, models.to));
  }
  await copyFor(project, `${models.from}:ro`, models.to);
}

async function removeModels(_project: Project, { plan: { models } }: Migration): Promise<void> {
  if (models.by !== 'copy' || models.existed || !(await inspectVolume(models.to))) return;
  const isUsed = (await allContainers()).some(({ mounts }) =>
    mounts.some(({ source }) => source === models.to),
  );
  if (!isUsed) await run(docker('volume', 'rm', models.to));
}

async function writeSettings(project: Project, data: Migration): Promise<void> {
  const old = { ...data.legacy, ...(await oldCompose(data)) };
  const { variables } = await planNewSettings(project, describedLegacy(project), old);
  for (const [file, { after }] of Object.entries(data.settings.files))
    await writeFileAtomic(join(project.root, file), after);
  await updateDotenv(project.root, variables);
}

async function undoSettings({ root }: Project, { settings }: Migration): Promise<void> {
  for (const [file, { before, after }] of Object.entries(settings.files)) {
    const path = join(root, file);
    const now = (await readIfPresent(path)) ?? null;
    if (now === before) continue;
    if (now !== after) log.warn(`${file} was changed since the migration: it stays as it is`);
    else if (before === null) await run(['rm', '--', path]);
    else await writeFileAtomic(path, before);
  }
}

/** Files of this repository that a migration writes, and that git shall know. */
function writtenFiles({ root, release }: Project, { settings, plan }: Migration): string[] {
  return [
    ...Object.keys(settings.files).map((file) => join(root, file)),
    join(root, release.notes),
    ...plan.compose.flatMap(({ path, deprecated }) => [path, deprecated]),
  ];
}

async function writeNotes(project: Project, data: Migration): Promise<void> {
  const path = join(project.root, project.release.notes);
  data.entry = migrationEntry(data);
  const text = (await readIfPresent(path)) ?? '';
  const edited = withEntry(text, data.tag, data.entry);
  if (edited !== text) await writeFileAtomic(path, edited);
  const message = `chore: migrate from ${data.legacy.service}`;
  data.commit = await commitFiles(project, writtenFiles(project, data), message);
}

/** Only its own lines: later releases have written there since. */
async function removeNotes(project: Project, data: Migration): Promise<void> {
  const path = join(project.root, project.release.notes);
  const text = (await readIfPresent(path)) ?? '';
  const edited = withoutEntry(text, data.entry ?? migrationEntry(data));
  if (edited !== text) await writeFileAtomic(path, edited);
}

// The new service.

const healthUrl = (project: Project, { plan }: Migration, name: EnvironmentName) =>
  `http://127.0.0.1:${plan.ports[name]}${project.environments[name].health}`;

async function start(project: Project, data: Migration, name: EnvironmentName): Promise<void> {
  const isFirst = name === data.plan.first;
  const version = data.tag && (name === 'prod' || !isFirst) ? ['--version', data.tag] : [];
  const answered = isFirst ? firstAnswer(healthUrl(project, data, name)) : undefined;
  try {
    await runOtherTask(project, 'switch-env', isFirst ? name : 'both', ...version);
  } finally {
    answered?.stop();
  }
  const at = await answered?.at;
  if (at && data.stoppedAt && data.legacy.state === 'running')
    data.downtimeSeconds = (at - Date.parse(data.stoppedAt)) / 1000;
}

/** The moment at which it answers, asked while it starts. */
function firstAnswer(url: string): { at: Promise<number | undefined>; stop: () => void } {
  let isOver = false;
  const ask = async () => {
    while (!isOver) {
      if ((await askHealth(url, 1000)).status === 200) return Date.now();
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return undefined;
  };
  return {
    at: ask(),
    stop: () => {
      isOver = true;
    },
  };
}

/** Everything of the new project but its volumes: the old service may need its ports and its subnet. */
async function stopNew(project: Project, data: Migration): Promise<void> {
  // One that was killed with us would otherwise be resumed by the next switch.
  await resumeSwitch(project).catch((error) => log.warn(`the interrupted switch: ${errorSummary(error)}`));
  data.hasStarted = true;
  const own = await projectContainers(project);
  const running = own.filter(({ state }) => state === 'running').map(({ id }) => id);
  if (running.length > 0) await run(docker('stop', ...running));
  if (own.length > 0) await run(docker('rm', '--force', '--volumes', ...own.map(({ id }) => id)));
  const networks = (await listNetworks()).filter(
    ({ labels }) => labels['com.docker.compose.project'] === project.project.name,
  );
  for (const { name } of networks) await run(docker('network', 'rm', name));
}

async function verifyAll(project: Project, data: Migration): Promise<void> {
  const { first, data: places } = data.plan;
  const url = healthUrl(project, data, first);
  const { status, error } = await askHealth(url);
  if (status !== 200)
    throw new TaskError(`${first} does not answer at ${url}: ${error ?? status}`, { code: 'unhealthy' });
  const before = inventorySchema.parse(JSON.parse((await readIfPresent(inventoryPath(project))) ?? ''));
  const description = describedLegacy(project);
  data.verified = await verifyData(project, description, before, places.to, data.stoppedAt!);
}

async function verifyFacts(project: Project, data: Migration, name: EnvironmentName): Promise<void> {
  const { ports, data: places } = data.plan;
  const description = describedLegacy(project);
  data.readable[name] = await verifyReadable(project, description, places.to, name, ports[name]);
}

/** Everything that is asked before the first step, or undefined if there is no older setup. @throws TaskError */
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
