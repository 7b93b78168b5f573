// Carrying out a release. Everything that can fail comes before the commit point (moveRefs); everything
// after it can be repeated, and is, by the next run if this one dies.
import { buildCommit } from '../docker/build.ts';
import { candidateReference, tryCandidate } from '../docker/candidate.ts';
import type { EngineInfo } from '../docker/engine-info.ts';
import { inspectImage } from '../docker/images.ts';
import { combinedError } from '../errors.ts';
import { shortHash, workTree } from '../git.ts';
import { uninterrupted } from '../interrupt.ts';
import { log } from '../log.ts';
import { type Phases, timed } from '../phases.ts';
import { type Project, registryReference, variable } from '../project.ts';
import { releaseIdentity, writeCommit, writeTag } from './commit.ts';
import { abandonRelease, finishRelease } from './finish.ts';
import { runChecks, runHooks } from './hooks.ts';
import type { ReleasePlan } from './plan.ts';
import { verifyImageNameFree } from './preflight-names.ts';
import { type PreparedRelease, releaseJournal } from './prepared.ts';
import { type ReleaseRecord, releaseTagMessage } from './record.ts';
import { moveRefs, verifyWorkTreeCanFollow } from './refs.ts';
import { workTreeProblems } from './work-tree-check.ts';

export interface ReleaseRun {
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
  log.step(`start it once and ask its ${project.candidate.health}`);
  const expected = { version, revision: commit };
  const [base] = await Promise.all([
    baseImageRecord(project),
    timed(phases, 'candidate', () => tryCandidate(project, candidate, expected)),
  ]);
  return { digest: image.id, platforms: image.platforms, ...base };
}

async function baseImageRecord(project: Project): Promise<{ baseImage?: string }> {
  const reference = variable(project, 'BASE_IMAGE') ?? project.image.base_image;
  const image = reference ? await inspectImage(reference) : undefined;
  return image ? { baseImage: `${reference}@${image.id}` } : {};
}
