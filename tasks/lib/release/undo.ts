// Undoing a release: a plan, then a list of steps. An unpublished release is removed exactly; a published one is never
// deleted, only marked as withdrawn, and `latest` and the environments move back.

import { z } from 'zod';
import { stopCommand } from '../active.ts';
import { inspectImage, tagImage, untagImage } from '../docker/objects.ts';
import { pushImage, registryDigest } from '../docker/registry.ts';
import { updateDotenv } from '../dotenv.ts';
import { combinedError, TaskError } from '../errors.ts';
import { fileAt, isAncestor, remoteState, remoteUrl, resolveRevision, shortHash, workTree } from '../git.ts';
import { log } from '../log.ts';
import { imageReference, type Project, registryReference, variable, variableName } from '../project.ts';
import { interruptedRun, type Journey, resumeSteps, type Step } from '../steps.ts';
import { runOtherTask } from '../task.ts';
import {
  clearLeftovers,
  followBranch,
  moveRefs,
  settleRefs,
  verifyWorkTreeCanFollow,
  writeCommit,
} from './git-write.ts';
import { findEntry, NEW_NOTES, removeEntry, withdrawEntry } from './notes.ts';
import { problemsIn, workTreeProblems } from './preflight.ts';
import { publish, verifyNotBehind } from './publish.ts';
import { releasedDigests, releaseOfTag, releasesToRun } from './record.ts';

const undoSchema = z.strictObject({
  kind: z.enum(['remove', 'withdraw']),
  tag: z.string(),
  tagObject: z.string(),
  /** The release commit and the one before it. */
  commit: z.string(),
  parent: z.string(),
  branch: z.string(),
  /** Where the branch is now. */
  head: z.string(),
  /** The notes file of the commit that follows; null: the branch goes back to `parent`. */
  notes: z.string().nullable(),
  /** The release that `latest` and the environments go back to. */
  successor: z.string().nullable(),
  /** `latest` is this release's image here, or in the registry. */
  isLatest: z.strictObject({ local: z.boolean(), registry: z.boolean() }),
  /** .env names it as what prod runs. */
  isProd: z.boolean(),
  /** The active environment of .env. */
  active: z.string(),
  /** The commit that the branch goes to. */
  next: z.string(),
});

export type UndoData = z.output<typeof undoSchema>;

/** @throws TaskError if it is unknown whether the release was published, or others' work would be touched */
export async function planUndo(project: Project, tag: string): Promise<UndoData> {
  const { root } = project;
  const { commit, oid: tagObject, record } = await releaseOfTag(project, tag);
  const [parent, tree, runnable] = await Promise.all([
    resolveRevision(root, `${commit}^`),
    workTree(root),
    releasesToRun(project),
  ]);
  const { head, branch } = tree;
  const isProd = variable(project, 'PROD_TAG') === tag;
  const successor = runnable.find((name) => name !== tag) ?? null;
  const isHere = head === undefined || (await isAncestor(root, commit, head));
  const own = undoProblems(project, { tag, commit, parent, branch, isProd, successor }, isHere);
  const problems = [...workTreeProblems(project, tree), ...own];
  if (problems.length > 0 || !head || !branch || !parent)
    throw combinedError(`Cannot undo ${tag}: ${problems.length} problems`, problems);
  const seen = await seenByOthers(project, { tag, commit, head, branch });
  const kind = seen.tag || seen.image ? 'withdraw' : 'remove';
  const names = { kind, tag, tagObject, commit, parent, branch, head, successor, isProd } as const;
  const goesBack = kind === 'remove' && head === commit && !seen.commit;
  const notes = goesBack ? null : await notesAfter(project, names);
  const isLatest = await findLatest(project, releasedDigests(record));
  const active = variable(project, 'ACTIVE_ENV') ?? '';
  return { ...names, notes, isLatest, active, next: goesBack ? parent : '' };
}

type Known = Pick<UndoData, 'tag' | 'commit' | 'isProd' | 'successor'> &
  Record<'parent' | 'branch', string | undefined>;

function undoProblems(project: Project, known: Known, isHere: boolean): TaskError[] {
  const { tag, commit, parent, branch, isProd, successor } = known;
  const short = shortHash(commit);
  return problemsIn([
    [
      !isHere,
      'wrong-branch',
      `Cannot undo ${tag}: its commit ${short} is not in ${branch ?? 'HEAD'}`,
      `git branch --contains ${short} lists its branches; git switch to one of them`,
    ],
    [
      isProd && !successor,
      'no-successor',
      `Cannot undo ${tag}: prod runs it and there is no other release to switch to`,
      `stop prod first: ${stopCommand(project, 'prod')}, and remove the tag from .env`,
    ],
    [
      !parent,
      'no-parent',
      `Cannot undo ${tag}: the commit before ${short} is not here`,
      `in a shallow clone: git fetch --unshallow ${project.release.remote}; a release that is the first commit stays`,
    ],
  ]);
}

