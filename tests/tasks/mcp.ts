// Calling the service's tools as an agent does: by the official MCP client over HTTP.

import { once } from 'node:events';
import { Agent, type IncomingMessage, request } from 'node:http';
import { text } from 'node:stream/consumers';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

/** A connected client of the service on a host port; close it by `close()`. */
export async function connect(port: number): Promise<Client> {
  const client = new Client({ name: 'release-flow-tests', version: '1.0.0' });
  const url = new URL(`http://127.0.0.1:${port}/mcp`);
  // The SDK's own types disagree under exactOptionalPropertyTypes.
  await client.connect(new StreamableHTTPClientTransport(url) as Parameters<Client['connect']>[0]);
  return client;
}

/** One call on a connection of its own. @throws Error with the tool's words if it refuses */
export async function callTool(port: number, name: string, input: Record<string, unknown>): Promise<unknown> {
  const client = await connect(port);
  try {
    return await callOn(client, name, input);
  } finally {
    await client.close();
  }
}

export async function callOn(client: Client, name: string, input: Record<string, unknown>): Promise<unknown> {
  const { isError, content } = await client.callTool({ name, arguments: input });
  const [first] = content as { text: string }[];
  if (isError) throw new Error(`${name}: ${first?.text}`);
  return JSON.parse(first?.text ?? 'null');
}

const lines = new Agent({ keepAlive: true });

/**
 * One call as one request, as the client sends it: with a token, and for calls by the thousand, each of which costs the
 * client more. @throws Error with the tool's words if it refuses
 */
export async function postCall(
  port: number,
  name: string,
  input: Record<string, unknown>,
  token?: string,
): Promise<unknown> {
  const headers = {
    ...(token ? { authorization: `Bearer ${token}` } : {}),
    'content-type': 'application/json',
    accept: 'application/json, text/event-stream',
  };
  const options = { agent: lines, method: 'POST', host: '127.0.0.1', port, path: '/mcp', headers };
  const params = { name, arguments: input };
  const outgoing = request(options).end(
    JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params }),
  );
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
  const { result } = JSON.parse(await text(response)) as {
    result?: { isError?: boolean; content: { text: string }[] };
  };
  const [first] = result?.content ?? [];
  if (!result || result.isError) throw new Error(`${name}: ${response.statusCode} ${first?.text}`);
  return JSON.parse(first?.text ?? 'null');
}
