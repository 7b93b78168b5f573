// One HTTP request of `doctor --live`, as release.toml describes it: the only one of the doctor's that writes.
import { request } from 'node:http';
import { text } from 'node:stream/consumers';
import type { HealthAddress } from '../docker/health.ts';
import { TaskError } from '../errors.ts';
import type { Project } from '../project.ts';

type Live = NonNullable<Project['live']>;

export interface LiveRequest {
  where: HealthAddress;
  spec: Live['write'];
  nonce: string;
  token: string | undefined;
}

function refused({ spec, token }: LiveRequest, why: string): TaskError {
  return new TaskError(`${spec.method} ${spec.path}: ${why}`, {
    code: 'live',
    hint: token
      ? 'is the token in .env the one that the container got? npm run switch makes it anew'
      : 'does it want a token? [live] token in release.toml names its variable in .env',
  });
}

/** The body of the answer. @throws TaskError when nobody answers, or with anything but 200 */
export function sendLive(live: LiveRequest): Promise<string> {
  const { where, spec, nonce, token } = live;
  const fill = (text: string) => text.replaceAll('%nonce%', nonce);
  const headers = { ...spec.headers, ...(token ? { authorization: `Bearer ${token}` } : {}) };
  const socket = where.socketPath ? { socketPath: where.socketPath } : {};
  return new Promise((resolve, reject) => {
    const options = { method: spec.method, headers, agent: false as const, ...socket };
    const outgoing = request(where.url + fill(spec.path), options, (response) => {
      text(response).then(
        (body) =>
          response.statusCode === 200
            ? resolve(body)
            : reject(refused(live, `answered ${response.statusCode}`)),
        (error: Error) => reject(refused(live, error.message)),
      );
    });
    const timer = setTimeout(() => outgoing.destroy(new Error('no answer within 5 s')), 5000);
    outgoing.on('error', (error) => reject(refused(live, error.message)));
    outgoing.on('close', () => clearTimeout(timer));
    outgoing.end(fill(spec.body));
  });
}
