// The engine's own HTTP interface, for questions: the client answers them slowly, or by one process each. Straight to
// its socket where that is on this machine; else through `docker system dial-stdio`, which reaches whatever engine the
// client would, by TLS or ssh.
import { Agent, request } from 'node:http';
import { connect } from '../command.ts';
import { TaskError } from '../errors.ts';
import { throwIfInterrupted } from '../interrupt.ts';
import { log } from '../log.ts';
import { session } from '../session.ts';
import { docker, engineDown, parseJson } from './client.ts';
import { engineEndpoint } from './endpoint.ts';

/** Asks for a path, e.g. `/containers/json?all=1`: the parsed answer, or undefined for 404. */
export type AskEngine = (path: string) => Promise<unknown>;

/** Longer than any question here takes, also over ssh. */
const PATIENCE_MS = 20_000;

interface Line {
  agent: Agent;
  socketPath?: string;
  /** Rejects when no question can be answered any more; else never settles. */
  died: Promise<never>;
  /** What a question without an answer means. */
  explain: (error: NodeJS.ErrnoException) => Promise<TaskError>;
  hangUp: () => void;
}

/**
 * Runs `work` over one connection, on which the questions are answered one after another.
 * @throws TaskError when no engine answers
 */
export async function withEngine<T>(work: (ask: AskEngine) => Promise<T>): Promise<T> {
  throwIfInterrupted();
  const socketPath = await localSocket();
  const line = socketPath ? lineToSocket(socketPath) : lineThroughClient();
  try {
    return await work((path) => askOne(line, path));
  } finally {
    line.hangUp();
  }
}

/** One question. @throws TaskError when no engine answers */
export const askEngine: AskEngine = (path) => withEngine((ask) => ask(path));

/** Where the engine listens on this machine, or is forwarded to; undefined if only the client knows a way to it. */
async function localSocket(): Promise<string | undefined> {
  if (session.engineSocket) return session.engineSocket;
  // What is wrong with a context the client says best.
  const endpoint = await engineEndpoint().catch(() => '');
  return endpoint.startsWith('unix://') ? endpoint.slice('unix://'.length) : undefined;
}

function lineToSocket(socketPath: string): Line {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const explain = async ({ code, message }: NodeJS.ErrnoException) => {
    const words = {
      EACCES: `permission denied while trying to connect to the Docker daemon socket at unix://${socketPath}`,
      ENOENT: `Cannot connect to the Docker daemon at unix://${socketPath}. Is the docker daemon running?`,
      ECONNREFUSED: `Cannot connect to the Docker daemon at unix://${socketPath}. Is the docker daemon running?`,
    }[code ?? ''];
    return engineDown(words ?? `unix://${socketPath}: ${message}`);
  };
  return { agent, socketPath, died: new Promise(() => {}), explain, hangUp: () => agent.destroy() };
}

function lineThroughClient(): Line {
  const { stream, closed } = connect(docker('system', 'dial-stdio'));
  // What node's HTTP client expects of a socket and a pair of pipes does not have.
  const nothing = () => stream;
  const socket = Object.assign(stream, { setKeepAlive: nothing, setNoDelay: nothing, setTimeout: nothing });
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  Object.assign(agent, { createConnection: () => Object.assign(socket, { ref: nothing, unref: nothing }) });
  const failure = closed.then(({ stderr }) => engineDown(stderr));
  const died = failure.then((error) => Promise.reject(error));
  // The process's end is noticed through the requests; nobody may be listening to it by then.
  died.catch(() => {});
  stream.on('error', () => {});
  const hangUp = () => {
    stream.destroy();
    agent.destroy();
  };
  const explain = () => {
    stream.destroy();
    return failure;
  };
  return { agent, died, explain, hangUp };
}

async function askOne(line: Line, path: string): Promise<unknown> {
  throwIfInterrupted();
  log.detail(`$ GET ${path}`);
  // A question that waits for its turn on a line that has died hears nothing of it by itself.
  const answer = await Promise.race([get(line, path), line.died]).catch(async (cause: Error) => {
    const error = await line.explain(cause);
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

function get(line: Line, path: string): Promise<{ status: number; text: string }> {
  const { agent, socketPath, died } = line;
  const place = socketPath ? { socketPath } : { host: 'docker' };
  return new Promise((resolve, reject) => {
    const outgoing = request({ agent, ...place, path }, (response) => {
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
    died.catch(() => clearTimeout(timer));
    outgoing.on('error', reject);
    outgoing.on('close', () => {
      clearTimeout(timer);
      reject(new Error('closed without an answer'));
    });
    outgoing.end();
  });
}
