// The MCP server over the stores. The listed schemas use only what every model's provider supports: no patterns, no
// large bounds, a type for every value. The rest is checked when a tool is called.
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Server } from '@modelcontextprotocol/sdk/server/index.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import type { Transport } from '@modelcontextprotocol/sdk/shared/transport.js';
import {
  CallToolRequestSchema,
  ListToolsRequestSchema,
  type Tool as McpTool,
} from '@modelcontextprotocol/sdk/types.js';
import type { jsonSchemaValidator } from '@modelcontextprotocol/sdk/validation/types.js';
import * as z from 'zod';
import type { Context } from '../context.ts';
import { callTool, type Tool } from './tool.ts';
import { tools } from './tools.ts';

export const SERVICE_NAME = 'synapse';

const INSTRUCTIONS =
  'Long-term memory for projects. Begin with sy.ctx.get, record what is certain with sy.mem.fact.add and what was ' +
  'learnt with sy.mem.ep.add. Where memories disagree: symbolic before episodic before semantic. Search is by words ' +
  'and knows no synonyms: ask with the words that the text may contain, several for the same thing.';

/** Converted once: a stateless server is built for every request. */
const listing = tools.map(({ name, description, input, effect }) => ({
  name,
  description,
  inputSchema: listedSchema(input),
  annotations: {
    readOnlyHint: effect === 'reads',
    destructiveHint: effect === 'deletes',
    openWorldHint: false,
  },
}));

function listedSchema(input: Tool['input']): McpTool['inputSchema'] {
  const { $schema: _, ...schema } = z.toJSONSchema(input, {
    io: 'input',
    override: ({ jsonSchema }) => {
      // What zod adds to an object with any keys is refused by some providers.
      for (const key of ['additionalProperties', 'propertyNames'] as const) delete jsonSchema[key];
    },
  });
  return schema as McpTool['inputSchema'];
}

/** The SDK would otherwise compile a validator for every server, for elicitation, which is not used. */
const noElicitation: jsonSchemaValidator = {
  getValidator: () => () => ({
    valid: false,
    data: undefined,
    errorMessage: 'elicitation is not supported',
  }),
};

export function buildServer(version: string, context: Context): Server {
  const server = new Server(
    { name: SERVICE_NAME, version },
    { capabilities: { tools: {} }, instructions: INSTRUCTIONS, jsonSchemaValidator: noElicitation },
  );
  server.setRequestHandler(ListToolsRequestSchema, () => ({ tools: listing }));
  server.setRequestHandler(CallToolRequestSchema, ({ params }) =>
    callTool(tools, params.name, params.arguments ?? {}, context),
  );
  return server;
}

/**
 * POST /mcp: the official Streamable HTTP transport, stateless: a server and a transport for each request, so that
 * either environment, or a restarted one, can answer the next request of any client. Answers are plain JSON.
 */
export function mcpRoute(build: () => Server, maxRequestBodySize: number) {
  return async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const server = build();
    const transport = new StreamableHTTPServerTransport({ enableJsonResponse: true, maxRequestBodySize });
    response.once('close', () => void server.close());
    // The SDK's own class does not meet its interface under exactOptionalPropertyTypes.
    await server.connect(transport as Transport);
    await transport.handleRequest(request, response);
  };
}
