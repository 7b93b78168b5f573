// The one HTTP client. By node's own modules and not by fetch, which never settles (Node 20) when the other side accepts
// and closes at once: just what a port does whose container is still starting.
import { type Agent, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { text as textOf } from 'node:stream/consumers';

/** Where to ask: by a URL, or with its connection going through a socket file (see docker/remote.ts). */
export interface HttpAddress {
  url: string;
  socketPath?: string;
}

interface HttpRequest {
  method?: string;
  headers?: Record<string, string>;
  body?: string;
  timeoutMs?: number;
  signal?: AbortSignal | undefined;
  /** A connection to reuse; else one is made and closed. */
  agent?: Agent;
}

export interface HttpResponse {
  /** HTTP status, or 0 when there was no response; `error` says why. */
  status: number;
  text: string;
  error?: NodeJS.ErrnoException;
}

/** Sends one request; never throws. Redirects are not followed. */
export function request({ url, socketPath }: HttpAddress, asked: HttpRequest = {}): Promise<HttpResponse> {
  const { method = 'GET', headers = {}, body, timeoutMs = 5000, signal, agent } = asked;
  const send = url.startsWith('https:') ? httpsRequest : httpRequest;
  return new Promise((resolve) => {
    const failed = (error: NodeJS.ErrnoException) => resolve({ status: 0, text: '', error });
    const place = { ...(socketPath ? { socketPath } : {}), ...(signal ? { signal } : {}) };
    let responded = false;
    const outgoing = send(url, { method, headers, agent: agent ?? false, ...place }, (response) => {
      responded = true;
      textOf(response).then((text) => resolve({ status: response.statusCode ?? 0, text }), failed);
    });
    const late = () => outgoing.destroy(new Error(`did not respond within ${timeoutMs / 1000} s`));
    const timer = setTimeout(late, timeoutMs);
    outgoing.on('error', failed);
    outgoing.on('close', () => {
      clearTimeout(timer);
      if (!responded) failed(new Error('the connection was closed without a response'));
    });
    outgoing.end(body);
  });
}
