// Files as they were before the migration, kept with our bookkeeping, so that a rollback brings them back byte
// for byte; and what they had become by then, so that nothing is lost by going back.
import { mkdir, readFile, rm, stat } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { readIfPresent, replaceFile, writeFileAtomic } from '../files.ts';
import { session } from '../session.ts';
import { statePath } from '../state.ts';

/** Our folder of one migration. */
export function keptPath(root: string, id: string, ...names: string[]): string {
  return statePath(root, `migration-${id}`, ...names);
}

const nameOf = (root: string, path: string) => encodeURIComponent(relative(root, path));

interface KeptFile {
  /** Base64; null: there was no file. */
  content: string | null;
  mode: number;
}

async function look(path: string): Promise<KeptFile> {
  const found = await stat(path).catch(() => undefined);
  if (!found) return { content: null, mode: 0o644 };
  return { content: (await readFile(path)).toString('base64'), mode: found.mode & 0o777 };
}

/** Keeps a file as it is now; a second call changes nothing. */
export async function keepFile(root: string, id: string, path: string): Promise<void> {
  if (session.dryRun) return;
  const place = keptPath(root, id, 'before', nameOf(root, path));
  if ((await readIfPresent(place)) !== undefined) return;
  await mkdir(keptPath(root, id, 'before'), { recursive: true, mode: 0o700 });
  await replaceFile(place, JSON.stringify(await look(path)), { mode: 0o600 });
}

/** The file as it was kept, as text; undefined if it was not kept or not there. */
export async function keptText(root: string, id: string, path: string): Promise<string | undefined> {
  const text = await readIfPresent(keptPath(root, id, 'before', nameOf(root, path)));
  const kept = text === undefined ? undefined : (JSON.parse(text) as KeptFile);
  return kept?.content == null ? undefined : Buffer.from(kept.content, 'base64').toString('utf8');
}

/** Makes a file again what it was; what it is now is kept, too. Nothing happens if it was not kept. */
export async function restoreFile(root: string, id: string, path: string): Promise<void> {
  const text = await readIfPresent(keptPath(root, id, 'before', nameOf(root, path)));
  if (text === undefined || session.dryRun) return;
  const [kept, present] = [JSON.parse(text) as KeptFile, await look(path)];
  if (kept.content === present.content && kept.mode === present.mode) return;
  if (present.content !== null) {
    const folder = keptPath(root, id, 'at-rollback');
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await replaceFile(join(folder, nameOf(root, path)), Buffer.from(present.content, 'base64'), {
      mode: 0o600,
    });
  }
  if (kept.content === null) await rm(path, { force: true });
  else await writeFileAtomic(path, Buffer.from(kept.content, 'base64'), { mode: kept.mode });
}
