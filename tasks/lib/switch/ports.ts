// Is a port free, or who has it? Named, so that nobody has to go looking.
import { createServer } from 'node:net';
import { probe } from '../command.ts';
import { docker } from '../docker/client.ts';
import type { PublishedPort } from '../docker/compose-schema.ts';

/** Can this machine listen there now? */
export function isFree({ published, address }: PublishedPort): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'EADDRINUSE'));
    server.listen({ port: published, host: address || '0.0.0.0', exclusive: true }, () =>
      server.close(() => resolve(true)),
    );
  });
}

/** The container that publishes a port, as the engine's machine has it: its name. */
export async function publishingContainer(port: number): Promise<string | undefined> {
  const answer = await probe(docker('ps', '--filter', `publish=${port}`, '--format', '{{.Names}}'));
  return answer.stdout.split('\n', 1)[0] || undefined;
}

/** The process on this machine that listens there, as far as this user may know: `node (pid 12)`. */
export async function listeningProcess(port: number): Promise<string> {
  const question = ['--no-header', '--listening', '--tcp', '--numeric', '--processes', `sport = :${port}`];
  const sockets = await probe(['ss', ...question]);
  const [, name, pid] = /users:\(\("([^"]+)",pid=(\d+)/.exec(sockets.stdout) ?? [];
  if (name && pid) return `${name} (pid ${pid})`;
  const files = await probe(['lsof', '-nP', '-Fcp', `-iTCP:${port}`, '-sTCP:LISTEN']);
  const [, number] = /^p(\d+)$/m.exec(files.stdout) ?? [];
  const [, command] = /^c(.+)$/m.exec(files.stdout) ?? [];
  return number && command ? `${command} (pid ${number})` : 'a process of another user';
}
