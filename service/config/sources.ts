// Where each layer is found: the files, and the variable of a key. Apart from the loader because the health
// check reads them as well, without the schema.
import { dirname, join, resolve } from 'node:path';

export const DEFAULT_CONFIG_PATH = '/app/configs/synapse.json';
export const BASE_FILE = 'synapse.json';

/** The environment file that a service with these variables reads. */
export function configPathOf(env: Record<string, string | undefined>): string {
  return env.SYNAPSE_CONFIG_PATH || DEFAULT_CONFIG_PATH;
}

/** The files that are read for a configuration path, lowest first: base, then environment. */
export function layerFiles(configPath: string): string[] {
  const file = resolve(configPath);
  return [...new Set([join(dirname(file), BASE_FILE), file])];
}

/** `log.level` → `SYNAPSE_LOG__LEVEL`. */
export function variableName(path: string): string {
  return `SYNAPSE_${path.replaceAll('.', '__').toUpperCase()}`;
}
