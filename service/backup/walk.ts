// What lies in a data directory: every path with its type, and which files are SQLite databases. Nothing here
// keeps a file open: closing a database's file would drop the locks that SQLite holds on it in this process.
import { closeSync, lstatSync, openSync, readdirSync, readlinkSync, readSync, type Stats } from 'node:fs';
import { join } from 'node:path';
import { BackupError } from './report.ts';

export interface Found {
  /** Relative, '/' between the parts; '' is the directory itself. */
  path: string;
  type: 'file' | 'directory' | 'symlink' | 'other';
  stats: Stats;
}

const HEADER = 'SQLite format 3\0';

function typeOf(stats: Stats): Found['type'] {
  if (stats.isFile()) return 'file';
  if (stats.isDirectory()) return 'directory';
  return stats.isSymbolicLink() ? 'symlink' : 'other';
}

function isGone(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ENOENT';
}

/** Everything below `root`, parents first, in a fixed order; what vanishes meanwhile is left out. */
export function* walk(root: string, path = ''): Generator<Found> {
  let stats: Stats;
  let names: string[] = [];
  try {
    stats = lstatSync(join(root, path));
    if (stats.isDirectory()) names = readdirSync(join(root, path)).sort();
  } catch (error) {
    if (isGone(error) && path !== '') return;
    throw error;
  }
  if (path.includes('\uFFFD'))
    throw new BackupError('name', `Cannot back up ${path}: its name is not valid UTF-8`, 'rename it');
  yield { path, type: typeOf(stats), stats };
  for (const name of names) yield* walk(root, path === '' ? name : `${path}/${name}`);
}

/** A file with SQLite's header, or an empty one: an empty file is a database without tables. */
export function looksLikeDatabase(file: string, size: number): boolean {
  if (size === 0) return true;
  try {
    const descriptor = openSync(file, 'r');
    try {
      const header = Buffer.alloc(HEADER.length);
      return (
        readSync(descriptor, header, 0, header.length, 0) === header.length &&
        header.equals(Buffer.from(HEADER))
      );
    } finally {
      closeSync(descriptor);
    }
  } catch (error) {
    if (isGone(error)) return false;
    throw error;
  }
}

/** Files that belong to a database and make no sense without it: they are folded into the copy. */
export function isSideFile(path: string, databases: ReadonlySet<string>): boolean {
  const match = /^(.+)-(?:wal|shm|journal)$/.exec(path);
  return match !== null && databases.has(match[1]!);
}

/** Why a symbolic link cannot be kept, or undefined. A restore never follows or makes a link that leads out. */
export function whyNotKept(path: string, target: string): string | undefined {
  if (target.startsWith('/')) return `it is a link to the absolute path ${target}`;
  let depth = path.split('/').length - 1;
  for (const part of target.split('/')) {
    if (part === '..') depth -= 1;
    else if (part !== '.' && part !== '') depth += 1;
    if (depth < 0) return `it is a link out of the directory, to ${target}`;
  }
  return undefined;
}

export function linkTarget(root: string, path: string): string {
  return readlinkSync(join(root, path));
}
