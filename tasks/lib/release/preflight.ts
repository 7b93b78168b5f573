// Everything that can stop a release before anything is written, found in one go. Each problem comes with
// its remedy; asking changes nothing.
import { verifyCompose } from '../docker/compose.ts';
import { composeServices, verifyServices } from '../docker/compose-config.ts';
import { type EngineInfo, engineInfo } from '../docker/engine-info.ts';
import { inspectImage } from '../docker/images.ts';
import { combinedError, TaskError } from '../errors.ts';
import { isShallow, localTags, workTree } from '../git.ts';
import { imageReference, type Project, variable } from '../project.ts';
import { verifyServiceConfig } from '../switch/service-config.ts';
import { verifyDiskSpace } from './disk-space.ts';
import { planRelease, type ReleasePlan, type ReleaseRequest, type Repository } from './plan.ts';
import { verifyImageNameFree, verifyRegistryNameFree } from './preflight-names.ts';
import { askRemote, movedTags, verifyNotBehind, verifyPushAccess } from './preflight-remote.ts';
import { workTreeProblems } from './work-tree-check.ts';

export interface Preflight {
  plan: ReleasePlan;
  engine: EngineInfo;
}

/** Collects the problems of several checks; what is not a problem of the user's is thrown at once. */
class Problems {
  readonly found: TaskError[] = [];

  async of<T>(check: Promise<T>): Promise<T | undefined> {
    try {
      return await check;
    } catch (error) {
      if (!(error instanceof TaskError) || error.code === 'interrupted') throw error;
      this.found.push(error);
      return undefined;
    }
  }
}

/** Checks everything and plans the release. @throws TaskError listing every problem found */
export async function verifyReleasable(project: Project, request: ReleaseRequest): Promise<Preflight> {
  const problems = new Problems();
  const [repository, engine] = await Promise.all([
    checkRepository(project, request, problems),
    checkEngine(project, request, problems),
    problems.of(verifyConfiguration(project)),
  ]);
  // A choice is offered only when the answer can be followed.
  const canPlan = repository && (request.requested !== undefined || problems.found.length === 0);
  const plan = canPlan ? await problems.of(planRelease(project, repository, request)) : undefined;
  if (plan && engine) await checkNames(project, plan, request, problems);
  if (problems.found.length > 0 || !engine || !plan) {
    throw combinedError(`Cannot release: ${problems.found.length} things stand in the way`, problems.found);
  }
  return { plan, engine };
}

/** What is asked of git alone: for --notes-only, which needs neither an engine nor a clean tree. */
export async function readRepository(project: Project): Promise<Repository> {
  const problems = new Problems();
  const repository = await checkRepository(project, { push: false }, problems);
  if (repository) return repository;
  throw combinedError('Cannot read the repository', problems.found);
}

async function checkRepository(
  project: Project,
  { push }: Pick<ReleaseRequest, 'push'>,
  problems: Problems,
): Promise<Repository | undefined> {
  const [tree, , remote] = await Promise.all([
    workTree(project.root),
    problems.of(verifyCompleteHistory(project)),
    problems.of(askRemote(project, push)),
  ]);
  problems.found.push(...workTreeProblems(project, tree));
  if (!tree.head) return undefined;
  const repository = { head: tree.head, branch: tree.branch ?? project.release.branch, remote };
  const [tags] = await Promise.all([
    localTags(project.root),
    remote && problems.of(verifyNotBehind(project, repository, remote)),
    remote && push && problems.of(verifyPushAccess(project, repository.branch)),
  ]);
  if (remote) problems.found.push(...movedTags(project, tags, remote));
  return { ...repository, tags };
}

async function checkEngine(
  project: Project,
  { push }: ReleaseRequest,
  problems: Problems,
): Promise<EngineInfo | undefined> {
  const engine = await problems.of(engineInfo());
  if (!engine) return undefined;
  const latest = await inspectImage(imageReference(project, 'latest'));
  await problems.of(verifyDiskSpace(project, engine, latest?.size ?? 0));
  const { platforms, registry } = project.image;
  if (push && registry && platforms.length > 0 && !engine.containerdStore) {
    problems.found.push(
      new TaskError(`Cannot build ${platforms.join(', ')}: this engine's image store holds one platform`, {
        code: 'platforms-unsupported',
        hint: 'turn the containerd image store on: {"features":{"containerd-snapshotter":true}} in daemon.json',
      }),
    );
  }
  return engine;
}

async function checkNames(
  project: Project,
  plan: ReleasePlan,
  { push, edit }: ReleaseRequest,
  problems: Problems,
): Promise<void> {
  const { tag } = plan.version;
  await Promise.all([
    problems.of(verifyImageNameFree(project, tag)),
    push && problems.of(verifyRegistryNameFree(project, tag)),
  ]);
  if (!plan.isEmpty || edit) return;
  problems.found.push(
    new TaskError(`Cannot release ${tag}: its notes would be empty, no commit has anything to tell`, {
      code: 'notes-empty',
      hint: `write the entry yourself: --edit, or a "## [${tag}]" section in ${project.release.notes}`,
    }),
  );
}

async function verifyCompleteHistory(project: Project): Promise<void> {
  if (!(await isShallow(project.root))) return;
  throw new TaskError('Cannot release from a shallow clone: commits and tags are missing', {
    code: 'shallow-clone',
    hint: `git fetch --unshallow --tags ${project.release.remote}`,
  });
}

async function verifyConfiguration(project: Project): Promise<void> {
  try {
    const services = await composeServices(project, variable(project, 'PROD_TAG'));
    verifyServices(project, services);
    await verifyServiceConfig(project, services);
  } catch (error) {
    // Without compose nothing can be said about a compose file; asked only now, since it is rare.
    await verifyCompose();
    throw error;
  }
}
