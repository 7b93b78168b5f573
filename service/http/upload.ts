// POST /v1/upload: one multipart field `file`, streamed to the upload directory and renamed when it is
// complete, so that a cut connection or a too large file leaves nothing that could be ingested.

import { createWriteStream, renameSync, rmSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import busboy from 'busboy';
import type { Uploads } from '../uploads.ts';
import { HttpError } from './reply.ts';

export interface Uploaded {
  /** For sy.mem.ingest. */
  file_path: string;
  filename: string;
  size_bytes: number;
  expires_at: string;
}

/** @throws {HttpError} 400 without a file, 413 when it is too large, 415 when it is not multipart. */
export async function receiveUpload(request: IncomingMessage, uploads: Uploads): Promise<Uploaded> {
  let stored: Promise<Uploaded> | undefined;
  const parser = startParser(request, uploads.maxBytes);
  parser.on('file', (field, stream, { filename }) => {
    if (field !== 'file' || stored) return void stream.resume();
    stored = store(stream, filename || 'upload', uploads);
    // A failure is awaited below; until then it must not count as unhandled.
    stored.catch(() => {});
  });
  try {
    await pipeline(request, parser);
  } catch (cause) {
    await stored?.catch(() => {});
    throw new HttpError(400, `The upload is not complete: ${(cause as Error).message}`);
  }
  if (!stored)
    throw new HttpError(400, 'There is no file in the upload', 'send it as the multipart field "file"');
  return stored;
}

function startParser(request: IncomingMessage, maxBytes: number): busboy.Busboy {
  // busboy calls a file of exactly the limit truncated.
  const limits = { fileSize: maxBytes + 1, files: 2, fields: 20, fieldSize: 64 * 1024, parts: 22 };
  try {
    return busboy({ headers: request.headers, limits, defParamCharset: 'utf8' });
  } catch (cause) {
    throw new HttpError(
      415,
      `Not a multipart upload: ${(cause as Error).message}`,
      'send multipart/form-data',
    );
  }
}

async function store(stream: Readable & { truncated?: boolean }, filename: string, uploads: Uploads) {
  const { file, partial } = uploads.newPath(filename);
  const out = createWriteStream(partial, { flags: 'wx', mode: 0o600 });
  try {
    await pipeline(stream, out);
    if (stream.truncated) throw new HttpError(413, `The file is larger than ${uploads.maxBytes} bytes`);
    if (out.bytesWritten === 0) throw new HttpError(400, 'The file is empty');
    renameSync(partial, file);
  } catch (error) {
    rmSync(partial, { force: true });
    throw error;
  }
  return { file_path: file, filename, size_bytes: out.bytesWritten, expires_at: uploads.expiresAt() };
}
