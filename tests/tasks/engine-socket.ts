// A way to the engine that can be taken away: an engine that dies, for one task, while others go on using it.
import { createConnection, createServer, type Socket } from 'node:net';

const ENGINE = process.env.DOCKER_HOST?.replace(/^unix:\/\//, '') ?? '/var/run/docker.sock';

/** Listens at `path` and leads to the engine, for those who connect before the path is removed. */
export async function socketToEngine(path: string) {
  const open = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (here) => {
    const there = createConnection({ path: ENGINE, allowHalfOpen: true });
    for (const [from, to] of [
      [here, there],
      [there, here],
    ] as const) {
      open.add(from);
      from.on('error', () => to.destroy());
      from.on('close', () => open.delete(from));
      from.pipe(to);
    }
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return {
    env: { DOCKER_HOST: `unix://${path}` },
    close: () => {
      server.close();
      for (const socket of open) socket.destroy();
    },
  };
}
