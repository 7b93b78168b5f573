/// <reference path="../../node_modules/types-node-24/sqlite.d.ts" />
// Copying pinned databases by SQLite's own backup. A pinned source never makes it start over; the snapshot is
// let go as soon as its copy is there.
import { statSync } from 'node:fs';
import { dirname } from 'node:path';
import { backup, type DatabaseSync } from 'node:sqlite';
import type { Pinned } from './cut.ts';
import { countRows } from './look.ts';
import { inWords } from './open-database.ts';
import { BackupError } from './report.ts';
import type { DatabaseFacts } from './schema.ts';
import { settleAside } from './settle.ts';

const PAGES_PER_STEP = 256;

export interface DatabaseCopy {
  facts: DatabaseFacts;
  /** Where the copy is; '' for a database without a page, which is an empty file. */
  file: string;
  /** Milliseconds for which writers may have waited: 0 in WAL mode. */
  blockedMs: number;
}

export interface Limits {
  /** Of `performance.now()`: since when the snapshot is held. */
  pinnedAt: number;
  maxBlockMs: number;
}

function pragma(database: DatabaseSync, name: string): unknown {
  return Object.values(database.prepare(`PRAGMA ${name}`).get() ?? {})[0];
}

/**
 * Copies one database and ends its snapshot. A database that is not in WAL mode makes its writers wait:
 * after `maxBlockMs` since `pinnedAt` the backup gives up instead.
 */
export async function copyDatabase(pinned: Pinned, file: string, limits: Limits): Promise<DatabaseCopy> {
  try {
    return await copyPinned(pinned, file, limits);
  } catch (error) {
    throw inWords(pinned.path, error, dirname(file));
  }
}

async function copyPinned(
  { path, reader, journalMode }: Pinned,
  file: string,
  { pinnedAt, maxBlockMs }: Limits,
): Promise<DatabaseCopy> {
  const pages = Number(pragma(reader, 'page_count'));
  const pageSize = Number(pragma(reader, 'page_size'));
  const blocks = journalMode !== 'wal';
  const progress = () => {
    if (blocks && performance.now() - pinnedAt > maxBlockMs) throw tooLong(path, maxBlockMs);
  };
  if (pages > 0) await backup(reader, file, { rate: PAGES_PER_STEP, progress });
  const released = performance.now() - pinnedAt;
  // In WAL mode counting holds nobody up; else it is done in the copy, after the writers go on.
  const counted = blocks ? undefined : countRows(reader);
  reader.exec('ROLLBACK');
  reader.close();
  const settled = pages > 0 ? await settleAside(file) : { integrity: 'ok', rows: {} };
  const { integrity } = settled;
  const rows = counted ?? settled.rows;
  return {
    facts: { path, journalMode, pages, pageSize, integrity, rows },
    file: pages > 0 ? file : '',
    blockedMs: blocks ? Math.round(released * 10) / 10 : 0,
  };
}

function tooLong(path: string, maxBlockMs: number): BackupError {
  return new BackupError(
    'blocked-too-long',
    `Copying ${path} would make its writers wait for more than ${maxBlockMs / 1000} s: it is not in WAL mode`,
    'PRAGMA journal_mode = WAL lets them go on; or allow more: [backup] max_block',
  );
}

export function sizeOf(file: string): number {
  return file === '' ? 0 : statSync(file).size;
}
