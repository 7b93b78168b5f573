// Reading an archive back, trusting nothing in it: names and types are checked before anybody acts on them,
// and at the end everything is compared with the manifest.
import { createHash } from 'node:crypto';
import { closeSync, createReadStream, openSync, readSync, statSync } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { extract, type Header } from 'tar-stream';
import { compareEntries, type Seen } from './compare.ts';
import { checkedPath } from './entry-rules.ts';
import { BackupError } from './report.ts';
import { Manifest } from './schema.ts';
import { MANIFEST_NAME } from './write-archive.ts';
import { decompressor } from './zstd.ts';

/** What a consumer gets; it must read the content of a file to its end. */
export interface ArchiveEntry extends Omit<Seen, 'sha256'> {
  content: AsyncIterable<Buffer>;
}

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
const EMPTY_FRAME = Buffer.from('28b52ffd240001000099e9d851', 'hex');
const CHUNK = 256 * 1024;

async function readText(content: AsyncIterable<Buffer>, size: number): Promise<string> {
  if (size > MAX_MANIFEST) throw new BackupError('bad-archive', `The manifest has ${size} bytes`);
  const chunks: Buffer[] = [];
  for await (const chunk of content) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

function parseManifest(text: string | undefined): Manifest {
  if (text === undefined)
    throw new BackupError('bad-archive', 'The archive has no manifest: it is not complete');
  try {
    return Manifest.parse(JSON.parse(text));
  } catch (error) {
    const [summary] = (error as Error).message.slice(0, 300).split('\n');
    throw new BackupError('bad-archive', `The manifest is not valid: ${summary}`);
  }
}

/** One pass over the file: hashed, decompressed, counted, cut into entries. */
function openStream(path: string, onBytes: (consumed: number) => void) {
  const hash = createHash('sha256');
  const unzip = decompressor();
  const tar = extract();
  const counts = { read: 0, unpacked: 0 };
  async function* hashed() {
    for await (const chunk of createReadStream(path, { highWaterMark: CHUNK }) as AsyncIterable<Buffer>) {
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
  return { tar, done, counts, hash, consumed: () => unzip.bytesWritten };
}

/** node:zlib ends most streams with a second frame that holds nothing. */
function endsWithEmptyFrame(path: string, bytes: number, rest: number): boolean {
  if (rest !== EMPTY_FRAME.length) return false;
  const tail = Buffer.alloc(rest);
  const file = openSync(path, 'r');
  readSync(file, tail, 0, rest, bytes - rest);
  closeSync(file);
  return tail.equals(EMPTY_FRAME);
}

/** Tells damage to the stream from what `error` says otherwise. */
function damaged(error: unknown): unknown {
  const { code, message } = error as NodeJS.ErrnoException;
  if (error instanceof BackupError || /^E[A-Z]+$/.test(code ?? '')) return error;
  return new BackupError('bad-archive', `The archive is damaged: ${message}`);
}

type Consumer = (entry: ArchiveEntry, hashed: AsyncIterable<Buffer>) => Promise<void>;

function hashing(content: AsyncIterable<Buffer>, hash: ReturnType<typeof createHash>) {
  return (async function* () {
    for await (const chunk of content) {
      hash.update(chunk);
      yield chunk;
    }
  })();
}

async function readEntries(tar: ReturnType<typeof extract>, onEntry: Consumer) {
  const seen: Seen[] = [];
  const links = new Set<string>();
  let text: string | undefined;
  let end = 0;
  for await (const source of tar) {
    const header = source.header as Header & { byteOffset: number };
    const stream = source as AsyncIterable<Buffer>;
    const { size } = header;
    if (text !== undefined) throw new BackupError('bad-archive', `extra: ${header.name} after the manifest`);
    if (header.name === MANIFEST_NAME) {
      text = await readText(stream, size);
      end = header.byteOffset + Math.ceil(size / BLOCK) * BLOCK + 2 * BLOCK;
      continue;
    }
    const path = checkedPath(header, links);
    const hash = createHash('sha256');
    const { mode, uid, gid, linkname } = header;
    const type = header.type as Seen['type'];
    const entry = { path, type, size, mode, uid, gid, linkname: linkname ?? '', content: stream };
    const content = hashing(stream, hash);
    await onEntry(entry, content);
    for await (const _rest of content);
    const { content: _content, ...facts } = entry;
    seen.push({ ...facts, sha256: hash.digest('hex') });
  }
  return { seen, text, end };
}

/**
 * Streams an archive through `onEntry`, which gets each entry's content on its way to being hashed.
 * @throws BackupError when it is hostile, damaged, incomplete or has no valid manifest
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
  if (rest !== 0 && !endsWithEmptyFrame(path, bytes, rest))
    problems.push(`appended: ${rest} bytes after the archive's end`);
  if (counts.unpacked !== end) problems.push(`appended: ${counts.unpacked - end} bytes after the manifest`);
  return { manifest, sha256: hash.digest('hex'), bytes, problems };
}
