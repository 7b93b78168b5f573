// `--health`: asks the running service's own /health from inside the container, for HEALTHCHECK. It needs no
// curl in the image. It runs for as long as the container does, so it loads next to nothing: neither the
// schema of the configuration, nor node:http, which brings all of node's fetch along when it is imported.

import { connect } from 'node:net';
import { readAddress } from './config/address.ts';

const TIMEOUT_MS = 4000;

/** Sets the exit code: 0 when /health answers 200. Prints the answer, which `docker inspect` shows. */
export function checkHealth(env: Record<string, string | undefined>): void {
  process.exitCode = 1;
  const { host, port } = readAddress(env);
  const address = { '0.0.0.0': '127.0.0.1', '::': '::1' }[host] ?? host;
  const socket = connect({ host: address, port, timeout: TIMEOUT_MS });
  let answer = '';
  socket.setEncoding('utf8').on('data', (text: string) => {
    answer += text;
  });
  socket.on('end', () => {
    if (/^HTTP\/1\.[01] 200 /.test(answer)) process.exitCode = 0;
    const body = answer.replace(/^.*?\r\n\r\n/s, '').trim();
    console.log(body || `/health on port ${port}: closed without an answer`);
  });
  socket.on('timeout', () => socket.destroy(new Error(`no answer within ${TIMEOUT_MS} ms`)));
  socket.on('error', (error) => console.log(`/health on port ${port}: ${error.message}`));
  // Of HTTP 1.0: the answer ends where the connection does, in one piece.
  socket.write('GET /health HTTP/1.0\r\n\r\n');
}
