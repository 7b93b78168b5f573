// A release as one list of steps. Everything that can fail comes before the commit point (`refs`); what follows can be
// repeated, and is, by the next run if this one dies. A version that is named again takes the same way: each step looks
// first whether its work is done.

import { z } from 'zod';
import { activeEnvironment, environmentsOf, switchTarget } from '../active.ts';
import { buildCommit } from '../docker/build.ts';
import { candidateReference, removeCandidates, tryCandidate } from '../docker/candidate.ts';
import { engineInfo } from '../docker/engine.ts';
import { tagImage } from '../docker/objects.ts';
import { pushImage } from '../docker/registry.ts';
import { CommandError, combinedError, TaskError } from '../errors.ts';
import { currentBranch, isAncestor, resolveRevision, workTree } from '../git.ts';
import { log } from '../log.ts';
import { imageReference, type Project, registryReference } from '../project.ts';
import { uninterrupted } from '../session.ts';
import { forgetRun, interruptedRun, type Journey, resumeSteps, type Step } from '../steps.ts';
import { runOtherTask } from '../task.ts';
import { buildRelease } from './build-image.ts';
import {
  clearLeftovers,
  followBranch,
  moveRefs,
  type RefUpdate,
  settleRefs,
  verifyWorkTreeCanFollow,
  writeCommit,
  writeTag,
} from './git-write.ts';
import { runHooks } from './hooks.ts';
import { isMaintenanceBranch, isOvertaken, type ReleasePlan } from './plan.ts';
import { verifyNameFree, workTreeProblems } from './preflight.ts';
import { publish, queryRemote } from './publish.ts';
import { baseImageOf, releasedImage, releaseOfTag, releaseTagMessage } from './record.ts';
import { isStable, parseTag } from './version.ts';

const releaseSchema = z.strictObject({
  tag: z.string(),
  /** Without prefix. */
  version: z.string(),
  branch: z.string(),
  /** The branch's commit before. */
  head: z.string(),
  /** Of commit and tag; ISO 8601. */
  date: z.string(),
  /** The new text of the notes file. */
  notes: z.string(),
  /** The version before on this branch, and the tag that the notes begin at. */
  current: z.string().nullable(),
  previous: z.string().nullable(),
  /** `latest` shall follow. */
  movesLatest: z.boolean(),
  /** Publish it: image to the registry if one is set, branch and tag to the remote. */
  push: z.boolean(),
  /** Switch prod to it at the end. */
  deploy: z.boolean(),
  /** It is released already, and named again to do what is left. */
  isReleased: z.boolean(),
  // What the steps find out.
  commit: z.string(),
  tagObject: z.string(),
  /** `Image.id` of the image that was tried. */
  digest: z.string(),
  platforms: z.record(z.string(), z.string()),
  /** Why prod could not be switched: the release stands all the same. */
  /** Dev, which follows `latest`, did not start with it. */
  failedFollow: z.boolean().optional(),
  failedDeploy: z.strictObject({ message: z.string(), code: z.string(), hint: z.string() }).optional(),
});

export type ReleaseData = z.output<typeof releaseSchema>;

interface ReleaseOptions {
  push: boolean;
  deploy: boolean;
}

/** What the steps start from. */
export function releaseData(plan: ReleasePlan, { push, deploy }: ReleaseOptions): ReleaseData {
  const { version, branch, head, notes, movesLatest } = plan;
  const from = { current: version.current ?? null, previous: plan.previousTag ?? null };
  const names = { tag: version.tag, version: version.next, branch, head, date: plan.date.toISOString() };
  const found = { commit: '', tagObject: '', digest: '', platforms: {} };
  return { ...names, ...from, notes, movesLatest, push, deploy, isReleased: false, ...found };
}

export function releaseJourney(project: Project): Journey<ReleaseData> {
  return {
    root: project.root,
    task: 'release',
    command: 'npm run release',
    schema: releaseSchema,
    steps: (data) => releaseSteps(project, data),
    history: ({ current, version }) => ({ from: current, to: version }),
  };
}

/** The steps of a release; of one that is released already, from the commit point on. */
export function releaseSteps(project: Project, data: ReleaseData): Step<ReleaseData>[] {
  const { tag, branch, isReleased } = data;
  const refs: Step<ReleaseData> = {
    name: 'refs',
    title: isReleased ? `${tag} is already released` : `move ${branch} and create ${tag} in one transaction`,
    apply: async (data) => data.isReleased || moveRefs(project.root, tag, refUpdates(data)),
    commits: true,
    isDone: async (data) => data.isReleased || settleRefs(project.root, tag, refUpdates(data)),
  };
  return [
    ...(isReleased ? [] : preparingSteps(project, data)),
    refs,
    ...publicSteps(project, data),
    ...closingSteps(project, data),
  ];
}

