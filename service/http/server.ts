// The HTTP server: three routes, access first, and a stop that does not wait for open connections.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Log } from '../log.ts';
import { type Access, verifyAccess } from './access.ts';
import { HttpError, sendError } from './reply.ts';

export type Route = (request: IncomingMessage, response: ServerResponse) => Promise<void> | void;

/** Path → method → what answers; `open` routes skip the access check. */
export type Routes = Record<string, { methods: Record<string, Route>; open?: boolean }>;

export interface HttpService {
  port: number;
  /** Resolves when every connection is closed: answers under way get `graceMs`, then all are cut. */
  stop(): Promise<void>;
}

const GRACE_MS = 300;

export async function startHttp(
  routes: Routes,
  access: Access,
  log: Log,
  { host, port }: { host: string; port: number },
): Promise<HttpService> {
  const server = createServer((request, response) => {
    answer(routes, access, request, response).catch((error: unknown) => {
      if (!(error instanceof HttpError))
        log.error('request failed', { path: request.url, error: String(error) });
      else log.debug('request refused', { path: request.url, status: error.status, reason: error.message });
      sendError(
        response,
        error instanceof HttpError ? error : new HttpError(500, 'Internal error; see the log'),
      );
    });
  });
  server.requestTimeout = 120_000;
  await listen(server, host, port);
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

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => {
      server.off('error', reject);
      resolve();
    });
  });
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
