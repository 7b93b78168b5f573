// The engine's own HTTP interface, for questions that the client answers slowly, or one process each. Spoken
// through `docker system dial-stdio`, so that it reaches whatever engine the client would: a socket, TLS, ssh.
import { Agent, request } from 'node:http';
import { connect } from '../command.ts';
import { TaskError } from '../errors.ts';
import { throwIfInterrupted } from '../interrupt.ts';
import { docker, engineDown, parseJson } from './images.ts';

/** Asks for a path, e.g. `/containers/json?all=1`: the parsed answer, or undefined for 404. */
export type AskEngine = (path: string) => Promise<unknown>;

/** Longer than any question here takes, also over ssh. */
const PATIENCE_MS = 20_000;

/**
 * Runs `work` over one connection, on which the questions are answered one after another.
 * @throws TaskError when no engine answers
 */
export async function withEngine<T>(work: (ask: AskEngine) => Promise<T>): Promise<T> {
  const { stream, closed } = connect(docker('system', 'dial-stdio'));
  // What node's HTTP client expects of a socket and a pair of pipes does not have.
  const nothing = () => stream;
  const socket = Object.assign(stream, { setKeepAlive: nothing, setNoDelay: nothing, setTimeout: nothing });
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  Object.assign(agent, { createConnection: () => Object.assign(socket, { ref: nothing, unref: nothing }) });
  const failure = closed.then(({ stderr }) => engineDown(stderr));
  // The process's end is noticed through the requests; nobody may be listening to it by then.
  stream.on('error', () => {});
  try {
    return await work((path) => askOne(agent, path, { failure, hangUp: () => stream.destroy() }));
  } finally {
    stream.destroy();
    agent.destroy();
  }
}

interface Line {
  /** Settles when the process that carries the questions has ended. */
  failure: Promise<TaskError>;
  hangUp: () => void;
}

async function askOne(agent: Agent, path: string, { failure, hangUp }: Line): Promise<unknown> {
  // A question that waits for its turn on a line that has died hears nothing of it by itself.
  const died = failure.then((error) => Promise.reject(error));
  const answer = await Promise.race([get(agent, path, failure), died]).catch(async () => {
    hangUp();
    const error = await failure;
    throwIfInterrupted();
    throw error;
  });
  if (answer.status === 404) return undefined;
  const body = parseJson(answer.text);
  if (answer.status === 200) return body;
  const { message } = (body ?? {}) as { message?: string };
  throw new TaskError(`The Docker engine answered ${answer.status} to ${path}: ${message ?? answer.text}`, {
    code: 'engine-answer',
  });
}

function get(
  agent: Agent,
  path: string,
  failure: Line['failure'],
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ agent, host: 'docker', path }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('error', reject);
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
    });
    const timer = setTimeout(() => outgoing.destroy(new Error('no answer')), PATIENCE_MS);
    // A question that never got onto the line is never closed: the task would outlive its end by the patience.
    void failure.then(() => clearTimeout(timer));
    outgoing.on('error', reject);
    outgoing.on('close', () => {
      clearTimeout(timer);
      reject(new Error('closed without an answer'));
    });
    outgoing.end();
  });
}
