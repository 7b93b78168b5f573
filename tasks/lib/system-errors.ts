// What the operating system refuses, in a user's words: a full disk or a foreign file is no bug of a task.
import { getSystemErrorMap } from 'node:util';
import { TaskError } from './errors.ts';

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
