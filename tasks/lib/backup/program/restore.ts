// Reading archives back: the proof, by which alone an archive counts; and the restore, which unpacks beside the data and
// then lets old and new change places. Nothing is written that was not checked.
import {
  chmodSync,
  chownSync,
  createWriteStream,
  existsSync,
  lchownSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  utimesSync,
} from 'node:fs';
import { mkdir, open } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { type ReadBack, readArchive } from './archive.ts';
import { databaseProblems, type Finding, inspectDatabase } from './databases.ts';
import {
  freeBytes,
  type Owner,
  ownerOf,
  readRecord,
  scratchPath,
  syncDirectory,
  writeRecord,
} from './directory.ts';
import { at, decodeName, encodeName, placeOf, startsLikeDatabase, WORK_NAME, walk } from './files.ts';
import { type ArchiveRecord, type Manifest, placesIn, recordOf, type Summary, summary } from './manifest.ts';
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

/** Reads an archive and everything in it. Only one database at a time lies in the scratch directory. */
export async function verifyArchive(path: string, scratch: string): Promise<ReadBack> {
  const findings = new Map<string, Finding>();
  await mkdir(unfinishedPath(scratch), { mode: 0o700 });
  const file = join(scratch, 'database');
  try {
    const read = await readArchive(
      path,
      async (entry, content) => {
        const { first, whole } = await peek(content);
        if (!startsLikeDatabase(first)) {
          for await (const _chunk of whole());
          return;
        }
        await pipeline(whole, createWriteStream(file));
        const finding = inspectDatabase(file);
        if (finding) findings.set(entry.path, finding);
        discard(file);
      },
      (done) => report.progress('prove', done),
    );
    return { ...read, problems: [...read.problems, ...databaseProblems(read.manifest, findings)] };
  } finally {
    discard(scratch);
  }
}

export interface Verdict {
  archive: string;
  ok: boolean;
  problems: string[];
  seconds: number;
  /** Null when it could not be read. */
  manifest: Summary | null;
}

async function judge(archive: string, work: () => Promise<ReadBack>): Promise<Verdict & { read?: ReadBack }> {
  const seconds = stopwatch();
  try {
    const read = await work();
    const { manifest, problems } = read;
    const ok = problems.length === 0;
    return { archive, ok, problems, seconds: seconds(), manifest: summary(manifest), read };
  } catch (error) {
    const isUnreadable = /^E(ACCES|PERM|IO)$/.test((error as NodeJS.ErrnoException).code ?? '');
    if (!(error instanceof BackupError) && !isUnreadable) throw error;
    return { archive, ok: false, problems: [(error as Error).message], seconds: seconds(), manifest: null };
  }
}

/** Reads an archive through, wherever it lies, and records nothing; without `scratch` its databases are not opened. */
export async function verifyFile(path: string, scratch?: string): Promise<Verdict> {
  const read = () => (scratch ? verifyArchive(path, scratch) : readArchive(path, async () => {}));
  const { read: _, ...verdict } = await judge(basename(path), read);
  return verdict;
}

/** Verifies an archive of the backup directory and records the outcome, good or bad. */
export async function proveArchive(directory: string, project: string, archive: string): Promise<Verdict> {
  const record = readRecord(directory, archive);
  const { read, ...verdict } = await judge(archive, async () => {
    const found = await verifyArchive(join(directory, archive), scratchPath(directory, project));
    const isOther = record && record.sha256 !== found.sha256;
    const changed = `changed: ${archive} is not the file that was written: its SHA-256 differs`;
    return isOther ? { ...found, problems: [...found.problems, changed] } : found;
  });
  const { ok, problems, seconds } = verdict;
  const { bytes, sha256 } = read ?? { bytes: 0, sha256: '' };
  // One that has no record came from elsewhere.
  const known =
    record ?? (read && ok ? recordOf(archive, read.manifest, { bytes, sha256 }, 'adopted') : undefined);
  const at = new Date().toISOString();
  const proof: ArchiveRecord['proof'] = ok
    ? { at, seconds, rehearsed: record?.proof?.rehearsed ?? null }
    : null;
  if (known) writeRecord(directory, { ...known, proof, problems: problems.slice(0, 20) });
  return verdict;
}

