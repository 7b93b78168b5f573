// Files below a folder, by their bytes: names need not be UTF-8. Shared by what runs inside the container.
import { createHash } from 'node:crypto';
import fs from 'node:fs';

export type Path = Buffer<ArrayBuffer>;
export const join = (folder: Path, name: Path): Path => Buffer.concat([folder, Buffer.from('/'), name]);

/** A path as a JSON key: its text, or its bytes where it is not UTF-8. */
export function keyOf(path: Path): string {
  const text = path.toString('utf8');
  return Buffer.from(text).equals(path) ? text : `base64:${path.toString('base64')}`;
}

/** Every regular file and symbolic link below a folder: [path relative to it, stat]. */
export function* walk(root: Path, below = Buffer.alloc(0)): Generator<[Path, fs.Stats]> {
  const folder = below.length > 0 ? join(root, below) : root;
  for (const name of fs.readdirSync(folder, { encoding: 'buffer' }).sort(Buffer.compare)) {
    const path = below.length > 0 ? join(below, name) : name;
    const stat = fs.lstatSync(join(root, path));
    if (stat.isDirectory()) yield* walk(root, path);
    else yield [path, stat];
  }
}

export const COMPANION = /-(wal|shm|journal)$/;

export function fileHash(path: Path): string {
  const hash = createHash('sha256');
  const file = fs.openSync(path, 'r');
  const chunk = Buffer.alloc(1 << 20);
  for (let size = fs.readSync(file, chunk); size > 0; size = fs.readSync(file, chunk))
    hash.update(chunk.subarray(0, size));
  fs.closeSync(file);
  return hash.digest('hex');
}

export function isDatabase(path: Path, size: number): boolean {
  if (size === 0) return /\.(db|sqlite3?)$/i.test(path.toString('latin1'));
  const head = Buffer.alloc(16);
  const file = fs.openSync(path, 'r');
  fs.readSync(file, head);
  fs.closeSync(file);
  return head.toString('latin1') === 'SQLite format 3\0';
}