type Place = Pick<UndoData, 'tag' | 'commit' | 'head' | 'branch'>;

/** Where it was published. @throws TaskError when remote or registry do not respond, or the remote is ahead */
async function seenByOthers(project: Project, { tag, commit, head, branch }: Place) {
  const { root, release } = project;
  const url = await remoteUrl(root, release.remote);
  const remote = url === undefined ? undefined : await remoteState(root, release.remote);
  if (remote) await verifyNotBehind(project, `Cannot undo ${tag}`, { head, branch }, remote);
  const tip = remote?.branches.get(branch);
  const reference = registryReference(project, tag);
  return {
    tag: remote?.tags.has(tag) ?? false,
    image: reference !== undefined && (await registryDigest(reference)) !== undefined,
    commit: tip !== undefined && (await isAncestor(root, commit, tip)),
  };
}

async function findLatest(project: Project, digests: string[]): Promise<UndoData['isLatest']> {
  const reference = registryReference(project, 'latest');
  const local = await inspectImage(imageReference(project, 'latest'));
  const registry = reference ? await registryDigest(reference) : undefined;
  return { local: digests.includes(local?.id ?? ''), registry: digests.includes(registry ?? '') };
}

/** The notes without the entry, or with the mark that it is withdrawn. */
async function notesAfter(
  project: Project,
  { kind, tag, commit, head, successor }: Omit<Place, 'branch'> & Pick<UndoData, 'kind' | 'successor'>,
) {
  const { root, release } = project;
  const present = (await fileAt(root, head, release.notes)) ?? NEW_NOTES;
  if (kind === 'withdraw') {
    const marked = withdrawEntry(present, tag, `do not use it${successor ? `; use ${successor}` : ''}`);
    if (marked !== present) return marked;
    throw new TaskError(`Cannot undo ${tag}: it is already withdrawn`, {
      code: 'already-withdrawn',
      hint: `its tag and image stay; see ${release.notes}`,
    });
  }
  const released = findEntry((await fileAt(root, commit, release.notes)) ?? '', tag)?.text;
  const entry = findEntry(present, tag)?.text;
  if (entry === undefined || entry === released) return removeEntry(present, tag);
  throw new TaskError(`Cannot undo ${tag}: its entry in ${release.notes} was edited after the release`, {
    code: 'notes-edited',
    hint: `remove the entry yourself and commit that; then: npm run release -- --undo ${tag}`,
  });
}

export function undoJourney(project: Project): Journey<UndoData> {
  return {
    root: project.root,
    task: 'undo',
    command: 'npm run release',
    schema: undoSchema,
    steps: (data) => undoReleaseSteps(project, data),
    history: ({ tag, successor }) => ({ from: tag, to: successor }),
  };
}

/** The steps of an undo: prod goes back first; dev once `latest` is another image, and before its image goes. */
function undoReleaseSteps(project: Project, data: UndoData): Step<UndoData>[] {
  const { root, release } = project;
  const { kind, tag, branch, notes, successor, isProd, active } = data;
  const change = kind === 'remove' ? 'without the entry; later commits stay' : 'with the mark';
  const target =
    notes === null ? `move ${branch} back to ${shortHash(data.parent)}` : `move ${branch} to that commit`;
  const steps: (Step<UndoData> | false)[] = [
    notes !== null && {
      name: 'commit',
      title: `write a commit with ${release.notes} ${change}`,
      apply: async (data) => {
        data.next = await notesCommit(project, data, notes);
      },
    },
    {
      name: 'check',
      title: 'check that the working tree can follow',
      apply: ({ head, next }) => verifyWorkTreeCanFollow(root, head, next),
    },
    isProd &&
      successor !== null && {
        name: 'prod',
        title: `switch prod to ${successor}`,
        apply: () => switchProd(project, active, successor),
        undo: () => switchProd(project, active, tag),
      },
    {
      name: 'refs',
      title: kind === 'remove' ? `${target} and delete the tag ${tag}` : target,
      apply: (data) => moveRefs(root, `undo ${tag}`, refUpdates(data)),
      commits: true,
      isDone: (data) => settleRefs(root, `undo ${tag}`, refUpdates(data)),
    },
    {
      name: 'work-tree',
      title: 'update the working tree',
      apply: ({ head, next }) => followBranch(root, { branch, from: head, to: next, path: release.notes }),
    },
  ];
  return [...steps.filter((step) => step !== false), ...imageSteps(project, data)];
}

