// What the git remote has to say before a release: what it has, whether it is ahead, whether a tag was moved,
// whether it would take a push. Without --push a remote that does not answer is only a warning.
import { probe } from '../command.ts';
import { TaskError } from '../errors.ts';
import { type GitTag, git, hasRemote, isAncestor, NO_PROMPT, type RemoteState, remoteState } from '../git.ts';
import { log } from '../log.ts';
import type { Project } from '../project.ts';
import { parseTag } from '../version/version-tags.ts';
import { tagDiffers } from './publish.ts';

/** undefined when there is no remote, or it does not answer. @throws TaskError with `push` */
export async function askRemote(project: Project, push: boolean): Promise<RemoteState | undefined> {
  const { remote } = project.release;
  if (!(await hasRemote(project.root, remote))) {
    if (push) throw noRemote(remote);
    log.detail(`no git remote named ${remote}: only local tags are looked at`);
    return undefined;
  }
  try {
    return await remoteState(project.root, remote);
  } catch (error) {
    if (error instanceof TaskError && error.code === 'interrupted') throw error;
    if (push) throw silentRemote(remote, error);
    log.warn(`${remote} does not answer; only local tags are looked at`);
    log.detail(String(error));
    return undefined;
  }
}

function noRemote(remote: string): TaskError {
  return new TaskError(`Cannot push: there is no git remote named ${remote}`, {
    code: 'no-remote',
    hint: `git remote add ${remote} URL, or set release.remote in configs/release.toml`,
  });
}

function silentRemote(remote: string, cause: unknown): TaskError {
  return new TaskError(`Cannot push: ${remote} does not answer: ${(cause as Error).message}`, {
    code: 'remote-unreachable',
    hint: `try it: git ls-remote ${remote}; or release without --push and publish later`,
    cause,
  });
}

/** @throws TaskError if the remote's branch has commits that HEAD does not contain */
export async function verifyNotBehind(
  project: Project,
  { head, branch }: { head: string; branch: string },
  remote: RemoteState,
): Promise<void> {
  const { remote: name } = project.release;
  const theirs = remote.branches.get(branch);
  if (!theirs || theirs === head || (await isAncestor(project.root, theirs, head))) return;
  throw new TaskError(
    `Cannot release: ${name}/${branch} is at ${theirs.slice(0, 7)}, which ${branch} does not contain`,
    {
      code: 'behind-remote',
      hint: `git pull --no-rebase ${name} ${branch}`,
    },
  );
}

/** Version tags that name one commit here and another one there. Pure. */
export function movedTags(project: Project, tags: readonly GitTag[], remote: RemoteState): TaskError[] {
  return tags.flatMap(({ name, commit }) => {
    const theirs = remote.tags.get(name);
    const isMoved = theirs !== undefined && theirs !== commit && parseTag(project.release.tag_prefix, name);
    return isMoved ? [tagDiffers(project, name, commit, theirs)] : [];
  });
}

/** Asks the remote whether it would take this push, without pushing. @throws TaskError */
export async function verifyPushAccess(project: Project, branch: string): Promise<void> {
  const { root, release } = project;
  const push = git(
    root,
    'push',
    '--dry-run',
    '--no-verify',
    '--porcelain',
    release.remote,
    `HEAD:refs/heads/${branch}`,
  );
  const answer = await probe(push, { env: NO_PROMPT, timeoutMs: 60_000 });
  if (answer.ok) return;
  // What git advises is for a person who types the push; the remedy here is another.
  const reason = (answer.stderr.trim() || answer.stdout.trim()).replace(/^hint: .*\n?/gm, '').trim();
  throw new TaskError(`Cannot push to ${release.remote}: ${reason}`, {
    code: 'no-push-access',
    hint: `see what it says: git push --dry-run ${release.remote} HEAD:refs/heads/${branch}`,
  });
}
