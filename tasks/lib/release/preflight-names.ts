// Is the version's name still free wherever it will be written: in the local engine, in the registry? A name
// that something else has is never taken from it.
import { type Image, inspectImage } from '../docker/images.ts';
import { registryDigest } from '../docker/registry.ts';
import { TaskError } from '../errors.ts';
import { imageReference, type Project, registryReference } from '../project.ts';
import { session } from '../session.ts';

/** Before the build there is nothing that a present image could be equal to. @throws TaskError */
export async function verifyImageNameFree(project: Project, tag: string, built?: Image): Promise<void> {
  const reference = imageReference(project, tag);
  const present = await inspectImage(reference);
  if (!present || present.id === built?.id || (built && session.dryRun)) return;
  const revision = present.labels['org.opencontainers.image.revision'];
  const origin = revision ? `, built from commit ${revision.slice(0, 7)},` : '';
  const than = built ? `is not the one just built (${built.id})` : 'has no git tag';
  throw new TaskError(`Cannot release: the image ${reference} exists (${present.id})${origin} and ${than}`, {
    code: 'image-exists',
    hint: `if nobody needs it, take its name away: docker image rm ${reference}`,
  });
}

/** Also shows that the registry answers and lets us in. @throws TaskError */
export async function verifyRegistryNameFree(project: Project, tag: string): Promise<void> {
  const reference = registryReference(project, tag);
  const present = reference ? await registryDigest(reference) : undefined;
  if (!present) return;
  throw new TaskError(`Cannot release: the registry has ${reference} already (${present})`, {
    code: 'image-exists',
    hint: 'somebody pushed that version: git fetch --tags, or choose a higher version',
  });
}
