// Carrying out the undoing of a release. Every step finds out by looking whether it was done already; the
// journal holds the plan until the end, so that the next run completes what a dying one began.
import { run } from '../command.ts';
import { inspectImage, tagImage, untagImage } from '../docker/images.ts';
import { pushImage } from '../docker/registry.ts';
import { git, isAncestor, NO_PROMPT, remoteState, resolveRevision } from '../git.ts';
import { uninterrupted } from '../interrupt.ts';
import { openJournal } from '../journal.ts';
import { log } from '../log.ts';
import { imageReference, type Project, registryReference } from '../project.ts';
import { session } from '../session.ts';
import { releaseIdentity, writeCommit } from './commit.ts';
import { updateRefs, updateWorkTree, verifyWorkTreeCanFollow } from './refs.ts';
import type { UndoPlan } from './undo.ts';

/** The plan with the commit that the branch goes to. */
export interface PreparedUndo extends UndoPlan {
  next: string;
}

export async function performUndo(project: Project, plan: UndoPlan): Promise<void> {
  const { root } = project;
  const next = plan.notes === undefined ? plan.parent : await notesCommit(project, plan, plan.notes);
  await verifyWorkTreeCanFollow(root, plan.head, next);
  await finishUndo(project, { ...plan, next });
}

async function notesCommit(project: Project, plan: UndoPlan, notes: string): Promise<string> {
  const { tag, commit, kind, head } = plan;
  const title = `chore(release): ${tag}`;
  const message =
    kind === 'remove'
      ? `Revert "${title}"\n\nThis reverts commit ${commit}.\n`
      : `chore(release): withdraw ${tag}\n`;
  return writeCommit(project.root, {
    parent: head,
    files: { [project.release.notes]: notes },
    message,
    identity: await releaseIdentity(project.root),
    date: new Date(),
  });
}

/** Does what is left of an undoing. */
export async function finishUndo(project: Project, undo: PreparedUndo): Promise<void> {
  const { root } = project;
  const journal = openJournal<PreparedUndo>(root, 'undo');
  await uninterrupted(async () => {
    await journal.record('started', undo);
    await moveLatest(project, undo);
    if (undo.kind === 'remove') await removeNames(project, undo.tag);
    await journal.record('images', undo);
    await moveBranch(project, undo);
    await journal.record('refs', undo);
    const isThere = session.dryRun || (await resolveRevision(root, 'HEAD')) === undo.next;
    if (isThere) await updateWorkTree(root, undo.head, undo.next);
    await journal.record('work-tree', undo);
  });
  if (undo.kind === 'withdraw') await publishWithdrawal(project, undo);
  await journal.close();
}

async function moveLatest(project: Project, { isLatest, successor }: UndoPlan): Promise<void> {
  if (!isLatest.local) return;
  const latest = imageReference(project, 'latest');
  const image = successor ? imageReference(project, successor) : undefined;
  if (image && (await inspectImage(image))) return tagImage(image, latest);
  log.warn(`no other release is on this machine: ${latest} loses its image (npm run build-push makes one)`);
  await untagImage(latest);
}

async function removeNames(project: Project, tag: string): Promise<void> {
  for (const reference of [registryReference(project, tag), imageReference(project, tag)]) {
    if (reference) await untagImage(reference);
  }
}

/** One transaction again: an unpublished tag goes together with its commit. */
async function moveBranch(project: Project, undo: PreparedUndo): Promise<void> {
  const { root } = project;
  const { kind, tag, tagObject, branch, head, next } = undo;
  const [at, tagged] = session.dryRun
    ? [head, tagObject]
    : await Promise.all([
        resolveRevision(root, `refs/heads/${branch}`),
        resolveRevision(root, `refs/tags/${tag}`),
      ]);
  const lines = [
    ...(at === head && next !== head ? [`update refs/heads/${branch} ${next} ${head}`] : []),
    ...(kind === 'remove' && tagged === tagObject ? [`delete refs/tags/${tag} ${tagObject}`] : []),
  ];
  if (lines.length > 0) await updateRefs(root, `release: undo ${tag}`, lines);
}

async function publishWithdrawal(project: Project, undo: PreparedUndo): Promise<void> {
  const { root, release } = project;
  const { branch, next, successor, isLatest } = undo;
  const latest = registryReference(project, 'latest');
  const image = successor ? imageReference(project, successor) : undefined;
  if (latest && isLatest.registry && image && (await inspectImage(image)))
    await pushImage(image, latest, { immutable: false });
  else if (isLatest.registry) log.warn(`${latest} still is ${undo.tag}: no other release is on this machine`);
  const tip = (await remoteState(root, release.remote)).branches.get(branch);
  if (!session.dryRun && tip && (await isAncestor(root, next, tip))) return;
  const push = git(
    root,
    'push',
    '--atomic',
    '--no-follow-tags',
    release.remote,
    `${next}:refs/heads/${branch}`,
  );
  await run(push, { env: NO_PROMPT });
}
