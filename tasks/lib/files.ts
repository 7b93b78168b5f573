// Writing files: whole or not at all, and nothing under --dry-run.
import { randomBytes } from 'node:crypto';
import {
  appendFile,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  realpath,
  rename,
  rm,
  rmdir,
  stat,
} from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { ZodType } from 'zod';
import { log } from './log.ts';
import { uninterrupted } from './session.ts';

function isMissing(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ENOENT';
}

/** The file's text, or undefined if it does not exist. Any other failure is thrown. */
export async function readIfPresent(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/** Undefined where the text is no JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function resolveLink(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    if (isMissing(error)) return path;
    throw error;
  }
}

/** Flushes a directory, so that a rename in it survives a power cut. Some file systems cannot: ignored. */
async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  await directory.sync().catch(() => {});
  await directory.close();
}

/**
 * Replaces a file atomically: a reader, or a power cut, sees the old text or the new one. A symbolic
 * link is followed, not replaced. `mode` defaults to the present file's, else 0644.
 */
export async function writeFileAtomic(path: string, text: string | Buffer, options: { mode?: number } = {}) {
  if (log.withhold(`write: ${path} (${Buffer.byteLength(text)} bytes)`)) return;
  await replaceFile(path, text, options);
}

/** The same without the dry-run gate, for our own bookkeeping under .synapse/. */
export async function replaceFile(path: string, text: string | Buffer, options: { mode?: number } = {}) {
  const target = await resolveLink(path);
  const present = await stat(target).catch(() => undefined);
  const temporary = join(dirname(target), `.${basename(target)}.${randomBytes(6).toString('hex')}.partial`);
  const mode = options.mode ?? (present ? present.mode & 0o777 : 0o644);
  try {
    const file = await open(temporary, 'wx', mode);
    try {
      await file.chmod(mode);
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, target);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncDirectory(dirname(target));
}

/** Makes a directory and its parents. A no-op if it is there; only printed under --dry-run. */
export async function makeDirectory(path: string, mode = 0o755): Promise<void> {
  if (log.withhold(`make directory: ${path} (${mode.toString(8)})`)) return;
  await mkdir(path, { recursive: true, mode });
}

// Where the tasks keep their own bookkeeping: `.synapse/` in the project, ignored by git. Nothing in it is
// needed to run the service; it lets an interrupted task be finished and says who did what.

const STATE_DIRECTORY = '.synapse';

export function statePath(root: string, ...names: string[]): string {
  return join(root, STATE_DIRECTORY, ...names);
}

/** Makes `.synapse/`, or a folder in it. */
export async function ensureStateDirectory(root: string, ...names: string[]): Promise<string> {
  const path = statePath(root, ...names);
  await mkdir(path, { recursive: true, mode: 0o700 });
  return path;
}

/** Appends one line to a file of ours; a last line that a power cut has torn does not become its beginning. */
export async function appendLine(root: string, name: string, line: string): Promise<void> {
  const path = statePath(root, name);
  if (log.withhold(`append to ${path}: ${line}`)) return;
  await ensureStateDirectory(root);
  const isTorn = !((await readIfPresent(path)) || '\n').endsWith('\n');
  await appendFile(path, `${isTorn ? '\n' : ''}${line}\n`, { mode: 0o600 });
}

/** The lines of a file of ours, oldest first; one that a power cut has torn, or that a hand has edited, is skipped. */
export async function readLines<Line>(root: string, name: string, schema: ZodType<Line>): Promise<Line[]> {
  const text = (await readIfPresent(statePath(root, name))) ?? '';
  return text.split('\n').flatMap((line) => schema.safeParse(parseJson(line)).data ?? []);
}

/**
 * Runs `work` with a fresh directory that is removed afterwards, in a dry run as well. It lies in `.synapse/`, so that the
 * next run can clear what a killed one left.
 */
export async function withWorkDirectory<T>(
  root: string,
  work: (directory: string) => Promise<T>,
): Promise<T> {
  // A new name each time: an orphaned child of a killed run must not write into this run's files.
  const directory = await mkdtemp(join(await ensureStateDirectory(root), 'work-'));
  try {
    return await work(directory);
  } finally {
    await uninterrupted(() => rm(directory, { recursive: true, force: true }));
    // Made for it alone, e.g. in a dry run: then it is empty.
    await rmdir(statePath(root)).catch(() => {});
  }
}

/**
 * Removes what killed runs left: scratch space, and files that they were replacing. Call it holding the lock: then none of
 * it has an owner. Samples are left alone, which `status` writes without one.
 */
export async function removeLeftovers(root: string): Promise<void> {
  const places: [directory: string, names: RegExp][] = [
    [statePath(root), /^work-|^\.owner\.json\.[0-9a-f]{12}\.partial$/],
    [statePath(root, 'journal'), /^\..+\.[0-9a-f]{12}\.partial$/],
    [root, /^\.\.env.*\.[0-9a-f]{12}\.partial$/],
  ];
  for (const [directory, names] of places) {
    const found = await readdir(directory).catch(() => [] as string[]);
    for (const name of found.filter((one) => names.test(one)))
      await rm(join(directory, name), { recursive: true, force: true });
  }
}
