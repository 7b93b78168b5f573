// Whether a /health answer is the one that was meant: a 200 from the wrong version is a failure, too.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseInfo, queryEngine, withEngine } from '../../tasks/lib/docker/engine.ts';
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

test('an answer that is no object, no answer, and a door that is shut at once all settle', async (t) => {
  const texts = ['7', 'null', 'not json', '{"env":"prod"}'];
  const server = createHttpServer((_request, response) => response.end(texts.shift())).listen(0, '127.0.0.1');
  const shut = createServer((socket) => socket.destroy()).listen(0, '127.0.0.1');
  const silent = createServer(() => {}).listen(0, '127.0.0.1');
  const servers = [server, shut, silent];
  t.after(() => {
    for (const one of servers) one.close();
  });
  await Promise.all(servers.map((one) => once(one, 'listening')));
  const url = (one: { address: () => unknown }) =>
    `http://127.0.0.1:${(one.address() as AddressInfo).port}/health`;
  for (const body of [{}, {}, {}, { env: 'prod' }]) {
    assert.deepEqual(await queryHealth(url(server)), { status: 200, body });
  }
  assert.equal((await queryHealth(url(shut))).status, 0);
  assert.deepEqual(await queryHealth(url(silent), 50), {
    status: 0,
    body: {},
    error: 'did not respond within 0.05 s',
  });
});

test('waiting ends at once for the wrong one, and for one that has died', async (t) => {
  const server = createHttpServer((request, response) => {
    response.writeHead(request.url === '/well' ? 200 : 503).end('{"env":"dev"}');
  }).listen(0, '127.0.0.1');
  t.after(() => server.close());
  await once(server, 'listening');
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const wait = {
    keys: KEYS,
    expected: EXPECTED,
    timeoutSeconds: 600,
    givenUp: async () => 'its container died',
  };
  await assert.rejects(waitForHealth({ ...wait, url: `${base}/well` }), /reports env "dev", expected "prod"/);
  await assert.rejects(waitForHealth({ ...wait, url: `${base}/ill` }), /its container died/);
});

test('questions to an engine that is not there are all refused, also those that wait for their turn', async (t) => {
  const { DOCKER_HOST } = process.env;
  t.after(() => {
    if (DOCKER_HOST === undefined) delete process.env.DOCKER_HOST;
    else process.env.DOCKER_HOST = DOCKER_HOST;
  });
  // One that dies with the question in its hands.
  const socket = join(mkdtempSync(join(tmpdir(), 'dying-engine-')), 'docker.sock');
  t.after(() => rmSync(dirname(socket), { recursive: true }));
  const dying = createServer((connection) => connection.once('data', () => connection.destroy())).listen(
    socket,
  );
  t.after(() => dying.close());
  await once(dying, 'listening');
  for (const host of ['tcp://127.0.0.1:9', 'unix:///nowhere/docker.sock', `unix://${socket}`]) {
    process.env.DOCKER_HOST = host;
    const answers = withEngine(() => Promise.allSettled(['/info', '/version', '/_ping'].map(queryEngine)));
    for (const answer of await answers) {
      assert.equal(answer.status, 'rejected');
      assert.equal((answer as PromiseRejectedResult).reason.code, 'engine-down', host);
    }
  }
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
  const leaving = createHttpServer((_request, response) => response.end('{}')).listen(0, '127.0.0.1');
  const starting = createHttpServer((_request, response) => {
    connections += 1;
    // As at a port whose container is just starting.
    if (connections > 1) response.end('{}');
  }).listen(0, '127.0.0.1');
  t.after(() => {
    for (const one of [leaving, starting]) {
      one.close();
      one.closeAllConnections();
    }
  });
  await Promise.all([leaving, starting].map((one) => once(one, 'listening')));
  const address = (one: { address: () => unknown }) => ({
    url: `http://127.0.0.1:${(one.address() as AddressInfo).port}/health`,
  });
  const probing = startProbing({ dev: address(leaving), prod: address(starting) });
  await sleep(500);
  leaving.close();
  leaving.closeAllConnections();
  await sleep(200);
  await probing.stop();
  assert.ok(connections > 2);
  assert.equal(probing.gaps().any, 0);
});
