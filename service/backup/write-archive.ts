// The archive as a stream: tar → zstd → SHA-256 → file. Nothing is held in memory but the chunk that passes,
// so that an archive's size is bounded by the disk alone.
import { createHash } from 'node:crypto';
import { closeSync, openSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { type Header as FullHeader, pack } from 'tar-stream';
import type { Entry, Manifest } from './schema.ts';
import { compressor, QUEUE } from './zstd.ts';

export const DATA_PREFIX = 'data';
export const MANIFEST_NAME = 'manifest.json';
/** Dirty bytes are handed to the disk in this rhythm: one big flush at the end would stall the writers. */
const SYNC_EVERY = 8 * 1024 * 1024;

export type Content = Buffer | AsyncIterable<Buffer>;

/** Name inside the archive. */
export function entryName(path: string): string {
  return path === '' ? DATA_PREFIX : `${DATA_PREFIX}/${path}`;
}

type Header = Partial<FullHeader> & Pick<FullHeader, 'name'>;

function headerOf(entry: Entry): Header {
  return {
    name: entryName(entry.path),
    type: entry.type,
    size: entry.size,
    mode: entry.mode,
    uid: entry.uid,
    gid: entry.gid,
    mtime: new Date(entry.mtimeMs),
    ...(entry.linkname === undefined ? {} : { linkname: entry.linkname }),
  };
}

interface Written {
  bytes: number;
  /** What the disk said. A pipeline that it breaks often tells only that it was aborted. */
  failure?: Error;
}

/** Writes what passes, flushes in a rhythm, and hashes it. */
async function drain(source: AsyncIterable<Buffer>, file: FileHandle, written: Written) {
  const keep = (error: Error) => {
    written.failure ??= error;
    throw error;
  };
  const hash = createHash('sha256');
  let unsynced = 0;
  let syncing: Promise<void> | undefined;
  for await (const chunk of source) {
    hash.update(chunk);
    await file.writeFile(chunk).catch(keep);
    written.bytes += chunk.length;
    unsynced += chunk.length;
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
  await syncing;
  await file.sync().catch(keep);
  return hash.digest('hex');
}

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
  const written: Written = { bytes: 0 };
  let sha256 = '';
  const done = pipeline(tar, compressor(), async (source: AsyncIterable<Buffer>) => {
    sha256 = await drain(source, file, written);
  })
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
      return { bytes: written.bytes, sha256 };
    },
  };
}

async function feed(
  sink: NodeJS.WritableStream,
  content: Content,
  hash: ReturnType<typeof createHash>,
): Promise<void> {
  for await (const chunk of Buffer.isBuffer(content) ? [content] : content) {
    hash.update(chunk);
    if (chunk.length > 0 && !sink.write(chunk))
      await new Promise<void>((resolve) => sink.once('drain', resolve));
  }
  sink.end();
}
