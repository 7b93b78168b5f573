// Images as the Docker engine knows them. Its JSON is checked at this edge.
import { run } from '../command.ts';
import { docker } from './client.ts';
import { askEngine } from './engine-api.ts';

export interface Image {
  /** What the engine calls the image: the manifest digest in a containerd store, else the config digest. */
  id: string;
  labels: Record<string, string>;
  architecture: string;
  /** Bytes. */
  size: number;
  repoDigests: string[];
}

/** The image, or undefined if the engine does not have it. @throws TaskError when the engine is down */
export async function inspectImage(reference: string): Promise<Image | undefined> {
  const path = reference.split('/').map(encodeURIComponent).join('/');
  const answer = await askEngine(`/images/${path}/json`);
  if (answer === undefined) return undefined;
  const { z } = await import('#zod');
  const schema = z.object({
    Id: z.string(),
    Architecture: z.string(),
    Size: z.number(),
    RepoDigests: z.array(z.string()).nullish(),
    Config: z.object({ Labels: z.record(z.string(), z.string()).nullish() }).nullish(),
  });
  const image = schema.parse(answer);
  return {
    id: image.Id,
    labels: image.Config?.Labels ?? {},
    architecture: image.Architecture,
    size: image.Size,
    repoDigests: image.RepoDigests ?? [],
  };
}

export async function tagImage(source: string, target: string): Promise<void> {
  await run(docker('image', 'tag', source, target));
}

/** Takes a name away from an image; the image itself goes when it was its last. Missing: nothing to do. */
export async function untagImage(reference: string): Promise<void> {
  if (await inspectImage(reference)) await run(docker('image', 'rm', '--no-prune', reference));
}

/** The local names that begin so, e.g. with `synapse:candidate-`. */
export async function imageNames(beginning: string): Promise<string[]> {
  const { z } = await import('#zod');
  const schema = z.array(z.object({ RepoTags: z.array(z.string()).nullish() }));
  const filters = encodeURIComponent(JSON.stringify({ reference: [`${beginning}*`] }));
  const images = schema.parse(await askEngine(`/images/json?filters=${filters}`));
  // An image comes with all its names.
  return images.flatMap(({ RepoTags }) => RepoTags ?? []).filter((name) => name.startsWith(beginning));
}
