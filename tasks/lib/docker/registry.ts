// The registry side of immutability: a version tag is pushed once; the digest is read back and compared.
import { z } from 'zod';
import { probe, run } from '../command.ts';
import { CommandError, errorSummary, TaskError } from '../errors.ts';
import { log } from '../log.ts';
import { pause } from '../session.ts';
import { docker, queryEngine } from './engine.ts';
import { inspectImage, tagImage } from './objects.ts';

/** A registry in the engine's insecure-registries, or with a certificate that only the engine knows. */
const NOT_FOR_BUILDX = /server gave HTTP response to HTTPS client|x509:/;

/** The engine reaches a registry as `docker push` does. */
async function askEngineForDigest(reference: string): Promise<string | undefined> {
  const answer = await queryEngine(`/distribution/${reference}/json`);
  return answer === undefined
    ? undefined
    : z.object({ Descriptor: z.object({ digest: z.string() }) }).parse(answer).Descriptor.digest;
}

/** One question, without retries. @throws TaskError if the registry does not answer, or refuses to */
async function askRegistry(reference: string): Promise<string | undefined> {
  const answer = await probe(
    docker('buildx', 'imagetools', 'inspect', '--format', '{{json .Manifest}}', reference),
    { timeoutMs: 60_000 },
  );
  if (answer.ok) return (JSON.parse(answer.stdout) as { digest: string }).digest;
  if (NOT_FOR_BUILDX.test(answer.stderr)) return askEngineForDigest(reference);
  if (/(: not found$|manifest unknown|name unknown)/im.test(answer.stderr)) return undefined;
  throw new TaskError(
    `Cannot query the registry for ${reference}: ${answer.stderr.trim().split('\n').at(-1)}`,
    {
      code: 'registry-unreachable',
      hint: 'is it running and are you logged in? see: docker login',
    },
  );
}

/** The digest that a registry has under a reference, undefined if none. @throws TaskError if it does not answer */
export function registryDigest(reference: string): Promise<string | undefined> {
  return withRetries(`querying ${reference}`, () => askRegistry(reference));
}

/** The digest that the engine knows the image by in that registry; undefined before the first push. */
async function localDigest(reference: string): Promise<string | undefined> {
  const repository = reference.slice(0, reference.lastIndexOf(':'));
  const image = await inspectImage(reference);
  return image?.repoDigests.find((digest) => digest.startsWith(`${repository}@`))?.split('@')[1];
}

/**
 * Pushes a local image under a registry reference and reads the digest back. `release`: the reference names a release and is
 * never overwritten; pushing is skipped where the registry has this image, or one of those digests (the index, say, of which
 * this machine has one platform).
 */
export async function pushImage(
  local: string,
  reference: string,
  release?: readonly string[],
): Promise<string> {
  await tagImage(local, reference);
  const present = release && (await registryDigest(reference));
  const own = present && (await localDigest(reference));
  if (present && [own, ...release].includes(present)) {
    log.info(`${reference} is already in the registry (${present})`);
    return present;
  }
  if (present) {
    const here = own ?? 'another image';
    throw new TaskError(`Cannot push ${reference}: the registry has ${present}, this machine has ${here}`, {
      code: 'image-exists',
      hint: 'a released version is never overwritten; release a new one',
    });
  }
  try {
    await withRetries(`pushing ${reference}`, () => run(docker('push', '--quiet', reference)));
  } catch (cause) {
    if (!(cause instanceof CommandError)) throw cause;
    throw new TaskError(`Cannot push ${reference}: ${cause.stderr.trim().split('\n').at(-1) ?? ''}`, {
      code: 'push-failed',
      hint: transientReason(cause.message)
        ? 'the registry has a temporary problem; run the same command again later, it resumes from here'
        : 'are you logged in and allowed to push? see: docker login',
      cause,
    });
  }
  return verifyPushed(reference);
}

async function verifyPushed(reference: string): Promise<string> {
  const [pushed, local] = [await registryDigest(reference), await localDigest(reference)];
  if (pushed && pushed === local) return pushed;
  throw new TaskError(`The registry has ${pushed ?? 'nothing'} under ${reference}, expected ${local}`, {
    code: 'push-not-verified',
    hint: 'somebody pushed at the same time, or a proxy rewrites images; push again',
  });
}

// Trying again what a registry, a network or the engine refused for the moment, and only that: a wrong password or a
// full disk will not change by waiting. Bounded, with growing pauses.

const PAUSES_MS: readonly number[] = [300, 1000, 3000];

/** What passes by itself: rate limits, a server's own errors, names that do not resolve, broken connections. */
const TRANSIENT: readonly (readonly [RegExp, string])[] = [
  [/(?:^|[\s:(])429(?:[\s,:;)]|$)|too ?many ?requests/im, 'rate limit of the registry'],
  [
    /(?:^|[\s:(])50[0234](?:[\s,:;)]|$)|internal server error|bad gateway|service unavailable|gateway time-?out/im,
    'error of the registry',
  ],
  [
    /no such host|temporary failure in name resolution|server misbehaving|EAI_AGAIN/i,
    'name resolution failed',
  ],
  [
    /connection (refused|reset)|broken pipe|unexpected EOF|\bEOF$|i\/o timeout|TLS handshake timeout|network is unreachable|deadline exceeded/im,
    'connection failed',
  ],
];

/** Why a failure will probably pass, or undefined if it will not. Pure. */
export function transientReason(message: string): string | undefined {
  if (/unauthorized|authentication required|access denied|no basic auth/i.test(message)) return undefined;
  return TRANSIENT.find(([pattern]) => pattern.test(message))?.[1];
}

/** Runs `work` up to four times, as long as it fails of something that passes. */
async function withRetries<T>(what: string, work: () => Promise<T>): Promise<T> {
  for (const wait of PAUSES_MS) {
    try {
      return await work();
    } catch (error) {
      const reason = transientReason(error instanceof Error ? error.message : '');
      if (!reason || (error as { code?: string }).code === 'interrupted') throw error;
      log.warn(`${what}: ${reason} (${errorSummary(error)}); retrying in ${wait / 1000} s`);
      await pause(wait);
    }
  }
  return work();
}

const ENGINE_TRIES = 5;
const ENGINE_PAUSE_MS = 200;

/** Runs `work` up to five times, as long as the engine's words (`passing`) are those of a failure that passes. */
export async function withEngineRetries(passing: RegExp, work: () => Promise<unknown>): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    try {
      await work();
      return;
    } catch (error) {
      const passes = error instanceof CommandError && passing.test(error.stderr);
      if (!passes || tries === ENGINE_TRIES) throw error;
      log.warn(`the engine failed (${errorSummary(error)}); retrying`);
      await pause(ENGINE_PAUSE_MS);
    }
  }
}
