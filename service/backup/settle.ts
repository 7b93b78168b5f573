/// <reference path="../../node_modules/types-node-24/sqlite.d.ts" />
// Making a copy one file that needs no other, and looking at it as a whole: in a thread of its own, because it
// takes a second for each gigabyte, in which the archive would stand still.
import { DatabaseSync } from 'node:sqlite';
import { parentPort, Worker, workerData } from 'node:worker_threads';
import { checkIntegrity, countRows } from './look.ts';

export interface Settled {
  integrity: string;
  /** Counted in the copy; empty if it is damaged. */
  rows: Record<string, number>;
}

function settle(file: string): Settled {
  const copy = new DatabaseSync(file);
  try {
    // Exclusive, so that the index of its write-ahead log is in memory: as a file it may find no room on a full
    // disk, which SQLite tells as an I/O error. https://sqlite.org/wal.html#noshm
    copy.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = OFF; PRAGMA journal_mode = DELETE');
    const integrity = checkIntegrity(copy);
    return { integrity, rows: integrity === 'ok' ? countRows(copy) : {} };
  } finally {
    copy.close();
  }
}

/** The thread's side; main.ts calls it where it is one. */
export function settleInThread(): void {
  const { file } = workerData as { file: string };
  try {
    parentPort?.postMessage({ settled: settle(file) });
  } catch (error) {
    // Copied to the other thread an error would lose SQLite's code, which tells a full disk from damage.
    const { message, errcode } = error as Error & { errcode?: number };
    parentPort?.postMessage({ failure: { message, errcode } });
  }
}

/** The same program, started once more as a thread. @throws what SQLite threw there, with its `errcode` */
export function settleAside(file: string): Promise<Settled> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(process.argv[1]!, { workerData: { file } });
    worker.once('message', ({ settled, failure }) => {
      if (settled) resolve(settled);
      else reject(Object.assign(new Error(failure.message), failure));
    });
    worker.once('error', reject);
    worker.once('exit', (code) => reject(new Error(`the thread that looks at ${file} ended with ${code}`)));
  });
}
