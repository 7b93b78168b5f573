// The files of this repository that a migration writes: as they were before, what git must not see of the older setup,
// and one commit of the rest, since releases are made from a clean tree.
import { lstat, readFile, stat } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { z } from 'zod';
import { read, run } from '../command.ts';
import { makeDirectory, readIfPresent, writeFileAtomic } from '../files.ts';
import { git } from '../git.ts';
import type { Project } from '../project.ts';
import { releaseIdentity } from '../release/git-write.ts';

/** A file as it was; null: there was none. `content` is base64. */
export const keptFileSchema = z.strictObject({ content: z.string(), mode: z.number() }).nullable();
export type KeptFile = z.output<typeof keptFileSchema>;

export async function exists(path: string): Promise<boolean> {
  return (await lstat(path).catch(() => undefined)) !== undefined;
}

export const remove = (path: string) => run(['rm', '-rf', '--', path]);

/** Renames, if only the source is there: a step may find its work done. */
export async function move(from: string, to: string): Promise<void> {
  if ((await exists(from)) && !(await exists(to))) await run(['mv', '--', from, to]);
}

export async function keepFile(path: string): Promise<KeptFile> {
  const found = await stat(path).catch(() => undefined);
  return found ? { content: await readFile(path, 'base64'), mode: found.mode & 0o777 } : null;
}

/** Makes a file again what it was; what it is now goes to `aside` first, so that nothing is lost. */
export async function restoreFile(path: string, before: KeptFile, aside: string): Promise<void> {
  const now = await keepFile(path);
  if (now?.content === before?.content && now?.mode === before?.mode) return;
  if (now) await writeFileAtomic(aside, Buffer.from(now.content, 'base64'), { mode: 0o600 });
  if (before) await writeFileAtomic(path, Buffer.from(before.content, 'base64'), { mode: before.mode });
  else await run(['rm', '-f', '--', path]);
}

const inside = (project: Project, paths: readonly string[]) =>
  paths.map((path) => relative(project.root, path)).filter((path) => !path.startsWith('..'));

/** Those of the paths that lie in this repository and that git does not know, relative to its root. */
export async function untrackedPaths(project: Project, paths: readonly string[]): Promise<string[]> {
  const own = inside(project, paths);
  if (own.length === 0) return [];
  const known = (await read(git(project.root, 'ls-files', '-z', '--', ...own))).split('\0');
  return own.filter((path) => !known.includes(path));
}

/** git's own list of what it must not see in this clone. */
export async function excludeFile({ root }: Project): Promise<string> {
  return join(root, await read(git(root, 'rev-parse', '--git-path', 'info/exclude'), { cwd: root }));
}

export async function excludePaths(project: Project, paths: readonly string[]): Promise<void> {
  const file = await excludeFile(project);
  const text = (await readIfPresent(file)) ?? '';
  const missing = paths.map((path) => `/${path}`).filter((line) => !text.split('\n').includes(line));
  if (missing.length === 0) return;
  await makeDirectory(dirname(file));
  const separator = text === '' || text.endsWith('\n') ? '' : '\n';
  await writeFileAtomic(file, `${text}${separator}${missing.join('\n')}\n`);
}

/**
 * Commits these paths as they are, and nothing else; returns the commit, or null if nothing had changed. Hooks are left
 * out, as for a release: they may ask, and nobody may be there.
 */
export async function commitFiles(
  project: Project,
  paths: readonly string[],
  message: string,
): Promise<string | null> {
  const { root } = project;
  const own = [...new Set(inside(project, paths))];
  const answer = await read(git(root, 'status', '--porcelain', '-z', '--no-renames', '--', ...own));
  const changed = answer.split('\0').flatMap((entry) => entry.slice(3) || []);
  if (changed.length === 0) return null;
  const env = await releaseIdentity(root);
  await run(git(root, 'add', '--all', '--', ...changed));
  const commit = ['-c', 'core.hooksPath=/dev/null', 'commit', '--quiet', '--only', '-m', message];
  await run(git(root, ...commit, '--', ...changed), { env });
  return read(git(root, 'rev-parse', 'HEAD'));
}
