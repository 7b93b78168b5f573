// Where a service listens, read from the same layers as the loader reads but without the schema, which costs
// a health check more processor than all else it does. It checks next to nothing: a service with
// a wrong configuration does not start, so there is nobody to ask.
import { readFileSync } from 'node:fs';
import { configPathOf, layerFiles, variableName } from './sources.ts';

export interface Address {
  host: string;
  port: number;
}

/** The schema's defaults of `server.host` and `server.port`. */
export const DEFAULT_ADDRESS: Readonly<Address> = { host: '0.0.0.0', port: 8002 };

/** @throws if a file cannot be read or is not JSON, and for a port that is no number: node would take another one */
export function readAddress(env: Record<string, string | undefined>): Address {
  const files = layerFiles(configPathOf(env)).map((file) => JSON.parse(readFileSync(file, 'utf8')).server);
  const { host, port } = Object.assign({}, DEFAULT_ADDRESS, ...files) as Address;
  const chosen = env[variableName('server.port')] || port;
  if (!Number.isInteger(Number(chosen))) throw new Error(`server.port is ${JSON.stringify(chosen)}`);
  return { host: env[variableName('server.host')] || host, port: Number(chosen) };
}
