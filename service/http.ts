// The HTTP server: access check, routes, errors, and a stop that does not wait for open connections.
import { createHash, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Log } from './log.ts';

export type Route = (request: IncomingMessage, response: ServerResponse) => Promise<void> | void;

/** Path → method → route; an `open` path skips the access check. */
export type Routes = Record<string, { open?: boolean; GET?: Route; POST?: Route }>;

/** Names in Host and Origin (a web page must not reach a local server by DNS rebinding), and the bearer token. */
export interface Access {
  allowedHosts: readonly string[];
  token: string | undefined;
}

const GRACE_MS = 300;
const ALWAYS_ALLOWED = ['localhost', '127.0.0.1', '[::1]'];

/** A refused request: thrown by a route, sent in one place. */
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

/** `stop` resolves when every connection is closed: responses under way get GRACE_MS, then all are cut. */
export async function startHttp(
  routes: Routes,
  access: Access,
  log: Log,
  { host, port, requestTimeoutMs }: { host: string; port: number; requestTimeoutMs: number },
): Promise<{ port: number; stop(): Promise<void> }> {
  const timeouts = {
    requestTimeout: requestTimeoutMs,
    headersTimeout: Math.min(requestTimeoutMs, 60_000),
    connectionsCheckingInterval: Math.min(requestTimeoutMs / 4, 5000),
  };
  const server = createServer(timeouts, async (request, response) => {
    const path = (request.url ?? '/').split('?')[0] ?? '/';
    try {
      await respond(routes, access, path, request, response);
    } catch (error) {
      const known = error instanceof HttpError;
      if (known) log.debug('request refused', { path, status: error.status, reason: error.message });
      else log.error('request failed', { path, error: String(error) });
      sendError(request, response, known ? error : new HttpError(500, 'Internal error; see the log'));
    }
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => resolve(void server.off('error', reject)));
  });
  const stop = () =>
    new Promise<void>((resolve) => {
      const cut = setTimeout(() => server.closeAllConnections(), GRACE_MS);
      server.close(() => resolve(clearTimeout(cut)));
      server.closeIdleConnections();
    });
  return { port: (server.address() as AddressInfo).port, stop };
}

async function respond(
  routes: Routes,
  access: Access,
  path: string,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { open, ...methods } = (Object.hasOwn(routes, path) && routes[path]) || {};
  if (!open) verifyAccess(request, access);
  const [allow, known] = [Object.keys(methods).join(', '), Object.keys(routes).join(', ')];
  if (!allow) throw new HttpError(404, `Nothing found at ${path}`, `try ${known}`);
  const route = Object.entries(methods).find(([method]) => method === request.method)?.[1];
  if (!route)
    throw new HttpError(405, `${request.method} is not allowed at ${path}`, `use ${allow}`, { allow });
  await route(request, response);
}

export function sendJson(response: ServerResponse, status: number, body: object): void {
  if (response.headersSent || response.destroyed) return;
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' });
  response.end(`${JSON.stringify(body)}\n`);
}

function sendError(
  request: IncomingMessage,
  response: ServerResponse,
  { status, message, hint, headers }: HttpError,
): void {
  if (response.headersSent || response.destroyed) return;
  for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
  // A body that was not read is discarded by Node: closing at once would fail a client that is still sending.
  if (request.destroyed) response.setHeader('connection', 'close');
  sendJson(response, status, { error: { message, hint } });
}

/** @throws {HttpError} 403 for a foreign Host or Origin, 401 for a missing or wrong token. */
function verifyAccess(request: IncomingMessage, { allowedHosts, token }: Access): void {
  const { host, origin, authorization } = request.headers;
  const originHost = origin && URL.canParse(origin) ? new URL(origin).host : undefined;
  if (!isAllowedHost(host, allowedHosts)) throw foreign('Host', host);
  if (origin !== undefined && !isAllowedHost(originHost, allowedHosts)) throw foreign('Origin', origin);
  if (token && !isToken(authorization, token)) {
    throw new HttpError(401, 'Bearer token required', 'send "Authorization: Bearer <SYNAPSE_TOKEN>"', {
      'www-authenticate': 'Bearer',
    });
  }
}

function foreign(header: string, value = ''): HttpError {
  const hint = 'add the name to server.allowed_hosts (SYNAPSE_SERVER__ALLOWED_HOSTS=name,other-name)';
  return new HttpError(403, `${header} "${value}" is not allowed`, hint);
}

/** Entries without a port allow any port; `*` allows every host. */
function isAllowedHost(host: string | undefined, allowed: readonly string[]): boolean {
  if (!host) return false;
  const asked = host.toLowerCase();
  const name = asked.replace(/:\d+$/, '');
  return [...ALWAYS_ALLOWED, ...allowed].some((entry) => ['*', asked, name].includes(entry.toLowerCase()));
}

function isToken(authorization: string | undefined, token: string): boolean {
  const given = /^Bearer (.+)$/i.exec(authorization ?? '')?.[1] ?? '';
  // Equal lengths, so that the comparison takes the same time whatever was given.
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(given), digest(token));
}
