// The archive as a stream: tar → zstd → SHA-256 → file, and back; its last file is the manifest. Nothing is held in memory
// but the chunk that passes, so that an archive's size is bounded by the disk alone. Reading trusts nothing: names and types
// are checked before anybody acts on them, and at the end everything is compared with the manifest.
import { createHash, type Hash } from 'node:crypto';
import {
  appendFileSync,
  closeSync,
  createReadStream,
  createWriteStream,
  fdatasync,
  openSync,
  readSync,
  statSync,
} from 'node:fs';
import type { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import zlib from 'node:zlib';
import { extract, type Header as FullHeader, pack } from 'tar-stream';
import * as z from 'zod';
import { decodeName, encodeName, hasBytes, placeOf, shown, whyNotKept } from './files.ts';
import { BackupError, report } from './report.ts';

export const sha256 = z.string().regex(/^[0-9a-f]{64}$/);

const Entry = z.object({
  /** With the place before it: `data`, `data/memory.db`. */
  path: z.string(),
  type: z.enum(['file', 'directory', 'symlink']),
  size: z.int().min(0),
  sha256: sha256.optional(),
  linkname: z.string().optional(),
  mode: z.int().min(0),
  uid: z.int().min(0),
  gid: z.int().min(0),
  mtimeMs: z.number(),
});
export type Entry = z.output<typeof Entry>;

/** Something that the archive does not hold, and why. */
const LeftOut = z.object({ path: z.string(), reason: z.string() });
export type LeftOut = z.output<typeof LeftOut>;

/** What the task knows about the project and its configuration; kept as it is. */
const Origin = z.object({
  project: z.string(),
  version: z.string(),
  image: z.string(),
  imageDigest: z.string(),
  revision: z.string(),
});

const Manifest = z.object({
  format: z.literal(2),
  origin: Origin,
  /** ISO 8601, UTC: the clock at the cut. */
  at: z.string(),
  dataFormat: z.int().nullable(),
  /** With what `PRAGMA integrity_check` said of each. */
  databases: z.array(z.object({ path: z.string(), integrity: z.string() })),
  /** By its nature (a socket, a link that leads out), or because the configuration says so. */
  skipped: z.array(LeftOut),
  /** Should be here and is not, or is damaged: the archive is incomplete. */
  missing: z.array(LeftOut),
  /** In the order of the archive. */
  entries: z.array(Entry),
});
export type Manifest = z.output<typeof Manifest>;

/** @throws BackupError where it is not a manifest of the format that this program knows */
function parseManifest(text: string | undefined): Manifest {
  if (text === undefined)
    throw new BackupError('bad-archive', 'The archive has no manifest: it is truncated');
  try {
    return Manifest.parse(JSON.parse(text));
  } catch (error) {
    const [summary] = (error as Error).message.slice(0, 300).split('\n');
    throw new BackupError('bad-archive', `The manifest is not valid: ${summary}`);
  }
}

/** The places that an archive holds, and whose each is. */
export function placesIn({ entries }: Manifest): Record<string, { uid: number; gid: number }> {
  const tops = entries.filter(({ path }) => placeOf(path) === path);
  return Object.fromEntries(tops.map(({ path, uid, gid }) => [path, { uid, gid }]));
}

/** What a person wants to know of an archive's content. */
export function summary(manifest: Manifest) {
  const { origin, at, dataFormat, skipped, missing, entries } = manifest;
  const files = entries.filter(({ type }) => type === 'file');
  const held = new Set(entries.map(({ path }) => path));
  return {
    ...{ origin, at, dataFormat, skipped, missing, places: Object.keys(placesIn(manifest)) },
    ...{ files: files.length, bytes: files.reduce((sum, { size }) => sum + size, 0) },
    /** What a restore leaves as it is. A damaged database is held as it was. */
    absent: [...skipped, ...missing].map(({ path }) => path).filter((path) => !held.has(path)),
  };
}
export type Summary = ReturnType<typeof summary>;

/** An entry as it lies in the archive. */
export interface Seen extends Pick<Entry, 'path' | 'type' | 'size' | 'mode' | 'uid' | 'gid'> {
  linkname: string;
  sha256: string;
}

function differences(seen: Seen, listed: Entry): string[] {
  const name = shown(seen.path);
  if (seen.type !== listed.type) return [`changed: ${name} is a ${seen.type}, expected a ${listed.type}`];
  if (seen.size !== listed.size) {
    const how = seen.size > listed.size ? 'appended' : 'truncated';
    return [`${how}: ${name} has ${seen.size} bytes, expected ${listed.size}`];
  }
  if (listed.type === 'file' && seen.sha256 !== listed.sha256)
    return [`changed: ${name} has another content`];
  if (listed.type === 'symlink' && seen.linkname !== listed.linkname)
    return [`changed: ${name} leads to ${shown(seen.linkname)}, expected ${shown(listed.linkname ?? '')}`];
  return (['mode', 'uid', 'gid'] as const)
    .filter((one) => seen[one] !== listed[one])
    .map((one) => `changed: ${name} has ${one} ${seen[one]}, expected ${listed[one]}`);
}

/** Everything in which the entries that are there differ from those that the manifest lists. Pure. */
function compareEntries(seen: readonly Seen[], listed: readonly Entry[]): string[] {
  const remaining = new Map(listed.map((entry) => [entry.path, entry]));
  const problems = seen.flatMap((entry) => {
    const expected = remaining.get(entry.path);
    remaining.delete(entry.path);
    return expected ? differences(entry, expected) : [`extra: ${shown(entry.path)}`];
  });
  return [...problems, ...[...remaining.keys()].map((path) => `missing: ${shown(path)}`)];
}

// Writing.

// zstd as node:zlib of Node 24 has it; the types of this project are those of Node 20, which the tasks need.
interface Zstd {
  createZstdCompress(options: object): Transform;
  createZstdDecompress(options: object): Transform;
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

/** True if the file ends with the empty frame, which a truncated one has lost. */
function hasEnd(path: string): boolean {
  const tail = Buffer.alloc(EMPTY_FRAME.length);
  const file = openSync(path, 'r');
  readSync(file, tail, 0, tail.length, Math.max(0, statSync(path).size - tail.length));
  closeSync(file);
  return tail.equals(EMPTY_FRAME);
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

export type Content = Buffer | AsyncIterable<Buffer>;

export interface ArchiveWriter {
  /** Appends an entry; `entry.size` must be the content's. Returns it with the content's SHA-256. */
  add: (entry: Entry, content?: Content) => Promise<Entry>;
  /** Appends the manifest and makes everything durable. */
  finish: (manifest: Manifest) => Promise<{ bytes: number; sha256: string }>;
}

/** @param path a new file, 0600; what is there already is an error */
export function openArchive(path: string, onBytes: (bytes: number) => void): ArchiveWriter {
  const descriptor = openSync(path, 'wx', 0o600);
  const tar = pack({ highWaterMark: QUEUE });
  const whole = createHash('sha256');
  async function* hashed(chunks: AsyncIterable<Buffer>) {
    let unsynced = 0;
    for await (const chunk of chunks) {
      whole.update(chunk);
      yield chunk;
      unsynced += chunk.length;
      if (unsynced < SYNC_EVERY) continue;
      unsynced = 0;
      await promisify(fdatasync)(descriptor);
    }
  }
  const file = createWriteStream(path, { fd: descriptor, flush: true });
  const done = pipeline(tar, compressor(), hashed, file);
  done.catch(() => {});
  const append = async (header: Header, content: Content): Promise<string> => {
    const hash = createHash('sha256');
    const stored = new Promise<void>((resolve, reject) => {
      const sink = tar.entry(header, (error) => (error ? reject(error) : resolve()));
      sink.on('error', reject);
      if (header.type === 'file') void feed(sink, content, hash, onBytes).catch(reject);
    });
    // Whoever waits for an entry must hear of a full disk, which the pipeline knows.
    await Promise.race([stored, done]).catch(async (error: Error) => {
      tar.destroy(error);
      await done;
      throw error;
    });
    return hash.digest('hex');
  };
  return {
    add: async (entry, content = Buffer.alloc(0)) => {
      const sha256 = await append(headerOf(entry), content);
      return entry.type === 'file' ? { ...entry, sha256 } : entry;
    },
    finish: async (manifest) => {
      const text = Buffer.from(`${JSON.stringify(manifest)}\n`);
      const mtime = new Date(manifest.at);
      await append({ name: MANIFEST_NAME, type: 'file', size: text.length, mode: 0o600, mtime }, text);
      tar.finalize();
      await done;
      // node:zlib ends most streams with one, but not all.
      if (!hasEnd(path)) {
        appendFileSync(path, EMPTY_FRAME, { flush: true });
        whole.update(EMPTY_FRAME);
      }
      return { bytes: statSync(path).size, sha256: whole.digest('hex') };
    },
  };
}

async function feed(
  sink: NodeJS.WritableStream,
  content: Content,
  hash: Hash,
  onBytes: (bytes: number) => void,
): Promise<void> {
  for await (const chunk of Buffer.isBuffer(content) ? [content] : content) {
    hash.update(chunk);
    onBytes(chunk.length);
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
  if (seen.has(path)) throw hostile(path, `which is there already, as a ${seen.get(path)}`);
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

/** Gets each entry's content on its way to being hashed; what it leaves of it is hashed all the same. */
type Consumer = (entry: ArchiveEntry, content: AsyncIterable<Buffer>) => Promise<void>;

async function readEntries(tar: ReturnType<typeof extract>, onEntry: Consumer) {
  const seen: Seen[] = [];
  const types = new Map<string, unknown>();
  let text: string | undefined;
  for await (const source of tar) {
    const { header } = source;
    const hash = createHash('sha256');
    const content = (async function* () {
      for await (const chunk of source as AsyncIterable<Buffer>) {
        hash.update(chunk);
        yield chunk;
      }
    })();
    const { size, mode, uid, gid, name } = header;
    if (text !== undefined) throw new BackupError('bad-archive', `extra: ${name} after the manifest`);
    if (name === MANIFEST_NAME) {
      if (size > MAX_MANIFEST) throw new BackupError('bad-archive', `The manifest has ${size} bytes`);
      const chunks: Buffer[] = [];
      for await (const chunk of content) chunks.push(chunk);
      text = Buffer.concat(chunks).toString();
      continue;
    }
    const path = checkedPath(header, types);
    const linkname = nameIn(header, 'linkname');
    const entry = { path, type: header.type as Seen['type'], size, mode, uid, gid, linkname };
    await onEntry(entry, content);
    for await (const _rest of content);
    seen.push({ ...entry, sha256: hash.digest('hex') });
  }
  return { seen, text };
}

/** Tells damage to the stream from what `error` says otherwise. */
function damaged(error: unknown): unknown {
  const { code, message } = error as NodeJS.ErrnoException;
  if (error instanceof BackupError || /^E[A-Z]+$/.test(code ?? '')) return error;
  return new BackupError('bad-archive', `The archive is damaged: ${message}`);
}

/**
 * Streams an archive through `onEntry`; `phase` names the progress.
 * @throws BackupError when it is hostile, damaged, truncated or has no valid manifest
 */
export async function readArchive(path: string, phase: string, onEntry: Consumer): Promise<ReadBack> {
  const bytes = statSync(path).size;
  const hash = createHash('sha256');
  const tar = extract();
  async function* hashed(chunks: AsyncIterable<Buffer>) {
    let done = 0;
    for await (const chunk of chunks) {
      hash.update(chunk);
      done += chunk.length;
      report.progress(phase, done, bytes);
      yield chunk;
    }
  }
  const file = createReadStream(path, { highWaterMark: 256 * 1024 });
  const unzip = zstd.createZstdDecompress({ chunkSize: CHUNK, highWaterMark: QUEUE });
  const done = pipeline(file, hashed, unzip, tar);
  done.catch(() => {});
  try {
    const { seen, text } = await readEntries(tar, onEntry);
    await done;
    const manifest = parseManifest(text);
    const problems = compareEntries(seen, manifest.entries);
    if (!hasEnd(path)) problems.push("truncated: the archive's last bytes are missing or changed");
    return { manifest, sha256: hash.digest('hex'), bytes, problems };
  } catch (error) {
    await done.catch(() => {});
    throw damaged(error);
  }
}
