// The translation of the older setup's settings for this project: what goes where, nothing is written yet.
import { basename } from 'node:path';
import { registerSecret } from '../log.ts';
import type { LegacyDescription } from '../migrate-schema.ts';
import { type Project, variableName } from '../project.ts';
import { checkedByLoader, configFiles, editedFiles } from './config-files.ts';
import type { Legacy } from './legacy.ts';
import { oldSettings } from './old-settings.ts';
import {
  dropped,
  type KnownKeys,
  type SettingOutcome,
  type TargetFile,
  translateSettings,
} from './settings.ts';

async function knownKeys(project: Project): Promise<KnownKeys> {
  if (!(await configFiles(project))) return new Map();
  const { effectiveValues, mergeLayers } = await import('../../../service/config.ts');
  return new Map(effectiveValues(mergeLayers([])).map(({ path, value }) => [path, value]));
}

export interface NewSettings {
  outcomes: SettingOutcome[];
  /** Path below the project → its new text; only those that change. */
  files: Record<string, string>;
  /** Variables without prefix. */
  variables: Record<string, string>;
}

/**
 * The translation, as it would be written; values that the service's loader refuses are dropped, and those that
 * `dotenv`, .env as it was before, says already: somebody has decided that for the new service.
 */
export async function planNewSettings(
  project: Project,
  description: LegacyDescription,
  legacy: Legacy,
  dotenv: Record<string, string | undefined> = project.dotenv,
): Promise<NewSettings> {
  const translated = translateSettings(
    description,
    await knownKeys(project),
    await oldSettings(description, legacy),
  );
  for (const { isSecret, value } of translated) if (isSecret) registerSecret(String(value ?? ''));
  const paths = await configFiles(project);
  const free = translated.map((one) => {
    const name = one.target?.variable && variableName(project, one.target.variable);
    return name && dotenv[name] && dotenv[name] !== one.value
      ? dropped(one, `.env says ${name} already`)
      : one;
  });
  const outcomes = (paths ? await checkedByLoader(project, paths, free) : free).map((one) =>
    withPlace(project, paths, one),
  );
  const kept = outcomes.filter(({ target }) => target !== undefined);
  const variables = kept.flatMap(({ target, value }) =>
    target?.variable ? [[target.variable, String(value)]] : [],
  );
  const files = paths ? await editedFiles(project, paths, kept) : {};
  return { outcomes, files, variables: Object.fromEntries(variables) };
}

function withPlace(project: Project, paths: Record<TargetFile, string> | undefined, one: SettingOutcome) {
  const { target } = one;
  if (!target) return one;
  const to = target.variable
    ? `.env: ${variableName(project, target.variable)}`
    : `${basename(paths![target.file!])}: ${target.path}`;
  return { ...one, to };
}
