// What a step of the migration is, and what it is given. Every step can be repeated and undone at any point
// of its work: a run may have died anywhere in it.

import {
  chmod,
  chown,
  lchown,
  lstat,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  rmdir,
  stat,
} from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { parseEnv } from 'node:util';
import { performBackup } from '../backup/create.ts';
import { backupDirectory, verifyDirectories } from '../backup/program.ts';
import { recoverBackups } from '../backup/restore.ts';
import { probe, read, run } from '../command.ts';
import { docker, engineInfo } from '../docker/engine.ts';
import { askHealth } from '../docker/health.ts';
import { inspectContainers, inspectImage, lastLogLines, tagImage } from '../docker/objects.ts';
import { dotenvPath, updateDotenv } from '../dotenv.ts';
import { TaskError } from '../errors.ts';
import { readIfPresent, replaceFile, statePath, writeFileAtomic } from '../files.ts';
import { git } from '../git.ts';
import type { Phases } from '../history.ts';
import { log } from '../log.ts';
import {
  ENVIRONMENTS,
  type EnvironmentName,
  imageReference,
  loadProject,
  type Project,
  registryReference,
  variable,
  variableName,
} from '../project.ts';
import type { LegacyDescription } from '../project-schema.ts';
import { releaseIdentity } from '../release/git-write.ts';
import { findEntry, insertAt } from '../release/notes.ts';
import { newestRelease } from '../release/record.ts';
import { pause, session } from '../session.ts';
import { applySetup, planSetup } from '../setup/setup.ts';
import { fetchRelease } from '../switch/target.ts';
import {
  bindMount,
  containerUser,
  copyModels,
  engineContainers,
  engineNetworks,
  exists,
  type Inventory,
  legacyCommand,
  legacyOptions,
  type Owner,
  removeLeftovers,
  removeVolume,
  runProgram,
} from './detect.ts';
import { type DataPlan, size } from './plan.ts';
import {
  type MigrationRecord,
  type Recorder,
  runWholeTask,
  type StepEvidence,
  tellWholeTask,
} from './run.ts';
import { configFiles, planNewSettings, type SettingOutcome } from './settings.ts';
import { compareInventories, verifyReadable } from './verify.ts';

export interface StepContext {
  /** Read anew for each step: steps write .env. */
  project: Project;
  description: LegacyDescription;
  recorder: Recorder;
}

export interface Step {
  name: StepName;
  /** Does it; returns what shows that it is done. */
  apply: (context: StepContext) => Promise<StepEvidence>;
  /** Takes back whatever of it was done. */
  undo: (context: StepContext) => Promise<void>;
}

/** What a step has written down so far. */
function evidenceOfStep<T extends StepEvidence>({ recorder }: StepContext, step: StepName): Partial<T> {
  return (recorder.record.steps[step]?.evidence ?? {}) as Partial<T>;
}

// The steps of a migration in their order. A rollback goes through them backwards.
export const STEPS = [
  'prepare',
  'images',
  'stop',
  'data',
  'backup',
  'compose',
  'models',
  'settings',
  'start',
  'verify',
  'notes',
] as const;

export type StepName = (typeof STEPS)[number];

// The backup, by the backup task's own code, and what every database holds at that moment: the figures that the
// migration is verified by in the end.

/** Seconds. */
const ONE_DAY = 86_400;

interface BackupEvidence extends Record<string, unknown> {
  archive: string;
  seconds: number;
}

/** Archive and proof by the backup task's own code; beside it, what every database holds is written down. */
const backup: Step = {
  name: 'backup',
  apply: async (context): Promise<BackupEvidence> => {
    const { project, recorder } = context;
    if (session.dryRun) {
      tellWholeTask('backup', 'create');
      return { archive: '<archive>', seconds: 0 };
    }
    const began = performance.now();
    const phases: Phases = {};
    verifyDirectories(project);
    await recoverBackups(project);
    const [made] = await Promise.all([
      performBackup(withoutWriters(project), { pause: false, rehearse: false }, phases),
      writeInventory(project, recorder.record.id, recorder.record.plan.data.to, stoppedAt(context)),
    ]);
    const archive = `${backupDirectory(project)}/${made.created?.archive ?? '<archive>'}`;
    return { archive, seconds: Math.round(performance.now() - began) / 1000 };
  },
  // An archive is never in the way.
  undo: async () => {},
};

