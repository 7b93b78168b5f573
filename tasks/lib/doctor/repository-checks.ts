// Is the repository in a state to release from?
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { read } from '../command.ts';
import { isShallow, shortHash, workTree } from '../git.ts';
import { type Check, type Finding, failed, gather, warning, when } from './check.ts';
import type { Facts } from './facts.ts';

/** What git leaves in its directory while something waits for a person. */
const UNFINISHED: [file: string, what: string, abort: string][] = [
  ['MERGE_HEAD', 'a merge', 'git merge --abort'],
  ['rebase-merge', 'a rebase', 'git rebase --abort'],
  ['rebase-apply', 'a rebase', 'git rebase --abort'],
  ['CHERRY_PICK_HEAD', 'a cherry-pick', 'git cherry-pick --abort'],
  ['REVERT_HEAD', 'a revert', 'git revert --abort'],
  ['BISECT_LOG', 'a bisect', 'git bisect reset'],
];

async function git({ project: { root, release } }: Facts): Promise<Finding> {
  const { changes, head, branch } = await workTree(root);
  const directory = await read(['git', '-C', root, 'rev-parse', '--absolute-git-dir']);
  const unfinished = UNFINISHED.filter(([file]) => existsSync(join(directory, file)));
  const problems = [
    ...unfinished.map(([, what, abort]) => failed(`${what} is not finished`, `finish it, or: ${abort}`)),
    ...when(await isShallow(root), () =>
      failed('a shallow clone: versions and notes need the whole history', 'git fetch --unshallow --tags'),
    ),
    ...when(!head, () => failed('there is no commit yet', 'git add --all && git commit')),
    ...when(changes.length > 0, () =>
      warning(`${changes.length} uncommitted: a release refuses that`, 'git status; commit, or git stash'),
    ),
    ...when(branch !== release.branch, () =>
      warning(
        `${branch ?? 'no branch'} is checked out, releases come from ${release.branch}`,
        `git switch ${release.branch}`,
      ),
    ),
  ];
  return gather(problems, `${branch} at ${shortHash(head ?? '')}, nothing uncommitted`);
}

export const REPOSITORY_CHECKS: readonly Check[] = [
  { id: 'git', withoutDotenv: true, title: 'git', run: git },
];
