// POST /mcp: the official Streamable HTTP transport, stateless: a server and a transport for each request,
// so that either environment, or a restarted one, can answer the next request of any client.

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Server } from '@modelcontextprotocol/sdk/server/index.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import type { Transport } from '@modelcontextprotocol/sdk/shared/transport.js';

/** Answers are plain JSON: tools finish at once, there is nothing to stream. */
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
