// Images as the Docker engine knows them. Its JSON is checked at this edge.
import { read, run } from '../command.ts';
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

/** The local references that match a pattern, e.g. `synapse:candidate-*`. */
export async function imageReferences(pattern: string): Promise<string[]> {
  const format = '{{.Repository}}:{{.Tag}}';
  const output = await read(docker('image', 'ls', '--filter', `reference=${pattern}`, '--format', format));
  return output ? output.split('\n') : [];
}