/** Nobody waits while both services are stopped: a large database in rollback-journal mode may take its time. */
function withoutWriters(project: Project): Project {
  return { ...project, backup: { ...project.backup, max_block: ONE_DAY } };
}

/** From then on nobody but the new service's clients can have written. */
function stoppedAt(context: StepContext): string {
  return (
    evidenceOfStep<{ stoppedAt: string }>(context, 'stop').stoppedAt ?? context.recorder.record.startedAt
  );
}

async function writeInventory(project: Project, id: string, path: string, since: string): Promise<void> {
  const found = await takeInventory(project, path, { since });
  if (!found) return;
  const folder = keptPath(project.root, id);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await replaceFile(`${folder}/inventory.json`, JSON.stringify(found), { mode: 0o600 });
}

/** `known`: looks only at what that inventory has. */
function takeInventory(project: Project, path: string, options: { since: string; known?: Inventory }) {
  const mounts = [bindMount(path, '/data', 'writable')];
  return runProgram<Inventory>(project, {
    command: 'inventory',
    options,
    mounts,
    user: containerUser(project),
  });
}

async function readInventory(root: string, id: string): Promise<Inventory> {
  return JSON.parse(await readFile(`${keptPath(root, id)}/inventory.json`, 'utf8')) as Inventory;
}

/** Removes our bookkeeping of one migration. */
export function forget(root: string, id: string): Promise<void> {
  return rm(keptPath(root, id), { recursive: true, force: true });
}

// The data: the old directory is set aside as it is, to the last byte, and the new service works on a copy that
// was compared with it. So going back needs no restore, and no mistake of the new service can touch the old data.

/** A rename that a dry run only tells. */
async function move(from: string, to: string): Promise<void> {
  if (log.withhold(`rename: ${from} → ${to}`)) return;
  await rename(from, to);
}

/** On disk before the journal says so: a power cut must not leave a copy that is only remembered. */
const flush = (path: string) => run(process.platform === 'linux' ? ['sync', '-f', path] : ['sync']);

const remove = (path: string) => run(['rm', '-rf', '--', path]);

/** Is the new data in its place? With one place for both, only then is the old one aside. */
async function isInPlace({ aside, to, copy }: DataPlan): Promise<boolean> {
  return aside ? (await exists(aside)) && (await exists(to)) : !(await exists(copy)) && (await exists(to));
}

const data: Step = {
  name: 'data',
  apply: async (context) => {
    const { project, recorder } = context;
    const { data: plan } = recorder.record.plan;
    const { copied } = evidenceOfStep<{ copied: boolean }>(context, 'data');
    if (!copied) {
      await remove(plan.copy);
      await run(['cp', '-a', '--', plan.from, plan.copy]);
      await compareCopy(plan.from, plan.copy);
      await run(['chown', '-h', '-R', containerUser(project), plan.copy]);
      await run(['chmod', '0700', plan.copy]);
      await flush(plan.copy);
      await recorder.evidence('data', 'copied', { copied: true });
    }
    if (!(await isInPlace(plan)) || session.dryRun) {
      if (plan.aside && !(await exists(plan.aside))) await move(plan.from, plan.aside);
      if (!plan.aside && (await exists(plan.to)) && !session.dryRun) await rmdir(plan.to);
      await move(plan.copy, plan.to);
      await flush(plan.to);
    }
    return { original: plan.aside ?? plan.from };
  },
  undo: async (context) => {
    const { recorder } = context;
    const { data: plan } = recorder.record.plan;
    if (recorder.record.keepNewData) await bringNewDataBack(context, plan);
    else await putNewDataAside(context, plan);
    await remove(plan.copy);
  },
};

async function compareCopy(from: string, copy: string): Promise<void> {
  try {
    await run(['diff', '-rq', '--no-dereference', from, copy]);
  } catch (error) {
    if ((error as { code?: string }).code === 'interrupted') throw error;
    throw new TaskError(`The copy of ${from} is not the same: ${(error as Error).message}`, {
      code: 'copy-differs',
      hint: 'does something else still write there?',
      cause: error,
    });
  }
}

