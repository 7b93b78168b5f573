// How much a directory holds, without a process and without waiting for ever on a huge one.
import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';

/** More than any data directory of this kind has; beyond it the size is not known. */
const MOST_FILES = 50_000;

/** Bytes of all files below `path`, links not followed; undefined if it cannot be read, or holds too many. */
export async function directorySize(path: string): Promise<number | undefined> {
  let left = MOST_FILES;
  const size = async (directory: string): Promise<number> => {
    const entries = await readdir(directory, { withFileTypes: true });
    left -= entries.length;
    if (left < 0) throw new Error('too many files');
    const sizes = await Promise.all(
      entries.map((entry) => {
        const child = join(directory, entry.name);
        // A file may vanish while we look (a temporary one of SQLite).
        return entry.isDirectory()
          ? size(child)
          : lstat(child).then(
              ({ size: bytes }) => bytes,
              () => 0,
            );
      }),
    );
    return sizes.reduce((sum, bytes) => sum + bytes, 0);
  };
  return size(path).catch(() => undefined);
}
