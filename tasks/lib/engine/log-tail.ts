// The end of a log file that another process writes: what a person needs to see when that process failed.
import { open, stat } from 'node:fs/promises';

/** Bytes; 0 if there is no such file. */
export async function logSize(path: string): Promise<number> {
  return (await stat(path).catch(() => undefined))?.size ?? 0;
}

/** The last lines that were written after byte `from`, i.e. by this run and no earlier one. */
export async function logTail(path: string, from: number, lines = 12): Promise<string> {
  const file = await open(path).catch(() => undefined);
  if (!file) return `(no log in ${path})`;
  try {
    const { size } = await file.stat();
    const start = Math.max(from, size - 8192);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(size - start), 0, size - start, start);
    return buffer.subarray(0, bytesRead).toString().trimEnd().split('\n').slice(-lines).join('\n');
  } finally {
    await file.close();
  }
}
