// Answers outside MCP: JSON, with the problem and what to do about it.
import type { ServerResponse } from 'node:http';

export function sendJson(response: ServerResponse, status: number, body: object): void {
  if (response.headersSent || response.destroyed) return;
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' });
  response.end(`${JSON.stringify(body)}\n`);
}

/** A request that is refused: thrown by the parts of the HTTP server, answered in one place. */
export class HttpError extends Error {
  readonly status: number;
  readonly hint: string | undefined;
  readonly headers: Record<string, string>;

  constructor(status: number, message: string, hint?: string, headers: Record<string, string> = {}) {
    super(message);
    this.status = status;
    this.hint = hint;
    this.headers = headers;
  }
}

export function sendError(response: ServerResponse, error: HttpError): void {
  if (response.headersSent || response.destroyed) return;
  // The body of a refused request may never be read to its end: do not keep the connection.
  for (const [name, value] of Object.entries({ ...error.headers, connection: 'close' }))
    response.setHeader(name, value);
  sendJson(response, error.status, {
    error: { message: error.message, ...(error.hint === undefined ? {} : { hint: error.hint }) },
  });
}
