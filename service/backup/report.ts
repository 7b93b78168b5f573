// What the backup program says to the task that started it: JSON lines on stdout. Failures are values here,
// so that every part can throw them and only main.ts prints.

export interface Failure {
  code: string;
  message: string;
  hint?: string | undefined;
}

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

/** Result code of SQLite, https://sqlite.org/rescode.html#full */
export const SQLITE_FULL = 13;

export function diskFull(message: string): BackupError {
  const hint = 'make room, or keep fewer archives ([backup.keep]); the older archives are untouched';
  return new BackupError('disk-full', `The disk is full: ${message}`, hint);
}

/** Errors of the operating system and of SQLite that have a remedy, in words; anything else as it is. */
export function failureOf(error: unknown): Failure {
  if (error instanceof BackupError) return { code: error.code, message: error.message, hint: error.hint };
  const { code, errcode, message } = error as NodeJS.ErrnoException & { errcode?: number };
  if (code === 'ENOSPC' || code === 'EDQUOT' || ((errcode ?? 0) & 0xff) === SQLITE_FULL)
    return failureOf(diskFull(message));
  if (code === 'EROFS' || code === 'EACCES' || code === 'EPERM') {
    const hint = `user id ${process.getuid?.()} must be able to read the data and to write the backup directory`;
    return { code: 'not-permitted', message, hint };
  }
  return { code: 'failed', message: message ?? String(error) };
}

function emit(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

const PROGRESS_MS = 200;
let lastProgress = 0;

export const report = {
  note: (message: string) => emit({ event: 'note', message }),
  warn: (message: string) => emit({ event: 'warn', message }),
  /** Bytes; at most five lines a second. */
  progress: (phase: string, done: number, total: number) => {
    const now = performance.now();
    if (now - lastProgress < PROGRESS_MS) return;
    lastProgress = now;
    emit({ event: 'progress', phase, done, total });
  },
  /** Something that the task has to answer on stdin. */
  ask: (question: string) => emit({ event: question }),
  /** A session has begun; programs from before there were sessions do not say so. */
  ready: () => emit({ event: 'ready' }),
  /** Nothing, said so that the connection stays one. */
  alive: () => emit({ event: 'alive' }),
  result: (value: object) => emit({ event: 'result', ...value }),
  failure: (failure: Failure) => emit({ event: 'error', ...failure }),
};
