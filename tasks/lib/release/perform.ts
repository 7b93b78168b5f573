// Carrying out a release. Everything that can fail comes before the commit point (moveRefs); everything
// after it can be repeated, and is, by the next run if this one dies.

import { probe } from '../command.ts';
import { buildCommit } from '../docker/build.ts';
import { candidateReference, removeCandidates, tryCandidate } from '../docker/candidate.ts';
import { type EngineInfo, engineInfo } from '../docker/engine.ts';
import { inspectImage, tagImage } from '../docker/objects.ts';
import { pushImage } from '../docker/registry.ts';
import { combinedError, TaskError } from '../errors.ts';
import { clearWorkDirectories } from '../files.ts';
import { git, isAncestor, resolveRevision, shortHash, workTree } from '../git.ts';
import { type Phases, timed } from '../history.ts';
import { log } from '../log.ts';
import { type Journal, type JournalEntry, openJournal, readJournal } from '../old-journal.ts';
import { imageReference, type Project, registryReference, variable } from '../project.ts';
import { session, uninterrupted } from '../session.ts';
import {
  moveRefs,
  releaseIdentity,
  removeStaleLocks,
  settleRefs,
  updateWorkTree,
  verifyWorkTreeCanFollow,
  writeCommit,
  writeTag,
} from './git-write.ts';
import { runChecks, runHooks } from './hooks.ts';
import { isHighestStable, isMaintenanceBranch, type ReleasePlan } from './plan.ts';
import { askRemote, verifyImageNameFree, workTreeProblems } from './preflight.ts';
import { publishRefs, type RecordMerge } from './publish.ts';
import {
  acceptRebuild,
  isReleasedImage,
  type PreparedRelease,
  type ReleaseRecord,
  readRelease,
  releasedDigests,
  releaseTagMessage,
} from './record.ts';
import { finishUndo, type PreparedUndo } from './undo.ts';
import { parseTag } from './version.ts';

interface ReleaseRun {
  engine: EngineInfo;
  plan: ReleasePlan;
  push: boolean;
  deploy: boolean;
  phases: Phases;
}

/** @throws TaskError; until the commit point nothing has changed that anybody can see */
export async function performRelease(project: Project, release: ReleaseRun): Promise<PreparedRelease> {
  const { plan, phases } = release;
  const journal = releaseJournal(project);
  try {
    await journal.record('started', { tag: plan.version.tag, started: true });
    await timed(phases, 'checks', () => runOwnCommands(project, plan));
    const prepared = await prepare(project, release);
    await uninterrupted(async () => {
      await journal.record('prepared', prepared);
      await timed(phases, 'commit', () => moveRefs(project.root, { ...prepared, to: prepared.commit }));
      await journal.record('committed', prepared);
    });
    await timed(phases, 'finish', () => finishRelease(project, prepared));
    return prepared;
  } catch (error) {
    await uninterrupted(() => abandonRelease(project));
    throw error;
  }
}

/** Hooks and checks are the project's own commands: what is released must still be what was planned. */
async function runOwnCommands(project: Project, plan: ReleasePlan): Promise<void> {
  const { checks, hooks } = project.release;
  const { version, image, branch, previousTag: previous = '' } = plan;
  const context = {
    tag: version.tag,
    version: version.next,
    branch,
    image,
    previous,
    commit: '',
    digest: '',
  };
  await runHooks(project, 'before', context);
  await runChecks(project);
  if (checks.length + hooks.before.length === 0) return;
  const problems = workTreeProblems(project, await workTree(project.root));
  if (problems.length > 0)
    throw combinedError('Cannot release: a check or hook changed the project', problems);
}

async function prepare(project: Project, release: ReleaseRun): Promise<PreparedRelease> {
  const { root } = project;
  const { plan, push, deploy } = release;
  const { tag, next: version } = plan.version;
  const identity = await releaseIdentity(root);
  const commit = await writeCommit(root, {
    parent: plan.head,
    files: { [project.release.notes]: plan.notes },
    message: `chore(release): ${tag}\n`,
    identity,
    date: plan.date,
  });
  const { digest, platforms, baseImage } = await buildAndTry(project, release, commit);
  const image = (push && registryReference(project, tag)) || plan.image;
  const message = releaseTagMessage(tag, { image, digest, platforms, ...(baseImage ? { baseImage } : {}) });
  const tagObject = await writeTag(root, { tag, commit, message, identity, date: plan.date });
  await verifyWorkTreeCanFollow(root, plan.head, commit);
  return {
    tag,
    version,
    branch: plan.branch,
    from: plan.head,
    commit,
    tagObject,
    digest,
    platforms,
    previous: plan.previousTag ?? null,
    movesLatest: plan.movesLatest,
    push,
    deploy,
  };
}