/** Until the commit point: nothing that anybody can see. */
function preparingSteps(project: Project, { tag }: ReleaseData): Step<ReleaseData>[] {
  const { release } = project;
  const hasCommands = release.checks.length + release.hooks.before.length > 0;
  const checks = {
    name: 'checks',
    title: 'run the checks',
    apply: (d: ReleaseData) => runOwnCommands(project, d),
  };
  return [
    ...(hasCommands ? [checks] : []),
    {
      name: 'commit',
      title: `write the release commit with ${release.notes}`,
      apply: async (data) => {
        data.commit = await releaseCommit(project, data);
      },
    },
    {
      name: 'build',
      title: `build ${imageReference(project, tag)} from that commit`,
      apply: (data) => build(project, data),
      undo: () => removeCandidates(project),
    },
    {
      name: 'candidate',
      title: 'start it as prod would and check its health',
      apply: ({ version, commit }) =>
        tryCandidate(project, {
          image: candidateReference(project, commit),
          expected: { version, revision: commit },
        }),
    },
    {
      name: 'tag',
      title: `write the tag object ${tag} with the image's digest`,
      apply: async (data) => {
        data.tagObject = await releaseTag(project, data);
        // The build took a while: the name may be taken, or a file edited, by now.
        await verifyNameFree(project, tag, data.push);
        await verifyWorkTreeCanFollow(project.root, data.head, data.commit);
      },
    },
  ];
}

/** From the commit point on. Each may have been done already, wholly or in part, and finds out by looking. */
function publicSteps(project: Project, { tag, branch, push, movesLatest }: ReleaseData): Step<ReleaseData>[] {
  const { root, release } = project;
  const reference = registryReference(project, tag);
  const latest = imageReference(project, 'latest');
  const remoteLatest = registryReference(project, 'latest');
  const steps: (Step<ReleaseData> | false)[] = [
    {
      name: 'work-tree',
      title: 'update the working tree',
      apply: ({ head, commit }) => followBranch(root, branch, head, commit),
    },
    {
      name: 'image-name',
      title: `tag the image ${imageReference(project, tag)}`,
      apply: (data) => uninterrupted(() => nameImage(project, data)),
    },
    push &&
      reference !== undefined && {
        name: 'push-image',
        title: `push ${reference}`,
        apply: ({ digest }) =>
          pushImage(imageReference(project, tag), reference, { immutable: true, same: [digest] }),
      },
    push && {
      name: 'push-refs',
      title: `push the branch and ${tag} to ${release.remote}`,
      apply: ({ head, commit }) =>
        publish(project, { branch, from: head, commit, tag, what: `${tag} is released` }),
    },
    movesLatest && {
      name: 'latest',
      title: `tag it as ${latest}`,
      apply: async (data) => {
        data.movesLatest = !(await isOvertaken(project, data.version, push));
        if (data.movesLatest) await tagImage(imageReference(project, tag), latest);
      },
    },
    movesLatest &&
      push &&
      remoteLatest !== undefined && {
        name: 'push-latest',
        title: `push ${remoteLatest}`,
        apply: async (data) => data.movesLatest && pushImage(latest, remoteLatest, { immutable: false }),
      },
    { name: 'cleanup', title: 'remove the candidate', apply: () => removeCandidates(project) },
  ];
  return steps.filter((step) => step !== false);
}

/** Once the release is complete. */
function closingSteps(project: Project, { tag, deploy, movesLatest }: ReleaseData): Step<ReleaseData>[] {
  const follows =
    project.environments.dev.follow && environmentsOf(activeEnvironment(project)).includes('dev');
  const steps: (Step<ReleaseData> | false)[] = [
    project.release.hooks.after.length > 0 && {
      name: 'hooks-after',
      title: 'run the hooks after a release',
      apply: (data) => runHooks(project, 'after', hookContext(project, data)),
    },
    deploy && {
      name: 'deploy',
      title: `switch prod to ${tag}`,
      apply: async (data) => {
        const error = await trySwitch(project, switchTarget(project, 'prod'), '--version', tag);
        if (error) data.failedDeploy = { message: error.message, code: error.code, hint: error.hint ?? '' };
      },
    },
    movesLatest &&
      !deploy &&
      follows && {
        name: 'follow',
        title: 'switch dev to the new latest',
        apply: async (data) => {
          const error = data.movesLatest && (await trySwitch(project, activeEnvironment(project)));
          if (!error) return;
          log.warn(`dev was not switched to the new latest: ${error.message}`);
          data.failedFollow = true;
        },
      },
  ];
  return steps.filter((step) => step !== false);
}

function refUpdates({ branch, head, commit, tag, tagObject }: ReleaseData): RefUpdate[] {
  return [
    { ref: `refs/heads/${branch}`, from: head, to: commit },
    { ref: `refs/tags/${tag}`, from: null, to: tagObject },
  ];
}

function hookContext(project: Project, data: ReleaseData) {
  const { tag, version, branch, commit, digest, push } = data;
  const image = (push && registryReference(project, tag)) || imageReference(project, tag);
  return { tag, version, branch, image, previous: data.previous ?? '', commit, digest };
}

