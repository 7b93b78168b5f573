// The new service's configuration files: edited in place, so that layout and order stay, and tried with the
// loader that runs in the container.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { TaskError } from '../errors.ts';
import { readIfPresent } from '../files.ts';
import type { Project } from '../project.ts';
import { dropped, type SettingOutcome, type TargetFile } from './settings.ts';

/** The configuration files of this project, by what they are for; undefined where it has none. */
export async function configFiles(project: Project): Promise<Record<TargetFile, string> | undefined> {
  const { dev, prod } = project.environments;
  if (!dev.config || !prod.config) return undefined;
  const { BASE_FILE } = await import('../../../service/config.ts');
  const base = join(dirname(prod.config), BASE_FILE);
  return { base, dev: dev.config, prod: prod.config };
}

export async function editedFiles(
  project: Project,
  paths: Record<TargetFile, string>,
  kept: readonly SettingOutcome[],
  withVariables = false,
): Promise<Record<string, string>> {
  const { applyEdits, modify, parse } = await import('jsonc-parser');
  const edited: Record<string, string> = {};
  for (const { target, value } of kept) {
    if (!target?.path || !target.file || (target.variable && !withVariables)) continue;
    const file = relative(project.root, resolve(project.root, paths[target.file]));
    const text: string = edited[file] ?? (await readIfPresent(join(project.root, file))) ?? '{}\n';
    const keys = target.path.split('.');
    const present = keys.reduce<unknown>(
      (node, key) => (node as Record<string, unknown>)?.[key],
      parse(text),
    );
    const wanted =
      Array.isArray(value) && Array.isArray(present) ? [...new Set([...present, ...value])] : value;
    const formattingOptions = { insertSpaces: true, tabSize: 2 };
    if (JSON.stringify(present) === JSON.stringify(wanted)) continue;
    edited[file] = applyEdits(text, modify(text, keys, wanted, { formattingOptions }));
  }
  return edited;
}

/** Tries the new files with the loader that runs in the container; what it refuses is dropped, and said. */
export async function checkedByLoader(
  project: Project,
  paths: Record<TargetFile, string>,
  outcomes: readonly SettingOutcome[],
): Promise<SettingOutcome[]> {
  const edited = await editedFiles(project, paths, outcomes, true);
  const folder = await mkdtemp(join(tmpdir(), 'settings-'));
  const refused = await refusals(project, paths, edited, folder).finally(() =>
    rm(folder, { recursive: true }),
  );
  if (refused.size === 0) return [...outcomes];
  const checked = outcomes.map((one) => {
    const message = [...refused].find(([path]) => isAt(path, one.target?.path))?.[1];
    return message ? dropped(one, `the new service refuses it: ${message}`) : one;
  });
  if (checked.every((one, index) => one === outcomes[index])) {
    throw new TaskError(`The service configuration is not valid: ${[...refused].join('; ')}`, {
      code: 'service-config-invalid',
      exitCode: 2,
      hint: 'repair it first: npm run doctor',
    });
  }
  return checkedByLoader(project, paths, checked);
}

const isAt = (path: string, target: string | undefined) =>
  target !== undefined && (path === target || path.startsWith(`${target}.`));

async function refusals(
  project: Project,
  paths: Record<TargetFile, string>,
  edited: Record<string, string>,
  folder: string,
): Promise<Map<string, string>> {
  const { ConfigError, loadConfig } = await import('../../../service/config.ts');
  for (const file of new Set(Object.values(paths))) {
    const text = edited[file] ?? (await readIfPresent(resolve(project.root, file)));
    if (text !== undefined) await writeFile(join(folder, basename(file)), text);
  }
  const refused = new Map<string, string>();
  for (const file of [paths.dev, paths.prod]) {
    try {
      loadConfig({ configPath: join(folder, basename(file)) });
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      for (const { path, message } of error.problems) refused.set(path, message);
    }
  }
  return refused;
}
