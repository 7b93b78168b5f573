// Taking a release back, worked out before anything is touched. What nobody else can have seen is removed
// exactly; what was published is never deleted, only marked withdrawn, and what floats moves back.

import { join } from 'node:path';
import { run } from '../command.ts';
import { inspectImage, tagImage, untagImage } from '../docker/objects.ts';
import { pushImage, registryDigest } from '../docker/registry.ts';
import { updateDotenv } from '../dotenv.ts';
import { combinedError, TaskError } from '../errors.ts';
import { readIfPresent } from '../files.ts';
import {
  fileAt,
  git,
  hasRemote,
  isAncestor,
  NO_PROMPT,
  remoteState,
  resolveRevision,
  shortHash,
  workTree,
} from '../git.ts';
import { withHistory } from '../history.ts';
import { withLock } from '../lock.ts';
import { log } from '../log.ts';
import { openJournal } from '../old-journal.ts';
import { imageReference, type Project, registryReference, variable, variableName } from '../project.ts';
import { session, uninterrupted } from '../session.ts';
import { runOtherTask } from '../task.ts';
import {
  releaseIdentity,
  updateRefs,
  updateWorkTree,
  verifyWorkTreeCanFollow,
  writeCommit,
} from './git-write.ts';
import { withdrawEntry, withoutInsertion } from './notes.ts';
import { NEW_NOTES } from './plan.ts';
import { workTreeProblems } from './preflight.ts';
import { readRelease, releasedDigests, releasesToRun } from './record.ts';

export interface UndoPlan {
  kind: 'remove' | 'withdraw';
  tag: string;
  tagObject: string;
  /** The release commit and the one before it. */
  commit: string;
  parent: string;
  branch: string;
  /** Where the branch is now. */
  head: string;
  /** The notes file of the commit that follows; undefined: the branch goes back to `parent`. */
  notes: string | undefined;
  /** The release that `latest` and the environments go back to. */
  successor: string | undefined;
  /** `latest` is this release's image here, or in the registry. */
  isLatest: { local: boolean; registry: boolean };
  /** .env names it as what prod runs. */
  isProd: boolean;
}

/** @throws TaskError if it cannot be told who has seen the release, or undoing would touch others' work */
export async function planUndo(project: Project, tag: string): Promise<UndoPlan> {
  const { root } = project;
  const [tagObject, commit, record, tree] = await Promise.all([
    resolveRevision(root, `refs/tags/${tag}`),
    resolveRevision(root, `refs/tags/${tag}^{commit}`),
    readRelease(root, tag),
    workTree(root),
  ]);
  if (!tagObject || !commit || !record) throw notHere(tag);
  const parent = await resolveRevision(root, `${commit}^`);
  const { head, branch } = tree;
  const problems = workTreeProblems(project, tree);
  if (head && !(await isAncestor(root, commit, head))) problems.push(elsewhere(tag, commit, branch));
  const isProd = variable(project, 'PROD_TAG') === tag;
  const successor = (await releasesToRun(project)).find((name) => name !== tag);
  if (isProd && !successor) problems.push(noSuccessor(tag));
  if (problems.length > 0 || !head || !branch || !parent)
    throw combinedError(`Cannot undo ${tag}: ${problems.length} things stand in the way`, problems);
  const seen = await seenByOthers(project, { tag, commit, branch });
  const kind = seen.tag || seen.image ? 'withdraw' : 'remove';
  const goesBack = kind === 'remove' && head === commit && !seen.commit;
  const names = { kind, tag, tagObject, commit, parent, branch, head, successor, isProd } as const;
  const notes = goesBack ? undefined : await notesAfter(project, names);
  return { ...names, notes, isLatest: await isLatest(project, releasedDigests(record)) };
}

interface Release {
  tag: string;
  commit: string;
  branch: string;
}

/** @throws TaskError when remote or registry do not answer: then nobody knows who has it */
async function seenByOthers(project: Project, { tag, commit, branch }: Release) {
  const { root, release } = project;
  const remote = (await hasRemote(root, release.remote))
    ? await remoteState(root, release.remote)
    : undefined;
  const reference = registryReference(project, tag);
  const tip = remote?.branches.get(branch);
  return {
    tag: remote?.tags.has(tag) ?? false,
    image: reference !== undefined && (await registryDigest(reference)) !== undefined,
    commit: tip !== undefined && (await isAncestor(root, commit, tip)),
  };
}

async function isLatest(project: Project, digests: string[]): Promise<UndoPlan['isLatest']> {
  const reference = registryReference(project, 'latest');
  const [local, registry] = [
    await inspectImage(imageReference(project, 'latest')),
    reference ? await registryDigest(reference) : undefined,
  ];
  const isOne = (id: string | undefined) => id !== undefined && digests.includes(id);
  return { local: isOne(local?.id), registry: isOne(registry) };
}

