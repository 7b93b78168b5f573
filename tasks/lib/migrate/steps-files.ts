// What is renamed and written: the old compose file, the models volume's name, settings, the notes.
import { rename } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { parseEnv } from 'node:util';
import { dotenvPath, updateDotenv } from '../dotenv.ts';
import { readIfPresent, writeFileAtomic } from '../files.ts';
import { log } from '../log.ts';
import { type Project, variableName } from '../project.ts';
import { session } from '../session.ts';
import { commitFiles } from './commit.ts';
import { configFiles } from './config-files.ts';
import { keepFile, keptText, restoreFile } from './kept-files.ts';
import { copyModels, removeVolume } from './models.ts';
import { planNewSettings } from './new-settings.ts';
import { migrationEntry, withEntry } from './notes-entry.ts';
import type { SettingOutcome } from './settings.ts';
import { evidenceOfStep, type Step, type StepContext } from './step.ts';
import { exists } from './survey-files.ts';

async function renameIfThere(from: string, to: string): Promise<void> {
  if (!(await exists(from)) || (await exists(to))) return;
  if (session.dryRun) log.would(`rename: ${from} → ${to}`);
  else await rename(from, to);
}

export const compose: Step = {
  name: 'compose',
  apply: async ({ recorder }) => {
    for (const { path, deprecated } of recorder.record.plan.compose) await renameIfThere(path, deprecated);
    return { reference: recorder.record.plan.compose.map(({ deprecated }) => deprecated) };
  },
  undo: async ({ recorder }) => {
    for (const { path, deprecated } of recorder.record.plan.compose) await renameIfThere(deprecated, path);
  },
};

export const models: Step = {
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

export const settings: Step = {
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

export const notes: Step = {
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
