// The proof: the archive is read back from the disk, every hash compared, every database opened, checked and
// counted. The record beside the archive then says so; only that makes it count.
import { createWriteStream } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { readRecord, scratchPath, writeRecord } from './catalog.ts';
import { databaseProblems, type Finding, inspectDatabase, startsLikeDatabase } from './check-database.ts';
import { type ReadBack, readArchive } from './read-archive.ts';
import { BackupError, report } from './report.ts';
import { type ArchiveRecord, dataBytes, fileCount, type Manifest } from './schema.ts';
import { discard, unfinishedPath } from './scratch.ts';

async function peek(content: AsyncIterable<Buffer>) {
  const iterator = content[Symbol.asyncIterator]();
  const first = await iterator.next();
  async function* whole() {
    if (!first.done) yield first.value as Buffer;
    for (let next = await iterator.next(); !next.done; next = await iterator.next())
      yield next.value as Buffer;
  }
  return { first: first.done ? Buffer.alloc(0) : (first.value as Buffer), whole };
}

/** Reads an archive and everything in it. Only one database at a time lies in the scratch directory. */
export async function verifyArchive(path: string, scratch: string): Promise<ReadBack> {
  const findings = new Map<string, Finding>();
  await mkdir(unfinishedPath(scratch), { mode: 0o700 });
  const file = join(scratch, 'database');
  try {
    const total = { bytes: 0 };
    const read = await readArchive(
      path,
      async ({ path: name, type }, content) => {
        if (type !== 'file') return;
        const { first, whole } = await peek(content);
        if (!startsLikeDatabase(first)) {
          for await (const _chunk of whole());
          return;
        }
        await pipeline(whole, createWriteStream(file));
        findings.set(name, inspectDatabase(file));
        discard(file);
      },
      (done) => {
        total.bytes = done;
        report.progress('prove', done, 0);
      },
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
  /** Undefined when it could not be read. */
  manifest: Manifest | undefined;
}

/** A new record for an archive that has none: it came from elsewhere. */
function adopt(archive: string, { manifest, bytes, sha256 }: ReadBack): ArchiveRecord {
  return recordOf(archive, manifest, { bytes, sha256 }, 'adopted');
}

export function recordOf(
  archive: string,
  manifest: Manifest,
  written: { bytes: number; sha256: string },
  source: ArchiveRecord['source'],
): ArchiveRecord {
  return {
    format: 1,
    archive,
    source,
    at: manifest.at,
    version: manifest.origin.version,
    dataFormat: manifest.dataFormat,
    ...written,
    dataBytes: dataBytes(manifest),
    files: fileCount(manifest),
    databases: manifest.databases.length,
    proof: null,
    problems: [],
  };
}

/** Proves an archive of the backup directory and records the outcome, good or bad. */
export async function proveArchive(directory: string, project: string, archive: string): Promise<Verdict> {
  const started = performance.now();
  const record = readRecord(directory, archive);
  const seconds = () => Math.round(performance.now() - started) / 1000;
  let read: ReadBack | undefined;
  let problems: string[];
  try {
    read = await verifyArchive(join(directory, archive), scratchPath(directory, project));
    problems = [...read.problems];
    if (record && record.sha256 !== read.sha256)
      problems.push(`changed: ${archive} is not the file that was written: its SHA-256 differs`);
  } catch (error) {
    if (
      !(error instanceof BackupError) &&
      !/^E(ACCES|PERM|IO)$/.test((error as NodeJS.ErrnoException).code ?? '')
    )
      throw error;
    problems = [(error as Error).message];
  }
  const ok = problems.length === 0;
  const known = record ?? (read && ok ? adopt(archive, read) : undefined);
  const proof = ok
    ? { at: new Date().toISOString(), seconds: seconds(), rehearsed: record?.proof?.rehearsed ?? null }
    : null;
  if (known) writeRecord(directory, { ...known, proof, problems: problems.slice(0, 20) });
  return { archive, ok, problems, seconds: seconds(), manifest: read?.manifest };
}
