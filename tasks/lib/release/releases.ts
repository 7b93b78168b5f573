// What was released: an annotated version tag says which image it stands for. `switch` and `status` compare
// what runs with that, and `build-push` refuses to overwrite it.
import { join } from 'node:path';
import { type Image, inspectImage } from '../docker/images.ts';
import { TaskError } from '../errors.ts';
import { readIfPresent } from '../files.ts';
import { localTags } from '../git.ts';
import { readHistory } from '../journal.ts';
import { withdrawnVersions } from '../notes/changelog.ts';
import { imageReference, type Project } from '../project.ts';
import { session } from '../session.ts';
import { isStable, knownTags, parseTag } from '../version/version-tags.ts';
import { acceptedRebuild } from './rebuilds.ts';
import { readRelease, releasedDigests } from './record.ts';

/** The released image, present and unchanged. @throws TaskError naming what differs */
export async function verifyReleasedImage(project: Project, tag: string): Promise<Image> {
  const reference = imageReference(project, tag);
  const release = await readRelease(project.root, tag);
  if (!release) {
    throw new TaskError(`${tag} is not a release of this project: no annotated git tag records its image`, {
      code: 'not-released',
      hint: 'see the releases: git tag --list; fetch them: git fetch --tags',
    });
  }
  const image = await inspectImage(reference);
  if (!image) {
    throw new TaskError(`The image ${reference} is not on this machine`, {
      code: 'image-missing',
      hint: `npm run build-push -- ${tag}   builds it again from its git tag`,
    });
  }
  if (releasedDigests(release).includes(image.id)) return image;
  const rebuild = await acceptedRebuild(project.root, tag, release.digest);
  if (rebuild?.digest === image.id) return image;
  throw new TaskError(
    `The image ${reference} is not the released one: it is ${image.id}, released was ${release.digest}`,
    {
      code: 'image-changed',
      hint: `somebody re-tagged it. Take the name away (docker image rm ${reference}) and rebuild it from its git tag: npm run build-push -- ${tag}`,
    },
  );
}

/** The tags of all releases, best first: stable before prereleases, high before low, none that was withdrawn. */
export async function releasesToRun(project: Project): Promise<string[]> {
  const tags = knownTags(await localTags(project.root), project.release.tag_prefix);
  const notes = (await readIfPresent(join(project.root, project.release.notes))) ?? '';
  const withdrawn = withdrawnVersions(notes);
  const offered = tags.filter(({ version }) => !withdrawn.has(version));
  const stable = offered.filter(({ version }) => isStable(version));
  return [...stable, ...offered.filter((tag) => !stable.includes(tag))].map(({ name }) => name);
}

/** The tag of the highest stable release, else of the highest prerelease; undefined before the first. */
export async function newestRelease(project: Project): Promise<string | undefined> {
  return (await releasesToRun(project))[0];
}

/** The release that prod ran before the present one, from the history. @throws TaskError if there is none */
export async function previousRelease(project: Project, present: string | undefined): Promise<string> {
  const switches = (await readHistory(project.root)).filter(
    // Of this very engine: another machine's history is beside it in the same file.
    ({ task, outcome, context }) => task === 'switch' && outcome === 'done' && context === session.context,
  );
  const previous = switches.map(({ prod }) => prod).findLast((tag) => tag && tag !== present);
  if (previous) return previous;
  throw new TaskError('There is no previous release: the history knows no other one that prod ran', {
    code: 'no-previous',
    hint: 'name it: npm run switch -- prod --version vX.Y.Z',
  });
}

/** The version that a tag of this project names. */
export function versionOfTag(project: Project, tag: string): string | undefined {
  return parseTag(project.release.tag_prefix, tag);
}
