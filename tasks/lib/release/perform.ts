// A release as one list of steps. Everything that can fail comes before the commit point (`refs`); what follows can be
// repeated, and is, by the next run if this one dies. A version that is named again takes the same way: each step looks
// first whether its work is done.

import semver from 'semver';
import { activeEnvironment, environmentsOf, switchTarget } from '../active.ts';
import { describeCommand, run } from '../command.ts';
import { buildCommit } from '../docker/build.ts';
import { candidateReference, removeCandidates, tryCandidate } from '../docker/candidate.ts';
import type { ResolvedModel } from '../docker/compose.ts';
import { inspectImage, tagImage } from '../docker/objects.ts';
import { pushImage } from '../docker/registry.ts';
import { CommandError, combinedError, lastLines, TaskError } from '../errors.ts';
import { isAncestor, resolveRevision, workTree } from '../git.ts';
import { log } from '../log.ts';
import { imageReference, PROJECT_FILE, type Project, registryReference, variableName } from '../project.ts';
import { uninterrupted } from '../session.ts';
import { forgetRun, interruptedRun, type Journey, resumeSteps, type Step } from '../steps.ts';
import { runOtherTask } from '../task.ts';
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
import {
  imageName,
  isMaintenanceBranch,
  isOvertaken,
  type ReleaseData,
  type ReleaseRequest,
  releaseSchema,
} from './plan.ts';
import { verifyNameFree, workTreeProblems } from './preflight.ts';
import { publish, queryRemote } from './publish.ts';
import { baseImageOf, buildRelease, releasedImage, releaseTagMessage, releaseTags } from './record.ts';
import { isStable } from './version.ts';

/** `model`: the compose files as preflight has resolved them, for the candidate. */
export function releaseJourney(project: Project, model?: ResolvedModel): Journey<ReleaseData> {
  return {
    root: project.root,
    task: 'release',
    command: 'npm run release',
    schema: releaseSchema,
    steps: (data) => releaseSteps(project, data, model),
    history: ({ current, version }) => ({ from: current, to: version }),
  };
}

/** The steps of a release; of one that is released already, from the commit point on. */
export function releaseSteps(
  project: Project,
  data: ReleaseData,
  model?: ResolvedModel,
): Step<ReleaseData>[] {
  const { tag, branch, isReleased } = data;
  const refs: Step<ReleaseData> = {
    name: 'refs',
    title: isReleased ? `${tag} is already released` : `move ${branch} and create ${tag} in one transaction`,
    apply: async (data) => data.isReleased || moveRefs(project.root, tag, refUpdates(data)),
    commits: true,
    isDone: async (data) => data.isReleased || settleRefs(project.root, tag, refUpdates(data)),
  };
  return [
    ...(isReleased ? [] : preparingSteps(project, data, model)),
    refs,
    ...publicSteps(project, data),
    ...closingSteps(project, data),
  ];
}

