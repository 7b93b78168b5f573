// Is there room for a release: the exported tree and the image archive below the project, the image in the
// engine's storage? A build that runs out of space half-way costs minutes and says so badly.
import { statfs } from 'node:fs/promises';
import type { EngineInfo } from '../docker/engine-info.ts';
import { TaskError } from '../errors.ts';
import type { Project } from '../project.ts';
import { session } from '../session.ts';

/** What a release needs at most for images that are small; a larger one in use raises it. */
const LEAST = 64 * 2 ** 20;

/** Bytes that should be free, from the size of the image that was built last (bytes; 0: none yet). Pure. */
export function spaceNeeded(imageSize: number): number {
  return Math.max(LEAST, Math.ceil(imageSize * 1.5));
}

/** @throws TaskError naming the place that is full */
export async function verifyDiskSpace(project: Project, engine: EngineInfo, imageSize: number) {
  const needed = spaceNeeded(imageSize);
  const places = [
    { path: project.root, what: 'for the tree and the image archive' },
    ...(isLocalEngine() ? [{ path: engine.dataRoot, what: "in the engine's storage" }] : []),
  ];
  for (const { path, what } of places) {
    const free = await statfs(path).then(
      ({ bavail, bsize }) => bavail * bsize,
      () => undefined,
    );
    if (free === undefined || free >= needed) continue;
    throw new TaskError(
      `Not enough disk space ${what}: ${path} has ${mebibytes(free)}, needed ${mebibytes(needed)}`,
      {
        code: 'disk-full',
        hint: 'make room, e.g. docker builder prune and docker image prune',
      },
    );
  }
}

/** Of an engine on another machine the directory is not here to be asked; in a virtual one it does not exist. */
function isLocalEngine(): boolean {
  return !session.context && (process.env.DOCKER_HOST ?? 'unix:').startsWith('unix:');
}

function mebibytes(bytes: number): string {
  return `${Math.round(bytes / 2 ** 20)} MiB`;
}
