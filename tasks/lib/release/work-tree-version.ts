// How an image that was built from the working tree names itself: which release it follows, how far it is
// from it, and whether it holds changes that no commit has.
import { read } from '../command.ts';
import { TaskError } from '../errors.ts';
import { commitTime, git, localTags, workTree } from '../git.ts';
import type { Project } from '../project.ts';
import { knownTags } from '../version/version-tags.ts';

export interface WorkTreeIdentity {
  /** `1.2.0` exactly at a release, else `1.2.0+3.gabc1234`, with `.dirty` for uncommitted changes. */
  version: string;
  /** The commit, with `-dirty` for uncommitted changes. */
  revision: string;
  /** Seconds since 1970 of the commit. */
  epoch: number;
}

/** Pure: semver build metadata says "after this version" without claiming to be a later one. */
export function workTreeVersion(
  base: string | undefined,
  commits: number,
  head: string,
  dirty: boolean,
): string {
  const parts = commits > 0 || !base ? [String(commits), `g${head.slice(0, 7)}`] : [];
  if (dirty) parts.push('dirty');
  return `${base ?? '0.0.0'}${parts.length > 0 ? `+${parts.join('.')}` : ''}`;
}

/** @throws TaskError before the first commit */
export async function workTreeIdentity(project: Project): Promise<WorkTreeIdentity> {
  const { head, changes } = await workTree(project.root);
  if (!head) {
    throw new TaskError('Cannot build: the repository has no commits, so the image would have no revision', {
      code: 'no-commits',
      hint: 'git add --all && git commit -m "First commit"',
    });
  }
  const tags = (await localTags(project.root)).filter((tag) => tag.merged);
  const [latest] = knownTags(tags, project.release.tag_prefix);
  const range = latest ? `refs/tags/${latest.name}..HEAD` : 'HEAD';
  const commits = Number(await read(git(project.root, 'rev-list', '--count', range)));
  const dirty = changes.length > 0;
  return {
    version: workTreeVersion(latest?.version, commits, head, dirty),
    revision: dirty ? `${head}-dirty` : head,
    epoch: await commitTime(project.root, head),
  };
}
