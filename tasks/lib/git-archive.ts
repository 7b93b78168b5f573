// The files of a commit as they were committed, for what must not depend on the working directory.
import { join } from 'node:path';
import { run } from './command.ts';
import { makeDirectory } from './files.ts';
import { git } from './git.ts';

/** Writes a commit's tree below `directory`, with `git archive`: never the working directory's files. */
export async function exportTree(root: string, commit: string, directory: string): Promise<string> {
  const tree = join(directory, 'tree');
  const archive = join(directory, 'tree.tar');
  await makeDirectory(tree);
  // A fixed umask gives the same modes, and so the same layers, on every machine.
  await run(git(root, '-c', 'tar.umask=0022', 'archive', '--format=tar', `--output=${archive}`, commit));
  await run(['tar', '--extract', '--preserve-permissions', '--no-same-owner', '-f', archive, '-C', tree]);
  return tree;
}