/** The image of the release commit under its candidate's name, found healthy and the right one. */
async function buildAndTry(
  project: Project,
  { engine, plan, push, phases }: ReleaseRun,
  commit: string,
): Promise<Omit<ReleaseRecord, 'image'>> {
  const { tag, next: version } = plan.version;
  const candidate = candidateReference(project, commit);
  const platforms = push && project.image.registry ? project.image.platforms : [];
  log.step(`build ${plan.image} from commit ${shortHash(commit)}`);
  const build = { commit, version, candidate, platforms, date: plan.date };
  const image = await timed(phases, 'build', () => buildCommit(project, engine, build));
  await verifyImageNameFree(project, tag, image);
  log.step(`start it once and ask its ${project.environments.prod.health}`);
  const expected = { version, revision: commit };
  const [base] = await Promise.all([
    baseImageRecord(project),
    timed(phases, 'candidate', () => tryCandidate(project, { image: candidate, expected })),
  ]);
  return { digest: image.id, platforms: image.platforms, ...base };
}

async function baseImageRecord(project: Project): Promise<{ baseImage?: string }> {
  const reference = variable(project, 'BASE_IMAGE') ?? project.image.base_image;
  const image = reference ? await inspectImage(reference) : undefined;
  return image ? { baseImage: `${reference}@${image.id}` } : {};
}

// What follows a release's commit point, in order. Each step may already have been done, wholly or in part,
// by a run that died, and finds out by looking.

interface FinishStep {
  /** As the journal names it once the step is done. */
  name: string;
  isWanted: (prepared: PreparedRelease, project: Project) => boolean;
  perform: (project: Project, prepared: PreparedRelease, recordMerge: RecordMerge) => Promise<unknown>;
}

const always = () => true;

const FINISH_STEPS: readonly FinishStep[] = [
  {
    name: 'work-tree',
    isWanted: always,
    perform: (project, prepared) => uninterrupted(() => followWorkTree(project, prepared)),
  },
  {
    name: 'image',
    isWanted: always,
    perform: (project, prepared) => uninterrupted(() => nameImage(project, prepared)),
  },
  {
    name: 'pushed-image',
    isWanted: ({ push }, { image }) => push && image.registry !== undefined,
    perform: pushVersion,
  },
  { name: 'pushed-refs', isWanted: ({ push }) => push, perform: publishRefs },
  {
    name: 'latest',
    isWanted: ({ movesLatest }) => movesLatest,
    perform: (project, { tag }) => tagImage(imageReference(project, tag), imageReference(project, 'latest')),
  },
  {
    name: 'pushed-latest',
    isWanted: ({ push, movesLatest }, { image }) => push && movesLatest && image.registry !== undefined,
    perform: (project) =>
      pushImage(imageReference(project, 'latest'), registryReference(project, 'latest')!, {
        immutable: false,
      }),
  },
  { name: 'cleaned', isWanted: always, perform: (project) => uninterrupted(() => removeCandidates(project)) },
  {
    name: 'hooks',
    isWanted: (_prepared, { release }) => release.hooks.after.length > 0,
    perform: (project, prepared) =>
      runHooks(project, 'after', {
        tag: prepared.tag,
        version: prepared.version,
        branch: prepared.branch,
        image: registryReference(project, prepared.tag) ?? imageReference(project, prepared.tag),
        previous: prepared.previous ?? '',
        commit: prepared.commit,
        digest: prepared.digest,
      }),
  },
];

/** The branch may be another one by now, or further: then its work tree is not ours to touch. */
async function followWorkTree(project: Project, { from, commit, merge }: PreparedRelease): Promise<void> {
  const { root } = project;
  if (session.dryRun) return updateWorkTree(root, from, commit);
  const head = await resolveRevision(root, 'HEAD');
  if (head === commit) await updateWorkTree(root, from, commit);
  if (merge && head === merge.to) await updateWorkTree(root, merge.from, merge.to);
}

