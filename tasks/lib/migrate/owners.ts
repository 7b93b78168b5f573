// Owners and modes as the older setup had them: a file that it knew gets its own back, a new one its folder's.
import { chmod, chown, lchown, lstat, readdir } from 'node:fs/promises';
import { session } from '../session.ts';
import type { Owner } from './plan-facts.ts';

const SLASH = Buffer.from('/');
const join = (folder: Buffer, name: Buffer) => Buffer.concat([folder, SLASH, name]);

/** Makes `path` and everything in it belong to whom `original` shows. Names are bytes: they need not be UTF-8. */
export async function restoreOwners(path: string, original: string, root: Owner): Promise<void> {
  if (session.dryRun) return;
  await restoreOne(Buffer.from(path), Buffer.from(original), root);
}

async function restoreOne(path: Buffer, original: Buffer, otherwise: Owner): Promise<void> {
  const [present, before] = await Promise.all([lstat(path), lstat(original).catch(() => undefined)]);
  const mode = (before ?? present).mode & 0o7777;
  const { uid, gid } = before ?? otherwise;
  if (present.isSymbolicLink()) return lchown(path, uid, gid);
  await chown(path, uid, gid);
  await chmod(path, mode);
  if (!present.isDirectory()) return;
  for (const name of await readdir(path, { encoding: 'buffer' }))
    await restoreOne(join(path, name), join(original, name), { ...otherwise, uid, gid });
}
