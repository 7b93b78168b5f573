// The programs as they are in the image: bundled, they start five times as fast as their sources. tests/run.ts bundles
// them once for all tests.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const BUNDLER = fileURLToPath(new URL('../../service/bundle.mjs', import.meta.url));

function bundled(): string {
  const folder = mkdtempSync(join(tmpdir(), 'service-bundle-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  execFileSync(process.execPath, [BUNDLER, join(folder, 'synapse.mjs')]);
  return folder;
}

const folder = process.env.SERVICE_BUNDLE ?? bundled();
export const SERVICE = join(folder, 'synapse.mjs');
/** tests/run.ts puts it there. */
export const BACKUP = join(folder, 'backup.mjs');
