// The moment of a restore: directories change places by rename, never file by file, so that no stale `-wal`
// meets another database. Each act looks at what is there and may be repeated after a kill at any point.
import { existsSync, lstatSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { syncDirectory } from './catalog.ts';
import { BackupError } from './report.ts';
import { walk } from './walk.ts';

export interface Places {
  /** The directory that holds all three. */
  parent: string;
  /** Names in it. */
  current: string;
  staging: string;
  previous: string;
}

const isThere = ({ parent }: Places, name: string) => existsSync(join(parent, name));

function move({ parent }: Places, from: string, to: string): void {
  renameSync(join(parent, from), join(parent, to));
  syncDirectory(parent);
}

/** The restored directory takes the present one's place, which is kept under its own name. */
export function swapIn(places: Places): void {
  const { current, staging, previous } = places;
  if (!isThere(places, staging)) return;
  if (isThere(places, current) && !isThere(places, previous)) move(places, current, previous);
  move(places, staging, current);
}

/** Everything as it was before; `hadCurrent` says whether there was a directory at all. */
export function swapBack(places: Places, hadCurrent: boolean): void {
  const { parent, current, staging, previous } = places;
  const swapped = !isThere(places, staging);
  if (isThere(places, previous)) {
    if (isThere(places, current)) move(places, current, staging);
    move(places, previous, current);
  } else if (!hadCurrent && swapped && isThere(places, current)) move(places, current, staging);
  rmSync(join(parent, staging), { recursive: true, force: true });
  syncDirectory(parent);
}

/** The restore counts: what was there before goes, or stays under a name that a person finds. */
export function finishSwap({ parent, previous }: Places, keepAs: string | null): void {
  const path = join(parent, previous);
  if (!existsSync(path)) return;
  if (keepAs === null) rmSync(path, { recursive: true, force: true });
  else renameSync(path, join(parent, keepAs));
  syncDirectory(parent);
}

export interface Present {
  exists: boolean;
  entries: number;
  files: number;
  bytes: number;
  uid: number;
  gid: number;
}

/** What is there now. @throws BackupError where directories could not be swapped */
export function inspectPlace(parent: string, name: string): Present {
  const path = join(parent, name);
  const nothing = { exists: false, entries: 0, files: 0, bytes: 0, uid: 0, gid: 0 };
  if (!existsSync(path)) return nothing;
  const stats = lstatSync(path);
  if (!stats.isDirectory())
    throw new BackupError(
      'target',
      `${name} is not a directory but a ${stats.isSymbolicLink() ? 'link' : 'file'}`,
    );
  if (stats.dev !== statSync(parent).dev)
    throw new BackupError(
      'target',
      `${name} is a file system of its own and cannot change places with another directory`,
      'restore with --to DIR and copy from there while nothing runs; or keep the data in a directory below the mount',
    );
  const files = [...walk(path)].filter(({ type }) => type === 'file');
  const bytes = files.reduce((sum, { stats: { size } }) => sum + size, 0);
  return {
    exists: true,
    entries: readdirSync(path).length,
    files: files.length,
    bytes,
    uid: stats.uid,
    gid: stats.gid,
  };
}