async function putNewDataAside(context: StepContext, plan: DataPlan): Promise<void> {
  const isNewThere = plan.aside ? await exists(plan.aside) : await hasOwnCopy(context, plan);
  if (!isNewThere) return;
  if (await exists(plan.to)) {
    if (context.recorder.record.hasStarted) {
      // it may hold what is nowhere else
      await move(plan.to, plan.kept);
      log.info(`  what the new service has written is kept: ${plan.kept}`);
    } else await remove(plan.to);
  }
  if (plan.aside) await move(plan.aside, plan.from);
  else await remakeEmptyTarget(plan);
}

/** With two places: the new one is ours only from the moment at which the copy was complete. */
async function hasOwnCopy(context: StepContext, plan: DataPlan): Promise<boolean> {
  const { copied } = evidenceOfStep<{ copied: boolean }>(context, 'data');
  return copied === true && !(await exists(plan.copy));
}

async function remakeEmptyTarget({ emptyTarget, to }: DataPlan): Promise<void> {
  if (!emptyTarget || session.dryRun || (await exists(to))) return;
  await mkdir(to, { mode: emptyTarget.mode });
  await run(['chown', `${emptyTarget.uid}:${emptyTarget.gid}`, to]);
  await run(['chmod', emptyTarget.mode.toString(8), to]);
}

/** The old service goes on with what the new one has written, in the form and with the owners that it knows. */
async function bringNewDataBack(context: StepContext, plan: DataPlan): Promise<void> {
  const { recorder, project } = context;
  const { settled } = evidenceOfStep<{ settled: boolean }>(context, 'data');
  const original = plan.aside ?? plan.from;
  const before = `${plan.from}.before-rollback-${recorder.record.id}`;
  if (!settled) {
    const there = plan.aside ? await exists(plan.aside) : await hasOwnCopy(context, plan);
    if (!there) return;
    await runProgram(project, { command: 'settle', mounts: [bindMount(plan.to, '/data', 'writable')] });
    if (!plan.aside) {
      await remove(plan.copy);
      await run(['cp', '-a', '--', plan.to, plan.copy]);
    }
    await restoreOwners(plan.aside ? plan.to : plan.copy, original, plan.owner);
    await recorder.evidence('data', 'settled', { settled: true });
  }
  // With one place, the data is already where the old service looks for it.
  if (plan.aside) return;
  if (!(await exists(before))) await move(plan.from, before);
  if (await exists(plan.copy)) await move(plan.copy, plan.from);
  if (await exists(plan.to)) await move(plan.to, plan.kept);
  await remakeEmptyTarget(plan);
}

// What is renamed and written: the old compose file, the models volume's name, settings, the notes.

async function renameIfThere(from: string, to: string): Promise<void> {
  if (!(await exists(from)) || (await exists(to))) return;
  if (session.dryRun) log.withhold(`rename: ${from} → ${to}`);
  else await rename(from, to);
}

const compose: Step = {
  name: 'compose',
  apply: async ({ recorder }) => {
    for (const { path, deprecated } of recorder.record.plan.compose) await renameIfThere(path, deprecated);
    return { reference: recorder.record.plan.compose.map(({ deprecated }) => deprecated) };
  },
  undo: async ({ recorder }) => {
    for (const { path, deprecated } of recorder.record.plan.compose) await renameIfThere(deprecated, path);
  },
};

const models: Step = {
  name: 'models',
  apply: async ({ project, description, recorder }) => {
    const { models: plan } = recorder.record.plan;
    const name = description.models_variable;
    if (plan.by === 'reuse' && name)
      await updateDotenv(project.root, { [variableName(project, name)]: plan.to });
    if (plan.by !== 'copy') return { volume: plan.to, by: plan.by };
    const files = await copyModels(project, description.models_volume, plan);
    return { volume: plan.to, by: plan.by, files };
  },
  undo: async (context) => {
    const { models: plan } = context.recorder.record.plan;
    if (plan.by === 'copy' && !plan.existed) await removeVolume(plan.to);
    const name = context.description.models_variable;
    if (name) await restoreVariables(context, [name]);
  },
};

/** Single variables as they were; the whole file comes back with the step that kept it. */
async function restoreVariables({ project, recorder }: StepContext, names: readonly string[]): Promise<void> {
  const before = parseEnv((await keptText(project.root, recorder.record.id, dotenvPath(project.root))) ?? '');
  const full = names.map((name) => variableName(project, name));
  await updateDotenv(project.root, Object.fromEntries(full.map((name) => [name, before[name]])));
}

