// Stopping and refusing to start, in a process of its own: SIGTERM within a second whatever is open, exit
// codes, and the health check that the image's HEALTHCHECK runs.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { SERVICE } from './programs.ts';
import { exitOf, freePort, spawnService, startProcess, temporaryDirectory } from './support.ts';

/** A connection that has sent `text` and then stays open. */
async function openConnection(port: number, text: string): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => {});
  await once(socket, 'connect');
  socket.write(text);
  return socket;
}

const OPEN = {
  'idle keep-alive': 'GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n',
  'event stream': 'GET /mcp HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n',
  'half a request':
    'POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{',
  'half an upload':
    'POST /v1/upload HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=B\r\n' +
    'content-length: 9999\r\n\r\n--B\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nhalf',
  'nothing sent': '',
};

test('SIGTERM stops the service long before the engine would kill it, whatever connections are open', async (t) => {
  const port = await freePort();
  const { child, exited } = await startProcess(t, temporaryDirectory(t), port);
  for (const text of Object.values(OPEN)) await openConnection(port, text);
  await new Promise((resolve) => setTimeout(resolve, 100));
  const asked = performance.now();
  child.kill('SIGTERM');
  assert.deepEqual(await exited, { code: 0, signal: null });
  const took = performance.now() - asked;
  t.diagnostic(`stopped in ${Math.round(took)} ms with ${Object.keys(OPEN).length} connections open`);
  assert(took < 9000, `took ${took} ms`);
});

test('a wrong configuration is one log line with all problems, and exit 2 before anything is opened', async (t) => {
  const data = temporaryDirectory(t);
  const env = { LOG_LEVEL: 'LOUD', SYNAPSE_SERVER__PRT: '1' };
  const child = spawnService(t, data, await freePort(), env);
  const exited = exitOf(child);
  let output = '';
  for await (const part of child.stdout!) output += part;
  assert.equal((await exited).code, 2);
  const line = JSON.parse(output);
  assert.equal(line.level, 'ERROR');
  assert.equal(line.problems.length, 2);
});

test('a busy port is exit 1 and named', async (t) => {
  const blocker = createServer().listen(0, '127.0.0.1');
  await once(blocker, 'listening');
  t.after(() => blocker.close());
  const { port } = blocker.address() as { port: number };
  const child = spawnService(t, temporaryDirectory(t), port);
  const exited = exitOf(child);
  let output = '';
  for await (const part of child.stdout!) output += part;
  assert.equal((await exited).code, 1);
  assert.match(JSON.parse(output).error, new RegExp(`EADDRINUSE.*${port}`));
});

test('the health check is 0 for a healthy service and 1 for an unhealthy or absent one', async (t) => {
  const data = temporaryDirectory(t);
  const port = await freePort();
  const env = { SYNAPSE_CONFIG_PATH: join(data, '..', 'synapse.json'), SYNAPSE_SERVER__PORT: String(port) };
  const check = () => spawnSync(process.execPath, [SERVICE, '--health'], { env, encoding: 'utf8' });
  const absent = check();
  assert.equal(absent.status, 1);
  assert.match(absent.stdout, /ECONNREFUSED/);
  const { child, exited } = await startProcess(t, data, port);
  const healthy = check();
  assert.equal(healthy.status, 0);
  assert.equal(JSON.parse(healthy.stdout).status, 'ok');
  child.kill('SIGTERM');
  await exited;
});

test('a data directory that cannot be used is exit 1 and named', async (t) => {
  const data = temporaryDirectory(t);
  writeFileSync(
    join(data, 'memory.db'),
    'this is not a database, and long enough to be read as one by mistake',
  );
  chmodSync(join(data, 'memory.db'), 0o600);
  const child = spawnService(t, data, await freePort());
  const exited = exitOf(child);
  let output = '';
  for await (const part of child.stdout!) output += part;
  assert.equal((await exited).code, 1);
  assert.match(JSON.parse(output).error, /Cannot open .*memory\.db: file is not a database/);
});
