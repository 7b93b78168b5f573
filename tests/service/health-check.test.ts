// The health check that the image's HEALTHCHECK runs: it asks where the service listens, whichever layer of the
// configuration says so, and is 0 for nothing but a healthy answer.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { loadConfig } from '../../service/config/config.ts';
import { DEFAULT_ADDRESS, readAddress } from '../../service/config/sources.ts';
import { SERVICE } from './programs.ts';
import { temporaryDirectory } from './support.ts';

type Layers = Record<'base' | 'environment', { server?: object }> & { env: Record<string, string> };

/** Writes the two files of a configuration; the environment of a service that reads them. */
function configuration(t: TestContext, { base, environment, env }: Layers): Record<string, string> {
  const folder = temporaryDirectory(t);
  writeFileSync(join(folder, 'synapse.json'), JSON.stringify(base));
  writeFileSync(join(folder, 'synapse_prod.json'), JSON.stringify(environment));
  return { SYNAPSE_CONFIG_PATH: join(folder, 'synapse_prod.json'), ...env };
}

/** Answers every connection with a text, then closes it. */
async function answering(t: TestContext, text: string): Promise<number> {
  const server = createServer((socket) => socket.once('data', () => socket.end(text)));
  t.after(() => server.close());
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return (server.address() as AddressInfo).port;
}

/** Not by spawnSync: the server that is asked is in this process. */
function check(env: Record<string, string>): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [SERVICE, '--health'], { env }, (error, stdout, stderr) =>
      resolve({ code: error ? Number(error.code) : 0, stdout, stderr }),
    );
  });
}

const answer = (status: string, body: string) => `HTTP/1.1 ${status}\r\nconnection: close\r\n\r\n${body}\n`;
const nowhere = { base: {}, environment: {}, env: {} };

for (const [name, layers, expected] of [
  ['nothing: the defaults', nowhere, DEFAULT_ADDRESS],
  ['the base file', { ...nowhere, base: { server: { host: '::', port: 9001 } } }, { host: '::', port: 9001 }],
  [
    'the environment file over the base file, key by key',
    {
      ...nowhere,
      base: { server: { host: '127.0.0.2', port: 9001 } },
      environment: { server: { port: 9002 } },
    },
    { host: '127.0.0.2', port: 9002 },
  ],
  [
    'variables over both files',
    {
      base: { server: { host: '127.0.0.2', port: 9001 } },
      environment: { server: { host: '127.0.0.3', port: 9002 } },
      env: { SYNAPSE_SERVER__HOST: '127.0.0.4', SYNAPSE_SERVER__PORT: ' 9003 ' },
    },
    { host: '127.0.0.4', port: 9003 },
  ],
  [
    'empty variables, which count as not set',
    {
      ...nowhere,
      base: { server: { port: 9001 } },
      env: { SYNAPSE_SERVER__HOST: '', SYNAPSE_SERVER__PORT: '' },
    },
    { host: DEFAULT_ADDRESS.host, port: 9001 },
  ],
] as const) {
  test(`the check reads the address that the service listens on from ${name}`, (t) => {
    const env = configuration(t, layers);
    const { host, port } = loadConfig({ env }).config.server;
    assert.deepEqual({ host, port }, expected);
    assert.deepEqual(readAddress(env), expected);
  });
}

test('the service is asked on the port of each layer, and on loopback when it listens everywhere', async (t) => {
  const ports = await Promise.all(
    ['base', 'file', 'env'].map((body) => answering(t, answer('200 OK', body))),
  );
  const [base, file, env] = ports.map((port) => ({ server: { host: '0.0.0.0', port } }));
  const variable = { SYNAPSE_SERVER__PORT: String(env?.server.port) };
  for (const [layers, expected] of [
    [{ ...nowhere, base }, 'base\n'],
    [{ ...nowhere, base, environment: file }, 'file\n'],
    [{ base, environment: file, env: variable }, 'env\n'],
  ] as [Layers, string][]) {
    assert.deepEqual(await check(configuration(t, layers)), { code: 0, stdout: expected, stderr: '' });
  }
});

test('the configuration is read each time: a changed file is followed', async (t) => {
  const env = configuration(t, {
    ...nowhere,
    base: { server: { port: await answering(t, answer('200 OK', '1')) } },
  });
  assert.equal((await check(env)).stdout, '1\n');
  const server = { port: await answering(t, answer('200 OK', '2')) };
  writeFileSync(env.SYNAPSE_CONFIG_PATH!, JSON.stringify({ server }));
  assert.equal((await check(env)).stdout, '2\n');
});

for (const [name, text, printed] of [
  [
    'an unhealthy answer',
    answer('503 Service Unavailable', 'memory.db cannot be written'),
    /cannot be written/,
  ],
  ['an answer that is not HTTP', '200 OK', /Parse Error/],
  ['no answer at all', '', /socket hang up/],
] as const) {
  test(`${name} is exit 1`, async (t) => {
    const port = String(await answering(t, text));
    const { code, stdout } = await check(
      configuration(t, { ...nowhere, env: { SYNAPSE_SERVER__PORT: port } }),
    );
    assert.equal(code, 1);
    assert.match(stdout, printed);
  });
}

test('a configuration with which no service starts is exit 1 and one line', async (t) => {
  const env = configuration(t, { ...nowhere, env: { SYNAPSE_SERVER__PORT: 'many' } });
  const refused = async () => {
    const { code, stdout, stderr } = await check(env);
    assert.deepEqual([code, stderr], [1, '']);
    assert.match(stdout, /^\/health cannot be queried: [^\n]+\n$/);
  };
  await refused();
  writeFileSync(env.SYNAPSE_CONFIG_PATH!, '{ oops');
  await refused();
});