/** Image tags and pushes, after the commit point. */
function imageSteps(project: Project, data: UndoData): Step<UndoData>[] {
  const { kind, tag, branch, successor, isLatest, active } = data;
  const latest = imageReference(project, 'latest');
  const remoteLatest = registryReference(project, 'latest');
  const steps: (Step<UndoData> | false)[] = [
    isLatest.local && {
      name: 'latest',
      title: successor ? `tag ${successor} as ${latest}` : `remove the tag ${latest}`,
      apply: (data) => moveLatest(project, data, latest),
    },
    isLatest.local &&
      successor !== null &&
      (active === 'dev' || active === 'both') && {
        name: 'dev',
        title: 'switch dev to that image',
        apply: () => runOtherTask(project, 'switch-env', active),
      },
    kind === 'remove' && {
      name: 'images',
      title: `remove the tag ${imageReference(project, tag)}`,
      apply: async () => {
        for (const name of [registryReference(project, tag), imageReference(project, tag)])
          if (name) await untagImage(name);
      },
    },
    isLatest.registry &&
      remoteLatest !== undefined && {
        name: 'push-latest',
        title: `push ${successor ?? 'nothing'} as ${remoteLatest}`,
        apply: (data) => pushLatest(project, data, remoteLatest),
      },
    kind === 'withdraw' && {
      name: 'push',
      title: `push ${branch} to ${project.release.remote}`,
      apply: ({ next }) =>
        publish(project, { branch, commit: next, tag: undefined, what: `${tag} is withdrawn` }),
    },
  ];
  return steps.filter((step) => step !== false);
}

function refUpdates({ kind, branch, head, next, tag, tagObject }: UndoData) {
  const removed = { ref: `refs/tags/${tag}`, from: tagObject, to: null };
  return [{ ref: `refs/heads/${branch}`, from: head, to: next }, ...(kind === 'remove' ? [removed] : [])];
}

async function notesCommit({ root, release }: Project, data: UndoData, notes: string): Promise<string> {
  const { tag, commit, kind, head } = data;
  const title = `chore(release): ${tag}`;
  const reverts = `Revert "${title}"\n\nThis reverts commit ${commit}.\n`;
  const message = kind === 'remove' ? reverts : `chore(release): withdraw ${tag}\n`;
  return writeCommit(root, { parent: head, path: release.notes, text: notes, message, date: new Date() });
}

/** By the switch task, as a person would, with its proof of health. */
async function switchProd(project: Project, active: string, tag: string): Promise<void> {
  if (active === 'prod' || active === 'both')
    await runOtherTask(project, 'switch-env', active, '--version', tag);
  else await updateDotenv(project.root, { [variableName(project, 'PROD_TAG')]: tag });
}

/** The successor's image, where this machine has it. */
async function successorImage(project: Project, { successor }: UndoData): Promise<string | undefined> {
  const image = successor ? imageReference(project, successor) : undefined;
  return image && (await inspectImage(image)) ? image : undefined;
}

async function moveLatest(project: Project, data: UndoData, latest: string): Promise<void> {
  const image = await successorImage(project, data);
  if (image) return tagImage(image, latest);
  log.warn(
    `no other release on this machine: removing the tag ${latest} (npm run build-push makes a new one)`,
  );
  await untagImage(latest);
}

async function pushLatest(project: Project, data: UndoData, latest: string): Promise<void> {
  const image = await successorImage(project, data);
  if (image) await pushImage(image, latest);
  else log.warn(`${latest} is still ${data.tag}: there is no other release on this machine`);
}

/** Completes, or undoes, an undo that was killed. Call it holding the lock. */
export async function resumeUndo(project: Project) {
  const journey = undoJourney(project);
  await clearLeftovers(project.root, await interruptedRun(journey));
  return resumeSteps(journey);
}

/** The plan in words; its steps are listed below it. */
export function describeUndo({ tag, kind }: UndoData, steps: readonly string[]): string {
  const what =
    kind === 'remove'
      ? `Remove ${tag}: it was not published`
      : `Withdraw ${tag}: it was published, so its tag and image stay`;
  return [what, ...steps.map((title) => `  → ${title}`)].join('\n');
}