/** Hooks and checks are the project's own commands: what is released must still be what was planned. */
async function runOwnCommands(project: Project, data: ReleaseData): Promise<void> {
  await runHooks(project, 'before', hookContext(project, data));
  await runHooks(project, 'check', hookContext(project, data));
  const problems = workTreeProblems(project, await workTree(project.root));
  if (problems.length > 0)
    throw combinedError('Cannot release: a check or hook changed the project', problems);
}

function releaseCommit({ root, release }: Project, { head, notes, tag, date }: ReleaseData): Promise<string> {
  const message = `chore(release): ${tag}\n`;
  return writeCommit(root, { parent: head, path: release.notes, text: notes, message, date: new Date(date) });
}

async function build(project: Project, data: ReleaseData): Promise<void> {
  const { commit, version, push, date } = data;
  const image = await buildCommit(project, await engineInfo(), {
    commit,
    version,
    candidate: candidateReference(project, commit),
    platforms: push && project.image.registry ? project.image.platforms : [],
    date: new Date(date),
  });
  data.digest = image.id;
  data.platforms = image.platforms;
}

async function releaseTag(project: Project, data: ReleaseData): Promise<string> {
  const { tag, commit, digest, platforms, push, date } = data;
  const image = (push && registryReference(project, tag)) || imageReference(project, tag);
  const baseImage = await baseImageOf(project);
  const message = releaseTagMessage(tag, { image, digest, platforms, ...(baseImage ? { baseImage } : {}) });
  return writeTag(project.root, { tag, commit, message, date: new Date(date) });
}

/** Gives the tried image its version's name; builds it again from its tag if it was lost meanwhile. */
async function nameImage(project: Project, data: ReleaseData): Promise<void> {
  const { tag, commit, digest, platforms } = data;
  if (await releasedImage(project, { name: tag, record: data })) return;
  try {
    // A dry run has built nothing, and so has no digest.
    await tagImage(digest || candidateReference(project, commit), imageReference(project, tag));
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    log.info(`the image ${digest} is missing: rebuilding ${tag} from its commit`);
    const isIndex = !Object.values(platforms).includes(digest);
    const request = { platforms: isIndex ? Object.keys(platforms) : [], isExact: true };
    await buildRelease(project, await engineInfo(), tag, request);
  }
}

/** A process of its own, health-gated; the release stands even if it fails. Should it die, the next run repeats it. */
async function trySwitch(project: Project, ...argv: string[]): Promise<TaskError | undefined> {
  try {
    await runOtherTask(project, 'switch-env', ...argv);
    return undefined;
  } catch (error) {
    if (!(error instanceof TaskError) || error.code === 'interrupted') throw error;
    return error;
  }
}

/**
 * Completes, or undoes, the release that a killed run left. One that was removed since is forgotten.
 * Call it holding the lock.
 */
export async function resumeRelease(project: Project) {
  const { root } = project;
  const journey = releaseJourney(project);
  const interrupted = await interruptedRun(journey);
  if (!interrupted) return undefined;
  await clearLeftovers(root, interrupted);
  const { tag, tagObject } = interrupted.data;
  if (interrupted.committed && (await resolveRevision(root, `refs/tags/${tag}`)) !== tagObject) {
    log.warn(`${tag} was released by an interrupted run and removed since: nothing to resume`);
    await removeCandidates(project);
    await forgetRun(journey);
    return undefined;
  }
  return resumeSteps(journey);
}

/** The existing release of the requested version, to complete its remaining steps; undefined if it is a new one. */
export async function existingRelease(
  project: Project,
  requested: string | undefined,
  options: ReleaseOptions,
): Promise<ReleaseData | undefined> {
  const { root, release } = project;
  const version = requested && /^v?\d/.test(requested) ? requested.replace(/^v/, '') : undefined;
  const tag = `${release.tag_prefix}${version}`;
  if (!version || parseTag(release.tag_prefix, tag) !== version) return undefined;
  const [tagObject, branch] = await Promise.all([
    resolveRevision(root, `refs/tags/${tag}`),
    currentBranch(root),
  ]);
  if (!tagObject || !branch) return undefined;
  const found = await releaseOfTag(project, tag).catch((error: TaskError) => {
    if (error.code === 'not-released') return undefined;
    throw error;
  });
  if (!found || !(await isAncestor(root, found.commit, 'HEAD'))) return undefined;
  const head = await resolveRevision(root, `${found.commit}^`);
  if (!head) throw new TaskError(`The release ${tag} has no commit before it`, { code: 'not-released' });
  if (options.push) await queryRemote(project, true);
  const { digest, platforms } = found.record;
  const isLatest = isStable(version) && !isMaintenanceBranch(project, branch);
  const movesLatest = isLatest && !(await isOvertaken(project, version, options.push));
  const names = { tag, version, branch, head, date: new Date().toISOString(), commit: found.commit };
  const known = { tagObject, digest, platforms, current: null, previous: null, notes: '' };
  return { ...names, ...known, movesLatest, ...options, isReleased: true };
}
