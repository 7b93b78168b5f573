// Copying a volume, proven file by file.
import fs from 'node:fs';
import { fileHash, join, keyOf, type Path, walk } from './walk.ts';

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
