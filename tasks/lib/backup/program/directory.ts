// The backup directory: whose it is; names that always sort by time; a record beside each archive; what a killed run left;
// how much room there is. A file without a record is not ours, whatever it is called.
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  fsyncSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import * as z from 'zod';
import { formatBytes } from '../../format.ts';
import { type Manifest, sha256, summary } from './archive.ts';
import { BackupError, report } from './report.ts';

// Whom this program runs as. It starts as root of a container without other powers, looks at who owns the data, and becomes
// that user before it opens anything: SQLite's side files must belong to the writers' user.

export interface Owner {
  uid: number;
  gid: number;
}

export function ownerOf(path: string): Owner {
  const { uid, gid } = statSync(path);
  return { uid, gid };
}

/** The backup directory that the engine has just made for us becomes the owner's, and private. */
function handOver(directory: string, owner: Owner): void {
  const { uid, gid } = ownerOf(directory);
  if (uid !== 0 || gid !== 0 || owner.uid === 0) return;
  try {
    if (readdirSync(directory).length > 0) return;
    chmodSync(directory, 0o700);
    chownSync(directory, owner.uid, owner.gid);
  } catch (error) {
    // A read-only or foreign file system: the first write will say so, in better words.
    if (!['EROFS', 'EPERM', 'EACCES'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}

/** Becomes the owner of the data for the rest of this process; stays root where places have different owners. */
export function becomeOwner(places: readonly string[], backups: string): void {
  const [owner, ...others] = places.map(ownerOf);
  if (process.getuid?.() === 0) handOver(backups, owner!);
  if (others.every(({ uid, gid }) => uid === owner!.uid && gid === owner!.gid)) become(owner!);
}

export const lockPath = (directory: string, project: string) => join(directory, `.${project}.lock`);

/** Becomes whoever makes the archives, whose lock file tells; else the owner of the directory: the data may be lost. */
export function becomeArchivist(backups: string, project: string): void {
  const lock = lockPath(backups, project);
  become(ownerOf(existsSync(lock) ? lock : backups));
}

export function become(owner: Owner): void {
  if (process.getuid?.() !== 0 || owner.uid === 0) return;
  try {
    process.setgroups?.([owner.gid]);
    process.setgid?.(owner.gid);
    process.setuid?.(owner.uid);
  } catch (error) {
    const message = `Cannot become the data's owner ${owner.uid}: ${(error as Error).message}`;
    throw new BackupError('not-permitted', message);
  }
}

// Names, e.g. `synapse-20261125T014822Z-v1.0.0.tar.zst`, and what lies beside them.

const RECORD_SUFFIX = '.json';

export const ArchiveRecord = z.object({
  format: z.literal(1),
  archive: z.string(),
  /** `created` by this program here, or `adopted`: brought from elsewhere and verified here. */
  source: z.enum(['created', 'adopted']),
  at: z.string(),
  version: z.string(),
  dataFormat: z.int().nullable(),
  bytes: z.int(),
  sha256,
  dataBytes: z.int(),
  files: z.int(),
  databases: z.int(),
  /** How many entries are missing. */
  missing: z.int().default(0),
  proof: z.object({ at: z.string(), seconds: z.number(), rehearsed: z.string().nullable() }).nullable(),
  /** Why the last proof failed. */
  problems: z.array(z.string()),
});
export type ArchiveRecord = z.output<typeof ArchiveRecord>;

export function recordOf(
  archive: string,
  manifest: Manifest,
  written: { bytes: number; sha256: string },
  source: ArchiveRecord['source'],
): ArchiveRecord {
  const { files, bytes: dataBytes } = summary(manifest);
  const { at, origin, dataFormat, databases, missing } = manifest;
  return {
    ...{ format: 1, archive, source, at, version: origin.version, dataFormat, ...written, dataBytes, files },
    ...{ databases: databases.length, missing: missing.length, proof: null, problems: [] },
  };
}

export interface Listed {
  archive: string;
  /** The time in the name, ISO 8601, UTC. */
  time: string;
  version: string;
  bytes: number;
  /** Null: not made or verified here. */
  record: ArchiveRecord | null;
}

/** Time and version in an archive's name, or undefined for a file that is called otherwise. */
export function parseName(project: string, name: string): { time: Date; version: string } | undefined {
  const pattern = `^${project}-(\\d{4})(\\d\\d)(\\d\\d)T(\\d\\d)(\\d\\d)(\\d\\d)Z-(.+)\\.tar\\.zst$`;
  const match = new RegExp(pattern).exec(name);
  if (!match) return undefined;
  const [, year, month, day, hour, minute, second, version = ''] = match;
  const time = new Date(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
  return Number.isNaN(time.getTime()) ? undefined : { time, version };
}

/** The next archive's name: after every name that is there, also when the clock went backwards. Pure. */
export function nextName(project: string, version: string, names: readonly string[], now: Date): string {
  const times = names.map((name) => parseName(project, name.replace(/\.json$/, ''))?.time.getTime() ?? 0);
  const time = new Date(Math.max(Math.floor(now.getTime() / 1000) * 1000, Math.max(0, ...times) + 1000));
  const stamp = time.toISOString().replace(/[-:]|\.\d+/g, '');
  return `${project}-${stamp}-${version.replace(/[^\w.+-]/g, '_')}.tar.zst`;
}

/** Makes a file, or the names in a directory, outlast a power cut. */
export function sync(path: string | Buffer): void {
  const descriptor = openSync(path, 'r');
  try {
    fsyncSync(descriptor);
  } catch {
    // Some file systems cannot.
  } finally {
    closeSync(descriptor);
  }
}

const recordPath = (directory: string, archive: string) => join(directory, archive + RECORD_SUFFIX);

/** Replaces the record: a reader, or a power cut, sees the old one or the new one. */
export function writeRecord(directory: string, record: ArchiveRecord): void {
  const draft = partialPath(directory, record.archive + RECORD_SUFFIX);
  writeFileSync(draft, `${JSON.stringify(record, null, 2)}\n`, { mode: 0o600, flush: true });
  renameSync(draft, recordPath(directory, record.archive));
  sync(directory);
}

/** Null where there is none, or none that can be read. */
export function readRecord(directory: string, archive: string): ArchiveRecord | null {
  try {
    const record = ArchiveRecord.parse(JSON.parse(readFileSync(recordPath(directory, archive), 'utf8')));
    return record.archive === archive ? record : null;
  } catch {
    return null;
  }
}

/** All archives, oldest first. */
export function listArchives(directory: string, project: string): Listed[] {
  return readdirSync(directory)
    .sort()
    .flatMap((archive) => {
      const name = parseName(project, archive);
      const size = name && statSync(join(directory, archive), { throwIfNoEntry: false })?.size;
      if (size === undefined) return [];
      const record = readRecord(directory, archive);
      return [{ archive, time: name!.time.toISOString(), version: name!.version, bytes: size, record }];
    });
}

/** Removes archives with their records, the archive first: a record alone is cleared by the next run. */
export function removeArchives(directory: string, archives: readonly string[]): void {
  for (const archive of archives) {
    rmSync(join(directory, archive));
    sync(directory);
    rmSync(recordPath(directory, archive), { force: true });
  }
  sync(directory);
}

/** Names of things in the making: hidden, and never mistaken for an archive. */
export function partialPath(directory: string, name: string): string {
  return join(directory, `.${name}.partial`);
}

export function scratchPath(directory: string, project: string): string {
  return join(directory, `.${project}-scratch-${process.pid}-${Date.now()}`);
}

/** Clears what a killed run left. Only while holding the directory's lock. */
export function clearLeftovers(directory: string, project: string): void {
  const names = new Set(readdirSync(directory));
  const isRecordAlone = (name: string) => {
    const archive = name.endsWith(RECORD_SUFFIX) ? name.slice(0, -RECORD_SUFFIX.length) : '';
    return parseName(project, archive) !== undefined && !names.has(archive);
  };
  const isLeftover = (name: string) =>
    name.startsWith(`.${project}-scratch-`) ||
    // Of a rehearsal, while it is unpacked.
    name.startsWith(`.release-flow-.${project}-scratch-`) ||
    (name.startsWith(`.${project}-`) && /\.tar\.zst(\.json)?\.partial$/.test(name)) ||
    isRecordAlone(name);
  for (const name of [...names].filter(isLeftover)) {
    try {
      rmSync(join(directory, name), { recursive: true, force: true });
      report.note(`removed ${name}, left by an interrupted run`);
    } catch (error) {
      report.warn(`cannot remove ${name}, left by an interrupted run: ${(error as Error).message}`);
    }
  }
}

// Room: asked before anything is written, because a full disk is somebody else's outage too.

/** How small data gets, where no earlier archive tells. */
const GUESSED_RATIO = 0.6;
const MARGIN = 1.1;

/** Bytes that a backup needs at most at one time: the archive, and what is copied before it is archived. Pure. */
export function bytesNeeded(dataBytes: number, copiedBytes: number, archives: readonly Listed[]): number {
  const last = archives.findLast(({ record }) => record?.proof && record.dataBytes > 0)?.record;
  const ratio = last ? Math.min(1, (last.bytes / last.dataBytes) * MARGIN) : GUESSED_RATIO;
  return Math.ceil(dataBytes * ratio + copiedBytes);
}

export function freeBytes(directory: string): number {
  const { bavail, bsize } = statfsSync(directory);
  return bavail * bsize;
}

/** @throws BackupError when the backup directory's file system has less than `needed` */
export function verifySpace(directory: string, needed: number): void {
  const free = freeBytes(directory);
  if (free >= needed) return;
  throw new BackupError(
    'no-space',
    `Not enough disk space in the backup directory: ${formatBytes(free)} free, about ${formatBytes(needed)} needed`,
    'free some space, keep fewer archives ([backup.keep]), or choose another [backup] directory; nothing was written',
  );
}
