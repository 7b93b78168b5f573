// What the service's tests share: a data directory of their own, the service in this process or in one of
// its own, and MCP clients. Everything is written below the system's temporary directory.

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { TestContext } from 'node:test';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { InMemoryTransport } from '@modelcontextprotocol/sdk/inMemory.js';
import type { CallToolResult } from '@modelcontextprotocol/sdk/types.js';
import { loadConfig } from '../../service/config/config.ts';
import type { Config } from '../../service/config/schema.ts';
import { openContext } from '../../service/context.ts';
import { createLog } from '../../service/log.ts';
import { buildServer } from '../../service/mcp/server.ts';
import { identify, startService } from '../../service/service.ts';
import { SERVICE } from './programs.ts';

/** An empty data directory; an empty configuration file lies beside it. */
export function temporaryDirectory(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'synapse-service-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(join(folder, 'synapse.json'), '{}');
  mkdirSync(join(folder, 'data'));
  return join(folder, 'data');
}

/** Defaults, the data directory, and the variables that a test sets besides. */
export function testConfig(data: string, env: Record<string, string> = {}): Config {
  return loadConfig({ configPath: configBeside(data), env: { SYNAPSE_DATA__DIRECTORY: data, ...env } })
    .config;
}

function configBeside(data: string): string {
  return join(data, '..', 'synapse.json');
}

/** Log lines of a service under test, parsed. */
export function recordingLog() {
  const lines: Record<string, unknown>[] = [];
  return { lines, log: createLog('DEBUG', {}, (line) => lines.push(JSON.parse(line))) };
}

/** A client linked in memory to a server over a data directory of its own. */
export async function linkedClient(
  t: TestContext,
  env: Record<string, string> = {},
  data = temporaryDirectory(t),
) {
  const config = testConfig(data, env);
  const { lines, log } = recordingLog();
  const opened = openContext(config, log);
  await opened.catchUp();
  const server = buildServer('v0.0.0-test', opened);
  const [clientSide, serverSide] = InMemoryTransport.createLinkedPair();
  const client = new Client({ name: 'test', version: '1.0.0' });
  await Promise.all([server.connect(serverSide), client.connect(clientSide)]);
  t.after(async () => {
    await client.close();
    opened.close();
  });
  return { client, data, lines, ...opened, ...callers(client) };
}

/** `call` returns a tool's result and fails on an error; `refused` returns the error's text. */
export function callers(client: Client) {
  const invoke = async (name: string, args: Record<string, unknown>) => {
    const result = (await client.callTool({ name, arguments: args })) as CallToolResult;
    const [part] = result.content;
    return { isError: result.isError === true, text: part?.type === 'text' ? part.text : '' };
  };
  return {
    // biome-ignore lint/suspicious/noExplicitAny: a tool's result is whatever JSON the test expects
    call: async (name: string, args: Record<string, unknown> = {}): Promise<any> => {
      const { isError, text } = await invoke(name, args);
      if (isError) throw new Error(text);
      return JSON.parse(text);
    },
    refused: async (name: string, args: Record<string, unknown> = {}): Promise<string> => {
      const { isError, text } = await invoke(name, args);
      if (!isError) throw new Error(`${name} was accepted: ${text}`);
      return text;
    },
  };
}

/** The whole service on a free port of this process. */
export async function runningService(
  t: TestContext,
  {
    env = {},
    token,
    data = temporaryDirectory(t),
  }: { env?: Record<string, string>; token?: string; data?: string } = {},
) {
  const config = testConfig(data, env);
  const { lines, log } = recordingLog();
  const identity = identify({ SYNAPSE_VERSION: 'v1.2.3', SYNAPSE_REVISION: 'abc123' });
  const server = { ...config.server, host: '127.0.0.1', port: 0 };
  const service = await startService({ ...config, server }, identity, log, token);
  t.after(() => service.stop());
  return { url: `http://127.0.0.1:${service.port}`, data, lines, ...service };
}

/** The service in a process of its own; resolves when it logs that it is ready. */
export async function startProcess(
  t: TestContext,
  data: string,
  port: number,
  env: Record<string, string> = {},
) {
  const child = spawnService(t, data, port, env);
  const lines: Record<string, unknown>[] = [];
  for await (const line of createInterface({ input: child.stdout! })) {
    lines.push(JSON.parse(line));
    if (lines.at(-1)?.message === 'ready') break;
  }
  return { child, lines, url: `http://127.0.0.1:${port}`, exited: exitOf(child) };
}

export function spawnService(t: TestContext, data: string, port: number, env: Record<string, string> = {}) {
  const child = spawn(process.execPath, [SERVICE], {
    env: {
      SYNAPSE_CONFIG_PATH: configBeside(data),
      SYNAPSE_DATA__DIRECTORY: data,
      SYNAPSE_SERVER__HOST: '127.0.0.1',
      SYNAPSE_SERVER__PORT: String(port),
      ...env,
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => void child.kill('SIGKILL'));
  return child;
}

export function exitOf(child: ChildProcess): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
  return new Promise((resolve) => child.once('exit', (code, signal) => resolve({ code, signal })));
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
