// The git remote: what it has, whether it would take a push, and publishing a branch, with its release tag or alone. One
// atomic push of explicit refs, never --tags. What others pushed in the meantime a person merges: the released commit is
// bound to its image and cannot be rebased.

import { type Command, read, run } from '../command.ts';
import { CommandError, lastLines, TaskError } from '../errors.ts';
import {
  git,
  hasObject,
  isAncestor,
  REMOTE_ENVIRONMENT,
  type RemoteState,
  remoteState,
  remoteUrl,
  resolveRevision,
  shortHash,
} from '../git.ts';
import { log } from '../log.ts';
import type { Project } from '../project.ts';
import type { VersionTag } from './version.ts';

/**
 * What the remote has; undefined without a remote. One that does not respond is only a warning without --push.
 * @throws TaskError with `push`
 */
export async function queryRemote(
  { root, release: { remote } }: Project,
  push: boolean,
): Promise<RemoteState | undefined> {
  try {
    return await remoteState(root, remote);
  } catch (cause) {
    if (cause instanceof TaskError && cause.code === 'interrupted') throw cause;
    const isConfigured = (await remoteUrl(root, remote)) !== undefined;
    if (push && !isConfigured) {
      throw new TaskError(`Cannot push: there is no git remote named ${remote}`, {
        code: 'no-remote',
        hint: `git remote add ${remote} URL, or set release.remote in configs/release.toml`,
      });
    }
    if (push) {
      throw new TaskError(`Cannot push: ${remote} did not respond: ${(cause as Error).message}`, {
        code: 'remote-unreachable',
        hint: `try it: git ls-remote ${remote}; or release without --push and publish later`,
        cause,
      });
    }
    if (isConfigured) log.warn(`${remote} did not respond; only local tags are checked`);
    log.detail(String(cause));
    return undefined;
  }
}

/** @throws TaskError if the remote's branch has commits that HEAD does not contain. `what`: e.g. `Cannot release` */
export async function verifyNotBehind(
  { root, release: { remote } }: Project,
  what: string,
  { head, branch }: { head: string; branch: string },
  { branches }: RemoteState,
): Promise<void> {
  const theirs = branches.get(branch);
  if (!theirs || theirs === head || (await isAncestor(root, theirs, head))) return;
  throw new TaskError(
    `${what}: ${remote}/${branch} is at ${shortHash(theirs)}, which ${branch} does not contain`,
    {
      code: 'behind-remote',
      hint: `git pull --no-rebase ${remote} ${branch}`,
    },
  );
}

/** Version tags that name one commit here and another one there. Pure. */
export function movedTags(project: Project, tags: readonly VersionTag[], remote: RemoteState): TaskError[] {
  return tags.flatMap(({ name, commit }) => {
    const theirs = remote.tags.get(name);
    return theirs !== undefined && theirs !== commit ? [tagDiffers(project, name, commit, theirs)] : [];
  });
}

/** The tag on one commit here and on another there. */
function tagDiffers({ release: { remote } }: Project, tag: string, here: string, there: string): TaskError {
  return new TaskError(
    `The tag ${tag} is at ${shortHash(here)} here and at ${shortHash(there)} on ${remote}: one of them was moved`,
    {
      code: 'tag-differs',
      hint: `find out which is right; to use the remote's: git tag --delete ${tag} && git fetch ${remote} tag ${tag}`,
    },
  );
}

/** Asks the remote whether it would take this push, without pushing. @throws TaskError */
export async function verifyPushAccess(project: Project, branch: string): Promise<void> {
  const { remote } = project.release;
  const refs = [`HEAD:refs/heads/${branch}`];
  const ask = (command: Command) => read(command, { env: REMOTE_ENVIRONMENT, timeoutMs: 60_000 });
  try {
    await pushRefs(project, refs, ask, '--dry-run', '--no-verify', '--porcelain');
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    // What git advises is for a person who types the push; the remedy here is another.
    const reason = (error.stderr.trim() || error.stdout.trim()).replace(/^hint: .*\n?/gm, '').trim();
    throw new TaskError(`Cannot push to ${remote}: ${reason}`, {
      code: 'no-push-access',
      hint: `try it: git push --dry-run ${remote} ${refs}`,
    });
  }
}