async function settingsPaths(project: Project): Promise<string[]> {
  const paths = Object.values((await configFiles(project)) ?? {});
  return [...new Set(paths)].map((path) => join(project.root, path));
}

interface SettingsEvidence extends Record<string, unknown> {
  outcomes: SettingOutcome[];
}

const settings: Step = {
  name: 'settings',
  apply: async ({ project, description, recorder }): Promise<SettingsEvidence> => {
    const { id, legacy } = recorder.record;
    for (const path of await settingsPaths(project)) await keepFile(project.root, id, path);
    const now = {
      ...legacy,
      composeFiles: await presentFiles(recorder.record.plan.compose, legacy.composeFiles),
    };
    const before = parseEnv((await keptText(project.root, id, dotenvPath(project.root))) ?? '');
    const planned = await planNewSettings(project, description, now, before);
    for (const [file, text] of Object.entries(planned.files))
      await writeFileAtomic(join(project.root, file), text);
    const named = Object.entries(planned.variables).map(([name, value]) => [
      variableName(project, name),
      value,
    ]);
    if (named.length > 0) await updateDotenv(project.root, Object.fromEntries(named));
    return { outcomes: planned.outcomes.map((one) => (one.isSecret ? { ...one, value: '***' } : one)) };
  },
  undo: async (context) => {
    const { project, description, recorder } = context;
    for (const path of await settingsPaths(project))
      await restoreFile(project.root, recorder.record.id, path);
    const names = Object.values(description.settings).flatMap(({ variable }) => variable ?? []);
    await restoreVariables(context, [...new Set(names)]);
  },
};

async function presentFiles(moved: { path: string; deprecated: string }[], files: readonly string[]) {
  return Promise.all(
    files.map(async (file) => {
      const deprecated = moved.find(({ path }) => path === file)?.deprecated;
      return deprecated && (await exists(deprecated)) ? deprecated : file;
    }),
  );
}

/** Files of this repository that a migration writes, and that git shall know. */
export async function writtenFiles({ project, recorder }: StepContext): Promise<string[]> {
  const { compose: moved } = recorder.record.plan;
  const all = [
    ...(await settingsPaths(project)),
    join(project.root, project.release.notes),
    ...moved.flatMap(({ path, deprecated }) => [path, deprecated]),
  ];
  return all.map((path) => relative(project.root, path)).filter((path) => !path.startsWith('..'));
}

const notes: Step = {
  name: 'notes',
  apply: async (context) => {
    const { project, recorder } = context;
    const path = join(project.root, project.release.notes);
    await keepFile(project.root, recorder.record.id, path);
    const { tag } = evidenceOfStep<{ tag: string }>(context, 'images');
    const text = (await readIfPresent(path)) ?? '';
    const edited = withEntry(text, tag, migrationEntry(recorder.record));
    if (edited !== text) await writeFileAtomic(path, edited);
    const subject = `chore: migrate from ${recorder.record.legacy.service}`;
    return { commit: await commitFiles(project, await writtenFiles(context), subject) };
  },
  undo: async ({ project, recorder }) => {
    await restoreFile(project.root, recorder.record.id, join(project.root, project.release.notes));
  },
};

// The services around the change: the old one stops, the new one starts; and the other way round.

/** Seconds that a service which answered before may take to answer again. */
const ANSWER_SECONDS = 60;

/** The old compose files where they lie at the moment. */
async function oldCompose({ legacy, plan }: MigrationRecord) {
  const files = await Promise.all(
    legacy.composeFiles.map(async (path) => {
      const deprecated = plan.compose.find((one) => one.path === path)?.deprecated;
      return deprecated && !(await exists(path)) ? deprecated : path;
    }),
  );
  return { project: legacy.project, directory: legacy.directory, composeFiles: files };
}

async function oldContainers({ legacy }: MigrationRecord) {
  return (await engineContainers()).filter(
    ({ labels }) =>
      labels['com.docker.compose.project'] === legacy.project &&
      labels['com.docker.compose.service'] === legacy.service,
  );
}

