// Reading archives back: the proof, by which alone an archive counts; and the restore, which unpacks beside the data and
// then lets old and new change places. Nothing is written that was not checked.
import {
  chmodSync,
  chownSync,
  existsSync,
  lchownSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  renameSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  utimesSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import {
  type ArchiveEntry,
  type Manifest,
  placesIn,
  type ReadBack,
  readArchive,
  type Summary,
  summary,
} from './archive.ts';
import { checkDatabase } from './databases.ts';
import {
  type ArchiveRecord,
  freeBytes,
  type Owner,
  ownerOf,
  readRecord,
  recordOf,
  scratchPath,
  sync,
  writeRecord,
} from './directory.ts';
import { at, decodeName, encodeName, namesIn, placeOf, shown, startsLikeDatabase, survey } from './files.ts';
import { BackupError, discard, keep, report, stopwatch, unfinishedPath } from './report.ts';

/** The first bytes of a stream, and all of it. */
async function peek(content: AsyncIterable<Buffer>) {
  const iterator = content[Symbol.asyncIterator]();
  const first = await iterator.next();
  async function* whole() {
    for (let next = first; !next.done; next = await iterator.next()) yield next.value as Buffer;
  }
  return { first: first.done ? Buffer.alloc(0) : (first.value as Buffer), whole };
}

async function writeFile(path: Buffer, content: AsyncIterable<Buffer>): Promise<void> {
  const file = await open(path, 'wx', 0o600);
  try {
    for await (const chunk of content) await file.writeFile(chunk);
    await file.datasync();
  } finally {
    await file.close();
  }
}

/**
 * Reads an archive and everything in it. What an entry holds is written to the file that `fileFor` names, and a database
 * in it is checked there: what is found, not what is claimed.
 */
async function readAll(
  archive: string,
  phase: string,
  fileFor: (entry: ArchiveEntry, isDatabase: boolean) => Buffer | undefined,
  onFile: (file: Buffer) => void = () => {},
): Promise<ReadBack> {
  const broken = new Map<string, string>();
  const read = await readArchive(archive, phase, async (entry, content) => {
    const { first, whole } = await peek(content);
    const isDatabase = startsLikeDatabase(first);
    const file = fileFor(entry, isDatabase);
    if (!file) return;
    await writeFile(file, whole());
    const integrity = isDatabase ? checkDatabase(decodeName(file)) : undefined;
    if (integrity !== undefined && integrity !== 'ok') broken.set(entry.path, integrity);
    onFile(file);
  });
  // Damaged before it was backed up: that is said already.
  for (const { path } of read.manifest.missing) broken.delete(path);
  const problems = [...broken].map(([path, integrity]) => `database: ${shown(path)}: ${integrity}`);
  return { ...read, problems: [...read.problems, ...problems] };
}

export interface Verdict {
  archive: string;
  ok: boolean;
  problems: string[];
  seconds: number;
  /** Null when it could not be read. */
  manifest: Summary | null;
}

/** Reads an archive through. Only one database at a time lies in `scratch`; without it, they are not opened. */
async function judge(path: string, scratch: string | undefined) {
  const seconds = stopwatch();
  const archive = basename(path);
  const file = encodeName(join(scratch ?? '', 'database'));
  try {
    if (scratch) mkdirSync(unfinishedPath(scratch), { mode: 0o700 });
    const read = await readAll(
      path,
      'verify',
      (_, isDatabase) => (scratch && isDatabase ? file : undefined),
      (written) => rmSync(written),
    );
    return { archive, problems: read.problems, seconds: seconds(), manifest: summary(read.manifest), read };
  } catch (error) {
    const isUnreadable = /^E(ACCES|PERM|IO)$/.test((error as NodeJS.ErrnoException).code ?? '');
    if (!(error instanceof BackupError) && !isUnreadable) throw error;
    return { archive, problems: [(error as Error).message], seconds: seconds(), manifest: null };
  } finally {
    if (scratch) discard(scratch);
  }
}

/** Verifies an archive, wherever it lies, and records nothing; without `scratch` its databases are not opened. */
export async function verifyFile(path: string, scratch?: string): Promise<Verdict> {
  const { read: _, ...verdict } = await judge(path, scratch);
  return { ...verdict, ok: verdict.problems.length === 0 };
}

/** Verifies an archive of the backup directory and records the outcome, good or bad. */
export async function proveArchive(directory: string, project: string, archive: string): Promise<Verdict> {
  const record = readRecord(directory, archive);
  const { read, ...found } = await judge(join(directory, archive), scratchPath(directory, project));
  const isOther = record && read && record.sha256 !== read.sha256;
  const changed = `changed: ${archive} is not the file that was written: its SHA-256 differs`;
  const problems = isOther ? [...found.problems, changed] : found.problems;
  const ok = problems.length === 0;
  // One that has no record came from elsewhere.
  const known = record ?? (read && ok ? adopted(archive, read) : undefined);
  const { seconds } = found;
  const at = new Date().toISOString();
  const proof = ok ? { at, seconds, rehearsed: record?.proof?.rehearsed ?? null } : null;
  if (known) writeRecord(directory, { ...known, proof, problems: problems.slice(0, 20) });
  return { ...found, ok, problems };
}

function adopted(archive: string, { manifest, bytes, sha256 }: ReadBack): ArchiveRecord {
  return recordOf(archive, manifest, { bytes, sha256 }, 'adopted');
}

// Unpacking, into directories that did not exist. The result is verified like an archive: hashes and integrity.

/** Place → directory to make. A place that is not named is not unpacked. */
export type Targets = Record<string, string>;

/** Owners are the data's, whatever an archive says; no setuid, nothing for everybody to write. */
const MODES = 0o775;

/** Where an entry goes; undefined if its place is not unpacked. */
function locate(targets: Targets, path: string): Buffer | undefined {
  const place = placeOf(path);
  const root = targets[place];
  return root === undefined ? undefined : at(root, path.slice(place.length + 1));
}

/** Mode, owner and time of everything, children before their directory: making a child changes its time. */
function applyAttributes(targets: Targets, { entries }: Manifest, owners: Record<string, Owner>): void {
  let foreign = 0;
  for (const entry of [...entries].reverse()) {
    const file = locate(targets, entry.path);
    if (!file) continue;
    const isLink = entry.type === 'symlink';
    if (isLink) symlinkSync(encodeName(entry.linkname ?? ''), file);
    const { uid, gid } = owners[placeOf(entry.path)] ?? entry;
    try {
      lchownSync(file, uid, gid);
    } catch (error) {
      if (!['EPERM', 'EINVAL'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
      foreign += 1;
    }
    const seconds = entry.mtimeMs / 1000;
    if (!isLink) chmodSync(file, entry.mode & MODES);
    (isLink ? lutimesSync : utimesSync)(file, seconds, seconds);
  }
  if (foreign > 0) report.warn(`could not set the owner of ${foreign} entries`);
}

async function unpackInto(archive: string, targets: Targets, owners: Record<string, Owner>) {
  const { manifest, problems } = await readAll(archive, 'unpack', ({ path, type }) => {
    const file = locate(targets, path);
    if (!file || type === 'symlink') return undefined;
    const folder = type === 'directory' ? file : encodeName(dirname(decodeName(file)));
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    return type === 'file' ? file : undefined;
  });
  if (problems.length > 0)
    throw new BackupError(
      'bad-archive',
      ['The archive is damaged:', ...problems.slice(0, 20)].join('\n  - '),
    );
  applyAttributes(targets, manifest, { ...placesIn(manifest), ...owners });
  return manifest;
}

/**
 * Unpacks into `targets`, which must not exist; on any failure nothing of it is left. `owners`: whose the data is, where
 * there is some already. @throws BackupError naming every problem
 */
export async function unpackArchive(archive: string, targets: Targets, owners: Record<string, Owner> = {}) {
  const roots = Object.values(targets);
  const present = roots.find((root) => existsSync(root));
  if (present) throw new BackupError('target-exists', `${present} exists`);
  try {
    for (const root of roots) mkdirSync(unfinishedPath(root), { recursive: true, mode: 0o700 });
    const manifest = await unpackInto(archive, targets, owners);
    for (const root of roots) keep(root);
    return { manifest: summary(manifest) };
  } catch (error) {
    for (const root of roots) discard(root);
    throw error;
  }
}

// The moment of a restore: what is in a place moves into a directory in it, and what was unpacked moves out of one, entry by
// entry of the top alone; so a place may as well be a mount point, a volume or a link. Each act looks at what is there and
// may be repeated after a kill at any point. `old` has its name once everything that goes is in it.

export interface Swap {
  /** Directory of the place. */
  place: string;
  id: string;
  /** Paths below it that one of the archives does not hold, of what is there and of what comes: they stay. */
  stays: string[];
}

const workPath = ({ place, id }: Pick<Swap, 'place' | 'id'>, what: 'new' | 'old' | 'leaving') =>
  join(place, `.release-flow-${id}-${what}`);

/** Where a restore unpacks to, in a place. */
export const stagingOf = (place: string, id: string): string => workPath({ place, id }, 'new');

function move(from: string, to: string, path: string): void {
  renameSync(at(from, path), at(to, path));
}

function moveAll(from: string, to: string, stays: (name: string) => boolean = () => false): void {
  for (const name of namesIn(encodeName(from))) if (!stays(name)) move(from, to, name);
}

const isThere = (root: string, path: string) =>
  lstatSync(at(root, path), { throwIfNoEntry: false }) !== undefined;

function copyAttributes(from: string, to: string): void {
  const { mode, uid, gid } = lstatSync(from);
  chmodSync(to, mode & 0o7777);
  chownSync(to, uid, gid);
}

/** What was unpacked takes the place of what is there. */
export function swapIn(swap: Swap): void {
  const { place, stays } = swap;
  const [fresh, old, leaving] = [workPath(swap, 'new'), workPath(swap, 'old'), workPath(swap, 'leaving')];
  if (!existsSync(old)) {
    mkdirSync(leaving, { recursive: true, mode: 0o700 });
    moveAll(place, leaving, (name) => stays.includes(name) && !isThere(fresh, name));
    copyAttributes(place, leaving);
    renameSync(leaving, old);
  }
  if (existsSync(fresh)) {
    copyAttributes(fresh, place);
    moveAll(fresh, place);
    rmdirSync(fresh);
  }
  for (const path of stays) {
    if (!path.includes('/') || !isThere(old, path) || isThere(place, path)) continue;
    mkdirSync(at(place, dirname(path)), { recursive: true, mode: 0o700 });
    move(old, place, path);
  }
  sync(place);
}

/** Everything as it was before. */
export function swapBack(swap: Swap): void {
  const { place, stays } = swap;
  const [fresh, old, leaving] = [workPath(swap, 'new'), workPath(swap, 'old'), workPath(swap, 'leaving')];
  if (existsSync(old)) {
    mkdirSync(fresh, { recursive: true, mode: 0o700 });
    for (const path of stays) {
      const isNested = path.includes('/') && isThere(old, dirname(path));
      if (isNested && !isThere(old, path) && isThere(place, path)) move(place, old, path);
    }
    moveAll(place, fresh, (name) => stays.includes(name) && !isThere(old, name));
    copyAttributes(old, place);
    renameSync(old, leaving);
  }
  if (existsSync(leaving)) {
    moveAll(leaving, place);
    rmdirSync(leaving);
  }
  rmSync(fresh, { recursive: true, force: true });
  sync(place);
}

/** With an owner that the next backup reads it as. */
function makeFolder(root: string, below: string, { uid, gid }: Owner): void {
  const made = mkdirSync(at(root, below), { recursive: true, mode: 0o700 });
  if (made === undefined) return;
  for (let path = join(root, below); path.length >= root.length; path = dirname(path))
    chownSync(encodeName(path), uid, gid);
}

/**
 * The restore counts: what was there before goes, but for what has to stay and lost its place: that is kept as `keepAs`.
 * All of it, where no backup holds it. Returns what was kept.
 */
export function finishSwap(swap: Swap, keepAs: string, isSaved: boolean): string[] {
  const { place, stays } = swap;
  const old = workPath(swap, 'old');
  if (!existsSync(old)) return [];
  const kept = isSaved ? stays.filter((path) => isThere(old, path)) : [];
  for (const path of kept) {
    makeFolder(join(place, keepAs), dirname(path), ownerOf(place));
    move(old, join(place, keepAs), path);
  }
  if (isSaved) rmSync(old, { recursive: true, force: true });
  else renameSync(old, join(place, keepAs));
  sync(place);
  return isSaved ? kept.map((path) => join(keepAs, path)) : [keepAs];
}

export interface Present {
  /** Names at its top. */
  entries: number;
  files: number;
  bytes: number;
  owner: Owner;
  /** Bytes that are free beside it. */
  free: number;
}

/** What there is in a place now. */
export function inspectPlace(place: string): Present {
  const files = survey(dirname(place), [basename(place)]).entries.filter(({ type }) => type === 'file');
  return {
    entries: namesIn(encodeName(place)).length,
    files: files.length,
    bytes: files.reduce((sum, { stats }) => sum + stats.size, 0),
    owner: ownerOf(place),
    free: freeBytes(place),
  };
}
