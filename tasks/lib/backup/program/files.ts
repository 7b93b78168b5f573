// What lies in the data: every entry by its name in bytes, and the content of files that somebody may be writing. A path
// begins with the place that it is in: `data/memory.db`, `volumes/models/x.gguf`; the archive calls it the same.
import { closeSync, lstatSync, openSync, readdirSync, readlinkSync, readSync, type Stats } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
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

export interface Found {
  path: string;
  type: 'file' | 'directory' | 'symlink' | 'other';
  stats: Stats;
}

function typeOf(stats: Stats): Found['type'] {
  if (stats.isFile()) return 'file';
  if (stats.isDirectory()) return 'directory';
  return stats.isSymbolicLink() ? 'symlink' : 'other';
}

export function linkTarget(root: string, path: string): string {
  return decodeName(readlinkSync(at(root, path), { encoding: 'buffer' }));
}

/** A glob without a slash is one of names, at any depth; `*` stops at a slash, `**` does not. Pure. */
export function isExcluded(path: string, globs: readonly string[]): boolean {
  const name = path.slice(path.lastIndexOf('/') + 1);
  const parts: Record<string, string> = { '**': '.*', '*': '[^/]*', '?': '[^/]' };
  const pattern = (glob: string) =>
    glob.replace(/\*\*|[*?]|[.+^$()|[\]{}\\]/g, (one) => parts[one] ?? `\\${one}`);
  return globs.some((glob) => new RegExp(`^${pattern(glob)}$`, 's').test(glob.includes('/') ? path : name));
}

/** What a restore has put beside the data for a moment. */
export const WORK_NAME = /^\.release-flow-/;

export interface Walk {
  /** Tells why something cannot be kept; what it returns true for is left out. */
  leaveOut: (path: string, reason: string) => void;
  isExcluded: (path: string) => boolean;
}

/** Everything at and below `path`, parents first, in a fixed order; what vanishes meanwhile is left out. */
export function* walk(root: string, path: string, options: Walk): Generator<Found> {
  if (options.isExcluded(path)) return options.leaveOut(path, 'excluded');
  let stats: Stats;
  let names: string[] = [];
  try {
    stats = lstatSync(at(root, path));
    if (stats.isDirectory())
      names = readdirSync(at(root, path), { encoding: 'buffer' })
        .map((name) => decodeName(name))
        .sort();
  } catch (error) {
    if (isMissing(error) && path.includes('/')) return;
    return options.leaveOut(path, unreadable(error));
  }
  yield { path, type: typeOf(stats), stats };
  for (const name of names) if (!WORK_NAME.test(name)) yield* walk(root, `${path}/${name}`, options);
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

/** A file with SQLite's header, or an empty one: an empty file is a database without tables. */
export function looksLikeDatabase(file: Buffer, size: number): boolean {
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

/** An empty `x-wal` or `x-journal` is a side file, not a database. */
export const isSideName = (path: string) => /-(?:wal|shm|journal)$/.test(path);

/** A file that belongs to a database: it is folded into the database's copy. */
export function isSideFile(path: string, databases: ReadonlySet<string>): boolean {
  return isSideName(path) && databases.has(path.replace(/-\w+$/, ''));
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

async function readWhole(path: Buffer): Promise<{ content: Buffer; isSettled: boolean }> {
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

export function tooBusy(): BackupError {
  return new BackupError('file-busy', 'it changes faster than it can be read');
}

/** A small file's content. Of one that never settles two equal readings in a row are taken. @throws BackupError */
export async function readSmall(path: Buffer): Promise<Buffer> {
  let previous: Buffer | undefined;
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    const { content, isSettled } = await readWhole(path);
    if (isSettled || (attempt >= SETTLED_ATTEMPTS && previous?.equals(content))) return content;
    previous = content;
    await sleep(5 + attempt * 2);
  }
  throw tooBusy();
}

export interface BigFile {
  size: number;
  /** Yields exactly `size` bytes, which the archive has to have by then; zeros where it cannot be read. */
  chunks: () => AsyncGenerator<Buffer>;
  /** After the last chunk: did anybody write meanwhile? @throws why it could not be read */
  isTorn: () => Promise<boolean>;
  close: () => Promise<void>;
}

export async function openBig(path: Buffer): Promise<BigFile> {
  const file = await open(path, 'r');
  const before = await stamp(file);
  const racy = await isRacy(file);
  const { size } = await file.stat();
  let failure: unknown;
  const read = (buffer: Buffer, position: number) =>
    file.read(buffer, 0, buffer.length, position).catch((error: unknown) => {
      failure = error;
      return { bytesRead: 0 };
    });
  return {
    size,
    chunks: async function* () {
      for (let position = 0; position < size; ) {
        const buffer = Buffer.allocUnsafe(Math.min(CHUNK, size - position));
        const { bytesRead } = failure ? { bytesRead: 0 } : await read(buffer, position);
        if (bytesRead === 0) buffer.fill(0);
        const part = bytesRead === 0 ? buffer : buffer.subarray(0, bytesRead);
        position += part.length;
        yield part;
      }
    },
    isTorn: async () => {
      if (failure) throw failure;
      return racy || (await stamp(file)) !== before;
    },
    close: () => file.close(),
  };
}
