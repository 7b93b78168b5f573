// Three independent clients: the official SDK, the inspector's command line, and an AI SDK that converts the listed
// schemas for a model's provider. If one fails, no model behind such a client can use the memory.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { dirname } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { createGoogleGenerativeAI } from '@ai-sdk/google';
import { experimental_createMCPClient as createMCPClient } from '@ai-sdk/mcp';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import type { Transport } from '@modelcontextprotocol/sdk/shared/transport.js';
import { generateText, stepCountIs } from 'ai';
import { callers, runningService } from './support.ts';

const INSPECTOR = fileURLToPath(import.meta.resolve('@modelcontextprotocol/inspector-cli'));
const run = promisify(execFile);

const TOOLS = [
  ...['sy.proj.list', 'sy.src.list', 'sy.ctx.get', 'sy.mem.search', 'sy.mem.ingest'],
  ...['sy.mem.fact.add', 'sy.mem.ep.add', 'sy.mem.delete'],
];
const FACT = {
  project_id: 'p',
  fact_key: 'limits',
  fact_value: { memory: '3 GB', ports: [8002, 8003], tags: ['a', null] },
};

async function factsOf(t: TestContext, url: string) {
  const client = new Client({ name: 'test', version: '1.0.0' });
  await client.connect(new StreamableHTTPClientTransport(new URL('/mcp', url)) as Transport);
  t.after(() => client.close());
  const { tools } = await client.listTools();
  const { call } = callers(client);
  const { results } = await call('sy.ctx.get', { project_id: 'p', context_type: 'symbolic' });
  return { call, names: tools.map(({ name }) => name), facts: results as Record<string, unknown>[] };
}

test('the official SDK lists the tools, adds a fact, reads it and deletes it', async (t) => {
  const { url } = await runningService(t);
  const { call, names } = await factsOf(t, url);
  assert.deepEqual(names, TOOLS);
  const { fact_id } = await call('sy.mem.fact.add', FACT);
  assert.deepEqual((await factsOf(t, url)).facts[0]?.value, FACT.fact_value);
  await call('sy.mem.delete', { project_id: 'p', id: fact_id });
  assert.deepEqual((await factsOf(t, url)).facts, []);
});

test("the inspector's command line lists the tools, adds a fact and searches it", async (t) => {
  const { url } = await runningService(t);
  const inspect = async (...args: string[]) => {
    const argv = [INSPECTOR, '--cli', `${url}/mcp`, '--transport', 'http', ...args];
    // It looks for its package.json from the working directory.
    return JSON.parse((await run(process.execPath, argv, { cwd: dirname(INSPECTOR) })).stdout);
  };
  const call = async (name: string, args: Record<string, unknown>) => {
    const pairs = Object.entries(args).flatMap(([key, value]) => [
      '--tool-arg',
      `${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
    ]);
    const { content } = await inspect('--method', 'tools/call', '--tool-name', name, ...pairs);
    return JSON.parse(content[0].text);
  };
  const { tools } = await inspect('--method', 'tools/list');
  assert.deepEqual(
    tools.map(({ name }: { name: string }) => name),
    TOOLS,
  );
  assert.equal((await call('sy.mem.fact.add', FACT)).updated, false);
  const { results } = await call('sy.mem.search', { project_id: 'p', query: 'ports', top_k: 1 });
  assert.deepEqual(results[0].value, FACT.fact_value);
});

test('an AI SDK converts the schemas for a provider, and its model adds a fact by them', async (t) => {
  const { url } = await runningService(t);
  const declared: { name: string }[] = [];
  const answers = [
    { functionCall: { name: 'sy.mem.fact.add', args: FACT } },
    { text: 'The limits are recorded.' },
  ];
  // In the place of the provider's server, which cannot be reached from here; all else is as with a real one.
  const provider = async (_: unknown, request?: RequestInit): Promise<Response> => {
    const body = JSON.parse(String(request?.body)) as {
      tools: { functionDeclarations: { name: string }[] }[];
    };
    declared.push(...body.tools.flatMap(({ functionDeclarations }) => functionDeclarations));
    const content = { role: 'model', parts: [answers.shift()] };
    return Response.json({ candidates: [{ content, finishReason: 'STOP', index: 0 }] });
  };
  const mcp = await createMCPClient({ transport: { type: 'http', url: `${url}/mcp` } });
  t.after(() => mcp.close());
  const google = createGoogleGenerativeAI({ apiKey: 'none', fetch: provider });
  const { text, steps } = await generateText({
    model: google('gemini-2.5-flash'),
    tools: await mcp.tools(),
    prompt: 'Record the limits.',
    stopWhen: stepCountIs(3),
  });
  assert.equal(text, 'The limits are recorded.');
  assert.equal(steps.length, 2);
  assert.deepEqual(
    declared.slice(0, TOOLS.length).map(({ name }) => name),
    TOOLS,
  );
  assert.deepEqual((await factsOf(t, url)).facts[0]?.value, FACT.fact_value);
});
