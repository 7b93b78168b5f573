// Errors that a user can cause or repair. Only task.ts prints them and turns them into an exit code;
// everything else throws.
import { getSystemErrorMap } from 'node:util';
import { closest, distance } from 'fastest-levenshtein';

/** Exit codes of the command line contract: failed with nothing lost, wrong usage, interrupted. */
export const EXIT = { failed: 1, usage: 2, sigint: 130, sigterm: 143 } as const;

interface TaskErrorOptions {
  /** Stable, machine-readable name, e.g. `tag-exists`; appears in `--json`. */
  code?: string;
  /** What the user can do about it, one sentence or several lines. */
  hint?: string | undefined;
  exitCode?: number;
  cause?: unknown;
}

/** Something that a person can understand and act on: what was attempted, what is so, what to do. */
export class TaskError extends Error {
  readonly code: string;
  readonly hint: string | undefined;
  readonly exitCode: number;

  constructor(message: string, options: TaskErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'TaskError';
    this.code = options.code ?? 'failed';
    this.hint = options.hint;
    this.exitCode = options.exitCode ?? EXIT.failed;
  }
}

/** Wrong flags, arguments or configuration: exit code 2, nothing was started. */
export function usageError(message: string, options: TaskErrorOptions = {}): TaskError {
  return new TaskError(message, { code: 'usage', exitCode: EXIT.usage, ...options });
}

/** Several problems of one check, reported together so that a user repairs them in one go. */
export function combinedError(title: string, problems: readonly TaskError[], options: TaskErrorOptions = {}) {
  const [only] = problems;
  if (problems.length === 1 && only) return only;
  const lines = problems.map((problem) => {
    const hint = problem.hint ? `\n    hint: ${problem.hint.replaceAll('\n', '\n          ')}` : '';
    return `  - ${problem.message.replaceAll('\n', '\n    ')}${hint}`;
  });
  const exitCode = problems.every((problem) => problem.exitCode === EXIT.usage) ? EXIT.usage : EXIT.failed;
  return new TaskError([title, ...lines].join('\n'), { code: only?.code ?? 'failed', exitCode, ...options });
}

/** A process that ended badly. `command`, `stderr` and `stdout` are already redacted. */
export class CommandError extends TaskError {
  readonly command: string;
  readonly processExitCode: number;
  readonly stderr: string;
  readonly stdout: string;

  constructor(command: string, processExitCode: number, stderr: string, stdout = '') {
    const tail = lastLines(stderr);
    super(`\`${command}\` failed with exit code ${processExitCode}${tail ? `:\n${tail}` : ''}`, {
      code: 'command-failed',
      hint: remedyOf(processExitCode, stderr),
    });
    this.name = 'CommandError';
    this.command = command;
    this.processExitCode = processExitCode;
    this.stderr = stderr;
    this.stdout = stdout;
  }
}

function remedyOf(exitCode: number, stderr: string): string | undefined {
  if (exitCode === 127) return 'is it installed, and in a folder that PATH names?';
  return stderr.includes('not a git repository') ? 'run the task in a git clone of the project' : undefined;
}

/** The end of what a program said: enough to see why it failed. */
export function lastLines(text: string, count = 20): string {
  return text.trimEnd().split('\n').slice(-count).join('\n');
}

/** Ctrl-C or SIGTERM, raised at the next safe place; carries the exit code that a shell expects. */
export class InterruptedError extends TaskError {
  /** With a message of its own where nothing was started that could be resumed. */
  constructor(signal: 'SIGINT' | 'SIGTERM', message?: string) {
    super(message ?? `Interrupted by ${signal}`, {
      code: 'interrupted',
      ...(message ? {} : { hint: 'run the same command again to resume' }),
      exitCode: signal === 'SIGINT' ? EXIT.sigint : EXIT.sigterm,
    });
    this.name = 'InterruptedError';
  }
}

/** The first line of an error's message, for one-line reports and the history. */
export function errorSummary(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return message.split('\n', 1)[0] ?? '';
}

// What the operating system refuses, in a user's words: a full disk or a foreign file is no bug of a task.

const REMEDIES: Record<string, string> = {
  EACCES:
    'it belongs to another user, or its mode forbids it: run the task as its owner, or change that (chown, chmod)',
  EPERM: 'it belongs to another user: run the task as its owner, or as root',
  ENOSPC: 'free some space and run the same command again',
  EDQUOT: 'free some space and run the same command again',
  EROFS: 'the file system is read-only: remount it, or work in another place',
  EMFILE: 'raise the limit of open files: ulimit -n 4096',
};

/** The error as a TaskError if it is one of the system's that a user can repair, else undefined. */
export function describeSystemError(error: unknown): TaskError | undefined {
  const { code = '', errno, syscall, path } = error as NodeJS.ErrnoException;
  const hint = REMEDIES[code];
  if (!hint || !syscall) return undefined;
  const [, meaning] = getSystemErrorMap().get(errno ?? 0) ?? [];
  return new TaskError(`Cannot ${syscall}${path ? ` ${path}` : ''}: ${meaning ?? code}`, {
    code: code.toLowerCase(),
    hint,
    cause: error,
  });
}

// "Did you mean …?" for flags, arguments and configuration keys alike.

/** The candidate that `text` was probably meant to be, or undefined if none is near enough. */
export function nearest(text: string, candidates: readonly string[]): string | undefined {
  if (candidates.length === 0) return undefined;
  const match = closest(text, candidates);
  return distance(text, match) <= Math.max(2, Math.floor(text.length / 3)) ? match : undefined;
}

/** A hint for an unknown name: the nearest one, else all of them. */
export function suggestion(text: string, candidates: readonly string[]): string {
  const match = nearest(text, candidates);
  return match ? `did you mean ${match}?` : `valid: ${candidates.join(', ')}`;
}
