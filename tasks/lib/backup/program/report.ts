// What the program tells the task that started it: progress as JSON lines on stderr, failures as values that every part
// can throw and only main.ts prints; and the files that must not outlive this process unfinished.
import { rmSync } from 'node:fs';

/** Something that a person can act on; `code` is stable and reaches `--json`. */
export class BackupError extends Error {
  readonly code: string;
  readonly hint: string | undefined;

  constructor(code: string, message: string, hint?: string) {
    super(message);
    this.code = code;
    this.hint = hint;
  }
}

// https://sqlite.org/rescode.html, primary codes
export const SQLITE = { busy: 5, locked: 6, io: 10, corrupt: 11, full: 13, cannotOpen: 14, notDatabase: 26 };

/** SQLite's primary result code; 0 for an error that is not from SQLite. */
export function sqliteCode(error: unknown): number {
  return ((error as { errcode?: number }).errcode ?? 0) & 0xff;
}

export function isMissing(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ENOENT';
}

export function diskFull(message: string): BackupError {
  const hint = 'free some space, or keep fewer archives ([backup.keep]); older archives are unchanged';
  return new BackupError('disk-full', `The disk is full: ${message}`, hint);
}

/** Errors of the operating system and of SQLite that have a remedy, in words; anything else as it is. */
export function failureOf(error: unknown): { code: string; message: string; hint?: string | undefined } {
  if (error instanceof BackupError) return { code: error.code, message: error.message, hint: error.hint };
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'ENOSPC' || code === 'EDQUOT' || sqliteCode(error) === SQLITE.full)
    return failureOf(diskFull(message));
  if (code === 'EROFS' || code === 'EACCES' || code === 'EPERM') {
    const hint = `user id ${process.getuid?.()} must be able to read the data and to write the backup directory`;
    return { code: 'not-permitted', message, hint };
  }
  return { code: 'failed', message: message ?? String(error) };
}

export type Line =
  | { event: 'note' | 'warn'; message: string }
  | { event: 'progress'; phase: string; done: number; total: number };

function send(line: Line): void {
  process.stderr.write(`${JSON.stringify(line)}\n`);
}

const PROGRESS_MS = 200;
let lastProgress = 0;

export const report = {
  note: (message: string) => send({ event: 'note', message }),
  warn: (message: string) => send({ event: 'warn', message }),
  /** Bytes; at most five lines a second. */
  progress: (phase: string, done: number, total: number) => {
    const now = performance.now();
    if (now - lastProgress < PROGRESS_MS) return;
    lastProgress = now;
    send({ event: 'progress', phase, done, total });
  },
};

/** Seconds since it was made, to the millisecond. */
export function stopwatch(): () => number {
  const started = performance.now();
  return () => Math.round(performance.now() - started) / 1000;
}

const unfinished = new Set<string>();

// On every way out but kill -9, after which the next run removes them by their names.
process.on('exit', () => {
  for (const path of unfinished) rmSync(path, { recursive: true, force: true });
});

/** From now on `path` is removed when the process ends. */
export function unfinishedPath(path: string): string {
  unfinished.add(path);
  return path;
}

/** It has become something to keep, or is gone already. */
export function keep(path: string): void {
  unfinished.delete(path);
}

export function discard(path: string): void {
  rmSync(path, { recursive: true, force: true });
  unfinished.delete(path);
}
