// Taking a release back, worked out before anything is touched. What nobody else can have seen is removed
// exactly; what was published is never deleted, only marked withdrawn, and what floats moves back.
import { join } from 'node:path';
import { inspectImage } from '../docker/images.ts';
import { registryDigest } from '../docker/registry.ts';
import { combinedError, TaskError } from '../errors.ts';
import { readIfPresent } from '../files.ts';
import { fileAt, hasRemote, isAncestor, remoteState, resolveRevision, shortHash, workTree } from '../git.ts';
import { withdrawEntry } from '../notes/changelog.ts';
import { imageReference, type Project, registryReference, variable } from '../project.ts';
import { NEW_NOTES } from './plan.ts';
import { readRelease, releasedDigests } from './record.ts';
import { releasesToRun } from './releases.ts';
import { withoutInsertion } from './undo-notes.ts';
import { workTreeProblems } from './work-tree-check.ts';

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
