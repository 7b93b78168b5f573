// Which files and variables hold the configuration, and where the service listens. Without the schema, which would be
// most of the cost of the health check.
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
 * Checks almost nothing: with an invalid configuration no service runs that could be queried.
 * @throws if a file cannot be read or is not JSON, and for a port that is not a number
 */
export function readAddress(env: Environment): { host: string; port: number } {
  const files = layerFiles(configPathOf(env)).map((file) => JSON.parse(readFileSync(file, 'utf8')).server);
  const { host, port } = Object.assign({}, DEFAULT_ADDRESS, ...files) as { host: string; port: number };
  const chosen = env[variableName('server.port')] || port;
  if (!Number.isInteger(Number(chosen))) throw new Error(`server.port is ${JSON.stringify(chosen)}`);
  return { host: env[variableName('server.host')] || host, port: Number(chosen) };
}