// Unpacking, into directories that did not exist. The result is verified like an archive: hashes, integrity, row counts.

/** Place → directory to make. A place that is not named is not unpacked. */
export type Targets = Record<string, string>;

/** Owners are the data's, whatever an archive says; no setuid, nothing for everybody to write. */
const MODES = 0o775;

async function writeFile(path: Buffer, content: AsyncIterable<Buffer>): Promise<void> {
  rmSync(path, { force: true });
  const file = await open(path, 'wx', 0o600);
  try {
    for await (const chunk of content) await file.writeFile(chunk);
    await file.datasync();
  } finally {
    await file.close();
  }
}

/** Where an entry goes; undefined if its place is not unpacked. */
function locate(targets: Targets, path: string): { root: string; inside: string } | undefined {
  const place = placeOf(path);
  const root = targets[place];
  return root === undefined ? undefined : { root, inside: path.slice(place.length + 1) };
}

/** Mode, owner and time of everything, children before their directory: making a child changes its time. */
function applyAttributes(targets: Targets, { entries }: Manifest, owners: Record<string, Owner>): void {
  let foreign = 0;
  const stays = new Set(entries.filter(({ superseded }) => !superseded).map(({ path }) => path));
  for (const entry of [...entries].reverse()) {
    const place = locate(targets, entry.path);
    if (!place) continue;
    const file = at(place.root, place.inside);
    // Never read untorn.
    if (!stays.has(entry.path)) rmSync(file, { force: true });
    if (entry.superseded) continue;
    if (entry.type === 'symlink') symlinkSync(encodeName(entry.linkname ?? ''), file);
    const { uid, gid } = owners[placeOf(entry.path)] ?? entry;
    try {
      lchownSync(file, uid, gid);
    } catch (error) {
      if (!['EPERM', 'EINVAL'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
      foreign += 1;
    }
    const seconds = entry.mtimeMs / 1000;
    if (entry.type !== 'symlink') chmodSync(file, entry.mode & MODES);
    (entry.type === 'symlink' ? lutimesSync : utimesSync)(file, seconds, seconds);
  }
  if (foreign > 0) report.warn(`could not set the owner of ${foreign} entries`);
}

async function unpackInto(
  archive: string,
  targets: Targets,
  owners: Record<string, Owner>,
): Promise<Manifest> {
  const findings = new Map<string, Finding>();
  const { manifest, problems } = await readArchive(
    archive,
    async ({ path, type }, content) => {
      const place = locate(targets, path);
      if (!place || type === 'symlink') return;
      const file = at(place.root, place.inside);
      if (type === 'directory') {
        if (place.inside !== '') mkdirSync(file, { recursive: true, mode: 0o700 });
        return;
      }
      mkdirSync(at(place.root, dirname(place.inside)), { recursive: true, mode: 0o700 });
      const { first, whole } = await peek(content);
      await writeFile(file, whole());
      const finding = startsLikeDatabase(first)
        ? inspectDatabase(`${place.root}/${place.inside}`)
        : undefined;
      if (finding) findings.set(path, finding);
    },
    (done) => report.progress('unpack', done),
  );
  const isHere = ({ path }: { path: string }) => locate(targets, path) !== undefined;
  const here = { ...manifest, databases: manifest.databases.filter(isHere) };
  if (problems.length === 0) problems.push(...databaseProblems(here, findings));
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

const workPath = (place: string, id: string, what: 'new' | 'old' | 'leaving') =>
  join(place, `.release-flow-${id}-${what}`);

/** Where a restore unpacks to, in a place. */
export const stagingOf = (place: string, id: string): string => workPath(place, id, 'new');

export interface Swap {
  /** Directory of the place. */
  place: string;
  id: string;
  /** Paths below it that no archive holds: they stay, or are kept. */
  unsaved: string[];
  /** Paths below it that the restored archive does not hold: they stay. */
  absent: string[];
}

const namesIn = (directory: string) =>
  readdirSync(directory, { encoding: 'buffer' })
    .map(decodeName)
    .filter((name) => !WORK_NAME.test(name));

function move(from: string, to: string, name: string): void {
  renameSync(at(from, name), at(to, name));
}

const isThere = (root: string, path: string) =>
  lstatSync(at(root, path), { throwIfNoEntry: false }) !== undefined;

function copyAttributes(from: string, to: string): void {
  const { mode, uid, gid } = lstatSync(from);
  chmodSync(to, mode & 0o7777);
  chownSync(to, uid, gid);
}

/** What was unpacked takes the place of what is there. */
export function swapIn({ place, id, unsaved, absent }: Swap): void {
  const [fresh, old, leaving] = [
    stagingOf(place, id),
    workPath(place, id, 'old'),
    workPath(place, id, 'leaving'),
  ];
  const stays = new Set([...unsaved, ...absent]);
  if (!existsSync(old)) {
    mkdirSync(leaving, { recursive: true, mode: 0o700 });
    for (const name of namesIn(place))
      if (!stays.has(name) || isThere(fresh, name)) move(place, leaving, name);
    copyAttributes(place, leaving);
    renameSync(leaving, old);
  }
  if (existsSync(fresh)) {
    copyAttributes(fresh, place);
    for (const name of namesIn(fresh)) move(fresh, place, name);
    rmdirSync(fresh);
  }
  for (const path of stays) {
    if (!path.includes('/') || !isThere(old, path) || isThere(place, path)) continue;
    mkdirSync(at(place, dirname(path)), { recursive: true, mode: 0o700 });
    move(old, place, path);
  }
  syncDirectory(place);
}

/** Everything as it was before. */
export function swapBack({ place, id, unsaved, absent }: Swap): void {
  const [fresh, old, leaving] = [
    stagingOf(place, id),
    workPath(place, id, 'old'),
    workPath(place, id, 'leaving'),
  ];
  const stays = new Set([...unsaved, ...absent]);
  if (existsSync(old)) {
    mkdirSync(fresh, { recursive: true, mode: 0o700 });
    for (const path of stays) {
      const isNested = path.includes('/') && isThere(old, dirname(path));
      if (isNested && !isThere(old, path) && isThere(place, path)) move(place, old, path);
    }
    for (const name of namesIn(place)) if (!stays.has(name) || isThere(old, name)) move(place, fresh, name);
    copyAttributes(old, place);
    renameSync(old, leaving);
  }
  if (existsSync(leaving)) {
    for (const name of namesIn(leaving)) move(leaving, place, name);
    rmdirSync(leaving);
  }
  rmSync(fresh, { recursive: true, force: true });
  syncDirectory(place);
}

/** With an owner that the next backup reads it as. */
function makeFolder(root: string, below: string, { uid, gid }: Owner): void {
  const made = mkdirSync(at(root, below), { recursive: true, mode: 0o700 });
  if (made === undefined) return;
  for (let path = join(root, below); path.length >= root.length; path = dirname(path))
    chownSync(encodeName(path), uid, gid);
}

/** The restore counts: what was there before goes; what no archive holds of it stays as `keepAs`. Returns what stayed. */
export function finishSwap({ place, id, unsaved }: Swap, keepAs: string, isSaved: boolean): string[] {
  const old = workPath(place, id, 'old');
  if (!existsSync(old)) return [];
  const kept = isSaved ? unsaved.filter((path) => isThere(old, path)) : [''];
  for (const path of kept) {
    if (path === '') break;
    makeFolder(join(place, keepAs), dirname(path), ownerOf(place));
    move(old, join(place, keepAs), path);
  }
  if (isSaved) rmSync(old, { recursive: true, force: true });
  else renameSync(old, join(place, keepAs));
  syncDirectory(place);
  return kept.map((path) => join(keepAs, path));
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
  const present = {
    entries: namesIn(place).length,
    files: 0,
    bytes: 0,
    owner: ownerOf(place),
    free: freeBytes(place),
  };
  for (const { type, stats } of walk(dirname(place), place.slice(dirname(place).length + 1), {
    leaveOut: () => {},
    isExcluded: () => false,
  })) {
    if (type !== 'file') continue;
    present.files += 1;
    present.bytes += stats.size;
  }
  return present;
}
