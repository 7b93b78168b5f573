// The data directory's format number, in a small file that tasks outside the container can read without
// SQLite. A directory without one is format 1: those came before the number.
import { randomUUID } from 'node:crypto';
import { existsSync, linkSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as z from 'zod';

/** Layout of the data directory that this program reads and writes. Raise it with a migration only. */
export const DATA_FORMAT = 1;

const FORMAT_FILE = 'format.json';

const FormatFile = z.object({ dataFormat: z.int().min(1) });

/** Refuses a directory that a newer program wrote; marks an unmarked one. Safe for two at once. */
export function verifyDataFormat(directory: string): void {
  const file = join(directory, FORMAT_FILE);
  if (!existsSync(file)) markDataFormat(directory, file);
  const found = readDataFormat(file);
  if (found <= DATA_FORMAT) return;
  throw new Error(
    `Cannot start on ${directory}: its data format is ${found}, this version reads up to ${DATA_FORMAT}\n` +
      'hint: run the newer version again, or restore a backup from before it was started',
  );
}

function readDataFormat(file: string): number {
  const text = readFileSync(file, 'utf8');
  try {
    return FormatFile.parse(JSON.parse(text)).dataFormat;
  } catch (cause) {
    const problem = `${file} should read {"dataFormat": NUMBER}, it reads ${text.slice(0, 80)}`;
    throw new Error(`Cannot start: ${problem}`, { cause });
  }
}

/** Complete on disk before it has its name, and never over one that another process made first. */
function markDataFormat(directory: string, file: string): void {
  const draft = join(directory, `.${FORMAT_FILE}.${randomUUID()}`);
  writeFileSync(draft, `${JSON.stringify({ dataFormat: DATA_FORMAT })}\n`, { mode: 0o600 });
  try {
    linkSync(draft, file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    rmSync(draft);
  }
}
