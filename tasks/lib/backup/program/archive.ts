// The archive as a stream: tar → zstd → SHA-256 → file, and back. Nothing is held in memory but the chunk that passes, so
// that an archive's size is bounded by the disk alone. Reading trusts nothing: names and types are checked before anybody
// acts on them, and at the end everything is compared with the manifest.
import { createHash, type Hash } from 'node:crypto';
import { closeSync, createReadStream, openSync, readSync, statSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import type { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import zlib from 'node:zlib';
import { extract, type Header as FullHeader, pack } from 'tar-stream';
import { decodeName, encodeName, hasBytes, placeOf, shown, whyNotKept } from './files.ts';
import { compareEntries, type Entry, type Manifest, parseManifest, type Seen } from './manifest.ts';
import { BackupError } from './report.ts';

// zstd as node:zlib of Node 24 has it; the types of this project are those of Node 20, which the tasks need.
interface Zstd {
  createZstdCompress(options: object): Transform;
  createZstdDecompress(options: object): Transform & { bytesWritten: number };
  constants: Record<string, number>;
}
const zstd = zlib as unknown as Zstd;

const CHUNK = 1024 * 1024;
/** Bytes that wait on either side, so that the compressing thread never waits for the others. */
const QUEUE = 4 * 1024 * 1024;
/** A quarter faster than 3, for a few per cent of size: a backup runs beside the service. */
const LEVEL = 2;
/** Every archive ends with a frame that holds nothing: without it, something is missing. */
const EMPTY_FRAME = Buffer.from('28b52ffd240001000099e9d851', 'hex');
const MANIFEST_NAME = 'manifest.json';
/** Dirty bytes are handed to the disk in this rhythm: one big flush at the end would stall the writers. */
const SYNC_EVERY = 8 * 1024 * 1024;

/** With a checksum, so that a flipped bit is found even where no hash is at hand. */
function compressor(): Transform {
  const { ZSTD_c_compressionLevel = 100, ZSTD_c_checksumFlag = 201 } = zstd.constants;
  const params = { [ZSTD_c_compressionLevel]: LEVEL, [ZSTD_c_checksumFlag]: 1 };
  return zstd.createZstdCompress({ chunkSize: CHUNK, highWaterMark: QUEUE, params });
}

type Header = Partial<FullHeader> & Pick<FullHeader, 'name'>;

/** A name that is not valid UTF-8 is kept beside one that is, in a field that other programs ignore. */
const BYTES_OF = { name: 'RELEASEFLOW.path', linkname: 'RELEASEFLOW.linkpath' };

function headerOf({ path, linkname, mtimeMs, ...entry }: Entry): Header {
  const { type, size, uid, gid } = entry;
  // With a bit that is not written: tar-stream takes 0 for "not given".
  const mode = entry.mode | 0o10000;
  const odd = Object.entries({ [BYTES_OF.name]: path, [BYTES_OF.linkname]: linkname ?? '' })
    .filter(([, name]) => hasBytes(name))
    .map(([key, name]) => [key, encodeName(name).toString('base64')]);
  return {
    ...{ name: shown(path), type, size, mode, uid, gid, mtime: new Date(mtimeMs) },
    ...(linkname === undefined ? {} : { linkname: shown(linkname) }),
    ...(odd.length === 0 ? {} : { pax: Object.fromEntries(odd) }),
  };
}

interface Written {
  bytes: number;
  sha256: string;
  /** What the disk said. A pipeline that it breaks often tells only that it was aborted. */
  failure?: Error;
}

/** Writes what passes, flushes in a rhythm, and hashes it. */
async function drain(source: AsyncIterable<Buffer>, file: FileHandle, written: Written): Promise<void> {
  const keep = (error: Error) => {
    written.failure ??= error;
    throw error;
  };
  const hash = createHash('sha256');
  let unsynced = 0;
  let syncing: Promise<void> | undefined;
  let tail: Buffer = Buffer.alloc(0);
  const put = async (chunk: Buffer) => {
    hash.update(chunk);
    await file.writeFile(chunk).catch(keep);
    written.bytes += chunk.length;
    unsynced += chunk.length;
    tail = Buffer.concat([tail, chunk.subarray(-EMPTY_FRAME.length)]).subarray(-EMPTY_FRAME.length);
  };
  for await (const chunk of source) {
    await put(chunk);
    // Beside the next bytes, one at a time: waiting for the disk here would make the compressor wait.
    if (unsynced < SYNC_EVERY || syncing) continue;
    unsynced = 0;
    syncing = file
      .datasync()
      .catch(keep)
      .finally(() => {
        syncing = undefined;
      });
    syncing.catch(() => {});
  }
  // node:zlib ends most streams with one, but not all.
  if (!tail.equals(EMPTY_FRAME)) await put(EMPTY_FRAME);
  await syncing;
  await file.sync().catch(keep);
  written.sha256 = hash.digest('hex');
}

export type Content = Buffer | AsyncIterable<Buffer>;

export interface ArchiveWriter {
  /** Appends an entry; `entry.size` must be the content's. Resolves to the content's SHA-256. */
  add: (entry: Entry, content?: Content) => Promise<string>;
  /** Appends the manifest and makes everything durable. */
  finish: (manifest: Manifest) => Promise<{ bytes: number; sha256: string }>;
}

/** @param path a new file, 0600; what is there already is an error */
export async function openArchive(path: string): Promise<ArchiveWriter> {
  // Made at once, not by a thread that may still be at it when this process ends and has tidied up.
  closeSync(openSync(path, 'wx', 0o600));
  const file = await open(path, 'r+');
  const tar = pack({ highWaterMark: QUEUE });
  const written: Written = { bytes: 0, sha256: '' };
  const done = pipeline(tar, compressor(), (source: AsyncIterable<Buffer>) => drain(source, file, written))
    .catch((error: Error) => {
      throw written.failure ?? error;
    })
    .finally(() => file.close());
  // Whoever waits for an entry must hear of a full disk as well.
  const failure = new Promise<never>((_resolve, reject) => void done.catch(reject));
  failure.catch(() => {});

  const append = async (header: Header, content: Content): Promise<string> => {
    const hash = createHash('sha256');
    const stored = new Promise<void>((resolve, reject) => {
      const sink = tar.entry(header, (error) => (error ? reject(error) : resolve()));
      sink.on('error', reject);
      if (header.type === 'file') void feed(sink, content, hash).catch(reject);
    });
    await Promise.race([stored, failure]).catch(async (error: Error) => {
      // The entry may be heard before the disk that cut it off.
      tar.destroy(error);
      await done.catch(() => {});
      throw written.failure ?? error;
    });
    return hash.digest('hex');
  };
  return {
    add: (entry, content = Buffer.alloc(0)) => append(headerOf(entry), content),
    finish: async (manifest) => {
      const text = Buffer.from(`${JSON.stringify(manifest)}\n`);
      const mtime = new Date(manifest.at);
      await append({ name: MANIFEST_NAME, type: 'file', size: text.length, mode: 0o600, mtime }, text);
      tar.finalize();
      await done;
      return { bytes: written.bytes, sha256: written.sha256 };
    },
  };
}

async function feed(sink: NodeJS.WritableStream, content: Content, hash: Hash): Promise<void> {
  for await (const chunk of Buffer.isBuffer(content) ? [content] : content) {
    hash.update(chunk);
    if (chunk.length > 0 && !sink.write(chunk))
      await new Promise<void>((resolve) => sink.once('drain', resolve));
  }
  sink.end();
}

// Reading. An archive may contain paths below its places, files, directories, and links that stay inside.

export type ArchiveEntry = Omit<Seen, 'sha256'>;

export interface ReadBack {
  manifest: Manifest;
  /** Of the archive file. */
  sha256: string;
  bytes: number;
  /** Everything in which archive and manifest differ; empty if the archive is good. */
  problems: string[];
}

const MAX_MANIFEST = 256 * 1024 * 1024;
const BLOCK = 512;
const TYPES: readonly unknown[] = ['file', 'directory', 'symlink'];

function hostile(name: string, why: string): BackupError {
  const message = `Refused: the archive has ${JSON.stringify(shown(name))}, ${why}`;
  return new BackupError('hostile-archive', message, 'it was not made by this program');
}

function nameIn({ pax, ...header }: FullHeader, field: 'name' | 'linkname'): string {
  const bytes = (pax as Record<string, string> | null | undefined)?.[BYTES_OF[field]];
  return bytes === undefined ? (header[field] ?? '') : decodeName(Buffer.from(bytes, 'base64'));
}

/**
 * The path of an entry; `seen` collects the types of those before it.
 * @throws BackupError for a name or type that a backup never has
 */
export function checkedPath(header: FullHeader, seen: Map<string, unknown>): string {
  const path = nameIn(header, 'name').replace(/\/$/, '');
  const { type } = header;
  const parts = path.split('/');
  if (path.includes('\0')) throw hostile(path, 'a name with a NUL');
  if (!/^(data|volumes\/[^/]+)(\/|$)/.test(path) || parts.some((part) => ['', '.', '..'].includes(part)))
    throw hostile(path, 'which is outside of the data');
  if (!TYPES.includes(type)) throw hostile(path, `which is a ${type}`);
  if (seen.has(path) && (type !== 'file' || seen.get(path) !== 'file'))
    throw hostile(path, `which is there already, as a ${seen.get(path)}`);
  for (let end = path.lastIndexOf('/'); end > 0; end = path.lastIndexOf('/', end - 1)) {
    const above = path.slice(0, end);
    if (seen.has(above) && seen.get(above) !== 'directory')
      throw hostile(path, `which lies behind a ${seen.get(above)}`);
  }
  if (type === 'symlink') {
    const isPlace = placeOf(path) === path;
    const why = isPlace
      ? 'it takes the place of the directory'
      : whyNotKept(path, nameIn(header, 'linkname'));
    if (why) throw hostile(path, why);
  }
  seen.set(path, type);
  return path;
}

async function readText(content: AsyncIterable<Buffer>, size: number): Promise<string> {
  if (size > MAX_MANIFEST) throw new BackupError('bad-archive', `The manifest has ${size} bytes`);
  const chunks: Buffer[] = [];
  for await (const chunk of content) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

/** One pass over the file: hashed, decompressed, counted, cut into entries. */
function openStream(path: string, onBytes: (consumed: number) => void) {
  const hash = createHash('sha256');
  const unzip = zstd.createZstdDecompress({ chunkSize: CHUNK, highWaterMark: QUEUE });
  const tar = extract();
  const counts = { read: 0, unpacked: 0 };
  async function* hashed() {
    for await (const chunk of createReadStream(path, {
      highWaterMark: 256 * 1024,
    }) as AsyncIterable<Buffer>) {
      hash.update(chunk);
      counts.read += chunk.length;
      onBytes(counts.read);
      yield chunk;
    }
  }
  async function* counted(source: AsyncIterable<Buffer>) {
    for await (const chunk of source) {
      counts.unpacked += chunk.length;
      yield chunk;
    }
  }
  const done = pipeline(hashed, unzip, counted, tar);
  done.catch(() => {});
  // What it consumed ends with the first frame, or with the last one: versions of Node differ.
  return { tar, done, counts, hash, consumed: () => unzip.bytesWritten };
}

/** True if the file ends with the empty frame, which a truncated one has lost. */
function hasEnd(path: string, bytes: number): boolean {
  const tail = Buffer.alloc(EMPTY_FRAME.length);
  const file = openSync(path, 'r');
  readSync(file, tail, 0, tail.length, Math.max(0, bytes - tail.length));
  closeSync(file);
  return tail.equals(EMPTY_FRAME);
}

/** Tells damage to the stream from what `error` says otherwise. */
function damaged(error: unknown): unknown {
  const { code, message } = error as NodeJS.ErrnoException;
  if (error instanceof BackupError || /^E[A-Z]+$/.test(code ?? '')) return error;
  return new BackupError('bad-archive', `The archive is damaged: ${message}`);
}

/** Gets each entry's content on its way to being hashed; what it leaves of it is hashed all the same. */
type Consumer = (entry: ArchiveEntry, content: AsyncIterable<Buffer>) => Promise<void>;

async function readEntries(tar: ReturnType<typeof extract>, onEntry: Consumer) {
  const seen: Seen[] = [];
  const types = new Map<string, unknown>();
  let text: string | undefined;
  let end = 0;
  for await (const source of tar) {
    const header = source.header as FullHeader & { byteOffset: number };
    const stream = source as AsyncIterable<Buffer>;
    const { size, mode, uid, gid } = header;
    if (text !== undefined) throw new BackupError('bad-archive', `extra: ${header.name} after the manifest`);
    if (header.name === MANIFEST_NAME) {
      text = await readText(stream, size);
      end = header.byteOffset + Math.ceil(size / BLOCK) * BLOCK + 2 * BLOCK;
      continue;
    }
    const path = checkedPath(header, types);
    const hash = createHash('sha256');
    const content = (async function* () {
      for await (const chunk of stream) {
        hash.update(chunk);
        yield chunk;
      }
    })();
    const entry = { path, type: header.type as Seen['type'], size, mode, uid, gid };
    const linkname = nameIn(header, 'linkname');
    await onEntry({ ...entry, linkname }, content);
    for await (const _rest of content);
    seen.push({ ...entry, linkname, sha256: hash.digest('hex') });
  }
  return { seen, text, end };
}

/**
 * Streams an archive through `onEntry`.
 * @throws BackupError when it is hostile, damaged, truncated or has no valid manifest
 */
export async function readArchive(
  path: string,
  onEntry: Consumer,
  onBytes: (consumed: number) => void = () => {},
): Promise<ReadBack> {
  const bytes = statSync(path).size;
  const { tar, done, counts, hash, consumed } = openStream(path, onBytes);
  const { seen, text, end } = await readEntries(tar, onEntry).catch(async (error: unknown) => {
    await done.catch(() => {});
    throw damaged(error);
  });
  await done.catch((error: unknown) => {
    throw damaged(error);
  });
  const manifest = parseManifest(text);
  const problems = compareEntries(seen, manifest.entries);
  const rest = bytes - consumed();
  if (rest > EMPTY_FRAME.length)
    problems.push(`appended: ${rest - EMPTY_FRAME.length} bytes after the archive's end`);
  // The first format had no such end.
  else if (!text?.startsWith('{"format":1,') && !hasEnd(path, bytes))
    problems.push("truncated: the archive's last bytes are missing or changed");
  if (counts.unpacked !== end) problems.push(`appended: ${counts.unpacked - end} bytes after the manifest`);
  return { manifest, sha256: hash.digest('hex'), bytes, problems };
}
