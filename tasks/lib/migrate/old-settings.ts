// Reading the older setup's settings from where they are: its JSON files, its .env, its compose file.
import { join } from 'node:path';
import { parseEnv } from 'node:util';
import { TaskError } from '../errors.ts';
import { readIfPresent } from '../files.ts';
import type { LegacyDescription } from '../migrate-schema.ts';
import type { Legacy } from './legacy.ts';
import { composeHandle, resolveCompose } from './legacy-compose.ts';
import { type OldSetting, settingsOfJson, settingsOfVariables } from './settings.ts';

/** The old settings, weakest first: files, .env, what compose gives the container. */
export async function oldSettings(description: LegacyDescription, legacy: Legacy): Promise<OldSetting[]> {
  const { directory } = legacy;
  const files = await Promise.all(
    description.config_files.map(async (file): Promise<OldSetting[]> => {
      const text = await readIfPresent(join(directory, file));
      if (text === undefined) return [];
      try {
        return settingsOfJson(file, JSON.parse(text));
      } catch (error) {
        throw new TaskError(`Cannot read ${join(directory, file)}: ${(error as Error).message}`, {
          code: 'unknown-shape',
          hint: 'repair it, or move it away to go without it; nothing was changed',
        });
      }
    }),
  );
  const dotenv = parseEnv((await readIfPresent(join(directory, '.env'))) ?? '');
  const resolved = await resolveCompose(composeHandle(legacy.composeFiles, legacy.project, directory));
  const environment = resolved.services[legacy.service]?.environment ?? {};
  const prefix = description.variable_prefix;
  // Compose has put .env's values into the environment: the same key there is the same setting.
  const outside = Object.fromEntries(
    Object.entries(dotenv).filter(([name]) => environment[name] === undefined),
  );
  return [
    ...files.flat(),
    ...settingsOfVariables('.env', prefix, outside),
    ...settingsOfVariables(`environment of ${legacy.service}`, prefix, environment),
  ];
}
