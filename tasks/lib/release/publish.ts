// Publishing branch and tag: one atomic push of explicit refs, never --tags. If somebody else pushed in the
// meantime, their commits are merged: the released commit itself is bound to its image and cannot be rebased.

import { probe, read, run } from '../command.ts';
import { TaskError } from '../errors.ts';
import { git, isAncestor, NO_PROMPT, remoteState, resolveRevision, shortHash } from '../git.ts';
import { log } from '../log.ts';
import type { Project } from '../project.ts';
import { session } from '../session.ts';
import { releaseIdentity, updateRefs, updateWorkTree, verifyWorkTreeCanFollow } from './git-write.ts';
import { tagDiffers } from './preflight.ts';
import type { PreparedRelease } from './record.ts';

/** Makes the merge known to the journal before a ref moves to it. */
export type RecordMerge = (merge: { from: string; to: string }) => Promise<void>;

const ATTEMPTS = 3;

/** @throws TaskError if the remote has the tag on another commit, refuses the push or does not answer */
export async function publishRefs(
  project: Project,
  prepared: PreparedRelease,
  recordMerge: RecordMerge,
): Promise<void> {
  const { remote } = project.release;
  if (session.dryRun) return pushRefs(project, prepared, prepared.commit);
  for (let attempt = 1; ; attempt += 1) {
    const state = await remoteState(project.root, remote);
    const tagged = state.tags.get(prepared.tag);
    if (tagged && tagged !== prepared.commit)
      throw tagDiffers(project, prepared.tag, prepared.commit, tagged);
    const tip = state.branches.get(prepared.branch);
    const isContained = tip !== undefined && (await isAncestor(project.root, prepared.commit, tip));
    if (tagged && isContained) return;
    try {
      const source = isContained ? undefined : await pushableCommit(project, prepared, tip, recordMerge);
      return await pushRefs(project, prepared, source);
    } catch (error) {
      const others = /fetch first|non-fast-forward|failed to update ref|cannot lock ref|stale info/;
      if (attempt >= ATTEMPTS || !others.test((error as Error).message))
        throw rejected(project, prepared, error);
      log.warn(`${remote} got commits at this very moment; trying again`);
    }
  }
}

async function pushRefs(project: Project, { tag, branch }: PreparedRelease, source: string | undefined) {
  const { root, release } = project;
  const refs = [...(source ? [`${source}:refs/heads/${branch}`] : []), `refs/tags/${tag}:refs/tags/${tag}`];
  await run(git(root, 'push', '--atomic', '--no-follow-tags', release.remote, ...refs), { env: NO_PROMPT });
}

function rejected(project: Project, { tag, branch }: PreparedRelease, error: unknown): unknown {
  if (error instanceof TaskError && error.code !== 'command-failed') return error;
  return new TaskError(
    `${tag} is made on this machine, but ${project.release.remote} did not take it: ${(error as Error).message}`,
    {
      code: 'push-rejected',
      hint: `once that is settled, run the release again: it pushes ${branch} and ${tag} and goes on from there.\nTo take the release back instead: npm run release -- --undo ${tag}`,
      cause: error,
    },
  );
}

/** The release commit if the remote's branch can simply follow to it, else a commit that also has theirs. */
async function pushableCommit(
  project: Project,
  { branch, commit, tag }: PreparedRelease,
  tip: string | undefined,
  recordMerge: RecordMerge,
): Promise<string> {
  const { root, release } = project;
  if (!tip || (await isAncestor(root, tip, commit))) return commit;
  const ours = (await resolveRevision(root, `refs/heads/${branch}`)) ?? commit;
  if (await isAncestor(root, tip, ours)) return ours;
  log.step(`merge what ${release.remote}/${branch} got meanwhile (${shortHash(tip)})`);
  await run(git(root, 'fetch', '--quiet', '--no-tags', release.remote, `refs/heads/${branch}`), {
    env: NO_PROMPT,
  });
  const to = await mergeCommit(project, ours, tip, `Merge ${release.remote}/${branch} after ${tag}\n`);
  const isCheckedOut =
    (await read(git(root, 'symbolic-ref', '--quiet', 'HEAD'), { okExitCodes: [1] })) ===
    `refs/heads/${branch}`;
  if (isCheckedOut) await verifyWorkTreeCanFollow(root, ours, to);
  await recordMerge({ from: ours, to });
  await updateRefs(root, `release: ${tag}`, [`update refs/heads/${branch} ${to} ${ours}`]);
  if (isCheckedOut) await updateWorkTree(root, ours, to);
  return to;
}

/** Merges two commits without touching the work tree. @throws TaskError on a conflict */
async function mergeCommit(project: Project, ours: string, theirs: string, message: string) {
  const { root, release } = project;
  const merged = await probe(git(root, 'merge-tree', '--write-tree', ours, theirs));
  if (!merged.ok) {
    throw new TaskError(
      `${release.remote} got commits meanwhile that conflict with ours:\n${merged.stdout.trim().split('\n').slice(1).join('\n')}`,
      {
        code: 'merge-conflict',
        hint: `git pull --no-rebase ${release.remote} (never --rebase: the released commit must stay), then run the release again`,
      },
    );
  }
  const tree = merged.stdout.split('\n')[0] ?? '';
  const { env } = await releaseIdentity(root);
  const argv = git(root, 'commit-tree', tree, '-p', ours, '-p', theirs, '-F', '-');
  return run(argv, { env, input: message });
}
