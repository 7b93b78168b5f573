// Who may talk to the server: names in Host and Origin (a web page must not reach a local memory server
// by DNS rebinding), and the bearer token when one is set. /health stays open to everyone.
import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { HttpError } from './reply.ts';

const ALWAYS_ALLOWED = ['localhost', '127.0.0.1', '[::1]'];

export interface Access {
  allowedHosts: readonly string[];
  token: string | undefined;
}

/** @throws {HttpError} 403 for a foreign Host or Origin, 401 for a missing or wrong token. */
export function verifyAccess(request: IncomingMessage, { allowedHosts, token }: Access): void {
  const { host, origin, authorization } = request.headers;
  if (!isAllowedHost(host, allowedHosts)) throw foreign('Host', host);
  if (origin !== undefined && !isAllowedHost(originHost(origin), allowedHosts))
    throw foreign('Origin', origin);
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
export function isAllowedHost(host: string | undefined, allowed: readonly string[]): boolean {
  if (!host) return false;
  const asked = host.toLowerCase();
  const name = asked.replace(/:\d+$/, '');
  return [...ALWAYS_ALLOWED, ...allowed].some((entry) => ['*', asked, name].includes(entry.toLowerCase()));
}

function originHost(origin: string): string | undefined {
  return URL.canParse(origin) ? new URL(origin).host : undefined;
}

function isToken(authorization: string | undefined, token: string): boolean {
  const given = /^Bearer (.+)$/i.exec(authorization ?? '')?.[1] ?? '';
  return timingSafeEqual(digest(given), digest(token));
}

/** Equal lengths, so that the comparison takes the same time whatever was given. */
function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
