// Whom this program runs as. It starts as root of a container without other powers, looks at who owns the
// data, and becomes that user before it opens anything: SQLite's side files must belong to the writers' user.
import { chmodSync, chownSync, existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { BackupError } from './report.ts';

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
  const { uid, gid } = statSync(directory);
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

/** Becomes the owner of the data for the rest of this process. */
export function becomeOwner(data: string, backups: string): Owner {
  const owner = ownerOf(data);
  if (process.getuid?.() === 0) handOver(backups, owner);
  return become(owner);
}

/**
 * Becomes whoever makes the archives, whose lock file tells; else the owner of the directory. For everything
 * that has to work also when the data is lost.
 */
export function becomeArchivist(backups: string, project: string): Owner {
  const lock = join(backups, `.${project}.lock`);
  return become(ownerOf(existsSync(lock) ? lock : backups));
}

/** What this process made as root is the owner's from now on. */
export function handFileOver(path: string, owner: Owner): void {
  if (process.getuid?.() !== 0) return;
  const made = ownerOf(path);
  if (made.uid !== owner.uid || made.gid !== owner.gid) chownSync(path, owner.uid, owner.gid);
}

let stays = false;

/** For a process whose commands act on files of any owner, one after another: becoming one is for good. */
export function stayRoot(): void {
  stays = true;
}

function become(owner: Owner): Owner {
  if (process.getuid?.() !== 0 || owner.uid === 0 || stays) return owner;
  try {
    process.setgroups?.([owner.gid]);
    process.setgid?.(owner.gid);
    process.setuid?.(owner.uid);
  } catch (error) {
    throw new BackupError(
      'not-permitted',
      `Cannot become the data's owner ${owner.uid}: ${(error as Error).message}`,
    );
  }
  return owner;
}
