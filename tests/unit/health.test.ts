// Whether a /health answer is the one that was meant: a 200 from the wrong version is a failure, too.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseInfo } from '../../tasks/lib/docker/engine.ts';
import {
  type HealthAnswer,
  healthProblems,
  queryHealth,
  waitForHealth,
} from '../../tasks/lib/docker/health.ts';
import type { ProjectConfig } from '../../tasks/lib/project-schema.ts';
import { startProbing } from '../../tasks/lib/switch/probe.ts';

const KEYS = { env: 'env', version: 'version', revision: 'revision', config: {} };
const EXPECTED = { env: 'prod', version: '1.2.0', revision: 'abc' };
const RIGHT: HealthAnswer = { status: 200, body: { ...EXPECTED } };

test('what is wrong with an answer, in words', () => {
  const rows: [HealthAnswer, ProjectConfig['health'], string[]][] = [
    [RIGHT, KEYS, []],
    [{ status: 0, body: {}, error: 'ECONNREFUSED' }, KEYS, ['no answer (ECONNREFUSED)']],
    [{ status: 503, body: EXPECTED }, KEYS, ['answered 503, expected 200']],
    [
      { status: 200, body: { ...EXPECTED, version: '1.1.0' } },
      KEYS,
      ['reports version "1.1.0", expected "1.2.0"'],
    ],
    [
      { status: 200, body: { version: '1.2.0', revision: 'abc' } },
      KEYS,
      ['reports env undefined, expected "prod"'],
    ],
    [
      { status: 200, body: {} },
      { version: 'version', revision: 'revision', config: {} },
      ['reports version undefined, expected "1.2.0"', 'reports revision undefined, expected "abc"'],
    ],
    [{ status: 200, body: {} }, { config: {} }, []],
  ];
  for (const [answer, keys, problems] of rows)
    assert.deepEqual(healthProblems(keys, answer, EXPECTED), problems);
});

/** Its address while the test runs. */
async function serve(t: TestContext, server: Server): Promise<string> {
  server.listen(0, '127.0.0.1');
  t.after(() => server.close());
  await once(server, 'listening');
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test('an answer that is no object, no answer, and a door that is shut at once all settle', async (t) => {
  const texts = ['7', 'null', 'not json', '{"env":"prod"}'];
  const url = await serve(
    t,
    createHttpServer((_request, response) => response.end(texts.shift())),
  );
  for (const body of [{}, {}, {}, { env: 'prod' }])
    assert.deepEqual(await queryHealth(url), { status: 200, body });
  const shut = await serve(
    t,
    createServer((socket) => socket.destroy()),
  );
  assert.equal((await queryHealth(shut)).status, 0);
  const silent = await serve(t, createServer());
  const error = 'did not respond within 0.05 s';
  assert.deepEqual(await queryHealth(silent, 50), { status: 0, body: {}, error });
});

test('waiting ends at once for the wrong one, and for one that has died', async (t) => {
  const server = createHttpServer((request, response) => {
    response.writeHead(request.url === '/well' ? 200 : 503).end('{"env":"dev"}');
  });
  const url = await serve(t, server);
  const givenUp = async () => 'its container died';
  const wait = { keys: KEYS, expected: EXPECTED, timeoutSeconds: 600, givenUp };
  await assert.rejects(waitForHealth({ ...wait, url: `${url}/well` }), /reports env "dev", expected "prod"/);
  await assert.rejects(waitForHealth({ ...wait, url: `${url}/ill` }), /its container died/);
});

test('what answers but is no engine is not taken for one', () => {
  for (const answer of [undefined, 'hello', {}, { ServerVersion: '' }])
    assert.throws(() => parseInfo(answer), {
      code: 'engine-down',
      message: 'No Docker engine answers: what answers /info is none',
    });
});

test('a question that hangs does not hide that the next one is answered', async (t) => {
  let connections = 0;
  const leaving = createHttpServer((_request, response) => response.end('{}'));
  const starting = createHttpServer((_request, response) => {
    connections += 1;
    // As at a port whose container is just starting.
    if (connections > 1) response.end('{}');
  });
  t.after(() => starting.closeAllConnections());
  const [dev, prod] = [{ url: await serve(t, leaving) }, { url: await serve(t, starting) }];
  const probing = startProbing({ dev, prod });
  await sleep(500);
  leaving.close();
  leaving.closeAllConnections();
  await sleep(200);
  await probing.stop();
  assert.ok(connections > 2);
  assert.equal(probing.gaps().any, 0);
});