/** Gives the tried image its version's name; builds it again from the commit if it was lost meanwhile. */
async function nameImage(project: Project, prepared: PreparedRelease): Promise<void> {
  const reference = imageReference(project, prepared.tag);
  const candidate = candidateReference(project, prepared.commit);
  if (session.dryRun) return tagImage(candidate, reference);
  const present = await inspectImage(reference);
  if (present && releasedDigests(prepared).includes(present.id)) return;
  if (present) throw imageDiffers(prepared, reference, present.id);
  const tried = await inspectImage(candidate);
  if (tried?.id !== prepared.digest) await rebuild(project, prepared, candidate);
  await tagImage(candidate, reference);
}

async function rebuild(project: Project, prepared: PreparedRelease, candidate: string): Promise<void> {
  const { tag, version, commit, digest } = prepared;
  log.step(`build ${tag} again from commit ${shortHash(commit)}`);
  const names = Object.keys(prepared.platforms);
  const platforms = prepared.push || names.length > 1 ? names : [];
  const isIndex = !Object.values(prepared.platforms).includes(digest);
  const image = await buildCommit(project, await engineInfo(), {
    commit,
    version,
    candidate,
    ...(isIndex ? { platforms } : {}),
  });
  if (!isReleasedImage(prepared, image)) throw imageDiffers(prepared, candidate, image.id);
  if (releasedDigests(prepared).includes(image.id)) return;
  const why = 'the index was built again: same platforms, other provenance';
  await acceptRebuild(project.root, tag, {
    digest: image.id,
    released: digest,
    why,
    at: new Date().toISOString(),
  });
}

/** @throws TaskError if the registry has another image under the version */
function pushVersion(project: Project, prepared: PreparedRelease): Promise<string> {
  const reference = registryReference(project, prepared.tag) as string;
  return pushImage(imageReference(project, prepared.tag), reference, {
    immutable: true,
    same: [prepared.digest],
  });
}

function imageDiffers(prepared: PreparedRelease, reference: string, found: string): TaskError {
  return new TaskError(
    `The image ${reference} is not the one of ${prepared.tag}: it is ${found}, released was ${prepared.digest}`,
    {
      code: 'image-changed',
      hint: `docker image rm ${reference}, then run the release again to finish it`,
    },
  );
}

// A release that is ready for its commit point: all that is needed to finish it, which is what the journal
// keeps, so that another run can.

/** What is asked for on top of what the run that died was asked for. */
interface ResumeOptions {
  push: boolean;
  deploy: boolean;
}

/** What the journal keeps of a run that has not prepared its release yet. */
type ReleaseJournal = PreparedRelease | { tag: string; started: true };

function isPrepared(entry: ReleaseJournal): entry is PreparedRelease {
  return !('started' in entry);
}

function releaseJournal(project: Project): Journal<ReleaseJournal> {
  return openJournal<ReleaseJournal>(project.root, 'release');
}

// Finishing a release: after its commit point, by the run that made it or by the next one; and clearing away
// what never reached the commit point.

/**
 * Does what follows the commit point, step by step, each made durable. With `deploy` the journal stays open:
 * the caller switches prod and then closes it.
 */
export async function finishRelease(project: Project, prepared: PreparedRelease): Promise<void> {
  const journal = releaseJournal(project);
  let known = prepared;
  const recordMerge = async (merge: { from: string; to: string }) => {
    known = { ...known, merge };
    await journal.record('merging', known);
  };
  for (const step of FINISH_STEPS) {
    if (!step.isWanted(known, project)) continue;
    await step.perform(project, known, recordMerge);
    await journal.record(step.name, known);
  }
  if (!prepared.deploy) await journal.close();
}

/** The deployment is over, well or not: nothing of the release is left to finish. */
export function closeRelease(project: Project): Promise<void> {
  return releaseJournal(project).close();
}

/** Clears what a release that never happened left behind. A failure here must not hide the first error. */
async function abandonRelease(project: Project): Promise<void> {
  if (session.dryRun) return;
  try {
    const interrupted = await readJournal<ReleaseJournal>(project.root, 'release');
    if (interrupted && (await isCommitted(project, interrupted))) {
      log.warn(`${interrupted.data.tag} is released on this machine; the next run finishes what is left`);
      return;
    }
    await removeCandidates(project);
    await releaseJournal(project).close();
  } catch (error) {
    log.warn(`could not clear up after the release: ${(error as Error).message}`);
  }
}

