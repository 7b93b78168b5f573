// Making an archive: one cut across all databases, the other files read untorn, all of it streamed into a file that gets
// its name only when it is complete and on the disk. What cannot be read is named, and does not keep the rest from it.
import { createReadStream, mkdirSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import {
  type ArchiveWriter,
  type Content,
  type Entry,
  type LeftOut,
  type Manifest,
  openArchive,
  summary,
} from './archive.ts';
import {
  type Copy,
  type Cut,
  copyDatabases,
  type DatabaseError,
  dropCut,
  lockDirectory,
  takeCut,
} from './databases.ts';
import {
  becomeOwner,
  bytesNeeded,
  clearLeftovers,
  type Listed,
  listArchives,
  nextName,
  partialPath,
  readRecord,
  recordOf,
  scratchPath,
  sync,
  verifySpace,
  writeRecord,
} from './directory.ts';
import {
  at,
  copyUntorn,
  encodeName,
  type Found,
  inodeOf,
  isExcluded,
  isSideFile,
  shown,
  survey,
  unreadable,
  whyNotKept,
} from './files.ts';
import { BackupError, discard, isMissing, keep, report, stopwatch, unfinishedPath } from './report.ts';
import { proveArchive } from './restore.ts';

export interface CreateOptions {
  /** Directory that holds the places: `data`, `volumes/NAME`. */
  source: string;
  places: string[];
  backups: string;
  origin: Manifest['origin'];
  /** Globs of paths that are left out: against the whole path, and against each name alone. */
  exclude: string[];
  /** For how long a database may stay locked by others. */
  lockTimeoutMs: number;
  /** For how long the writers of a database that is not in WAL mode may have to wait. */
  maxBlockMs: number;
}

interface Contents {
  databases: Map<string, Found>;
  /** What can be kept and is not a database, parents first. */
  others: Found[];
  /** What an archive does not hold: by its nature, or although it should. */
  skipped: LeftOut[];
  missing: LeftOut[];
}

/** Why an entry is left out by its nature. */
function whySkipped({ path, type, target }: Found, places: readonly string[]): string | undefined {
  if (type === 'other') return 'socket, pipe or device';
  if (places.includes(path) && type !== 'directory') return 'mounted as a single file';
  return type === 'symlink' ? whyNotKept(path, target) : undefined;
}

/** Sorts what is there. `rejected`: what looks like a database and is kept as it is. `open`: inodes of those in the cut. */
function sortContents(
  { source, places, exclude }: CreateOptions,
  rejected: Pick<Map<string, unknown>, 'has'> = new Set(),
  open: ReadonlySet<string> = new Set(),
): Contents {
  const { entries, excluded, unreadable: missing } = survey(source, places, exclude, open);
  const found: Contents = { databases: new Map(), others: [], skipped: excluded, missing };
  const inodes = new Set<string>();
  for (const one of entries) {
    const { path, stats } = one;
    const reason = whySkipped(one, places);
    const inode = inodeOf(stats);
    if (reason) found.skipped.push({ path, reason });
    else if (!one.isDatabase || rejected.has(path)) found.others.push(one);
    else if (inodes.has(inode)) found.skipped.push({ path, reason: 'second name of a database' });
    else {
      inodes.add(inode);
      found.databases.set(path, one);
    }
  }
  return found;
}

/** Times that the cut is taken because a new database appeared meanwhile. */
const CUTS = 5;

/** The cut, and everything else as it is after it: a database that appeared in between must not be missing. */
async function cutContents(options: CreateOptions, first: Contents): Promise<Contents & { cut: Cut }> {
  const rejected: Cut['rejected'] = new Map();
  let known = first;
  for (let round = 1; ; round += 1) {
    const paths = [...known.databases.keys()];
    const cut = await takeCut(options.source, paths, options.lockTimeoutMs);
    for (const [path, error] of cut.rejected) rejected.set(path, error);
    const inCut = new Set(cut.databases.map(({ path }) => path));
    const open = [...inCut].map((path) => inodeOf(known.databases.get(path)!.stats));
    const now = sortContents(options, rejected, new Set(open));
    const late = [...now.databases.keys()].filter((path) => !inCut.has(path));
    if (late.length > 0 && round < CUTS) {
      dropCut(cut);
      known = now;
      continue;
    }
    const reason = 'database that appeared after the snapshot';
    now.skipped.push(...late.map((path) => ({ path, reason })));
    for (const [path, error] of rejected) if (error) miss(now, path, error);
    const others = now.others.filter(({ path }) => !isSideFile(path, (database) => inCut.has(database)));
    return { ...now, databases: new Map([...known.databases, ...now.databases]), others, cut };
  }
}

/** Each is named once. */
function miss({ missing }: Contents, path: string, error: unknown): void {
  if (missing.some((one) => one.path === path)) return;
  missing.push({ path, reason: error instanceof BackupError ? error.message : unreadable(error) });
}

function reportOmissions({ skipped, missing }: Contents): void {
  for (const { path, reason } of skipped) report.note(`not in the backup: ${shown(path)}: ${reason}`);
  for (const { path, reason } of missing) report.warn(`MISSING in the backup: ${shown(path)}: ${reason}`);
}

function entryOf({ path, type, stats }: Found, size = 0): Entry {
  const { mode, uid, gid, mtimeMs } = stats;
  return { path, type: type as Entry['type'], size, mode: mode & 0o7777, uid, gid, mtimeMs };
}

/** Adds a copy that nobody writes, and removes it. */
async function addCopy(writer: ArchiveWriter, found: Found, file: string): Promise<Entry> {
  const { size } = await stat(file);
  const content = createReadStream(file, { highWaterMark: 1024 * 1024 }) as Content;
  const entry = await writer.add(entryOf(found, size), content);
  // Not in this thread: to let hundreds of megabytes go takes a moment.
  await rm(file);
  return entry;
}

async function addOther(writer: ArchiveWriter, source: string, found: Found, scratch: string) {
  const { path, type, stats, target } = found;
  if (type === 'directory') return writer.add(entryOf(found));
  if (type === 'symlink') return writer.add({ ...entryOf(found), linkname: target });
  const copy = join(scratch, 'file');
  await copyUntorn(at(source, path), encodeName(copy), (done) =>
    report.progress(`read ${shown(path)}`, done, stats.size),
  );
  return addCopy(writer, found, copy);
}

/** An error about one entry, which the others survive. */
function isItsOwn(error: unknown): boolean {
  return /^(EACCES|EPERM|EIO|EISDIR|ELOOP|ENXIO|file-busy)$/.test((error as { code?: string }).code ?? '');
}

/** Archives the contents, of which the databases are copied already. */
async function fill(
  writer: ArchiveWriter,
  source: string,
  contents: Contents,
  copies: Copy[],
  scratch: string,
) {
  const entries: Entry[] = [];
  for (const found of contents.others) {
    try {
      entries.push(await addOther(writer, source, found, scratch));
    } catch (error) {
      // Deleted since we looked: it is not part of what there is to keep.
      if (isMissing(error)) continue;
      if (!isItsOwn(error)) throw error;
      miss(contents, found.path, error);
    }
  }
  for (const { path, file, integrity } of copies) {
    if (integrity !== 'ok') miss(contents, path, new BackupError('database', `damaged: ${integrity}`));
    entries.push(await addCopy(writer, contents.databases.get(path)!, file));
  }
  return entries;
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
function verifyNotEmpty({ databases, others, missing }: Contents, archives: readonly Listed[]): void {
  const files = databases.size + others.filter(({ type }) => type === 'file').length;
  if (files + missing.length > 0) return;
  const last = archives.findLast(({ record }) => record?.proof)?.record;
  if (last?.files === 0) return;
  const before = last ? `; the last backup had ${last.files}` : '';
  const hint = 'check [data] directory: is it the one that the service writes to?';
  throw new BackupError('no-data', `No files to back up${before}`, hint);
}

/** Checks that there is something to back up, and room for it; returns the bytes of the data. */
function verifyContents({ backups, origin }: CreateOptions, contents: Contents): number {
  const archives = listArchives(backups, origin.project);
  verifyNotEmpty(contents, archives);
  const sizes = (found: Found[]) => found.map(({ type, stats }) => (type === 'file' ? stats.size : 0));
  const sum = (numbers: number[]) => numbers.reduce((total, one) => total + one, 0);
  const databases = sum(sizes([...contents.databases.values()]));
  const logs = contents.others.filter(({ path }) => path.endsWith('-wal'));
  const largest = sizes(contents.others).reduce((most, size) => Math.max(most, size), 0);
  const bytes = databases + sum(sizes(contents.others));
  verifySpace(backups, bytesNeeded(bytes, databases + sum(sizes(logs)) + largest, archives));
  return bytes;
}

/** Makes an archive and its record, not yet verified. The directory must be locked. */
async function makeArchive(options: CreateOptions) {
  const { source, backups, origin } = options;
  clearLeftovers(backups, origin.project);
  const first = sortContents(options);
  const total = verifyContents(options, first);
  const name = nextName(origin.project, origin.version, readdirSync(backups), new Date());
  const partial = unfinishedPath(partialPath(backups, name));
  const scratch = unfinishedPath(scratchPath(backups, origin.project));
  mkdirSync(scratch, { mode: 0o700 });
  const contents = await cutContents(options, first);
  const { cut, databases, others } = contents;
  const copies = await copyDatabases(cut, scratch, options.maxBlockMs, (error: DatabaseError) => {
    miss(contents, error.path, error);
    // As it lies there, for whoever can repair it.
    others.push(databases.get(error.path)!);
  });
  let done = 0;
  const writer = openArchive(partial, (bytes) => {
    done += bytes;
    report.progress('archive', done, total);
  });
  const entries = await fill(writer, source, contents, copies, scratch);
  reportOmissions(contents);
  const manifest: Manifest = {
    ...{ format: 2, origin, at: cut.at.toISOString(), dataFormat: dataFormatOf(source) },
    databases: copies.map(({ path, integrity }) => ({ path, integrity })),
    ...{ skipped: contents.skipped, missing: contents.missing, entries },
  };
  const written = await writer.finish(manifest);
  discard(scratch);
  // The record first: an archive that has its name has a record, or is not ours.
  writeRecord(backups, recordOf(name, manifest, written, 'created'));
  renameSync(partial, join(backups, name));
  keep(partial);
  sync(backups);
  return { name, manifest, heldMs: cut.heldMs };
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
  const passed = stopwatch();
  const { name, manifest, heldMs } = await makeArchive(options);
  const seconds = passed();
  const proof = await proveArchive(backups, origin.project, name);
  if (!proof.ok) {
    const text = [`${name} failed verification:`, ...proof.problems.slice(0, 20)].join('\n  - ');
    throw new BackupError('not-proven', text, 'it is kept, but not used; older archives are unchanged');
  }
  const { skipped, missing, absent } = summary(manifest);
  return {
    ...readRecord(backups, name)!,
    ...{ skipped, missing, absent, cut: { heldMs }, seconds, proofSeconds: proof.seconds },
    peakMegabytes: Math.round(process.resourceUsage().maxRSS / 1024),
    archives: listArchives(backups, origin.project),
  };
}
