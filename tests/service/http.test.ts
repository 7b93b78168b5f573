// The HTTP side: /health as the tasks read it, uploads within their limits, the token, foreign hosts, and
// the official client over the real transport.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { createServer, request } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { type TestContext, test } from 'node:test';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import type { Transport } from '@modelcontextprotocol/sdk/shared/transport.js';
import type { HttpError } from '../../service/http.ts';
import { openUploads, receiveUpload } from '../../service/uploads.ts';
import { callers, runningService, temporaryDirectory, testConfig } from './support.ts';

const LIST = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/list' });
const MCP_HEADERS = { 'content-type': 'application/json', accept: 'application/json, text/event-stream' };

/** A request with any Host header, which fetch does not allow. */
function send(url: string, headers: Record<string, string>, { method = 'POST', body = LIST } = {}) {
  return new Promise<{ status: number; text: string; headers: Record<string, unknown> }>(
    (resolve, reject) => {
      const outgoing = request(url, { method, headers: { ...MCP_HEADERS, ...headers } }, async (response) => {
        let text = '';
        for await (const part of response) text += part;
        resolve({ status: response.statusCode ?? 0, text, headers: response.headers });
      });
      outgoing.on('error', reject);
      outgoing.end(method === 'GET' ? undefined : body);
    },
  );
}

async function httpClient(t: TestContext, url: string, headers: Record<string, string> = {}) {
  const client = new Client({ name: 'test', version: '1.0.0' });
  const transport = new StreamableHTTPClientTransport(new URL('/mcp', url), { requestInit: { headers } });
  await client.connect(transport as Transport);
  t.after(() => client.close());
  return callers(client);
}

function fileForm(
  content: string | Uint8Array<ArrayBuffer>,
  filename = 'notes.md',
  field = 'file',
): FormData {
  const form = new FormData();
  form.append(field, new Blob([content]), filename);
  return form;
}

test('/health says who runs and how, with every store', async (t) => {
  const env = { SYNAPSE_ENV: 'prod', LOG_LEVEL: 'WARN', SYNAPSE_AUTOMATIC_LEARNING__MODE: 'aggressive' };
  const { url, caughtUp } = await runningService(t, { env });
  await caughtUp;
  const response = await fetch(`${url}/health`);
  const { startedAt, ...health } = (await response.json()) as Record<string, unknown>;
  assert.equal(response.status, 200);
  assert(Date.parse(String(startedAt)) <= Date.now());
  assert.deepEqual(health, {
    status: 'ok',
    service: 'synapse',
    env: 'prod',
    version: 'v1.2.3',
    revision: 'abc123',
    logLevel: 'WARN',
    automaticLearning: 'aggressive',
    automaticLearningEnabled: true,
    dataFormat: 1,
    stores: Object.fromEntries(
      ['memory', 'episodic', 'semantic', 'metrics'].map((name) => [name, { writable: true }]),
    ),
  });
});

test('/health is 503 when a store was replaced under the service, whose writes would be lost', async (t) => {
  const { url, data, lines } = await runningService(t);
  renameSync(join(data, 'memory.db'), join(data, 'moved.db'));
  const response = await fetch(`${url}/health`);
  const health = (await response.json()) as { status: string; stores: Record<string, { writable: boolean }> };
  assert.equal(response.status, 503);
  assert.equal(health.status, 'unhealthy');
  assert.equal(health.stores.memory?.writable, false);
  assert.equal(health.stores.episodic?.writable, true);
  assert(lines.some((line) => line.level === 'WARN'));
});

test('/health is 503 once a store is locked for longer than a writer waits, answers at once, and recovers', async (t) => {
  const { url, data } = await runningService(t, { env: { SYNAPSE_SQLITE__BUSY_TIMEOUT_MS: '300' } });
  const status = async () => (await fetch(`${url}/health`)).status;
  const other = new DatabaseSync(join(data, 'memory.db'));
  other.exec('BEGIN IMMEDIATE');
  assert.equal(await status(), 200, 'a lock is no illness: the other environment writes');
  await new Promise((resolve) => setTimeout(resolve, 400));
  assert.equal(await status(), 503);
  other.exec('ROLLBACK');
  other.close();
  assert.equal(await status(), 200);
});

test('/health changes nothing in the stores, however often it is asked', async (t) => {
  const { url, data } = await runningService(t);
  const size = () => statSync(join(data, 'memory.db-wal')).size;
  const before = size();
  for (let i = 0; i < 20; i++) await (await fetch(`${url}/health`)).text();
  assert.equal(size(), before);
  assert.deepEqual(
    readdirSync(data).filter((name) => name.startsWith('.probe')),
    [],
  );
});

