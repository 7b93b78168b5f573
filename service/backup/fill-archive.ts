// Putting the contents into the archive: first the files, while the databases are copied beside it, then the
// copies. Collects what the manifest has to say.
import { createReadStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Contents } from './contents.ts';
import { copyDatabase, type DatabaseCopy, sizeOf } from './copy-database.ts';
import { openBig, readSmall, SMALL_FILE, tooBusy } from './read-file.ts';
import { report } from './report.ts';
import type { Entry } from './schema.ts';
import { type Found, linkTarget } from './walk.ts';
import type { ArchiveWriter } from './write-archive.ts';

const BIG_ATTEMPTS = 5;

function entryOf({ path, type, stats }: Found, size: number): Entry {
  return {
    path,
    type: type as Entry['type'],
    size,
    mode: stats.mode & 0o7777,
    uid: stats.uid,
    gid: stats.gid,
    mtimeMs: stats.mtimeMs,
  };
}

function isGone(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ENOENT';
}

/** Streams a big file; each attempt that was torn stays in the archive, marked as superseded. */
async function addBig(writer: ArchiveWriter, root: string, found: Found): Promise<Entry[]> {
  const entries: Entry[] = [];
  for (let attempt = 1; attempt <= BIG_ATTEMPTS; attempt += 1) {
    const file = await openBig(join(root, found.path));
    try {
      const entry = entryOf(found, file.size);
      const sha256 = await writer.add(entry, file.chunks());
      if (!(await file.isTorn())) return [...entries, { ...entry, sha256 }];
      entries.push({ ...entry, sha256, superseded: true });
    } finally {
      await file.close();
    }
  }
  throw tooBusy(found.path);
}

async function addFile(writer: ArchiveWriter, root: string, found: Found): Promise<Entry[]> {
  if (found.stats.size > SMALL_FILE) return addBig(writer, root, found);
  const content = await readSmall(join(root, found.path), found.path);
  const entry = entryOf(found, content.length);
  return [{ ...entry, sha256: await writer.add(entry, content) }];
}

async function addOther(writer: ArchiveWriter, root: string, found: Found): Promise<Entry[]> {
  try {
    if (found.type === 'file') return await addFile(writer, root, found);
    const entry = entryOf(found, 0);
    if (found.type === 'symlink') entry.linkname = linkTarget(root, found.path);
    await writer.add(entry);
    return [entry];
  } catch (error) {
    // Deleted since we looked: it is not part of what there is to keep.
    if (isGone(error)) return [];
    throw error;
  }
}

/** Adds everything but the databases. `done` counts bytes, for the progress. */
export async function addOthers(
  writer: ArchiveWriter,
  root: string,
  others: readonly Found[],
  onBytes: (bytes: number) => void,
): Promise<Entry[]> {
  const entries: Entry[] = [];
  for (const found of others) {
    const added = await addOther(writer, root, found);
    entries.push(...added);
    onBytes(added.reduce((sum, { size }) => sum + size, 0));
  }
  return entries;
}

/** Starts copying the pinned databases into `scratch`, one after the other. */
export function startCopies(
  contents: Contents,
  scratch: string,
  maxBlockMs: number,
): Promise<DatabaseCopy>[] {
  const pinnedAt = performance.now();
  let previous: Promise<unknown> = Promise.resolve();
  return contents.cut.databases.map((pinned, index) => {
    const file = join(scratch, `${index}.db`);
    const copy = previous.then(() => copyDatabase(pinned, file, { pinnedAt, maxBlockMs }));
    previous = copy;
    copy.catch(() => {});
    return copy;
  });
}

/** Adds the copies as they become ready. */
export async function addDatabases(
  writer: ArchiveWriter,
  contents: Contents,
  copies: readonly Promise<DatabaseCopy>[],
  onBytes: (bytes: number) => void,
): Promise<{ entries: Entry[]; copied: DatabaseCopy[] }> {
  const entries: Entry[] = [];
  const copied: DatabaseCopy[] = [];
  for (const pending of copies) {
    const copy = await pending;
    const { path, integrity } = copy.facts;
    if (integrity !== 'ok') report.warn(`${path} is damaged: ${integrity}`);
    if (copy.blockedMs > 0 && copy.facts.pages > 0)
      report.note(`${path} is not in WAL mode: its writers had to wait for ${copy.blockedMs} ms`);
    const entry = entryOf(contents.databases.get(path)!, sizeOf(copy.file));
    const content =
      copy.file === '' ? Buffer.alloc(0) : createReadStream(copy.file, { highWaterMark: 1024 * 1024 });
    entries.push({ ...entry, sha256: await writer.add(entry, content as AsyncIterable<Buffer>) });
    // Not in this thread: to let hundreds of megabytes go takes a moment.
    if (copy.file !== '') await rm(copy.file);
    copied.push(copy);
    onBytes(entry.size);
  }
  return { entries, copied };
}
