// Making an archive: one cut across all databases, the other files read untorn, all of it streamed into a file that gets
// its name only when it is complete and on the disk. What cannot be read is named, and does not keep the rest from it.

import { createReadStream, readFileSync, renameSync } from 'node:fs';
import { mkdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type * as z from 'zod';
import { type ArchiveWriter, openArchive } from './archive.ts';
import { type Copy, type Cut, copyAll, DatabaseError, dropCut, lockDirectory, takeCut } from './databases.ts';
import {
  becomeOwner,
  bytesNeeded,
  clearLeftovers,
  listArchives,
  newArchiveName,
  partialPath,
  readRecord,
  scratchPath,
  syncDirectory,
  verifySpace,
  writeRecord,
} from './directory.ts';
import {
  at,
  type Found,
  isExcluded,
  isSideFile,
  isSideName,
  linkTarget,
  looksLikeDatabase,
  openBig,
  readSmall,
  SMALL_FILE,
  shown,
  tooBusy,
  unreadable,
  walk,
  whyNotKept,
} from './files.ts';
import { type Entry, type LeftOut, type Manifest, type Origin, recordOf } from './manifest.ts';
import { BackupError, discard, isMissing, keep, report, stopwatch, unfinishedPath } from './report.ts';
import { proveArchive } from './restore.ts';

export interface CreateOptions {
  /** Directory that holds the places: `data`, `volumes/NAME`. */
  source: string;
  places: string[];
  backups: string;
  origin: z.output<typeof Origin>;
  /** Globs of paths that are left out: against the whole path, and against each name alone. */
  exclude: string[];
  /** For how long a database may stay locked by others. */
  lockTimeoutMs: number;
  /** For how long the writers of a database that is not in WAL mode may have to wait. */
  maxBlockMs: number;
  prove: boolean;
}

/** What an archive does not hold: by its nature, or although it should. Each is named once. */
interface Omissions {
  skipped: LeftOut[];
  missing: LeftOut[];
}

function miss({ missing }: Omissions, path: string, error: unknown): void {
  if (missing.some((one) => one.path === path)) return;
  missing.push({ path, reason: error instanceof BackupError ? error.message : unreadable(error) });
}

function reportOmissions({ skipped, missing }: Omissions): void {
  for (const { path, reason } of skipped) report.note(`not in the backup: ${shown(path)}: ${reason}`);
  for (const { path, reason } of missing) report.warn(`MISSING in the backup: ${shown(path)}: ${reason}`);
}

const inode = ({ stats }: Found) => `${stats.dev}:${stats.ino}`;

interface Survey {
  databases: Map<string, Found>;
  /** What can be kept and is not a database, parents first. */
  others: Found[];
  omissions: Omissions;
  bytes: number;
  databaseBytes: number;
}

/** Why an entry is left out by its nature. */
function whySkipped(source: string, place: string, { path, type }: Found): string | undefined {
  if (type === 'other') return 'socket, pipe or device';
  if (path === place && type !== 'directory') return 'mounted as a single file';
  return type === 'symlink' ? whyNotKept(path, linkTarget(source, path)) : undefined;
}

/**
 * Looks at everything. A file of `databases` is one; without it, whatever looks like one is: `databases` of the answer.
 * Opening a file again would drop the locks that SQLite holds on it in this process, so second names are left out.
 */
function survey({ source, places, exclude }: CreateOptions, damaged: ReadonlySet<string>): Survey {
  const omissions: Omissions = { skipped: [], missing: [] };
  const found: Survey = { databases: new Map(), others: [], omissions, bytes: 0, databaseBytes: 0 };
  const skip = (path: string, reason: string) => void omissions.skipped.push({ path, reason });
  const inodes = new Set<string>();
  const options = {
    isExcluded: (path: string) => isExcluded(path, exclude),
    leaveOut: (path: string, reason: string) =>
      reason === 'excluded' ? skip(path, reason) : miss(omissions, path, new BackupError('', reason)),
  };
  for (const place of places)
    for (const one of walk(source, place, options)) {
      const { path, type, stats } = one;
      const reason = whySkipped(source, place, one);
      if (reason) skip(path, reason);
      else if (type !== 'file') found.others.push(one);
      else {
        found.bytes += stats.size;
        const isDatabase =
          !damaged.has(path) && !isSideName(path) && isReadableDatabase(source, one, omissions);
        if (isDatabase || path.endsWith('-wal')) found.databaseBytes += stats.size;
        if (!isDatabase) found.others.push(one);
        else if (inodes.has(inode(one))) skip(path, 'second name of a database');
        else {
          inodes.add(inode(one));
          found.databases.set(path, one);
        }
      }
    }
  return found;
}

function isReadableDatabase(source: string, { path, stats }: Found, omissions: Omissions): boolean {
  try {
    return looksLikeDatabase(at(source, path), stats.size);
  } catch (error) {
    if (!isMissing(error)) miss(omissions, path, error);
    return false;
  }
}

/** Times that the cut is taken again because a new database appeared meanwhile. */
const RETAKES = 4;

interface Contents extends Survey {
  cut: Cut;
}

/** The cut, and everything else as it is after it: a database that appeared in between must not be missing. */
async function cutContents(options: CreateOptions, first: Survey): Promise<Contents> {
  const unusable = new Map<string, DatabaseError>();
  let known = first;
  for (let retakes = 0; ; ) {
    const cut = await cutWithout(options, known.databases, unusable);
    const inCut = new Set(cut.databases.map(({ path }) => path));
    const again = survey(options, new Set([...unusable.keys(), ...cut.others]));
    const late = [...again.databases.keys()].filter((path) => !inCut.has(path));
    if (late.length > 0 && retakes < RETAKES) {
      dropCut(cut);
      known = again;
      retakes += 1;
      continue;
    }
    const reason = 'database that appeared after the snapshot';
    again.omissions.skipped.push(...late.map((path) => ({ path, reason })));
    for (const [path, error] of unusable) miss(again.omissions, path, error);
    const others = again.others.filter(({ path }) => !isSideFile(path, inCut));
    return { ...again, databases: new Map([...known.databases, ...again.databases]), others, cut };
  }
}

/** The cut across all databases that can be part of one; the others are added to `unusable`. */
async function cutWithout(
  { source, lockTimeoutMs }: CreateOptions,
  databases: ReadonlyMap<string, Found>,
  unusable: Map<string, DatabaseError>,
): Promise<Cut> {
  for (;;) {
    const paths = [...databases.keys()].filter((path) => !unusable.has(path));
    try {
      return await takeCut(source, paths, lockTimeoutMs);
    } catch (error) {
      if (!(error instanceof DatabaseError)) throw error;
      unusable.set(error.path, error);
    }
  }
}

const BIG_ATTEMPTS = 5;

function entryOf({ path, type, stats }: Found, size: number): Entry {
  const { mode, uid, gid, mtimeMs } = stats;
  return { path, type: type as Entry['type'], size, mode: mode & 0o7777, uid, gid, mtimeMs };
}

/** Streams a big file; each attempt that was torn stays in the archive, marked as superseded. */
async function addBig(writer: ArchiveWriter, source: string, found: Found, entries: Entry[]): Promise<void> {
  for (let attempt = 1; attempt <= BIG_ATTEMPTS; attempt += 1) {
    const file = await openBig(at(source, found.path));
    try {
      const entry = entryOf(found, file.size);
      const sha256 = await writer.add(entry, file.chunks());
      const stored: Entry = { ...entry, sha256, superseded: true };
      entries.push(stored);
      if (await file.isTorn()) continue;
      delete stored.superseded;
      return;
    } finally {
      await file.close();
    }
  }
  throw tooBusy();
}

async function addOther(
  writer: ArchiveWriter,
  source: string,
  found: Found,
  entries: Entry[],
): Promise<void> {
  if (found.type === 'file' && found.stats.size > SMALL_FILE) return addBig(writer, source, found, entries);
  if (found.type === 'file') {
    const content = await readSmall(at(source, found.path));
    const entry = entryOf(found, content.length);
    entries.push({ ...entry, sha256: await writer.add(entry, content) });
    return;
  }
  const entry = entryOf(found, 0);
  if (found.type === 'symlink') entry.linkname = linkTarget(source, found.path);
  await writer.add(entry);
  entries.push(entry);
}

/** An error about one entry, which the others survive. */
function isItsOwn(error: unknown): boolean {
  const { code = '' } = error as NodeJS.ErrnoException;
  return error instanceof DatabaseError || /^(EACCES|EPERM|EIO|EISDIR|ELOOP|ENXIO|file-busy)$/.test(code);
}

/** Adds the copy of a database; it is a moment's work, the copying goes on meanwhile. */
async function addCopy(writer: ArchiveWriter, found: Found, copy: Copy): Promise<Entry> {
  const size = copy.file ? (await stat(copy.file)).size : 0;
  const entry = entryOf(found, size);
  const content = copy.file ? createReadStream(copy.file, { highWaterMark: 1024 * 1024 }) : Buffer.alloc(0);
  const sha256 = await writer.add(entry, content as AsyncIterable<Buffer>);
  // Not in this thread: to let hundreds of megabytes go takes a moment.
  if (copy.file) await rm(copy.file);
  return { ...entry, sha256 };
}

/** Archives the contents: the files while the databases are copied beside, then the copies. */
async function fill(writer: ArchiveWriter, options: CreateOptions, contents: Contents, scratch: string) {
  const { source } = options;
  const { omissions, cut, bytes: total } = contents;
  const entries: Entry[] = [];
  let [counted, done] = [0, 0];
  const progress = () => {
    for (; counted < entries.length; counted += 1) done += entries[counted]!.size;
    report.progress('archive', done, total);
  };
  const addAnyway = async (path: string, work: () => Promise<unknown>) => {
    try {
      await work();
    } catch (error) {
      // Deleted since we looked: it is not part of what there is to keep.
      if (isMissing(error)) return;
      if (!isItsOwn(error)) throw error;
      miss(omissions, path, error);
    }
    progress();
  };
  const copies = copyAll(cut.databases, scratch, options.maxBlockMs);
  for (const found of contents.others)
    await addAnyway(found.path, () => addOther(writer, source, found, entries));
  const copied: Copy[] = [];
  for (const [index, { path }] of cut.databases.entries()) {
    const found = contents.databases.get(path)!;
    try {
      const copy = await copies[index]!();
      const { integrity, pages } = copy.facts;
      if (integrity !== 'ok') miss(omissions, path, new BackupError('database', `damaged: ${integrity}`));
      if (copy.blockedMs > 0 && pages > 0)
        report.note(`${shown(path)} is not in WAL mode: its writers were blocked for ${copy.blockedMs} ms`);
      entries.push(await addCopy(writer, found, copy));
      copied.push(copy);
      progress();
    } catch (error) {
      if (!(error instanceof DatabaseError)) throw error;
      miss(omissions, path, error);
      // As it lies there, for whoever can repair it.
      await addAnyway(path, () => addOther(writer, source, found, entries));
    }
  }
  return { entries, copied };
}

/** The number of the data format, null where the data says nothing. */
function dataFormatOf(source: string): number | null {
  try {
    const { dataFormat } = JSON.parse(readFileSync(join(source, 'data/format.json'), 'utf8'));
    return Number.isInteger(dataFormat) ? dataFormat : null;
  } catch {
    return null;
  }
}

/** Zero files are what a wrong directory looks like. */
function verifyNotEmpty({ backups, origin }: CreateOptions, { databases, others, omissions }: Survey): void {
  const files = databases.size + others.filter(({ type }) => type === 'file').length;
  if (files + omissions.missing.length > 0) return;
  const last = listArchives(backups, origin.project).findLast(({ record }) => record?.proof)?.record;
  if (last?.files === 0) return;
  const before = last ? `; the last backup had ${last.files}` : '';
  const hint = 'check [data] directory: is it the one that the service writes to?';
  throw new BackupError('no-data', `No files to back up${before}`, hint);
}

/** Makes an archive and its record, not yet verified. The directory must be locked. */
async function makeArchive(options: CreateOptions) {
  const seconds = stopwatch();
  const { source, backups, origin } = options;
  clearLeftovers(backups, origin.project);
  const first = survey(options, new Set());
  verifyNotEmpty(options, first);
  verifySpace(backups, bytesNeeded(first.bytes, first.databaseBytes, listArchives(backups, origin.project)));
  const name = newArchiveName(backups, origin.project, origin.version);
  const partial = unfinishedPath(partialPath(backups, name));
  const scratch = unfinishedPath(scratchPath(backups, origin.project));
  await mkdir(scratch, { mode: 0o700 });
  const contents = await cutContents(options, first);
  const { cut, omissions } = contents;
  const writer = await openArchive(partial);
  const { entries, copied } = await fill(writer, options, contents, scratch);
  reportOmissions(omissions);
  const blocked = copied.filter(({ blockedMs, facts }) => blockedMs > 0 && facts.pages > 0);
  const manifest: Manifest = {
    ...{ format: 2, origin, at: cut.at.toISOString(), dataFormat: dataFormatOf(source) },
    cut: { heldMs: cut.heldMs, attempts: cut.attempts },
    blocked: Object.fromEntries(blocked.map(({ facts, blockedMs }) => [facts.path, blockedMs])),
    databases: copied.map(({ facts }) => facts),
    ...{ ...omissions, entries },
  };
  const written = await writer.finish(manifest);
  discard(scratch);
  // The record first: an archive that has its name has a record, or is not ours.
  writeRecord(backups, recordOf(name, manifest, written, 'created'));
  renameSync(partial, join(backups, name));
  keep(partial);
  syncDirectory(backups);
  return { name, manifest, seconds: seconds() };
}

/** The command: makes an archive and verifies it. */
export async function create(options: CreateOptions) {
  const { source, places, backups, origin } = options;
  const read = places.filter((place) => !isExcluded(place, options.exclude));
  becomeOwner(
    (read.length > 0 ? read : places).map((place) => join(source, place)),
    backups,
  );
  lockDirectory(backups, origin.project);
  const { name, manifest, seconds } = await makeArchive(options);
  const proof = options.prove ? await proveArchive(backups, origin.project, name) : undefined;
  if (proof && !proof.ok) {
    const text = [`${name} failed verification:`, ...proof.problems.slice(0, 20)].join('\n  - ');
    throw new BackupError('not-proven', text, 'it is kept, but not used; older archives are unchanged');
  }
  const { cut, blocked, skipped, missing, entries } = manifest;
  const held = new Set(entries.map(({ path }) => path));
  return {
    ...readRecord(backups, name)!,
    ...{ cut, blocked, skipped, missing, seconds, proofSeconds: proof?.seconds ?? 0 },
    /** A damaged database is held as it is. */
    unsaved: [...skipped, ...missing].map(({ path }) => path).filter((path) => !held.has(path)),
    peakMegabytes: Math.round(process.resourceUsage().maxRSS / 1024),
    archives: listArchives(backups, origin.project),
  };
}