const stop: Step = {
  name: 'stop',
  apply: async (context) => {
    const { recorder } = context;
    const { stoppedAt } = evidenceOfStep<{ stoppedAt: string }>(context, 'stop');
    if (!stoppedAt) await recorder.evidence('stop', 'begins', { stoppedAt: new Date().toISOString() });
    const compose = await oldCompose(recorder.record);
    // Never with volumes: they hold what is carried over.
    await run(legacyCommand(compose, 'down'), legacyOptions(compose));
    const left = await oldContainers(recorder.record);
    if (left.length > 0 && !session.dryRun)
      throw new TaskError(`The old service did not stop: ${left.map(({ name }) => name).join(', ')}`);
    return {};
  },
  undo: async ({ recorder: { record } }) => {
    const { legacy, plan } = record;
    if (legacy.state === 'absent') return;
    const compose = await oldCompose(record);
    const isUp = legacy.state === 'running';
    const how = isUp ? ['--detach'] : ['--no-start'];
    await run(legacyCommand(compose, 'up', ...how, '--no-build', '--pull', 'never'), legacyOptions(compose));
    if (isUp && !session.dryRun) await waitForOld(record, plan.answered);
  },
};

/** Until the old service answers, where it did before; else until its container runs. */
async function waitForOld(record: MigrationRecord, shallAnswer: boolean): Promise<void> {
  const deadline = Date.now() + ANSWER_SECONDS * 1000;
  for (;;) {
    const [container] = await oldContainers(record);
    if (container?.isRunning) {
      if (!shallAnswer || (await askHealth(record.plan.oldUrl)).status === 200) return;
    }
    if (Date.now() > deadline || (container && !container.isRunning && shallAnswer)) {
      const logs = container ? await lastLogLines(container.id) : 'it has no container';
      throw new TaskError(`The old service does not answer at ${record.plan.oldUrl}:\n${logs}`, {
        code: 'old-unhealthy',
        hint: 'its data and files are as they were; see its log',
      });
    }
    await pause(200);
  }
}

const start: Step = {
  name: 'start',
  apply: async (context) => {
    const { project, recorder } = context;
    const { tag } = evidenceOfStep<{ tag: string }>(context, 'images');
    const first = heirOf(recorder.record);
    const answered = session.dryRun ? undefined : firstAnswer(project, first, recorder.record);
    const version = tag ? ['--version', tag] : [];
    try {
      await runWholeTask(project, 'switch-env', first, ...(first === 'prod' ? version : []));
      await runWholeTask(project, 'switch-env', 'both', ...version);
    } finally {
      answered?.stop();
    }
    const at = (await answered?.at) ?? new Date().toISOString();
    const { stoppedAt } = evidenceOfStep<{ stoppedAt: string }>(context, 'stop');
    const downtime = stoppedAt ? (Date.parse(at) - Date.parse(stoppedAt)) / 1000 : 0;
    return { answeredAt: at, downtimeSeconds: recorder.record.legacy.state === 'running' ? downtime : 0 };
  },
  undo: ({ project }) => removeNewContainers(project),
};

/** The environment that takes over the port: clients wait for this one. */
function heirOf({ legacy, plan }: MigrationRecord): EnvironmentName {
  return legacy.ports.includes(plan.ports.dev) ? 'dev' : 'prod';
}

