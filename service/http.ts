// The HTTP server: who may talk to it, which route answers, how a refusal is said, and a stop that does not wait for
// open connections.
import { createHash, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Log } from './log.ts';

export type Route = (request: IncomingMessage, response: ServerResponse) => Promise<void> | void;

/** Path → method → what answers; `open` routes skip the access check. */
export type Routes = Record<string, { methods: Record<string, Route>; open?: boolean }>;

/** Names in Host and Origin (a web page must not reach a local server by DNS rebinding), and the bearer token. */
export interface Access {
  allowedHosts: readonly string[];
  token: string | undefined;
}

export interface HttpService {
  port: number;
  /** Resolves when every connection is closed: answers under way get `graceMs`, then all are cut. */
  stop(): Promise<void>;
}

const GRACE_MS = 300;
const ALWAYS_ALLOWED = ['localhost', '127.0.0.1', '[::1]'];

/** A request that is refused: thrown by whoever answers it, sent in one place. */
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

export async function startHttp(
  routes: Routes,
  access: Access,
  log: Log,
  { host, port, requestTimeoutMs }: { host: string; port: number; requestTimeoutMs: number },
): Promise<HttpService> {
  const server = createServer(
    {
      requestTimeout: requestTimeoutMs,
      headersTimeout: Math.min(requestTimeoutMs, 60_000),
      connectionsCheckingInterval: Math.min(requestTimeoutMs / 4, 5000),
    },
    (request, response) => {
      answer(routes, access, request, response).catch((error: unknown) => {
        if (error instanceof HttpError)
          log.debug('request refused', { path: request.url, status: error.status, reason: error.message });
        else log.error('request failed', { path: request.url, error: String(error) });
        sendError(
          response,
          error instanceof HttpError ? error : new HttpError(500, 'Internal error; see the log'),
        );
      });
    },
  );
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => resolve(void server.off('error', reject)));
  });
  return { port: (server.address() as AddressInfo).port, stop: () => stop(server) };
}

async function answer(routes: Routes, access: Access, request: IncomingMessage, response: ServerResponse) {
  const path = (request.url ?? '/').split('?')[0] ?? '/';
  const route = Object.hasOwn(routes, path) ? routes[path] : undefined;
  if (!route?.open) verifyAccess(request, access);
  if (!route)
    throw new HttpError(404, `There is nothing at ${path}`, `try ${Object.keys(routes).join(', ')}`);
  const respond = route.methods[request.method ?? ''];
  if (!respond) {
    const allow = Object.keys(route.methods).join(', ');
    throw new HttpError(405, `${request.method} is not possible at ${path}`, `use ${allow}`, { allow });
  }
  await respond(request, response);
}

function stop(server: Server): Promise<void> {
  return new Promise((resolve) => {
    const cut = setTimeout(() => server.closeAllConnections(), GRACE_MS);
    server.close(() => {
      clearTimeout(cut);
      resolve();
    });
    server.closeIdleConnections();
  });
}

export function sendJson(response: ServerResponse, status: number, body: object): void {
  if (response.headersSent || response.destroyed) return;
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' });
  response.end(`${JSON.stringify(body)}\n`);
}

function sendError(response: ServerResponse, { status, message, hint, headers }: HttpError): void {
  if (response.headersSent || response.destroyed) return;
  // The body of a refused request may never be read to its end: do not keep the connection.
  for (const [name, value] of Object.entries({ ...headers, connection: 'close' }))
    response.setHeader(name, value);
  sendJson(response, status, { error: { message, ...(hint === undefined ? {} : { hint }) } });
}

/** @throws {HttpError} 403 for a foreign Host or Origin, 401 for a missing or wrong token. */
function verifyAccess(request: IncomingMessage, { allowedHosts, token }: Access): void {
  const { host, origin, authorization } = request.headers;
  const originHost = origin && URL.canParse(origin) ? new URL(origin).host : undefined;
  if (!isAllowedHost(host, allowedHosts)) throw foreign('Host', host);
  if (origin !== undefined && !isAllowedHost(originHost, allowedHosts)) throw foreign('Origin', origin);
  if (token && !isToken(authorization, token)) {
    throw new HttpError(401, 'A bearer token is needed', 'send "Authorization: Bearer <SYNAPSE_TOKEN>"', {
      'www-authenticate': 'Bearer',
    });
  }
}

function foreign(header: string, value: string | undefined): HttpError {
  const hint = 'add the name to server.allowed_hosts (SYNAPSE_SERVER__ALLOWED_HOSTS=name,other-name)';
  return new HttpError(403, `${header} "${value ?? ''}" is not allowed here`, hint);
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
