// What lies in the data: every entry by its name in bytes, and the content of files that somebody may be writing. A path
// begins with the place that it is in: `data/memory.db`, `volumes/models/x.gguf`; the archive calls it the same.
import { createHash } from 'node:crypto';
import {
  closeSync,
  createWriteStream,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  type Stats,
} from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { BackupError, isMissing } from './report.ts';

// Names are bytes. In memory, in the manifest and on the command line a path is text; in a name that is not valid UTF-8 each
// byte above 0x7f is a lone surrogate U+DC80…U+DCFF, as Python has it (PEP 383). JSON keeps lone surrogates.

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The text of a path, name by name. */
export function decodeName(path: Buffer): string {
  const decode = (name: Buffer) => {
    try {
      return utf8.decode(name);
    } catch {
      return String.fromCharCode(...[...name].map((byte) => (byte < 0x80 ? byte : 0xdc00 + byte)));
    }
  };
  const names = path.toString('latin1').split('/');
  return names.map((name) => decode(Buffer.from(name, 'latin1'))).join('/');
}

const isByte = (character: string) => /^[\udc80-\udcff]$/.test(character);

export function encodeName(text: string): Buffer {
  const parts = [...text].map((one) =>
    isByte(one) ? Buffer.from([one.charCodeAt(0) & 0xff]) : Buffer.from(one),
  );
  return hasBytes(text) ? Buffer.concat(parts) : Buffer.from(text);
}

/** True for a name that is not valid UTF-8. */
export function hasBytes(text: string): boolean {
  return [...text].some(isByte);
}

/** The name for people: `caf\xe9`. */
export function shown(text: string): string {
  return [...text]
    .map((one) => (isByte(one) ? `\\x${(one.charCodeAt(0) & 0xff).toString(16)}` : one))
    .join('');
}

/** The file below `root`, as the operating system's calls take it. */
export function at(root: string, path: string): Buffer {
  return encodeName(path === '' ? root : `${root}/${path}`);
}

/** The names in a directory, but for what a restore has put there for a moment. */
export function namesIn(directory: Buffer): string[] {
  const names = readdirSync(directory, { encoding: 'buffer' }).map(decodeName);
  return names.filter((name) => !name.startsWith('.release-flow-')).sort();
}

/** A glob without a slash is one of names, at any depth; `*` stops at a slash, `**` does not. Pure. */
export function isExcluded(path: string, globs: readonly string[]): boolean {
  const name = path.slice(path.lastIndexOf('/') + 1);
  const parts: Record<string, string> = { '**': '.*', '*': '[^/]*', '?': '[^/]' };
  const pattern = (glob: string) =>
    glob.replace(/\*\*|[*?]|[.+^$()|[\]{}\\]/g, (one) => parts[one] ?? `\\${one}`);
  return globs.some((glob) => new RegExp(`^${pattern(glob)}$`, 's').test(glob.includes('/') ? path : name));
}

export interface Found {
  path: string;
  type: 'file' | 'directory' | 'symlink' | 'other';
  stats: Stats;
  /** Of a symbolic link. */
  target: string;
  /** Looks like a database: it has SQLite's header, or is empty, which is a database without tables. */
  isDatabase: boolean;
}

export interface Survey {
  /** Parents first, in a fixed order. */
  entries: Found[];
  excluded: { path: string; reason: string }[];
  unreadable: { path: string; reason: string }[];
}

export const inodeOf = ({ dev, ino }: Stats) => `${dev}:${ino}`;

/**
 * Everything in the places below `root`; what vanishes meanwhile is not part of it. `open`: inodes of databases that this
 * process has open, which it must not open again: closing a file drops all locks that a process has on it.
 */
export function survey(
  root: string,
  places: readonly string[],
  exclude: readonly string[] = [],
  open: ReadonlySet<string> = new Set(),
): Survey {
  const found: Survey = { entries: [], excluded: [], unreadable: [] };
  const visit = (path: string) => {
    if (isExcluded(path, exclude)) {
      found.excluded.push({ path, reason: 'excluded' });
      return;
    }
    try {
      const file = at(root, path);
      const stats = lstatSync(file);
      const type = typeOf(stats);
      const isCandidate = type === 'file' && !isSideName(path);
      const isDatabase = isCandidate && (open.has(inodeOf(stats)) || looksLikeDatabase(file, stats.size));
      const names = type === 'directory' ? namesIn(file) : [];
      const target = type === 'symlink' ? decodeName(readlinkSync(file, { encoding: 'buffer' })) : '';
      found.entries.push({ path, type, stats, target, isDatabase });
      for (const name of names) visit(`${path}/${name}`);
    } catch (error) {
      if (!isMissing(error)) found.unreadable.push({ path, reason: unreadable(error) });
    }
  };
  places.forEach(visit);
  return found;
}