// A release that an earlier run began and did not end: past its commit point it is finished, else cleared away.

async function isCommitted(project: Project, { data }: JournalEntry<ReleaseJournal>): Promise<boolean> {
  return isPrepared(data) && (await settleRefs(project.root, { ...data, to: data.commit }));
}

/** What is left of it to finish; undefined where it never reached the commit point, and is now cleared away. */
async function settleInterrupted(
  project: Project,
  interrupted: JournalEntry<ReleaseJournal>,
  options: ResumeOptions,
): Promise<PreparedRelease | undefined> {
  const { data, step, at } = interrupted;
  return uninterrupted(async () => {
    await clearWorkDirectories(project.root);
    if (isPrepared(data)) {
      const refs = [`refs/heads/${data.branch}`, `refs/tags/${data.tag}`];
      await removeStaleLocks(project.root, refs, new Date(at));
    }
    if (!isPrepared(data) || !(await isCommitted(project, interrupted))) {
      log.warn(`clearing away ${data.tag}, interrupted at ${at} before it was released`);
      await removeCandidates(project);
      await releaseJournal(project).close();
      return undefined;
    }
    log.step(`finishing ${data.tag}, interrupted at ${at} after "${step}"`);
    return {
      ...data,
      push: data.push || options.push,
      deploy: data.deploy || options.deploy,
      movesLatest: data.movesLatest && (await isHighestStable(project, data)),
    };
  });
}

// What an earlier run began: looked for by every run, and settled by code that is loaded only then, since it is rare.

/**
 * The release whose commit point was passed by a run that then died; what did not get there is cleared away.
 * Asked-for options come on top of those of the run that died. Undefined when there is nothing to finish.
 */
export async function interruptedRelease(
  project: Project,
  options: ResumeOptions,
): Promise<PreparedRelease | undefined> {
  const interrupted = await readJournal<ReleaseJournal>(project.root, 'release');
  if (!interrupted || session.dryRun) return undefined;
  return settleInterrupted(project, interrupted, options);
}

/** Completes an undoing that a run began and did not end. */
export async function resumeUndo(project: Project): Promise<void> {
  const begun = await readJournal<PreparedUndo>(project.root, 'undo');
  if (!begun || session.dryRun) return;
  const { data, step, at } = begun;
  log.step(`finishing the undoing of ${data.tag}, interrupted at ${at} after "${step}"`);
  await finishUndo(project, data);
}

// Naming a version that is already released here: whatever of it is missing is done again, above all the
// pushes that were not asked for at first. Nothing about the release itself changes.

/** The release of the version that was asked for, ready to be finished; undefined if it is a new one. */
export async function existingRelease(
  project: Project,
  requested: string | undefined,
  options: ResumeOptions,
): Promise<PreparedRelease | undefined> {
  const { root, release } = project;
  const version = requested && /^v?\d/.test(requested) ? requested.replace(/^v/, '') : undefined;
  const tag = `${release.tag_prefix}${version}`;
  if (!version || parseTag(release.tag_prefix, tag) !== version) return undefined;
  const [tagObject, commit, record] = await Promise.all([
    resolveRevision(root, `refs/tags/${tag}`),
    resolveRevision(root, `refs/tags/${tag}^{commit}`),
    readRelease(root, tag),
  ]);
  const branch = (await probe(git(root, 'symbolic-ref', '--short', '--quiet', 'HEAD'))).stdout.trim();
  if (!tagObject || !commit || !record || !branch || !(await isAncestor(root, commit, 'HEAD')))
    return undefined;
  const from = await resolveRevision(root, `${commit}^`);
  if (!from) throw new TaskError(`The release ${tag} has no commit before it`, { code: 'not-released' });
  if (options.push) await askRemote(project, true);
  log.step(`${tag} is released on this machine; doing what is left of it`);
  const { digest, platforms } = record;
  const movesLatest =
    !isMaintenanceBranch(project, branch) && (await isHighestStable(project, { tag, push: options.push }));
  const names = { tag, version, branch, from, commit, tagObject };
  return { ...names, digest, platforms, previous: null, movesLatest, ...options };
}