/** The moment at which it answers, asked while it starts. */
function firstAnswer(
  project: Project,
  name: EnvironmentName,
  { plan }: MigrationRecord,
): { at: Promise<string | undefined>; stop: () => void } {
  let isOver = false;
  const url = `http://127.0.0.1:${plan.ports[name]}${project.environments[name].health}`;
  const ask = async () => {
    while (!isOver) {
      if ((await askHealth(url, 1000)).status === 200) return new Date().toISOString();
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
async function removeNewContainers(project: Project): Promise<void> {
  const isOwn = (labels: Record<string, string>) =>
    labels['com.docker.compose.project'] === project.project.name;
  const own = (await engineContainers()).filter(({ labels }) => isOwn(labels));
  const running = own.filter(({ isRunning }) => isRunning).map(({ id }) => id);
  if (running.length > 0) {
    log.step(`stopping ${own.map(({ name }) => name).join(' and ')}`);
    await run(docker('stop', ...running));
  }
  const left = await inspectContainers(own.map(({ id }) => id));
  if (left.length > 0) await run(docker('rm', '--force', '--volumes', ...left.map(({ id }) => id)));
  const networks = (await engineNetworks()).filter(({ labels }) => isOwn(labels));
  for (const { name } of networks) await run(docker('network', 'rm', name));
}

/** Not an effect of its own: what is asked of a step that failed. */
export function isOldRunning({ record }: StepContext['recorder']): Promise<boolean> {
  return oldContainers(record).then((containers) => containers.some(({ isRunning }) => isRunning));
}

// What can be made ready while the old service still answers: this machine, and the images.

/** Files of the older setup inside this repository that git does not know: they stay, and it need not see them. */
export async function strangers(project: Project, paths: readonly string[]): Promise<string[]> {
  const inside = paths.map((path) => relative(project.root, path)).filter((path) => !path.startsWith('..'));
  if (inside.length === 0) return [];
  const known = await read(git(project.root, 'ls-files', '-z', '--', ...inside));
  return inside.filter((path) => !known.split('\0').includes(path));
}

async function excludeFile(root: string): Promise<string> {
  return join(root, await read(git(root, 'rev-parse', '--git-path', 'info/exclude'), { cwd: root }));
}

async function excludePaths(project: Project, paths: readonly string[]): Promise<void> {
  const path = await excludeFile(project.root);
  const text = (await readIfPresent(path)) ?? '';
  const missing = paths.map((one) => `/${one}`).filter((line) => !text.split('\n').includes(line));
  if (missing.length === 0) return;
  if (!session.dryRun) await mkdir(dirname(path), { recursive: true });
  const separator = text === '' || text.endsWith('\n') ? '' : '\n';
  await writeFileAtomic(path, `${text}${separator}${missing.join('\n')}\n`);
}

/** Every path of the older setup that may lie in this repository. */
export function oldPaths(
  { legacy, plan }: Pick<MigrationRecord, 'legacy' | 'plan'>,
  configs: readonly string[],
) {
  const compose = plan.compose.flatMap(({ path, deprecated }) => [path, deprecated]);
  return [...compose, ...configs.map((file) => join(legacy.directory, file))];
}

const prepare: Step = {
  name: 'prepare',
  apply: async ({ project, description, recorder }) => {
    const { record } = recorder;
    await removeLeftovers(project);
    await keepFile(project.root, record.id, dotenvPath(project.root));
    await keepFile(project.root, record.id, await excludeFile(project.root));
    await excludePaths(project, await strangers(project, oldPaths(record, description.config_files)));
    // The directory is the old service's still; its copy gets owner and mode.
    const setup = (await planSetup(project)).filter(({ name }) => !name.endsWith('data-directory'));
    await applySetup(project, setup);
    return {};
  },
  undo: async ({ project, recorder: { record } }) => {
    await restoreFile(project.root, record.id, dotenvPath(project.root));
    await restoreFile(project.root, record.id, await excludeFile(project.root));
  },
};

const images: Step = {
  name: 'images',
  apply: async ({ project }) => {
    if (!variable(project, 'PROD_TAG') && !(await newestRelease(project)))
      await runWholeTask(project, 'release', 'auto');
    const ready = await loadProject(project.root);
    const tag = variable(ready, 'PROD_TAG') ?? (await newestRelease(ready));
    if (!tag) return {};
    if (!(await inspectImage(imageReference(ready, tag)))) await fetchProd(ready, tag);
    if (!(await inspectImage(imageReference(ready, 'latest'))) && !(await pullLatest(ready)))
      await runWholeTask(ready, 'build-push', 'latest', '--no-push');
    return { tag };
  },
  // A release and images stay: they are nobody's old state, and the next run needs them.
  undo: async () => {},
};

async function fetchProd(project: Project, tag: string): Promise<void> {
  await engineInfo();
  const by = registryReference(project, tag) ? 'pull' : 'build';
  await fetchRelease(project, { kind: 'fetch', tag, by }, { active: 'both', prodTag: tag, imageIds: {} }, {});
}

async function pullLatest(project: Project): Promise<boolean> {
  const reference = registryReference(project, 'latest');
  if (!reference) return false;
  const answer = session.dryRun ? undefined : await probe(docker('pull', '--quiet', reference));
  if (!answer) await run(docker('pull', '--quiet', reference));
  if (answer && !answer.ok) log.warn(`cannot pull ${reference}; it is built instead`);
  if (!answer?.ok) return false;
  await tagImage(reference, imageReference(project, 'latest'));
  return true;
}

// Is everything there that was there? Asked of the data itself, and of both environments.

const verify: Step = {
  name: 'verify',
  apply: async (context) => {
    const { project, description, recorder } = context;
    if (session.dryRun) return {};
    const { id, plan } = recorder.record;
    for (const name of ENVIRONMENTS) {
      const url = `http://127.0.0.1:${plan.ports[name]}${project.environments[name].health}`;
      const { status, error } = await askHealth(url);
      if (status !== 200)
        throw new TaskError(`${name} does not answer at ${url}: ${error ?? status}`, { code: 'unhealthy' });
    }
    const before = await readInventory(project.root, id);
    const after = await takeInventory(project, plan.data.to, { since: stoppedAt(context), known: before });
    const { problems, ...compared } = compareInventories(before, after!, description.pruned);
    if (problems.length > 0) {
      throw new TaskError(`The data is not what it was:\n${problems.map((one) => `  - ${one}`).join('\n')}`, {
        code: 'data-differs',
      });
    }
    const { readable } = description;
    const read = readable ? await verifyReadable(project, readable, plan.data.to, plan.ports) : 0;
    return { ...compared, readThroughBoth: read };
  },
  undo: async () => {},
};

// Owners and modes as the older setup had them: a file that it knew gets its own back, a new one its folder's.

const SLASH = Buffer.from('/');
const joinBytes = (folder: Buffer, name: Buffer) => Buffer.concat([folder, SLASH, name]);

/** Makes `path` and everything in it belong to whom `original` shows. Names are bytes: they need not be UTF-8. */
async function restoreOwners(path: string, original: string, root: Owner): Promise<void> {
  if (session.dryRun) return;
  await restoreOne(Buffer.from(path), Buffer.from(original), root);
}

async function restoreOne(path: Buffer, original: Buffer, otherwise: Owner): Promise<void> {
  const [present, before] = await Promise.all([lstat(path), lstat(original).catch(() => undefined)]);
  const mode = (before ?? present).mode & 0o7777;
  const { uid, gid } = before ?? otherwise;
  if (present.isSymbolicLink()) return lchown(path, uid, gid);
  await chown(path, uid, gid);
  await chmod(path, mode);
  if (!present.isDirectory()) return;
  for (const name of await readdir(path, { encoding: 'buffer' }))
    await restoreOne(joinBytes(path, name), joinBytes(original, name), { ...otherwise, uid, gid });
}

// Files as they were before the migration, kept with our bookkeeping, so that a rollback brings them back byte
// for byte; and what they had become by then, so that nothing is lost by going back.

/** Our folder of one migration. */
function keptPath(root: string, id: string, ...names: string[]): string {
  return statePath(root, `migration-${id}`, ...names);
}

const nameOf = (root: string, path: string) => encodeURIComponent(relative(root, path));

interface KeptFile {
  /** Base64; null: there was no file. */
  content: string | null;
  mode: number;
}

async function look(path: string): Promise<KeptFile> {
  const found = await stat(path).catch(() => undefined);
  if (!found) return { content: null, mode: 0o644 };
  return { content: (await readFile(path)).toString('base64'), mode: found.mode & 0o777 };
}

/** Keeps a file as it is now; a second call changes nothing. */
async function keepFile(root: string, id: string, path: string): Promise<void> {
  if (session.dryRun) return;
  const place = keptPath(root, id, 'before', nameOf(root, path));
  if ((await readIfPresent(place)) !== undefined) return;
  await mkdir(keptPath(root, id, 'before'), { recursive: true, mode: 0o700 });
  await replaceFile(place, JSON.stringify(await look(path)), { mode: 0o600 });
}

/** The file as it was kept, as text; undefined if it was not kept or not there. */
async function keptText(root: string, id: string, path: string): Promise<string | undefined> {
  const text = await readIfPresent(keptPath(root, id, 'before', nameOf(root, path)));
  const kept = text === undefined ? undefined : (JSON.parse(text) as KeptFile);
  return kept?.content == null ? undefined : Buffer.from(kept.content, 'base64').toString('utf8');
}

/** Makes a file again what it was; what it is now is kept, too. Nothing happens if it was not kept. */
async function restoreFile(root: string, id: string, path: string): Promise<void> {
  const text = await readIfPresent(keptPath(root, id, 'before', nameOf(root, path)));
  if (text === undefined || session.dryRun) return;
  const [kept, present] = [JSON.parse(text) as KeptFile, await look(path)];
  if (kept.content === present.content && kept.mode === present.mode) return;
  if (present.content !== null) {
    const folder = keptPath(root, id, 'at-rollback');
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await replaceFile(join(folder, nameOf(root, path)), Buffer.from(present.content, 'base64'), {
      mode: 0o600,
    });
  }
  if (kept.content === null) await rm(path, { force: true });
  else await writeFileAtomic(path, Buffer.from(kept.content, 'base64'), { mode: kept.mode });
}

// Committing what the migration wrote, and nothing else: releases are made from a clean tree. Hooks and
// signing are left out, as for a release: they may ask, and nobody may be there.

/** Commits these paths as they are; returns the commit, or null if they are committed already. */
export async function commitFiles(
  project: Project,
  paths: readonly string[],
  message: string,
): Promise<string | null> {
  const { root } = project;
  const changed = await changedPaths(root, paths);
  if (changed.length === 0) return null;
  const { env } = await releaseIdentity(root);
  const quiet = ['-c', 'commit.gpgSign=false', '-c', 'core.hooksPath=/dev/null'];
  await run(git(root, 'add', '--all', '--', ...changed));
  await run(git(root, ...quiet, 'commit', '--quiet', '--only', '-m', message, '--', ...changed), { env });
  return session.dryRun ? null : read(git(root, 'rev-parse', 'HEAD'));
}

/** Those that git would show as changed; ignored ones are none of its business. */
async function changedPaths(root: string, paths: readonly string[]): Promise<string[]> {
  const known = [...new Set(paths)];
  const answer = await probe(git(root, 'status', '--porcelain', '-z', '--no-renames', '--', ...known));
  const entries = answer.stdout.split('\0').filter(Boolean);
  return entries.map((entry) => entry.slice(3));
}

// The migration in the release notes of this machine: under the release that it brought, so that later releases
// still come first. Pure.

function migrationEntry(record: MigrationRecord): string {
  const { legacy, plan, steps, startedAt } = record;
  const evidence = (name: keyof typeof steps) => steps[name]?.evidence ?? {};
  const outcomes = (evidence('settings').outcomes ?? []) as SettingOutcome[];
  const counted = (outcome: SettingOutcome['outcome']) => outcomes.filter((one) => one.outcome === outcome);
  const names = (list: readonly SettingOutcome[]) => list.map(({ key }) => `\`${key}\``).join(', ') || 'none';
  const moved =
    plan.models.by === 'none'
      ? []
      : [
          `- Models: volume \`${plan.models.to}\` (${plan.models.by === 'reuse' ? 'the old one, used as it is' : 'a copy, compared file by file'})`,
        ];
  return [
    `### Migrated from ${legacy.service} (${startedAt.slice(0, 10)})`,
    '',
    `- \`${legacy.service}\` on port ${legacy.ports.join(', ')} became dev on ${plan.ports.dev} and prod on ${plan.ports.prod}`,
    `- Data: ${size(plan.data.bytes)} at \`${plan.data.to}\`, a compared copy; the old directory waits untouched: \`${plan.data.aside ?? plan.data.from}\``,
    ...moved,
    `- Settings: carried ${names(counted('carried'))}; renamed ${names(counted('renamed'))}; dropped ${names(counted('dropped'))}`,
    `- Old compose file: ${plan.compose.map(({ deprecated }) => `\`${deprecated}\``).join(', ') || 'there was none'}`,
    `- Backup: \`${evidence('backup').archive ?? 'none'}\``,
    '- Back: `npx tsx tasks/migrate.ts --rollback`; the old pieces go with `npx tsx tasks/migrate.ts --finish`',
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

// All steps, in the order of step-names.ts.

const BY_NAME: Record<StepName, Step> = {
  prepare,
  images,
  stop,
  data,
  backup,
  compose,
  models,
  settings,
  start,
  verify,
  notes,
};

export const ALL_STEPS: readonly Step[] = STEPS.map((name) => BY_NAME[name]);
