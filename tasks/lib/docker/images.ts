// Images and containers as the Docker engine knows them. Its JSON is checked at this edge.
import { type Command, describeCommand, probe, read, run } from '../command.ts';
import { CommandError, TaskError } from '../errors.ts';
import { session } from '../session.ts';

/** Every call of `docker` goes through here, so that `--context` reaches them all. */
export function docker(...argv: string[]): Command {
  const { context, engineSocket } = session;
  if (engineSocket) return ['docker', '--host', `unix://${engineSocket}`, ...argv];
  return ['docker', ...(context ? ['--context', context] : []), ...argv];
}

export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The error of a task that needs an engine and has none. */
export function engineDown(stderr: string): TaskError {
  const reason = stderr.trim().split('\n').at(-1) ?? '';
  return new TaskError(`No Docker engine answers${reason ? `: ${reason}` : ''}`, {
    code: 'engine-down',
    hint: howToReach(reason),
  });
}

function howToReach(reason: string): string {
  const host = process.env.DOCKER_HOST;
  if (/permission denied/i.test(reason))
    return 'this user may not use it: sudo usermod -aG docker "$USER", then log in again';
  if (host)
    return `DOCKER_HOST names the engine at ${host}: start that one, or unset DOCKER_HOST to use this machine's`;
  return 'start Docker, or let `npm run setup` install and start it (Debian, Raspberry Pi OS)';
}

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
  const command = docker('image', 'inspect', reference);
  const answer = await probe(command);
  if (!answer.ok) {
    if (/no such image|not found/i.test(answer.stderr)) return undefined;
    if (/cannot connect|daemon running/i.test(answer.stderr)) throw engineDown(answer.stderr);
    throw new CommandError(describeCommand(command), answer.exitCode, answer.stderr);
  }
  const { z } = await import('#zod');
  const schema = z.object({
    Id: z.string(),
    Architecture: z.string(),
    Size: z.number(),
    RepoDigests: z.array(z.string()).nullish(),
    Config: z.object({ Labels: z.record(z.string(), z.string()).nullish() }).nullish(),
  });
  const [image] = z.array(schema).parse(JSON.parse(answer.stdout));
  if (!image) return undefined;
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
