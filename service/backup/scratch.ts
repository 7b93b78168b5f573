// Files that must not outlive this process unless they are finished: removed on every way out but kill -9,
// after which the next run removes them by their names.
import { rmSync } from 'node:fs';

const unfinished = new Set<string>();

process.on('exit', () => {
  for (const path of unfinished) rmSync(path, { recursive: true, force: true });
});

/** From now on `path` is removed when the process ends. */
export function unfinishedPath(path: string): string {
  unfinished.add(path);
  return path;
}

/** It has become something to keep, or is gone already. */
export function keep(path: string): void {
  unfinished.delete(path);
}

export function discard(path: string): void {
  rmSync(path, { recursive: true, force: true });
  unfinished.delete(path);
}
