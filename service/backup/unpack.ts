// Bringing an archive's content back, into a directory that did not exist. Nothing is written that was not
// checked, and the result is proven like an archive: hashes, integrity, row counts.
import { chmodSync, existsSync, lchownSync, lutimesSync, symlinkSync, utimesSync } from 'node:fs';
import { mkdir, open, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { databaseProblems, type Finding, inspectDatabase } from './check-database.ts';
import { type ArchiveEntry, type ReadBack, readArchive } from './read-archive.ts';
import { BackupError, report } from './report.ts';
import type { Entry, Manifest } from './schema.ts';
import { discard, keep, unfinishedPath } from './scratch.ts';

async function writeFile(path: string, content: AsyncIterable<Buffer>): Promise<void> {
  const file = await open(path, 'wx', 0o600);
  try {
    for await (const chunk of content) await file.writeFile(chunk);
    await file.datasync();
  } finally {
    await file.close();
  }
}

async function unpackEntry(
  target: string,
  entry: ArchiveEntry,
  content: AsyncIterable<Buffer>,
): Promise<void> {
  const path = join(target, entry.path);
  if (entry.type === 'directory') {
    if (entry.path !== '') await mkdir(path, { recursive: true, mode: 0o700 });
  } else if (entry.type === 'file') {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    // A file that changed while it was read comes twice; the last one counts.
    await rm(path, { force: true });
    await writeFile(path, content);
  }
}

function giveTo(path: string, { uid, gid }: Entry): boolean {
  try {
    lchownSync(path, uid, gid);
    return true;
  } catch (error) {
    if (['EPERM', 'EINVAL'].includes((error as NodeJS.ErrnoException).code ?? '')) return false;
    throw error;
  }
}

/** Owner, mode and time of everything, children before their directory: making a child changes its time. */
function applyAttributes(target: string, manifest: Manifest): void {
  let foreign = 0;
  for (const entry of manifest.entries.filter(({ superseded }) => !superseded).reverse()) {
    const path = join(target, entry.path);
    if (entry.type === 'symlink') symlinkSync(entry.linkname ?? '', path);
    if (!giveTo(path, entry)) foreign += 1;
    const seconds = entry.mtimeMs / 1000;
    if (entry.type === 'symlink') lutimesSync(path, seconds, seconds);
    else {
      chmodSync(path, entry.mode);
      utimesSync(path, seconds, seconds);
    }
  }
  if (foreign > 0) report.warn(`${foreign} entries could not be given to their owner`);
}

function inspectAll(target: string, { databases }: Manifest): Map<string, Finding> {
  const findings = new Map<string, Finding>();
  for (const { path, pages } of databases)
    if (pages > 0) findings.set(path, inspectDatabase(join(target, path)));
  return findings;
}

/**
 * Unpacks into `target`, which must not exist; on any failure nothing of it is left.
 * @throws BackupError naming every problem
 */
export async function unpackArchive(archive: string, target: string): Promise<ReadBack> {
  if (existsSync(target)) throw new BackupError('target-exists', `${target} exists`);
  await mkdir(unfinishedPath(target), { mode: 0o700 });
  try {
    const read = await unpackInto(archive, target);
    keep(target);
    return read;
  } catch (error) {
    discard(target);
    throw error;
  }
}

async function unpackInto(archive: string, target: string): Promise<ReadBack> {
  const read = await readArchive(
    archive,
    (entry, content) => unpackEntry(target, entry, content),
    (done) => report.progress('unpack', done, 0),
  );
  const { manifest, problems } = read;
  if (problems.length === 0) problems.push(...databaseProblems(manifest, inspectAll(target, manifest)));
  if (problems.length > 0) {
    const text = ['The archive is damaged:', ...problems.slice(0, 20)].join('\n  - ');
    throw new BackupError('bad-archive', text);
  }
  applyAttributes(target, manifest);
  return read;
}
