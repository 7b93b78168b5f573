// The MCP server over the stores, without a transport: HTTP gives it one for each request, tests link it
// to a client in memory.
import { Server } from '@modelcontextprotocol/sdk/server/index.js';
import {
  CallToolRequestSchema,
  ListToolsRequestSchema,
  type Tool as McpTool,
} from '@modelcontextprotocol/sdk/types.js';
import type { jsonSchemaValidator } from '@modelcontextprotocol/sdk/validation/types.js';
import * as z from 'zod';
import { SERVICE_NAME } from '../identity.ts';
import { type CallContext, callTool } from './call.ts';
import type { Tool } from './tool.ts';
import { readingTools } from './tools-read.ts';
import { writingTools } from './tools-write.ts';

const INSTRUCTIONS =
  'Long-term memory for projects. Begin with sy.ctx.get, record what is certain with sy.mem.fact.add and what was ' +
  'learnt with sy.mem.ep.add. Where memories disagree: symbolic before episodic before semantic.';

export const tools: readonly Tool[] = [...readingTools, ...writingTools];

/** Converted once: a stateless server is built for every request. */
const listing: McpTool[] = tools.map(({ name, description, input, readOnly }) => ({
  name,
  description,
  inputSchema: z.toJSONSchema(input, { io: 'input', target: 'draft-7' }) as McpTool['inputSchema'],
  annotations: { readOnlyHint: readOnly, destructiveHint: false, openWorldHint: false },
}));

/** The SDK would otherwise compile a validator for every server, which is for asking the user questions. */
const noElicitation: jsonSchemaValidator = {
  getValidator: () => () => ({
    valid: false,
    data: undefined,
    errorMessage: 'this server asks no questions',
  }),
};

export function buildServer(version: string, context: Omit<CallContext, 'tools'>): Server {
  const server = new Server(
    { name: SERVICE_NAME, version },
    { capabilities: { tools: {} }, instructions: INSTRUCTIONS, jsonSchemaValidator: noElicitation },
  );
  server.setRequestHandler(ListToolsRequestSchema, () => ({ tools: listing }));
  server.setRequestHandler(CallToolRequestSchema, ({ params }) =>
    callTool(params.name, params.arguments ?? {}, { ...context, tools }),
  );
  return server;
}
