// Answers /health. The file `behaviour`, committed with each version, says how it goes wrong:
// ok · unhealthy (never 200) · crash (dies at once) · wrong-version · slow (healthy after two seconds)
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

const behaviour = readFileSync(new URL('behaviour', import.meta.url), 'utf8').trim();
if (behaviour === 'crash') {
  console.error('tiny-app: cannot start, as asked');
  process.exit(3);
}
const readyAt = Date.now() + (behaviour === 'slow' ? 2000 : 0);
const server = createServer((_request, response) => {
  const isWell = behaviour !== 'unhealthy' && Date.now() >= readyAt;
  const body = {
    env: process.env.APP_ENV ?? 'none',
    version: behaviour === 'wrong-version' ? '9.9.9' : process.env.APP_VERSION,
    revision: process.env.APP_REVISION,
  };
  response.writeHead(isWell ? 200 : 503, { 'content-type': 'application/json' }).end(JSON.stringify(body));
});
server.listen(8002, '0.0.0.0');
process.on('SIGTERM', () => {
  server.closeAllConnections();
  server.close(() => process.exit(0));
});
