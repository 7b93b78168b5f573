// Making an archive: one cut across all databases, the other files read untorn, all of it streamed into a file
// that gets its name only when it is complete and on the disk.
import { renameSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type * as z from 'zod';
import { readDataFormat } from '../stores/format.ts';
import {
  clearLeftovers,
  listArchives,
  newArchiveName,
  partialPath,
  scratchPath,
  syncDirectory,
  writeRecord,
} from './catalog.ts';
import { type Contents, cutContents, survey } from './contents.ts';
import { addDatabases, addOthers, startCopies } from './fill-archive.ts';
import { askHost } from './host.ts';
import { recordOf } from './prove.ts';
import { report } from './report.ts';
import type { ArchiveRecord, Manifest, Origin } from './schema.ts';
import { discard, keep, unfinishedPath } from './scratch.ts';
import { bytesNeeded, verifySpace } from './space.ts';
import { openArchive } from './write-archive.ts';

export interface CreateOptions {
  data: string;
  backups: string;
  origin: z.output<typeof Origin>;
  /** The task freezes the containers while the files are read. */
  pause: boolean;
  /** For how long a database may stay locked by others. */
  lockTimeoutMs: number;
  /** For how long the writers of a database that is not in WAL mode may have to wait. */
  maxBlockMs: number;
}

/** The number of the data format, null where the data says nothing. */
function dataFormatOf(root: string): number | null {
  try {
    return readDataFormat(root) ?? null;
  } catch {
    return null;
  }
}

/** Archives the contents; the file is complete and on the disk afterwards, still under its partial name. */
async function archive(
  options: CreateOptions,
  contents: Contents,
  partial: string,
  scratch: string,
  total: number,
) {
  const { data, origin, pause, maxBlockMs } = options;
  let done = 0;
  const onBytes = (bytes: number) => {
    done += bytes;
    report.progress('archive', done, total);
  };
  const copies = startCopies(contents, scratch, maxBlockMs);
  const writer = await openArchive(partial);
  const files = await addOthers(writer, data, contents.others, onBytes);
  if (pause) await askHost('thaw', 'thawed');
  const { entries, copied } = await addDatabases(writer, contents, copies, onBytes);
  const blocked = copied.filter(({ blockedMs, facts }) => blockedMs > 0 && facts.pages > 0);
  const manifest: Manifest = {
    format: 1,
    origin,
    at: contents.cut.at.toISOString(),
    dataFormat: dataFormatOf(data),
    cut: { heldMs: contents.cut.heldMs, attempts: contents.cut.attempts, paused: pause },
    blocked: Object.fromEntries(blocked.map(({ facts, blockedMs }) => [facts.path, blockedMs])),
    databases: copied.map(({ facts }) => facts),
    skipped: contents.skipped,
    entries: [...files, ...entries],
  };
  return { manifest, written: await writer.finish(manifest) };
}

export interface Created {
  record: ArchiveRecord;
  manifest: Manifest;
  seconds: number;
}

/** Makes an archive and its record, not yet proven. The directory must be locked. */
export async function createArchive(options: CreateOptions): Promise<Created> {
  const started = performance.now();
  const { data, backups, origin } = options;
  clearLeftovers(backups, origin.project);
  const first = survey(data);
  const archives = listArchives(backups, origin.project);
  verifySpace(backups, bytesNeeded(first.bytes, first.databaseBytes, archives));
  const name = newArchiveName(backups, origin.project, origin.version);
  const partial = unfinishedPath(partialPath(backups, name));
  const scratch = unfinishedPath(scratchPath(backups, origin.project));
  await mkdir(scratch, { mode: 0o700 });
  const contents = await cutContents(data, first, {
    timeoutMs: options.lockTimeoutMs,
    ...(options.pause ? { whileHeld: () => askHost('pause', 'paused') } : {}),
  });
  const { manifest, written } = await archive(options, contents, partial, scratch, first.bytes);
  discard(scratch);
  const record = recordOf(name, manifest, written, 'created');
  // The record first: an archive that has its name has a record, or is not ours.
  writeRecord(backups, record);
  renameSync(partial, join(backups, name));
  keep(partial);
  syncDirectory(backups);
  return { record, manifest, seconds: Math.round(performance.now() - started) / 1000 };
}