test('the official client works over HTTP, and an upload becomes a source', async (t) => {
  const { url } = await runningService(t);
  const { call } = await httpClient(t, url);
  const uploaded = await fetch(`${url}/v1/upload`, {
    method: 'POST',
    body: fileForm('Ein Café am Fluß', 'Café.md'),
  });
  assert.equal(uploaded.status, 201);
  const upload = (await uploaded.json()) as { file_path: string; filename: string; size_bytes: number };
  assert.equal(upload.filename, 'Café.md');
  assert.equal(statSync(upload.file_path).mode & 0o077, 0);
  const { filename } = await call('sy.mem.ingest', { project_id: 'p', file_path: upload.file_path });
  assert.equal(filename, 'Café.md');
  assert.equal((await call('sy.mem.search', { project_id: 'p', query: 'fluß' })).total, 1);
  assert.equal(existsSync(upload.file_path), false);
});

test('two uploads of one name have different, random names', async (t) => {
  const { url } = await runningService(t);
  const upload = async () => {
    const response = await fetch(`${url}/v1/upload`, { method: 'POST', body: fileForm('x') });
    return ((await response.json()) as { file_path: string }).file_path;
  };
  const [first, second] = [await upload(), await upload()];
  assert.notEqual(first, second);
  assert.match(first, /\/uploads\/[0-9a-f-]{36}-notes\.md$/);
});

test('an upload that is too large, empty, nameless or not multipart leaves no file behind', async (t) => {
  const { url, data } = await runningService(t, { env: { SYNAPSE_UPLOADS__MAX_BYTES: '1000' } });
  const post = (body: FormData | string) => fetch(`${url}/v1/upload`, { method: 'POST', body });
  assert.equal((await post(fileForm(new Uint8Array(1000)))).status, 201);
  for (const [status, body] of [
    [413, fileForm(new Uint8Array(1001))],
    [413, fileForm(new Uint8Array(300_000))],
    [400, fileForm('')],
    [400, fileForm('x', 'a.md', 'document')],
    [415, 'plain text'],
  ] as const) {
    const response = await post(body);
    assert.equal(response.status, status);
    assert(((await response.json()) as { error: { message: string } }).error.message);
  }
  assert.equal(readdirSync(join(data, 'uploads')).length, 1);
});

test('an upload that is cut off leaves no file behind', async (t) => {
  const { url, data } = await runningService(t);
  const headers = { 'content-type': 'multipart/form-data; boundary=B' };
  const cut = request(`${url}/v1/upload`, { method: 'POST', headers });
  cut.on('error', () => {});
  cut.write('--B\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nhalf of the file');
  const files = () => readdirSync(join(data, 'uploads'));
  await waitFor(() => files().length === 1);
  cut.destroy();
  await waitFor(() => files().length === 0);
});

test('an upload to a full disk is answered with 507 and leaves no file behind', async (t) => {
  // The container of these tests has a file system of 2 MB there.
  const directory = mkdtempSync('/small/uploads-');
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const uploads = openUploads(directory, 20_000_000, 60);
  const server = createServer((incoming, response) => {
    receiveUpload(incoming, uploads).then(
      () => response.end(),
      (error: HttpError) => response.writeHead(error.status ?? 500).end(error.message),
    );
  });
  t.after(() => server.close());
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as AddressInfo;
  const body = fileForm(new Uint8Array(5_000_000));
  const response = await fetch(`http://127.0.0.1:${port}`, { method: 'POST', body });
  assert.deepEqual([response.status, await response.text()], [507, 'The disk is full']);
  assert.deepEqual(readdirSync(directory), []);
});

for (const [name, head] of [
  [
    'an MCP request',
    'POST /mcp HTTP/1.1\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream',
  ],
  ['an upload', 'POST /v1/upload HTTP/1.1\r\ncontent-type: multipart/form-data; boundary=B'],
] as const) {
  test(`${name} whose body comes too slowly is cut off, and others are served`, async (t) => {
    const { url, port } = await runningService(t, { env: { SYNAPSE_SERVER__REQUEST_TIMEOUT_SECONDS: '1' } });
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => {});
    socket.write(`${head}\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{`);
    const closed = new Promise((resolve) => socket.once('close', resolve));
    const drip = setInterval(() => socket.write(' '), 100);
    t.after(() => clearInterval(drip));
    let answer = '';
    socket.on('data', (data: Buffer) => {
      answer += data;
    });
    await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, 20_000))]);
    assert(socket.closed, 'it is still being received');
    assert.match(answer, /^(HTTP\/1\.1 408|$)/);
    assert.equal((await fetch(`${url}/health`)).status, 200);
  });
}