/** The notes without the entry, or with the mark that it is withdrawn. */
async function notesAfter(
  project: Project,
  {
    kind,
    tag,
    commit,
    parent,
    successor,
  }: Pick<UndoPlan, 'kind' | 'tag' | 'commit' | 'parent' | 'successor'>,
): Promise<string> {
  const path = project.release.notes;
  const present = (await readIfPresent(join(project.root, path))) ?? '';
  if (kind === 'withdraw') {
    return withdrawEntry(present, tag, `do not use it${successor ? `; use ${successor}` : ''}`);
  }
  const before = (await fileAt(project.root, parent, path)) ?? NEW_NOTES;
  const after = (await fileAt(project.root, commit, path)) ?? '';
  const text = withoutInsertion(present, before, after);
  if (text !== undefined) return text;
  throw new TaskError(`Cannot undo ${tag}: its entry in ${path} was edited after the release`, {
    code: 'notes-edited',
    hint: `take the entry out yourself and commit that; then: npm run release -- --undo ${tag}`,
  });
}

function notHere(tag: string): TaskError {
  return new TaskError(`Cannot undo ${tag}: it is not a release of this project`, {
    code: 'not-released',
    hint: 'see the releases: git tag --list; fetch them: git fetch --tags',
  });
}

function elsewhere(tag: string, commit: string, branch: string | undefined): TaskError {
  return new TaskError(`Cannot undo ${tag}: its commit ${shortHash(commit)} is not in ${branch ?? 'HEAD'}`, {
    code: 'wrong-branch',
    hint: `git branch --contains ${shortHash(commit)} tells where it is; git switch there`,
  });
}

function noSuccessor(tag: string): TaskError {
  return new TaskError(`Cannot undo ${tag}: prod runs it and there is no other release to go back to`, {
    code: 'no-successor',
    hint: 'stop prod first: npm run switch -- none, and take the tag out of .env',
  });
}

// Carrying out the undoing of a release. Every step finds out by looking whether it was done already; the
// journal holds the plan until the end, so that the next run completes what a dying one began.

/** The plan with the commit that the branch goes to. */
export interface PreparedUndo extends UndoPlan {
  next: string;
}

async function performUndo(project: Project, plan: UndoPlan): Promise<void> {
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

// Undoing a release that may be running: prod goes back first, dev once `latest` is another image. Both by the
// switch task itself, as a person would, with its own lock and its own proof of health.

/** Before the release goes: prod must not lose its image. Not to be called with the lock held. */
async function moveProdBack(project: Project, { isProd, successor }: UndoPlan): Promise<void> {
  if (!isProd || !successor) return;
  const active = variable(project, 'ACTIVE_ENV');
  if (active === 'prod' || active === 'both')
    await runOtherTask(project, 'switch-env', active, '--version', successor);
  else await updateDotenv(project.root, { [variableName(project, 'PROD_TAG')]: successor });
}

/** Once `latest` is another image again: dev follows it. Not to be called with the lock held. */
async function moveDevBack(project: Project, { isLatest, successor }: UndoPlan): Promise<void> {
  const active = variable(project, 'ACTIVE_ENV');
  if (!isLatest.local || !successor || (active !== 'dev' && active !== 'both')) return;
  await runOtherTask(project, 'switch-env', active);
}

/** Takes the release back and what runs it. Not to be called with the lock held. */
export async function takeBack(project: Project, plan: UndoPlan): Promise<void> {
  const { tag, successor = null } = plan;
  await moveProdBack(project, plan);
  // Planned again under the lock: between the question and the answer anything may have happened.
  await withLock(project.root, 'release', () =>
    withHistory(project.root, 'undo', { from: tag, to: successor }, async () =>
      performUndo(project, await planUndo(project, tag)),
    ),
  );
  await moveDevBack(project, plan);
}

/** The plan of an undoing in words. */
export function describeUndo(project: Project, plan: UndoPlan): string {
  const { tag, kind, successor, branch, parent } = plan;
  const { notes } = project.release;
  const goesTo = successor ?? 'nothing';
  const isLatest = plan.isLatest.local || plan.isLatest.registry;
  return [
    kind === 'remove'
      ? `Take back ${tag}: nobody else has it`
      : `Withdraw ${tag}: it was published, so its tag and image stay`,
    ...(plan.notes === undefined
      ? [`  moves    ${branch} back to ${parent.slice(0, 7)}, with ${notes}`]
      : [
          `  commits  ${notes} ${kind === 'remove' ? `without the entry; later commits stay` : 'with the mark'}`,
        ]),
    ...(kind === 'remove' ? [`  removes  tag ${tag} and image ${imageReference(project, tag)}`] : []),
    ...(isLatest ? [`  moves    latest to ${goesTo}`] : []),
    ...(plan.isProd ? [`  switches prod to ${goesTo}`] : []),
    ...(kind === 'withdraw' ? [`  pushes   ${branch} to ${project.release.remote}`] : []),
  ].join('\n');
}
