// What goes into an archive: the databases under one cut, and everything else. Looked at again after the cut,
// because a database that appeared between looking and cutting must not be missing from it.
import { join } from 'node:path';
import { type Cut, takeCut } from './cut.ts';
import { report } from './report.ts';
import { type Found, isSideFile, linkTarget, looksLikeDatabase, walk, whyNotKept } from './walk.ts';

export interface Contents {
  cut: Cut;
  /** Of the databases in the cut, by path. */
  databases: Map<string, Found>;
  /** Everything else that is kept, parents first. */
  others: Found[];
  skipped: { path: string; reason: string }[];
}

/** Times that the cut is taken again because a new database appeared meanwhile. */
const RETAKES = 4;

const inode = ({ stats }: Found) => `${stats.dev}:${stats.ino}`;

export interface Survey {
  databases: Map<string, Found>;
  bytes: number;
  databaseBytes: number;
}

/** A first look: which files are databases, and how much there is. A second name of one file counts once. */
export function survey(root: string): Survey {
  const databases = new Map<string, Found>();
  const inodes = new Set<string>();
  let bytes = 0;
  let databaseBytes = 0;
  for (const found of walk(root)) {
    if (found.type !== 'file') continue;
    bytes += found.stats.size;
    const isDatabase = looksLikeDatabase(join(root, found.path), found.stats.size);
    if (isDatabase || found.path.endsWith('-wal')) databaseBytes += found.stats.size;
    if (!isDatabase || inodes.has(inode(found)) || isSideName(found.path)) continue;
    inodes.add(inode(found));
    databases.set(found.path, found);
  }
  return { databases, bytes, databaseBytes };
}

/** An empty `x-wal` or `x-journal` is a side file, not a database. */
function isSideName(path: string): boolean {
  return /-(?:wal|shm|journal)$/.test(path);
}

/** Sorts what is there now into the cut's databases, other files, and what cannot be kept. */
function sortOut(root: string, cut: Cut, known: ReadonlyMap<string, Found>) {
  const names = new Set(cut.databases.map(({ path }) => path));
  const inodes = new Set([...known.values()].filter(({ path }) => names.has(path)).map(inode));
  const databases = new Map([...known].filter(([path]) => names.has(path)));
  const others: Found[] = [];
  const skipped: Contents['skipped'] = [];
  const late: string[] = [];
  for (const found of walk(root)) {
    const { path, type } = found;
    if (names.has(path) || isSideFile(path, names)) continue;
    // Opening it would drop the locks of the database whose file it is.
    if (type === 'file' && inodes.has(inode(found)))
      skipped.push({ path, reason: 'a second name of a database' });
    else if (type === 'other') skipped.push({ path, reason: 'a socket, pipe or device' });
    else if (type === 'symlink') {
      const reason = whyNotKept(path, linkTarget(root, path));
      if (reason) skipped.push({ path, reason });
      else others.push(found);
    } else if (type === 'file' && !isSideName(path) && looksLikeDatabase(join(root, path), found.stats.size))
      late.push(path);
    else others.push(found);
  }
  return { databases, others, skipped, late };
}

/** Takes the cut, and again when a database appeared in the meantime. */
export async function cutContents(
  root: string,
  first: Survey,
  options: { timeoutMs: number; whileHeld?: () => Promise<void> },
): Promise<Contents> {
  let known = first.databases;
  for (let retake = 0; ; retake += 1) {
    const cut = await takeCut(root, [...known.keys()], options);
    const { late, ...contents } = sortOut(root, cut, known);
    if (late.length === 0 || retake === RETAKES) {
      const reason = 'a database that appeared after the cut';
      const skipped = [...contents.skipped, ...late.map((path) => ({ path, reason }))];
      for (const one of skipped) report.warn(`not in the backup: ${one.path}: ${one.reason}`);
      return { ...contents, skipped, cut };
    }
    for (const { reader } of cut.databases) {
      reader.exec('ROLLBACK');
      reader.close();
    }
    known = survey(root).databases;
  }
}
