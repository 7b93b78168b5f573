// `--health`: asks the running service's own /health from inside the container, for HEALTHCHECK. It needs
// no curl in the image, and loads nothing of the service but the configuration (for the port).

import { get } from 'node:http';
import { loadConfig } from './config.ts';

const TIMEOUT_MS = 4000;

/** Sets the exit code: 0 when /health answers 200. Prints the answer, which `docker inspect` shows. */
export function checkHealth(env: Record<string, string | undefined>): void {
  const { host, port } = loadConfig({ env }).config.server;
  const address = { '0.0.0.0': '127.0.0.1', '::': '::1' }[host] ?? host;
  process.exitCode = 1;
  const request = get({ host: address, port, path: '/health', timeout: TIMEOUT_MS }, (response) => {
    response.pipe(process.stdout);
    if (response.statusCode === 200) process.exitCode = 0;
  });
  request.on('timeout', () => request.destroy(new Error(`no answer within ${TIMEOUT_MS} ms`)));
  request.on('error', (error) => console.log(`/health on port ${port}: ${error.message}`));
}