function typeOf(stats: Stats): Found['type'] {
  if (stats.isFile()) return 'file';
  if (stats.isDirectory()) return 'directory';
  return stats.isSymbolicLink() ? 'symlink' : 'other';
}

/** Why something could not be read, in words. */
export function unreadable(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'EACCES' || code === 'EPERM') return `user ${process.getuid?.()} may not read it`;
  return message.replace(/, \w+( '.*')?$/, '');
}

const HEADER = Buffer.from('SQLite format 3\0');

export function startsLikeDatabase(chunk: Buffer): boolean {
  return chunk.subarray(0, HEADER.length).equals(HEADER);
}

function looksLikeDatabase(file: Buffer, size: number): boolean {
  if (size === 0) return true;
  const descriptor = openSync(file, 'r');
  try {
    const header = Buffer.alloc(HEADER.length);
    readSync(descriptor, header, 0, header.length, 0);
    return startsLikeDatabase(header);
  } finally {
    closeSync(descriptor);
  }
}

const SIDE = /-(?:wal|shm|journal)$/;
/** An empty `x-wal` or `x-journal` is a side file, not a database. */
const isSideName = (path: string) => SIDE.test(path);

/** A file that belongs to a database: it is folded into the database's copy. */
export function isSideFile(path: string, isDatabase: (path: string) => boolean): boolean {
  return isSideName(path) && isDatabase(path.replace(SIDE, ''));
}

/** The place that a path is in: `data`, or `volumes/NAME`. */
export function placeOf(path: string): string {
  const [first = '', second] = path.split('/');
  return first === 'data' || second === undefined ? first : `${first}/${second}`;
}

/** Why a symbolic link cannot be kept, or undefined. A restore never follows or makes a link that leads out. */
export function whyNotKept(path: string, target: string): string | undefined {
  const name = shown(target);
  if (target.startsWith('/')) return `it is a link to the absolute path ${name}`;
  const depth = path.split('/').length - 1 - placeOf(path).split('/').length;
  const parts = target.split('/').filter((part) => part !== '.' && part !== '');
  const up = parts.lastIndexOf('..') + 1;
  if (up > depth) return `it is a link out of the directory, to ${name}`;
  // After another link `..` means something else than it says.
  return parts.slice(0, up).every((part) => part === '..')
    ? undefined
    : `it is a link that turns back, to ${name}`;
}

// Reading a file that somebody may be writing: what goes into the archive is a state that the file had, never half of
// one and half of the next.

/** Before that only a settled state will do: a writer that is held up in the middle leaves the same half twice. */
const SETTLED_ATTEMPTS = 12;
const LEAST_ATTEMPTS = 3;
const GIVE_UP_MS = 5000;
/** Time stamps move in the kernel's ticks: a file that changed this recently may change unseen. */
const RACY_MS = 30;

async function stampOf(file: FileHandle): Promise<string> {
  const { ino, size, mtimeNs, ctimeNs } = await file.stat({ bigint: true });
  return `${ino} ${size} ${mtimeNs} ${ctimeNs}`;
}

/** Copies once; settled if nobody wrote meanwhile. */
async function copyOnce(path: Buffer, target: Buffer, onBytes: (done: number) => void) {
  const hash = createHash('sha256');
  let done = 0;
  async function* hashed(chunks: AsyncIterable<Buffer>) {
    for await (const chunk of chunks) {
      hash.update(chunk);
      done += chunk.length;
      onBytes(done);
      yield chunk;
    }
  }
  const file = await open(path, 'r');
  try {
    const before = await stampOf(file);
    const isRacy = Math.abs(Date.now() - (await file.stat()).ctimeMs) < RACY_MS;
    const source = file.createReadStream({ autoClose: false, highWaterMark: 1024 * 1024 });
    await pipeline(source, hashed, createWriteStream(target));
    return { sha256: hash.digest('hex'), isSettled: !isRacy && (await stampOf(file)) === before };
  } finally {
    await file.close();
  }
}

/**
 * Copies a file to a new one; the SHA-256 of what was read. Of a file that never settles two equal readings in a row are
 * taken. @throws BackupError where there are none
 */
export async function copyUntorn(path: Buffer, target: Buffer, onBytes: (done: number) => void) {
  const began = performance.now();
  let previous = '';
  for (let attempt = 1; ; attempt += 1) {
    const { sha256, isSettled } = await copyOnce(path, target, onBytes);
    if (isSettled || (attempt > SETTLED_ATTEMPTS && sha256 === previous)) return sha256;
    if (attempt >= LEAST_ATTEMPTS && performance.now() - began > GIVE_UP_MS)
      throw new BackupError('file-busy', 'it changes faster than it can be read');
    previous = sha256;
    await sleep(5 + attempt * 2);
  }
}
