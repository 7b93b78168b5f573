// Stopping and refusing to start, in a process of its own: SIGTERM within a second whatever is open, and exit codes.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
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

const DAMAGED = 'this is not a database, and long enough to be read as one by mistake';

for (const [name, code, prepare, logged] of [
  [
    'a wrong configuration',
    2,
    () => ({ env: { LOG_LEVEL: 'LOUD', SYNAPSE_SERVER__PRT: '1' } }),
    /"problems":.*LOG_LEVEL.*SYNAPSE_SERVER__PRT/,
  ],
  ['a busy port', 1, async (t) => ({ port: await busyPort(t) }), /EADDRINUSE/],
  [
    'a data directory that cannot be used',
    1,
    (_, data) => writeFileSync(join(data, 'memory.db'), DAMAGED) ?? {},
    /Cannot open .*memory\.db: file is not a database/,
  ],
] as [
  name: string,
  code: number,
  prepare: (t: TestContext, data: string) => Promise<Obstacle> | Obstacle,
  logged: RegExp,
][]) {
  test(`${name} is one log line that names it, and exit ${code}`, async (t) => {
    const data = temporaryDirectory(t);
    const { port = await freePort(), env } = await prepare(t, data);
    const child = spawnService(t, data, port, env);
    const exited = exitOf(child);
    let output = '';
    for await (const part of child.stdout!) output += part;
    assert.equal((await exited).code, code);
    assert.equal(JSON.parse(output).level, 'ERROR');
    assert.match(output, logged);
  });
}

interface Obstacle {
  port?: number;
  env?: Record<string, string>;
}

async function busyPort(t: TestContext): Promise<number> {
  const blocker = createServer().listen(0, '127.0.0.1');
  await once(blocker, 'listening');
  t.after(() => blocker.close());
  return (blocker.address() as { port: number }).port;
}
