// Which image each environment shall run; prod's must be the very one that was released. One that is not on this machine
// is pulled by its digest or built again from its git tag, never from the working tree.
import { type ActiveEnvironment, environmentsOf } from '../active.ts';
import { run } from '../command.ts';
import { docker, engineInfo } from '../docker/engine.ts';
import { type Image, inspectImage, tagImage } from '../docker/objects.ts';
import { errorSummary, nearest, TaskError } from '../errors.ts';
import { log } from '../log.ts';
import { type EnvironmentName, imageReference, type Project, registryReference } from '../project.ts';
import { buildRelease } from '../release/build-image.ts';
import {
  readRelease,
  releasedDigests,
  releasesToRun,
  verifyReleasedImage,
  versionOfTag,
} from '../release/record.ts';
import type { SwitchTarget } from './plan.ts';

export interface TargetCheck {
  target: SwitchTarget;
  problems: TaskError[];
}

/** The image that an environment runs: `latest` for dev, the release for prod. */
export function environmentImage(
  project: Project,
  name: EnvironmentName,
  prodTag: string | undefined,
): string {
  return imageReference(project, name === 'dev' ? 'latest' : (prodTag ?? 'not-released-yet'));
}

/** What shall run, with the image of each environment looked up; problems are collected, not thrown. */
export async function checkTarget(
  project: Project,
  active: ActiveEnvironment,
  prodTag: string | undefined,
): Promise<TargetCheck> {
  const check: TargetCheck = { target: { active, prodTag, imageIds: {}, images: {} }, problems: [] };
  const lookUp = async (name: EnvironmentName) => {
    const image = name === 'dev' ? await devImage(project) : await prodImage(project, prodTag, check.target);
    if (!image) return;
    check.target.images[name] = image;
    check.target.imageIds[name] = image.id;
  };
  await Promise.all(
    environmentsOf(active).map((name) =>
      lookUp(name).catch((error) => {
        if (!(error instanceof TaskError) || error.code === 'engine-down') throw error;
        check.problems.push(error);
      }),
    ),
  );
  return check;
}

async function devImage(project: Project): Promise<Image> {
  const reference = environmentImage(project, 'dev', undefined);
  const image = await inspectImage(reference);
  if (image) return image;
  throw new TaskError(`The image ${reference} is not on this machine`, {
    code: 'image-missing',
    hint: 'build it: npm run build-push',
  });
}

/** The release's image, or undefined if the target now says how it is had. */
async function prodImage(project: Project, prodTag: string | undefined, target: SwitchTarget) {
  if (!prodTag) {
    throw new TaskError('There is no release for prod yet', {
      code: 'no-release',
      hint: 'make one: npm run release',
    });
  }
  try {
    return await verifyReleasedImage(project, prodTag);
  } catch (error) {
    if (error instanceof TaskError && error.code === 'not-released')
      throw await withSuggestion(project, prodTag, error);
    const release = await readRelease(project.root, prodTag);
    if (!(error instanceof TaskError) || error.code !== 'image-missing' || !release) throw error;
    target.imageIds.prod = release.digest;
    target.fetch = registryReference(project, prodTag) ? 'pull' : 'build';
    return undefined;
  }
}

/** Names the release that was probably meant. */
async function withSuggestion(
  project: Project,
  tag: string,
  { message, code, hint }: TaskError,
): Promise<TaskError> {
  const releases = await releasesToRun(project);
  const completed = releases.find((name) =>
    versionOfTag(project, name)?.startsWith(`${tag.replace(/^v/, '')}.`),
  );
  const isLatest = tag === 'latest' && releases.length > 0;
  const meant = isLatest ? 'latest-release' : (completed ?? nearest(tag, releases));
  return new TaskError(message, { code, hint: meant ? `did you mean ${meant}?` : hint });
}

/** Brings a release's image here and checks that it is the released one. @throws TaskError */
export async function fetchRelease(project: Project, tag: string, by: 'pull' | 'build'): Promise<Image> {
  if (by === 'build' || !(await pullRelease(project, tag)))
    await buildRelease(project, await engineInfo(), tag);
  return verifyReleasedImage(project, tag);
}

/** By digest: a tag in a registry says nothing about what it was yesterday. False if the registry has it not. */
async function pullRelease(project: Project, tag: string): Promise<boolean> {
  const release = await readRelease(project.root, tag);
  const repository = registryReference(project, tag)!.slice(0, -tag.length - 1);
  for (const digest of release ? releasedDigests(release) : []) {
    const reference = `${repository}@${digest}`;
    try {
      await run(docker('pull', '--quiet', reference));
      await tagImage(reference, imageReference(project, tag));
      return true;
    } catch (error) {
      if (!(error instanceof TaskError) || error.code === 'interrupted') throw error;
      log.warn(`cannot pull ${reference}: ${errorSummary(error)}`);
    }
  }
  return false;
}
