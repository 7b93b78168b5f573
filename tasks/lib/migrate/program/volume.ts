/// <reference path="../../../../node_modules/types-node-24/sqlite.d.ts" />
// Copying a volume, proven file by file; and a directory that is written to meanwhile.
import fs from 'node:fs';
import { backup, DatabaseSync } from 'node:sqlite';
import { COMPANION, fileHash, isDatabase, join, keyOf, type Path, walk } from './walk.ts';

const FROM: Path = Buffer.from('/from');
/** Ending of a file that is being copied. */
const UNFINISHED = '.partial';
const TO: Path = Buffer.from('/to');

interface CopiedFile {
  path: string;
  size: number;
  sha256: string;
}

/** Copies a volume: a file that is there already with the same size and hash is not written again. */
export function copy({ owner }: { owner?: { uid: number; gid: number } }): CopiedFile[] {
  const copied: CopiedFile[] = [];
  for (const [path, stat] of walk(FROM)) {
    const [source, target] = [join(FROM, path), join(TO, path)];
    const { uid, gid } = owner ?? stat;
    makeFolders(TO, path, { uid, gid });
    if (stat.isSymbolicLink()) {
      fs.rmSync(target, { force: true });
      fs.symlinkSync(fs.readlinkSync(source, { encoding: 'buffer' }), target);
      continue;
    }
    if (!stat.isFile()) throw new Error(`${keyOf(path)} is neither a file nor a link`);
    const sha256 = fileHash(source);
    if (!isCopy(target, stat.size, sha256)) {
      const partial = Buffer.concat([target, Buffer.from(UNFINISHED)]);
      fs.copyFileSync(source, partial);
      fs.chmodSync(partial, stat.mode & 0o7777);
      fs.chownSync(partial, uid, gid);
      fs.utimesSync(partial, stat.atime, stat.mtime);
      flush(partial);
      fs.renameSync(partial, target);
      if (!isCopy(target, stat.size, sha256)) throw new Error(`${keyOf(path)} is not the same after copying`);
    }
    copied.push({ path: keyOf(path), size: stat.size, sha256 });
  }
  return copied;
}

function flush(path: Path): void {
  const file = fs.openSync(path, 'r');
  fs.fsyncSync(file);
  fs.closeSync(file);
}

function makeFolders(root: Path, path: Path, { uid, gid }: { uid: number; gid: number }): void {
  for (let end = path.indexOf('/'); end >= 0; end = path.indexOf('/', end + 1)) {
    const folder = join(root, path.subarray(0, end));
    if (fs.existsSync(folder)) continue;
    fs.mkdirSync(folder);
    fs.chownSync(folder, uid, gid);
  }
}

function isCopy(path: Path, size: number, sha256: string): boolean {
  const stat = fs.statSync(path, { throwIfNoEntry: false });
  return stat?.isFile() === true && stat.size === size && fileHash(path) === sha256;
}

/** How much there is, and which files this process may not read. */
export function measure(): { bytes: number; unreadable: string[] } {
  const unreadable: string[] = [];
  let bytes = 0;
  try {
    for (const [path, stat] of walk(FROM)) {
      bytes += stat.size;
      if (stat.isFile() && !isReadable(join(FROM, path))) unreadable.push(keyOf(path));
    }
  } catch {
    unreadable.push('(a folder)');
  }
  return { bytes, unreadable };
}

function isReadable(path: Path): boolean {
  try {
    fs.accessSync(path, fs.constants.R_OK);
    return true;
  } catch {
    return false;
  }
}

/** Copies a directory in use, to be tried with: each database through SQLite itself, the other files as they are. */
export async function snapshot({
  owner,
}: {
  owner: { uid: number; gid: number };
}): Promise<{ files: number }> {
  let files = 0;
  for (const [path, stat] of walk(FROM)) {
    const [source, target] = [join(FROM, path), join(TO, path)];
    makeFolders(TO, path, owner);
    if (stat.isSymbolicLink()) fs.symlinkSync(fs.readlinkSync(source, { encoding: 'buffer' }), target);
    else if (stat.isFile() && stat.size > 0 && isDatabase(source, stat.size))
      await copyDatabase(source, target);
    else if (stat.isFile() && !COMPANION.test(path.toString('latin1'))) fs.copyFileSync(source, target);
    else continue;
    fs.lchownSync(target, owner.uid, owner.gid);
    files += 1;
  }
  fs.chownSync(TO, owner.uid, owner.gid);
  return { files };
}

async function copyDatabase(source: Path, target: Path): Promise<void> {
  const sql = new DatabaseSync(source, { timeout: 10_000 });
  try {
    // With a reader open it never starts over, however much is written.
    sql.exec('BEGIN; SELECT count(*) FROM sqlite_schema');
    await backup(sql, target);
  } finally {
    sql.close();
  }
}
