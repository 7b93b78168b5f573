// A released image that was built again and came out different: what differs in words, and the note that this
// machine runs it nevertheless. The commit is the same; base image, builder or platform are not.
import type { BuiltImage } from '../docker/build.ts';
import { inspectImage } from '../docker/images.ts';
import { log } from '../log.ts';
import { imageReference, type Project, registryReference, variable } from '../project.ts';
import { acceptRebuild } from './rebuilds.ts';
import { isReleasedImage, type ReleaseRecord } from './record.ts';

interface Difference {
  record: ReleaseRecord;
  image: Pick<BuiltImage, 'id' | 'platforms'>;
  /** This machine's base image as `reference@id`; undefined when there is none. */
  baseImage: string | undefined;
}

/** Why the same commit gave another image here. Pure. */
export function rebuildDifference({ record, image, baseImage }: Difference): string {
  if (isReleasedImage(record, image)) return 'the platforms are the released ones, the provenance is new';
  const others = Object.keys(image.platforms).filter((name) => !(name in record.platforms));
  const released = Object.keys(record.platforms);
  if (released.length > 0 && others.length > 0)
    return `it was released for ${released.join(', ')} and this is ${others.join(', ')}`;
  if (record.baseImage && record.baseImage !== baseImage)
    return `the base image was ${record.baseImage}, here it is ${baseImage ?? 'another one'}`;
  return 'commit and base image are the same, so the builder differs (its version, or secrets and arguments)';
}

/** Warns, and remembers that on this machine this image is the release. */
export async function acceptDifferingRebuild(
  project: Project,
  tag: string,
  record: ReleaseRecord,
  image: BuiltImage,
): Promise<void> {
  const reference = variable(project, 'BASE_IMAGE') ?? project.image.base_image;
  const present = reference ? await inspectImage(reference) : undefined;
  const baseImage = present ? `${reference}@${present.id}` : undefined;
  const why = rebuildDifference({ record, image, baseImage });
  log.warn(`the rebuilt image of ${tag} is not byte for byte the released one: ${why}`);
  log.info(`  released ${record.digest}\n  here     ${image.id}`);
  const registry = registryReference(project, tag);
  const source = registry ? `docker pull ${registry}` : 'docker save on the other machine, docker load here';
  log.info(
    `  hint: it runs on this machine as ${imageReference(project, tag)}; for the very image: ${source}`,
  );
  await acceptRebuild(project.root, tag, {
    digest: image.id,
    released: record.digest,
    why,
    at: new Date().toISOString(),
  });
}
