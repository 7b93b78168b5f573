// Reading a file that somebody may be writing: what goes into the archive is a state that the file had, never
// half of one and half of the next.
import { type FileHandle, open } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { BackupError } from './report.ts';

/** Up to this size a file is held in memory, and read again as often as it takes. */
export const SMALL_FILE = 4 * 1024 * 1024;
const CHUNK = 1024 * 1024;
const ATTEMPTS = 40;
/** Before that only a settled state will do: a writer that is held up in the middle leaves the same half twice. */
const SETTLED_ATTEMPTS = 12;
/** Time stamps move in the kernel's ticks: a file that changed this recently may change unseen. */
const RACY_MS = 30;

/** Identity, size and times of a file: equal before and after means that nobody wrote. */
async function stamp(file: FileHandle): Promise<string> {
  const { ino, size, mtimeNs, ctimeNs } = await file.stat({ bigint: true });
  return `${ino} ${size} ${mtimeNs} ${ctimeNs}`;
}

async function isRacy(file: FileHandle): Promise<boolean> {
  const { ctimeMs } = await file.stat();
  return Math.abs(Date.now() - ctimeMs) < RACY_MS;
}

async function readWhole(path: string): Promise<{ content: Buffer; isSettled: boolean }> {
  const file = await open(path, 'r');
  try {
    const before = await stamp(file);
    const racy = await isRacy(file);
    const content = await file.readFile();
    return { content, isSettled: !racy && (await stamp(file)) === before };
  } finally {
    await file.close();
  }
}

/** A small file's content. Of one that never settles two equal readings in a row are taken. @throws BackupError */
export async function readSmall(path: string, name: string): Promise<Buffer> {
  let previous: Buffer | undefined;
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    const { content, isSettled } = await readWhole(path);
    if (isSettled || (attempt >= SETTLED_ATTEMPTS && previous?.equals(content))) return content;
    previous = content;
    await sleep(5 + attempt * 2);
  }
  throw tooBusy(name);
}

export function tooBusy(name: string): BackupError {
  return new BackupError(
    'file-busy',
    `${name} changes faster than it can be read`,
    'stop its writer for the copy: --pause',
  );
}

export interface BigFile {
  size: number;
  /** Yields exactly `size` bytes; zeros where the file became shorter. */
  chunks: () => AsyncGenerator<Buffer>;
  /** After the last chunk: did anybody write meanwhile? */
  isTorn: () => Promise<boolean>;
  close: () => Promise<void>;
}

export async function openBig(path: string): Promise<BigFile> {
  const file = await open(path, 'r');
  const before = await stamp(file);
  const racy = await isRacy(file);
  const { size } = await file.stat();
  return {
    size,
    chunks: async function* () {
      for (let position = 0; position < size; ) {
        const buffer = Buffer.allocUnsafe(Math.min(CHUNK, size - position));
        const { bytesRead } = await file.read(buffer, 0, buffer.length, position);
        if (bytesRead === 0) buffer.fill(0);
        const part = bytesRead === 0 ? buffer : buffer.subarray(0, bytesRead);
        position += part.length;
        yield part;
      }
    },
    isTorn: async () => racy || (await stamp(file)) !== before,
    close: () => file.close(),
  };
}
