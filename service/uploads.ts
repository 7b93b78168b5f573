// The upload directory: files wait here between /v1/upload and ingestion, under names that nobody can
// guess, for a limited time. The only place that turns a path given by a client into a file.
import { randomUUID } from 'node:crypto';
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';

const PARTIAL = '.part';
const UUID_LENGTH = 36;

export interface Uploads {
  directory: string;
  maxBytes: number;
  /** A new path for a file of that name; the file is complete once it has lost its `.part`. */
  newPath(filename: string): { file: string; partial: string };
  expiresAt(now?: number): string;
  /** Text and original name of an upload. Throws for anything that is not one. */
  read(path: string): { content: string; filename: string };
  remove(path: string): void;
  /** Deletes what is older than the expiry; returns how many. */
  sweep(now?: number): number;
}

export function openUploads(directory: string, maxBytes: number, expiryMinutes: number): Uploads {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  chmodSync(directory, 0o700);
  const root = realpathSync(directory);
  const expiryMs = expiryMinutes * 60_000;
  return {
    directory,
    maxBytes,
    newPath: (filename) => {
      const file = join(directory, `${randomUUID()}-${safeName(filename)}`);
      return { file, partial: file + PARTIAL };
    },
    expiresAt: (now = Date.now()) => new Date(now + expiryMs).toISOString(),
    read: (path) => {
      const file = verifyUpload(root, path);
      return {
        content: decodeText(readFileSync(file), path),
        filename: basename(file).slice(UUID_LENGTH + 1),
      };
    },
    remove: (path) => rmSync(verifyUpload(root, path), { force: true }),
    sweep: (now = Date.now()) => sweep(root, now - expiryMs),
  };
}

/** Keeps letters, digits, dot, dash and underscore, and at most 100 characters. */
function safeName(filename: string): string {
  const name = basename(filename.replaceAll('\\', '/')).replace(/[^\p{L}\p{N}._-]+/gu, '_');
  return name.replace(/^\.+/, '').slice(-100) || 'upload';
}

/** The real path of a finished upload: directly inside the directory, a regular file, not a link. */
function verifyUpload(root: string, path: string): string {
  const file = resolve(path);
  const inside = realDirectory(file) === root && !file.endsWith(PARTIAL);
  if (!inside)
    throw new Error(`${path} is outside the upload directory; give the file_path that /v1/upload returned`);
  const found = lstatSync(file, { throwIfNoEntry: false });
  if (!found) throw new Error(`${path} is not there: it expired, or was ingested before; upload it again`);
  if (!found.isFile()) throw new Error(`${path} is not a regular file`);
  return join(root, basename(file));
}

function realDirectory(file: string): string | undefined {
  try {
    return realpathSync(dirname(file));
  } catch {
    return undefined;
  }
}

/** UTF-8 text, without its byte order mark. */
export function decodeText(bytes: Uint8Array, name: string): string {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    if (!text.includes('\0')) return text;
  } catch {
    // Said below, together with the zero bytes that are valid UTF-8 but no text.
  }
  throw new Error(`${name} is not UTF-8 text; only text can be ingested`);
}

function sweep(root: string, oldest: number): number {
  let removed = 0;
  for (const name of readdirSync(root)) {
    const file = join(root, name);
    // The other environment sweeps the same directory and may have been faster.
    const found = statSync(file, { throwIfNoEntry: false });
    if (!found?.isFile() || found.mtimeMs >= oldest) continue;
    rmSync(file, { force: true });
    removed += 1;
  }
  return removed;
}
