// Is this a branch that is released, and is everything committed? Pure: what git said goes in, problems with
// their remedies come out.
import { TaskError } from '../errors.ts';
import type { WorkTree } from '../git.ts';
import type { Project } from '../project.ts';
import { isReleaseBranch } from './branches.ts';

export function workTreeProblems(project: Pick<Project, 'release'>, tree: WorkTree): TaskError[] {
  const problems: TaskError[] = [];
  const { branch, maintenance } = project.release;
  if (!tree.head) {
    problems.push(
      new TaskError('Cannot release: the repository has no commits', {
        code: 'no-commits',
        hint: 'commit first',
      }),
    );
  }
  if (!tree.branch || !isReleaseBranch(project, tree.branch)) {
    const others = maintenance.length > 0 ? `, older versions from ${maintenance.join(', ')}` : '';
    problems.push(
      new TaskError(
        `Cannot release from ${tree.branch ? `branch ${tree.branch}` : 'a detached HEAD'}: releases are made from ${branch}${others}`,
        {
          code: 'wrong-branch',
          hint: `git switch ${branch}, or set release.branch in configs/release.toml`,
        },
      ),
    );
  }
  if (tree.changes.length > 0) {
    const shown = tree.changes.slice(0, 5).join(', ');
    const more = tree.changes.length > 5 ? ` and ${tree.changes.length - 5} more` : '';
    problems.push(
      new TaskError(`Cannot release: uncommitted changes in ${shown}${more}`, {
        code: 'dirty-tree',
        hint: 'commit them, or put them aside: git stash --include-untracked',
      }),
    );
  }
  return problems;
}