/** Until the commit point: nothing that anybody can see. */
function preparingSteps(project: Project, { tag }: ReleaseData, model?: ResolvedModel): Step<ReleaseData>[] {
  const { release } = project;
  const hasCommands = release.checks.length + release.hooks.before.length > 0;
  const steps: (Step<ReleaseData> | false)[] = [
    hasCommands && {
      name: 'checks',
      title: 'run the checks',
      apply: (data) => runOwnCommands(project, data),
    },
    {
      name: 'commit',
      title: `write the release commit with ${release.notes}`,
      apply: async (data) => {
        const { head: parent, notes: text, date } = data;
        const message = `chore(release): ${tag}\n`;
        const request = { parent, path: release.notes, text, message, date: new Date(date) };
        data.commit = await writeCommit(project.root, request);
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
          model,
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
  return steps.filter((step) => step !== false);
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
      apply: ({ head, commit }) =>
        followBranch(root, { branch, from: head, to: commit, path: release.notes }),
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
        apply: ({ digest }) => pushImage(imageReference(project, tag), reference, [digest]),
      },
    push && {
      name: 'push-refs',
      title: `push the branch and ${tag} to ${release.remote}`,
      apply: ({ commit }) => publish(project, { branch, commit, tag, what: `${tag} is released` }),
    },
    movesLatest && {
      name: 'latest',
      title: `tag it as ${latest}`,
      apply: async (data) => {
        data.movesLatest = !(await isOvertaken(project, data));
        if (data.movesLatest) await tagImage(imageReference(project, tag), latest);
      },
    },
    movesLatest &&
      push &&
      remoteLatest !== undefined && {
        name: 'push-latest',
        title: `push ${remoteLatest}`,
        apply: async (data) => data.movesLatest && pushImage(latest, remoteLatest),
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
      apply: (data) => runHooks(project, 'after', data),
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

/** Hooks and checks are the project's own commands: what is released must still be what was planned. */
async function runOwnCommands(project: Project, data: ReleaseData): Promise<void> {
  await runHooks(project, 'before', data);
  await runHooks(project, 'check', data);
  const problems = workTreeProblems(project, await workTree(project.root));
  if (problems.length > 0)
    throw combinedError('Cannot release: a check or hook changed the project', problems);
}

async function build(project: Project, data: ReleaseData): Promise<void> {
  const { commit, version, push, date } = data;
  const image = await buildCommit(project, {
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
  const { tag, commit, digest, platforms, date } = data;
  const baseImage = await baseImageOf(project);
  const message = releaseTagMessage(tag, { image: imageName(project, data), digest, platforms, baseImage });
  return writeTag(project.root, { tag, commit, message, date: new Date(date) });
}

/** Gives the tried image its version's name; builds it again from its tag if it was lost meanwhile. */
async function nameImage(project: Project, data: ReleaseData): Promise<void> {
  const { tag, commit, digest, platforms } = data;
  if (await releasedImage(project, { name: tag, record: data })) return;
  try {
    // A dry run has built nothing, and so has no digest.
    await tagImage(digest || candidateReference(project, commit), imageReference(project, tag));
  } catch (cause) {
    if (!(cause instanceof CommandError)) throw cause;
    if (!Object.values(platforms).includes(digest)) {
      const message = `The image of ${tag} was removed, and one of several platforms cannot be built the same again`;
      throw new TaskError(message, {
        code: 'image-missing',
        hint: `npm run release -- --undo ${tag}`,
        cause,
      });
    }
    log.info(`the image ${digest} is missing: rebuilding ${tag} from its commit`);
    await buildRelease(project, tag, { isExact: true });
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
  await clearLeftovers(root, interrupted);
  const { tag, tagObject } = interrupted?.data ?? {};
  if (interrupted?.committed && (await resolveRevision(root, `refs/tags/${tag}`)) !== tagObject) {
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
  { push, deploy }: Pick<ReleaseRequest, 'push' | 'deploy'>,
): Promise<ReleaseData | undefined> {
  const { root, release } = project;
  const version = semver.valid(requested);
  const tags = version ? await releaseTags(root, release.tag_prefix) : [];
  const found = tags.find((tag) => tag.version === version);
  const { branch } = found ? await workTree(root) : {};
  if (!found?.record || !branch || !(await isAncestor(root, found.commit, 'HEAD'))) return undefined;
  if (push) await queryRemote(project, true);
  const { name: tag, version: known, commit, oid: tagObject, record } = found;
  const isLatest = isStable(known) && !isMaintenanceBranch(project, branch);
  const movesLatest = isLatest && !(await isOvertaken(project, { version: known, push }));
  const names = {
    tag,
    version: known,
    branch,
    head: commit,
    date: new Date().toISOString(),
    commit,
    tagObject,
  };
  const image = { digest: record.digest, platforms: record.platforms, movesLatest };
  return {
    ...names,
    ...image,
    ...{ current: null, previous: null, notes: '' },
    push,
    deploy,
    isReleased: true,
  };
}

/** Is there nothing left of an existing release that this run was asked for? */
export async function isComplete(project: Project, data: ReleaseData): Promise<boolean> {
  if (data.push || data.deploy) return false;
  const image = await releasedImage(project, { name: data.tag, record: data });
  const latest = data.movesLatest ? await inspectImage(imageReference(project, 'latest')) : image;
  return image !== undefined && latest?.id === image.id;
}

/**
 * Runs the project's own commands around a release, with what they need to know in their environment (SYNAPSE_RELEASE_TAG
 * and so on, the prefix being the project's). @throws TaskError at the first that fails, with the last lines of its output
 */
async function runHooks(project: Project, kind: 'check' | 'before' | 'after', data: ReleaseData) {
  const { checks, hooks } = project.release;
  const [what, key, commands] =
    kind === 'check'
      ? ['The check', 'release.checks', checks]
      : [`The hook ${kind} a release`, `release.hooks.${kind}`, hooks[kind]];
  const { tag, version, branch, commit, digest, previous } = data;
  const known = { tag, version, branch, image: imageName(project, data), previous, commit, digest };
  const env: Record<string, string> = {};
  for (const [name, value] of Object.entries(known))
    env[variableName(project, `RELEASE_${name.toUpperCase()}`)] = value ?? '';
  for (const [program = '', ...argv] of commands) {
    log.step(`${kind}: ${describeCommand([program, ...argv])}`);
    try {
      await run([program, ...argv], { cwd: project.root, env });
    } catch (cause) {
      if (!(cause instanceof CommandError)) throw cause;
      // Test runners report on stdout, others on stderr.
      const said = lastLines(`${cause.stdout.trimEnd()}\n${cause.stderr}`.trim());
      const failed = `${what} \`${cause.command}\` failed with exit code ${cause.processExitCode}`;
      const isOver = kind === 'after';
      const outcome = isOver
        ? `${tag} is released; once this works: npm run release`
        : 'nothing was released';
      throw new TaskError(said ? `${failed}:\n${said}` : failed, {
        code: kind === 'check' ? 'check-failed' : 'hook-failed',
        hint: `${outcome}; it is in ${key} in ${PROJECT_FILE}`,
        cause,
      });
    }
  }
}
