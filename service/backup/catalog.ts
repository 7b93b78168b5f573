// The backup directory: names that always sort by time, a record beside each archive, and what a killed run
// left. A file without a record is not ours, whatever it is called.
import {
  closeSync,
  fsyncSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { handFileOver, type Owner } from './identity.ts';
import { report } from './report.ts';
import { ArchiveRecord } from './schema.ts';

const SUFFIX = '.tar.zst';
const RECORD_SUFFIX = '.json';
const DAY_MS = 86_400_000;

export interface Listed {
  archive: string;
  /** The time in the name, ISO 8601, UTC. */
  time: string;
  version: string;
  bytes: number;
  /** Null: not made or verified here. */
  record: ArchiveRecord | null;
}

function namePattern(project: string): RegExp {
  return new RegExp(`^${project}-(\\d{4})(\\d\\d)(\\d\\d)T(\\d\\d)(\\d\\d)(\\d\\d)Z-(.+)\\.tar\\.zst$`);
}

/** Time and version in an archive's name, or undefined for a file that is called otherwise. */
export function parseName(project: string, name: string): { time: Date; version: string } | undefined {
  const match = namePattern(project).exec(name);
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
  return `${project}-${stamp}-${version.replace(/[^\w.+-]/g, '_')}${SUFFIX}`;
}

export function newArchiveName(
  directory: string,
  project: string,
  version: string,
  now = new Date(),
): string {
  const names = readdirSync(directory);
  const name = nextName(project, version, names, now);
  const ahead = parseName(project, name)!.time.getTime() - now.getTime();
  if (ahead > DAY_MS)
    report.warn(
      `the newest archive is named ${Math.round(ahead / DAY_MS)} days ahead of this machine's clock`,
    );
  return name;
}

export function syncDirectory(directory: string): void {
  const descriptor = openSync(directory, 'r');
  try {
    fsyncSync(descriptor);
  } catch {
    // Some file systems cannot.
  } finally {
    closeSync(descriptor);
  }
}

export function recordPath(directory: string, archive: string): string {
  return join(directory, archive + RECORD_SUFFIX);
}

/** Replaces the record: a reader, or a power cut, sees the old one or the new one. `owner`: whose it is. */
export function writeRecord(directory: string, record: ArchiveRecord, owner?: Owner): void {
  const path = recordPath(directory, record.archive);
  const draft = join(directory, `.${record.archive}${RECORD_SUFFIX}.partial`);
  writeFileSync(draft, `${JSON.stringify(record, null, 2)}\n`, { mode: 0o600, flush: true });
  if (owner) handFileOver(draft, owner);
  renameSync(draft, path);
  syncDirectory(directory);
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
      if (!name) return [];
      const { size } = statSync(join(directory, archive));
      const record = readRecord(directory, archive);
      return [{ archive, time: name.time.toISOString(), version: name.version, bytes: size, record }];
    });
}

/** Removes archives with their records, the archive first: a record alone is cleared by the next run. */
export function removeArchives(directory: string, archives: readonly string[]): void {
  for (const archive of archives) {
    rmSync(join(directory, archive));
    syncDirectory(directory);
    rmSync(recordPath(directory, archive), { force: true });
  }
  syncDirectory(directory);
}

/** Names of things in the making: hidden, and never mistaken for an archive. */
export function partialPath(directory: string, archive: string): string {
  return join(directory, `.${archive}.partial`);
}

export function scratchPath(directory: string, project: string): string {
  return join(directory, `.${project}-scratch-${process.pid}-${Date.now()}`);
}

/** Clears what a killed run left. Only while holding the directory's lock. */
export function clearLeftovers(directory: string, project: string): void {
  const names = new Set(readdirSync(directory));
  const isLeftover = (name: string) =>
    name.startsWith(`.${project}-scratch-`) ||
    (name.startsWith(`.${project}-`) && /\.tar\.zst(\.json)?\.partial$/.test(name)) ||
    (parseName(project, name.replace(/\.json$/, '')) !== undefined &&
      name.endsWith(`${SUFFIX}${RECORD_SUFFIX}`) &&
      !names.has(name.slice(0, -RECORD_SUFFIX.length)));
  for (const name of [...names].filter(isLeftover)) {
    try {
      rmSync(join(directory, name), { recursive: true, force: true });
      report.note(`removed ${name}, left by a run that was killed`);
    } catch (error) {
      report.warn(`cannot remove ${name}, left by a run that was killed: ${(error as Error).message}`);
    }
  }
}
