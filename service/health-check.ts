// `--health`: asks the running service's own /health from inside the container, for HEALTHCHECK. It needs no
// curl in the image. It runs for as long as the container does, so it loads next to nothing: not even the schema
// of the configuration.
import { get } from 'node:http';
import { readAddress } from './config/sources.ts';

/** Long enough for a Pi under load, on which starting this program alone may take seconds. */
const TIMEOUT_MS = 12_000;

/** Sets the exit code: 0 when /health answers 200. Prints the answer, which `docker inspect` shows. */
export function checkHealth(env: Record<string, string | undefined>): void {
  process.exitCode = 1;
  try {
    ask(readAddress(env));
  } catch (error) {
    // A configuration with which no service starts.
    console.log(`/health cannot be asked: ${(error as Error).message.split('\n')[0]}`);
  }
}

function ask({ host, port }: { host: string; port: number }): void {
  const address = { '0.0.0.0': '127.0.0.1', '::': '::1' }[host] ?? host;
  const request = get({ host: address, port, path: '/health', timeout: TIMEOUT_MS }, (response) => {
    response.pipe(process.stdout);
    if (response.statusCode === 200) process.exitCode = 0;
  });
  request.on('timeout', () => request.destroy(new Error(`no answer within ${TIMEOUT_MS} ms`)));
  request.on('error', (error) => console.log(`/health on port ${port}: ${error.message}`));
}
