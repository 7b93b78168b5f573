// The git remote: what it has, whether it would take a push, and publishing a branch, with its release tag or alone. One
// atomic push of explicit refs, never --tags. What others pushed in the meantime a person merges: the released commit is
// bound to its image and cannot be rebased.

import { probe, run } from '../command.ts';
import { CommandError, lastLines, TaskError } from '../errors.ts';
import {
  type GitTag,
  git,
  hasObject,
  isAncestor,
  type RemoteState,
  remoteEnvironment,
  remoteState,
  remoteUrl,
  resolveRevision,
  shortHash,
} from '../git.ts';
import { log } from '../log.ts';
import type { Project } from '../project.ts';
import { parseTag } from './version.ts';

/**
 * What the remote has; undefined without a remote. One that does not respond is only a warning without --push.
 * @throws TaskError with `push`
 */
export async function queryRemote(project: Project, push: boolean): Promise<RemoteState | undefined> {
  const { remote } = project.release;
  if ((await remoteUrl(project.root, remote)) === undefined) {
    if (push) throw noRemote(remote);
    log.detail(`no git remote named ${remote}: only local tags are checked`);
    return undefined;
  }
  try {
    return await remoteState(project.root, remote);
  } catch (error) {
    if (error instanceof TaskError && error.code === 'interrupted') throw error;
    if (push) throw silentRemote(remote, error);
    log.warn(`${remote} did not respond; only local tags are checked`);
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
  return new TaskError(`Cannot push: ${remote} did not respond: ${(cause as Error).message}`, {
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
  const options = { env: await remoteEnvironment(root), timeoutMs: 60_000 };
  const trial = ['push', '--dry-run', '--no-verify', '--porcelain'];
  const to = [release.remote, `HEAD:refs/heads/${branch}`];
  const atomic = await probe(git(root, ...trial, '--atomic', ...to), options);
  const isUnable = !atomic.ok && NO_ATOMIC.test(atomic.stderr);
  if (isUnable)
    log.info(`${release.remote} does not support atomic pushes: pushing the branch first, then the tag`);
  const answer = isUnable ? await probe(git(root, ...trial, ...to), options) : atomic;
  if (answer.ok) return;
  // What git advises is for a person who types the push; the remedy here is another.
  const reason = (answer.stderr.trim() || answer.stdout.trim()).replace(/^hint: .*\n?/gm, '').trim();
  throw new TaskError(`Cannot push to ${release.remote}: ${reason}`, {
    code: 'no-push-access',
    hint: `try it: git push --dry-run ${release.remote} HEAD:refs/heads/${branch}`,
  });
}

/** The tag on one commit here and on another there. */
export function tagDiffers(project: Project, tag: string, here: string, there: string): TaskError {
  const { remote } = project.release;
  return new TaskError(
    `The tag ${tag} is at ${shortHash(here)} here and at ${shortHash(there)} on ${remote}: one of them was moved`,
    {
      code: 'tag-differs',
      hint: `find out which is right; to use the remote's: git tag --delete ${tag} && git fetch ${remote} tag ${tag}`,
    },
  );
}

interface Publication {
  branch: string;
  /** The branch's commit before, and the one that the remote shall have. */
  from: string;
  commit: string;
  /** The tag that names it; undefined: the branch alone. */
  tag: string | undefined;
  /** What it is, in words. */
  what: string;
}

const NO_ATOMIC = /does not support --atomic/;

/** @throws TaskError if the remote has the tag on another commit, commits that are not here, or refuses the push */
export async function publish(project: Project, publication: Publication): Promise<void> {
  const { root, release } = project;
  const { branch, commit, tag } = publication;
  const state = await remoteState(root, release.remote);
  const tagged = tag === undefined ? commit : state.tags.get(tag);
  if (tag && tagged && tagged !== commit) throw tagDiffers(project, tag, commit, tagged);
  const source = await pushableCommit(project, publication, state.branches.get(branch));
  const refs = [
    ...(source ? [`${source}:refs/heads/${branch}`] : []),
    ...(tag && !tagged ? [`refs/tags/${tag}:refs/tags/${tag}`] : []),
  ];
  try {
    if (refs.length > 0) await pushRefs(project, refs);
  } catch (error) {
    throw rejected(project, publication, error);
  }
}

/** Together if the remote can do that, else the branch first: the next run finds out what is missing. */
async function pushRefs(project: Project, refs: readonly string[]): Promise<void> {
  const { root, release } = project;
  const env = await remoteEnvironment(root);
  const push = (...argv: string[]) => run(git(root, 'push', ...argv), { env });
  const plain = ['--no-follow-tags', release.remote];
  try {
    await push('--atomic', ...plain, ...refs);
  } catch (error) {
    if (!NO_ATOMIC.test((error as Error).message)) throw error;
    log.detail(`${release.remote} does not support atomic pushes: pushing the branch first, then the tag`);
    for (const ref of refs) await push(...plain, ref);
  }
}

function rejected(project: Project, { branch, tag, what }: Publication, error: unknown): unknown {
  if (!(error instanceof CommandError)) return error;
  // A hook may have written the reason to either of the two.
  const said = lastLines(`${error.stdout.trimEnd()}\n${error.stderr}`.trim(), 40);
  const undo = tag ? `\nTo undo the release instead: npm run release -- --undo ${tag}` : '';
  return new TaskError(`${what} on this machine, but ${project.release.remote} rejected the push:\n${said}`, {
    code: 'push-rejected',
    hint: `once that is settled, run: npm run release   (it pushes ${branch}${tag ? ` and ${tag}` : ''} and resumes from there)${undo}`,
    cause: error,
  });
}

/**
 * What the remote's branch shall become: the commit, or the branch where that has what others pushed meanwhile (`tip`).
 * Undefined where it has the commit already. @throws TaskError if a person has to merge first
 */
async function pushableCommit(project: Project, publication: Publication, tip: string | undefined) {
  const { root, release } = project;
  const { branch, from, commit, what } = publication;
  if (!tip || tip === from || (await isAncestor(root, tip, from))) return commit;
  if (!(await hasObject(root, tip))) {
    const fetch = git(root, 'fetch', '--quiet', '--no-tags', release.remote, `refs/heads/${branch}`);
    await run(fetch, { env: await remoteEnvironment(root) });
  }
  if (await isAncestor(root, commit, tip)) return undefined;
  const ours = (await resolveRevision(root, `refs/heads/${branch}`)) ?? commit;
  if (await isAncestor(root, tip, ours)) return ours;
  throw new TaskError(`${what} on this machine, but ${release.remote}/${branch} has new commits`, {
    code: 'push-rejected',
    hint: `git pull --no-rebase ${release.remote} ${branch} (never --rebase: the released commit must stay), then: npm run release`,
  });
}