/** Together if the remote can do that, else the branch first: the next run finds out what is missing. */
async function pushRefs(
  { root, release: { remote } }: Project,
  refs: readonly string[],
  act: (command: Command) => Promise<unknown>,
  ...flags: string[]
): Promise<void> {
  const plain = ['--no-follow-tags', ...flags, remote];
  const push = (...argv: string[]) => act(git(root, 'push', ...argv));
  try {
    await push('--atomic', ...plain, ...refs);
  } catch (error) {
    if (!/does not support --atomic/.test((error as Error).message)) throw error;
    log.info(`${remote} does not support atomic pushes: pushing the branch first, then the tag`);
    for (const ref of refs) await push(...plain, ref);
  }
}

interface Publication {
  branch: string;
  /** What the remote shall have. */
  commit: string;
  /** The tag that names it; undefined: the branch alone. */
  tag: string | undefined;
  /** What it is, in words. */
  what: string;
}

/** @throws TaskError if the remote has the tag on another commit, commits that are not here, or refuses the push */
export async function publish(project: Project, publication: Publication): Promise<void> {
  const { root, release } = project;
  const { branch, commit, tag, what } = publication;
  const { tags, branches } = await remoteState(root, release.remote);
  const tagged = tag && tags.get(tag);
  if (tagged && tagged !== commit) throw tagDiffers(project, tag, commit, tagged);
  const source = await pushableCommit(project, publication, branches.get(branch));
  const refs = [
    ...(source ? [`${source}:refs/heads/${branch}`] : []),
    ...(tag && !tagged ? [`refs/tags/${tag}:refs/tags/${tag}`] : []),
  ];
  if (refs.length === 0) return;
  try {
    await pushRefs(project, refs, (command) => run(command, { env: REMOTE_ENVIRONMENT }));
  } catch (cause) {
    if (!(cause instanceof CommandError)) throw cause;
    // A hook may have written the reason to either of the two.
    const said = lastLines(`${cause.stdout.trimEnd()}\n${cause.stderr}`.trim(), 40);
    const undo = tag ? `\nTo undo the release instead: npm run release -- --undo ${tag}` : '';
    throw new TaskError(`${what} on this machine, but ${release.remote} rejected the push:\n${said}`, {
      code: 'push-rejected',
      hint: `once that is settled, run: npm run release   (it pushes ${branch}${tag ? ` and ${tag}` : ''} and resumes from there)${undo}`,
      cause,
    });
  }
}

/**
 * What the remote's branch shall become: the commit, or the branch where that has what others pushed meanwhile (`tip`).
 * Undefined where it has the commit already. @throws TaskError if a person has to merge first
 */
async function pushableCommit(project: Project, publication: Publication, tip: string | undefined) {
  const { root, release } = project;
  const { branch, commit, what } = publication;
  // The commit of a dry run is only a placeholder.
  if (!tip || commit.startsWith('<') || (await isAncestor(root, tip, commit))) return commit;
  if (!(await hasObject(root, tip))) {
    const fetch = git(root, 'fetch', '--quiet', '--no-tags', release.remote, `refs/heads/${branch}`);
    await run(fetch, { env: REMOTE_ENVIRONMENT });
  }
  if (await isAncestor(root, commit, tip)) return undefined;
  const ours = (await resolveRevision(root, `refs/heads/${branch}`)) ?? commit;
  if (await isAncestor(root, tip, ours)) return ours;
  throw new TaskError(`${what} on this machine, but ${release.remote}/${branch} has new commits`, {
    code: 'push-rejected',
    hint: `git pull --no-rebase ${release.remote} ${branch} (never --rebase: the released commit must stay), then: npm run release`,
  });
}