test('older chunks are imported while the service answers, with progress in /health', async (t) => {
  const data = temporaryDirectory(t);
  mkdirSync(join(data, 'semantic_index'));
  const chunks = Array.from({ length: 2000 }, (_, i) => ({
    chunk_id: `c${i}`,
    document_id: 'd',
    content: `Chunk ${i} about owls. ${'More text. '.repeat(40)}`,
    embedding: Array.from({ length: 50 }, () => i / 7),
  }));
  writeFileSync(join(data, 'semantic_index', 'chunks.json'), JSON.stringify(chunks));
  const { url, caughtUp } = await runningService(t, { data });
  const health = async () => (await (await fetch(`${url}/health`)).json()) as Record<string, unknown>;
  const { status, backlog } = await health();
  assert.equal(status, 'ok');
  const { importing } = backlog as { importing: { read_bytes: number; total_bytes: number } };
  assert(importing.total_bytes > importing.read_bytes);
  await caughtUp;
  assert.equal((await health()).backlog, undefined);
  const { call } = await httpClient(t, url);
  assert.equal((await call('sy.mem.search', { project_id: 'p', query: 'owl', top_k: 100 })).total, 100);
});

async function waitFor(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!condition()) {
    assert(Date.now() < deadline, 'waited in vain');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

test('expired uploads are deleted, fresh ones stay', async (t) => {
  const first = await runningService(t);
  const uploads = join(first.data, 'uploads');
  for (const name of ['old', 'fresh']) writeFileSync(join(uploads, name), 'x');
  const { expiry_minutes } = testConfig(first.data).uploads;
  const old = Date.now() / 1000 - expiry_minutes * 60 - 1;
  utimesSync(join(uploads, 'old'), old, old);
  await runningService(t, { data: first.data });
  assert.deepEqual(readdirSync(uploads), ['fresh']);
});

test('with a token only its bearer is served, and /health stays open', async (t) => {
  const { url } = await runningService(t, { token: 'secret-token' });
  assert.equal((await fetch(`${url}/health`)).status, 200);
  for (const authorization of [
    undefined,
    'Bearer wrong',
    'Bearer secret-token-and-more',
    'Basic secret-token',
    'Bearer ',
  ]) {
    const headers: Record<string, string> = authorization === undefined ? {} : { authorization };
    const refused = await send(`${url}/mcp`, headers);
    assert.equal(refused.status, 401, authorization);
    assert.equal(refused.headers['www-authenticate'], 'Bearer');
  }
  // Many, since a connection that is closed too early fails only some clients that are still sending.
  for (let i = 0; i < 100; i++) {
    const upload = await fetch(`${url}/v1/upload`, { method: 'POST', body: fileForm('x') });
    assert.equal(upload.status, 401);
    await upload.text();
  }
  const { call } = await httpClient(t, url, { authorization: 'Bearer secret-token' });
  assert.deepEqual(await call('sy.proj.list'), { projects: [] });
});

test('foreign Host and Origin are refused, local and configured ones served', async (t) => {
  const { url, port } = await runningService(t, {
    env: { SYNAPSE_SERVER__ALLOWED_HOSTS: 'pi.local,box.lan:8002' },
  });
  const hosts = [
    `localhost:${port}`,
    '127.0.0.1',
    '[::1]:1',
    'LOCALHOST',
    'pi.local',
    'pi.local:8003',
    'box.lan:8002',
  ];
  for (const host of hosts) assert.equal((await send(`${url}/mcp`, { host })).status, 200, host);
  for (const host of [
    'evil.example',
    `evil.example:${port}`,
    'localhost.evil.example',
    'box.lan:80',
    'xpi.local',
  ]) {
    const refused = await send(`${url}/mcp`, { host });
    assert.equal(refused.status, 403, host);
    assert.match(refused.text, /SYNAPSE_SERVER__ALLOWED_HOSTS/);
  }
  const origins = {
    'http://localhost:3000': 200,
    'http://pi.local': 200,
    'https://evil.example': 403,
    null: 403,
  };
  for (const [origin, status] of Object.entries(origins)) {
    assert.equal((await send(`${url}/mcp`, { origin })).status, status, origin);
  }
  const upload = await send(`${url}/v1/upload`, { host: 'evil.example' });
  assert.equal(upload.status, 403);
  assert.equal((await send(`${url}/health`, { host: 'evil.example' }, { method: 'GET' })).status, 200);
});

test('a wrong method, path or body is refused with a hint', async (t) => {
  const { url } = await runningService(t, { env: { SYNAPSE_SERVER__MAX_BODY_BYTES: '2000' } });
  const stream = await fetch(`${url}/mcp`, { headers: { accept: 'text/event-stream' } });
  assert.equal(stream.status, 405);
  assert.equal(stream.headers.get('allow'), 'POST');
  assert.equal((await fetch(`${url}/nothing`)).status, 404);
  assert.equal((await fetch(`${url}/constructor`)).status, 404);
  assert.equal((await send(`${url}/mcp`, {}, { body: '{ broken' })).status, 400);
  assert.equal((await send(`${url}/mcp`, {}, { body: `"${'x'.repeat(3000)}"` })).status, 413);
});
