/// <reference path="../../node_modules/types-node-24/sqlite.d.ts" />
// One moment across all databases: the write lock of each is held for some milliseconds, and in that time a
// reader is pinned to the present snapshot of each. From then on writers write and the readers stay put.
import type { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { isBusy, lockedTooLong, type Opened, openDatabase, patiently } from './open-database.ts';

export interface Pinned {
  path: string;
  reader: DatabaseSync;
  journalMode: string;
}

export interface Cut {
  /** Databases that are not in WAL mode first: their writers wait until they are copied. */
  databases: Pinned[];
  heldMs: number;
  attempts: number;
  at: Date;
}

/** For how long several write locks are tried for while some are held already. */
const GATHER_MS = 12;
const wait = (ms: number) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);

/** Takes the remaining write locks while some are held; the path that was not to be had in time, or undefined. */
function gather(rest: readonly Opened[], deadline: number): Opened | undefined {
  return rest.find(({ writer }) => {
    for (;;) {
      try {
        writer.exec('BEGIN IMMEDIATE');
        return false;
      } catch (error) {
        if (!isBusy(error)) throw error;
        if (performance.now() > deadline) return true;
        wait(0.3);
      }
    }
  });
}

function letGo(databases: readonly Opened[]): void {
  for (const { writer } of databases) if (writer.isTransaction) writer.exec('ROLLBACK');
}

/** Holds every write lock at the same time. Waits long only while nothing is held: no deadlock, no stall. */
async function holdAll(databases: readonly Opened[], timeoutMs: number) {
  const deadline = performance.now() + timeoutMs;
  let order = [...databases];
  for (let attempts = 1; ; attempts += 1) {
    const [first, ...rest] = order;
    if (!first) return { since: performance.now(), attempts };
    await patiently(first, timeoutMs, () => first.writer.exec('BEGIN IMMEDIATE'));
    const since = performance.now();
    const missed = gather(rest, since + GATHER_MS);
    if (!missed) return { since, attempts };
    letGo(databases);
    if (performance.now() > deadline) throw lockedTooLong(missed.path, timeoutMs);
    order = [missed, ...order.filter((one) => one !== missed)];
    await sleep(2 + Math.random() * 20);
  }
}

/**
 * The cut across `paths`. `whileHeld` runs while no writer can write, and makes the cut as long as it takes.
 * @throws BackupError when a database stays locked, or is damaged
 */
export async function takeCut(
  root: string,
  paths: readonly string[],
  { timeoutMs, whileHeld }: { timeoutMs: number; whileHeld?: () => Promise<void> },
): Promise<Cut> {
  const databases: Opened[] = [];
  for (const path of paths) {
    const opened = await openDatabase(root, path, timeoutMs);
    if (opened) databases.push(opened);
  }
  const { since, attempts } = await holdAll(databases, timeoutMs);
  const at = new Date();
  for (const { reader, pin } of databases) {
    reader.exec('BEGIN');
    pin.get();
  }
  await whileHeld?.();
  letGo(databases);
  const heldMs = Math.round((performance.now() - since) * 10) / 10;
  // While the readers hold their snapshots, closing a writer cannot checkpoint.
  for (const { writer } of databases) writer.close();
  const pinned = databases.map(({ path, reader, journalMode }) => ({ path, reader, journalMode }));
  const isWal = ({ journalMode }: Pinned) => Number(journalMode === 'wal');
  return { databases: pinned.sort((a, b) => isWal(a) - isWal(b)), heldMs, attempts, at };
}
