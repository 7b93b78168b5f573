// The program in the image: `main` serves, `main --health` asks the server that already runs, for HEALTHCHECK. The
// check runs for as long as the container does, so it loads almost nothing, not even the configuration's schema.
import { get } from 'node:http';
import { readAddress } from './config/sources.ts';

/** Long enough for a Pi under load, where starting this program alone may take seconds. */
const HEALTH_TIMEOUT_MS = 12_000;

if (process.argv[2] === '--health') checkHealth();
else await (await import('./serve.ts')).serve(process.env);

/** Sets the exit code: 0 when /health responds with 200. Prints the response, which `docker inspect` shows. */
function checkHealth(): void {
  process.exitCode = 1;
  try {
    const { host, port } = readAddress(process.env);
    const address = { '0.0.0.0': '127.0.0.1', '::': '::1' }[host] ?? host;
    const request = get({ host: address, port, path: '/health', timeout: HEALTH_TIMEOUT_MS }, (response) => {
      response.pipe(process.stdout);
      if (response.statusCode === 200) process.exitCode = 0;
    });
    request.on('timeout', () => request.destroy(new Error(`no response within ${HEALTH_TIMEOUT_MS} ms`)));
    request.on('error', (error) => console.log(`/health on port ${port}: ${error.message}`));
  } catch (error) {
    // No service can start with this configuration.
    console.log(`/health cannot be queried: ${(error as Error).message.split('\n')[0]}`);
  }
}
