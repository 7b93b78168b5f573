// Uploads: files wait in a directory of their own between POST /v1/upload and ingestion, under random names,
// for a limited time. Only here does a path from a client become a file.
import { randomUUID } from 'node:crypto';
import fs from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { basename, dirname, join, resolve } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import busboy from 'busboy';
import { HttpError } from './http.ts';
import { InvalidCall } from './learning.ts';

const PARTIAL = '.part';
const UUID_LENGTH = 36;

export type Uploads = ReturnType<typeof openUploads>;

export function openUploads(folder: string, maxBytes: number, expiryMinutes: number) {
  fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
  fs.chmodSync(folder, 0o700);
  // Without links on the way, so that paths can be compared as text.
  const directory = fs.realpathSync(folder);
  const expiryMs = expiryMinutes * 60_000;
  return {
    directory,
    maxBytes,
    /** A new path for a file of that name; the file is complete once it has lost its `.part`. */
    newPath: (filename: string) => {
      const file = join(directory, `${randomUUID()}-${safeName(filename)}`);
      return { file, partial: file + PARTIAL };
    },
    expiresAt: () => new Date(Date.now() + expiryMs).toISOString(),
    /** Text and original name of an upload. @throws for anything that is not one */
    read: (path: string) => {
      const filename = uploadName(path);
      return { content: decodeText(fs.readFileSync(verifyUpload(directory, path)), filename), filename };
    },
    remove: (path: string) => fs.rmSync(verifyUpload(directory, path), { force: true }),
    /** Deletes what is older than the expiry; returns how many. */
    sweep: () => sweep(directory, Date.now() - expiryMs),
  };
}

/** The name that an uploaded file had. */
export function uploadName(path: string): string {
  return basename(path).slice(UUID_LENGTH + 1);
}

/** Keeps letters, digits, dot, dash and underscore, and at most 100 characters. */
function safeName(filename: string): string {
  const name = basename(filename.replaceAll('\\', '/')).replace(/[^\p{L}\p{N}._-]+/gu, '_');
  return name.replace(/^\.+/, '').slice(-100) || 'upload';
}

/** The path of a finished upload: directly inside the directory, a regular file, not a link. */
function verifyUpload(directory: string, path: string): string {
  const file = resolve(path);
  if (dirname(file) !== directory || file.endsWith(PARTIAL))
    throw new InvalidCall(
      `${path} is outside the upload directory; pass the file_path that /v1/upload returned`,
    );
  const found = fs.lstatSync(file, { throwIfNoEntry: false });
  if (!found)
    throw new InvalidCall(`${path} does not exist: it expired or was already ingested; upload it again`);
  if (!found.isFile()) throw new InvalidCall(`${path} is not a regular file`);
  return file;
}

/** UTF-8 text, without its byte order mark; a zero byte is valid UTF-8, but no text. */
function decodeText(bytes: Uint8Array, name: string): string {
  try {
    if (!bytes.includes(0)) return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    // Reported below.
  }
  throw new Error(`${name} is not UTF-8 text; only text can be ingested`);
}

function sweep(directory: string, oldest: number): number {
  let removed = 0;
  for (const name of fs.readdirSync(directory)) {
    const file = join(directory, name);
    // The other environment may have deleted it.
    const found = fs.statSync(file, { throwIfNoEntry: false });
    if (!found?.isFile() || found.mtimeMs >= oldest) continue;
    fs.rmSync(file, { force: true });
    removed += 1;
  }
  return removed;
}

export type Uploaded = Awaited<ReturnType<typeof store>>;

/**
 * POST /v1/upload: one multipart field `file`, streamed to the directory and renamed when it is complete, so that a cut
 * connection or a too large file leaves nothing that could be ingested.
 * @throws {HttpError} 400 without a file, 413 when it is too large, 415 when it is not multipart, 507 on a full disk
 */
export async function receiveUpload(request: IncomingMessage, uploads: Uploads): Promise<Uploaded> {
  let stored: Promise<Uploaded> | undefined;
  const parser = startParser(request, uploads.maxBytes);
  parser.on('file', (field, stream, { filename }) => {
    if (field !== 'file' || stored) return void stream.resume();
    stored = store(stream, filename || 'upload', uploads);
    // Nothing more needs to be received; the error is awaited below.
    stored.catch((error: Error) => parser.destroy(error));
  });
  try {
    await pipeline(request, parser);
  } catch (cause) {
    await stored;
    throw new HttpError(400, `The upload is not complete: ${(cause as Error).message}`);
  }
  if (!stored) throw new HttpError(400, 'The upload has no file', 'send it as the multipart field "file"');
  return stored;
}

function startParser(request: IncomingMessage, maxBytes: number): busboy.Busboy {
  // busboy calls a file of exactly the limit truncated.
  const limits = { fileSize: maxBytes + 1, files: 2, fields: 20, fieldSize: 64 * 1024, parts: 22 };
  try {
    return busboy({ headers: request.headers, limits, defParamCharset: 'utf8' });
  } catch (cause) {
    const message = `Not a multipart upload: ${(cause as Error).message}`;
    throw new HttpError(415, message, 'send multipart/form-data');
  }
}

async function store(stream: Readable & { truncated?: boolean }, filename: string, uploads: Uploads) {
  const { file, partial } = uploads.newPath(filename);
  const out = fs.createWriteStream(partial, { flags: 'wx', mode: 0o600 });
  try {
    await pipeline(stream, out);
    if (stream.truncated) throw new HttpError(413, `The file is larger than ${uploads.maxBytes} bytes`);
    if (out.bytesWritten === 0) throw new HttpError(400, 'The file is empty');
    fs.renameSync(partial, file);
  } catch (error) {
    fs.rmSync(partial, { force: true });
    const full = ['ENOSPC', 'EDQUOT'].includes((error as NodeJS.ErrnoException).code ?? '');
    if (full) throw new HttpError(507, 'The disk is full', 'free space on the disk of the data directory');
    throw error;
  }
  return { file_path: file, filename, size_bytes: out.bytesWritten, expires_at: uploads.expiresAt() };
}
