// Where the configuration is found (files, variables) and where the service listens, without the schema: the
// health check reads the address as long as the container runs, and the schema would cost it more than all else.
import { readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';

export const DEFAULT_CONFIG_PATH = '/app/configs/synapse.json';
export const BASE_FILE = 'synapse.json';

/** The schema's defaults of `server.host` and `server.port`. */
export const DEFAULT_ADDRESS = { host: '0.0.0.0', port: 8002 } as const;

type Environment = Record<string, string | undefined>;

/** The environment file that a service with these variables reads. */
export function configPathOf(env: Environment): string {
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

/**
 * Checks next to nothing: a service with a wrong configuration does not start, so there is nobody to ask.
 * @throws if a file cannot be read or is not JSON, and for a port that is not a number
 */
export function readAddress(env: Environment): { host: string; port: number } {
  const files = layerFiles(configPathOf(env)).map((file) => JSON.parse(readFileSync(file, 'utf8')).server);
  const { host, port } = Object.assign({}, DEFAULT_ADDRESS, ...files) as { host: string; port: number };
  const chosen = env[variableName('server.port')] || port;
  if (!Number.isInteger(Number(chosen))) throw new Error(`server.port is ${JSON.stringify(chosen)}`);
  return { host: env[variableName('server.host')] || host, port: Number(chosen) };
}
