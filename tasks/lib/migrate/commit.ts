// Committing what the migration wrote, and nothing else: releases are made from a clean tree. Hooks and
// signing are left out, as for a release: they may ask, and nobody may be there.
import { probe, read, run } from '../command.ts';
import { git } from '../git.ts';
import type { Project } from '../project.ts';
import { releaseIdentity } from '../release/commit.ts';
import { session } from '../session.ts';

/** Commits these paths as they are; returns the commit, or null if they are committed already. */
export async function commitFiles(
  project: Project,
  paths: readonly string[],
  message: string,
): Promise<string | null> {
  const { root } = project;
  const changed = await changedPaths(root, paths);
  if (changed.length === 0) return null;
  const { env } = await releaseIdentity(root);
  const quiet = ['-c', 'commit.gpgSign=false', '-c', 'core.hooksPath=/dev/null'];
  await run(git(root, 'add', '--all', '--', ...changed));
  await run(git(root, ...quiet, 'commit', '--quiet', '--only', '-m', message, '--', ...changed), { env });
  return session.dryRun ? null : read(git(root, 'rev-parse', 'HEAD'));
}

/** Those that git would show as changed; ignored ones are none of its business. */
async function changedPaths(root: string, paths: readonly string[]): Promise<string[]> {
  const known = [...new Set(paths)];
  const answer = await probe(git(root, 'status', '--porcelain', '-z', '--no-renames', '--', ...known));
  const entries = answer.stdout.split('\0').filter(Boolean);
  return entries.map((entry) => entry.slice(3));
}
