// The image that ours is built from: present, pulled, or, where no registry can be reached, assembled
// under a name of its own, so that nobody takes it for the official one.

import { probe, read, run } from '../command.ts';
import { seconds } from '../duration.ts';
import { CommandError, TaskError } from '../errors.ts';
import { log } from '../log.ts';
import { assembleNodeImage, isImageArchitecture } from './base-image-assemble.ts';
import { loadDistribution } from './observe.ts';

export interface BaseImage {
  /** What the build takes as its base image. */
  reference: string;
  source: 'present' | 'pulled' | 'assembled';
  seconds: number;
}

const PULL_WITHIN_MS = 600_000;
/** How a pull fails when the registry cannot be had; any other failure is about the name. */
const NO_REGISTRY =
  /no such host|dial tcp|timeout|timed out|no answer within|refused|unreachable|x509|tls:|temporary failure|toomanyrequests|\bEOF\b|50[0-9] /i;

export function isRegistryFailure(stderr: string): boolean {
  return NO_REGISTRY.test(stderr);
}

async function hasImage(reference: string): Promise<boolean> {
  return (await probe(['docker', 'image', 'inspect', '--format', '{{.Id}}', reference])).ok;
}

/** The first of `references` that the engine has; changes nothing. */
export async function findBaseImage(references: readonly string[]): Promise<string | undefined> {
  for (const reference of references) if (await hasImage(reference)) return reference;
  return undefined;
}

/**
 * What a stand-in for `baseImage` is called (`synapse-node:24` for `node:24-bookworm-slim`); undefined if
 * we cannot make one, because it is no Node image.
 */
export function standInFor(project: string, baseImage: string): string | undefined {
  const major = baseImage.match(/(?:^|\/)node:(\d+)/)?.[1];
  return major ? `${project}-node:${major}` : undefined;
}

/** One line for a plan. */
export function describeBaseImage(baseImage: string, standIn: string | undefined): string {
  const otherwise = standIn ? `, or assemble ${standIn} where no registry answers` : '';
  return `get the base image: pull ${baseImage}${otherwise}`;
}

/** False if no registry could be reached. @throws TaskError `base-image` for every other failure */
async function pull(baseImage: string): Promise<boolean> {
  try {
    await run(['docker', 'pull', '--quiet', baseImage], { timeoutMs: PULL_WITHIN_MS });
    return true;
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    if (isRegistryFailure(error.stderr)) return false;
    throw new TaskError(`Cannot pull the base image ${baseImage}: ${error.stderr.trim()}`, {
      code: 'base-image',
      hint: 'Check its name: image.base_image in configs/release.toml',
      cause: error,
    });
  }
}

async function assemble(baseImage: string, standIn: string | undefined): Promise<void> {
  const { codename, id } = await loadDistribution();
  const architecture = await read(['docker', 'version', '--format', '{{.Server.Arch}}']);
  if (!standIn || id !== 'debian' || !isImageArchitecture(architecture)) {
    throw new TaskError(`No registry answers, and the engine does not have ${baseImage} (${architecture})`, {
      code: 'base-image',
      hint: `On a machine with network: docker save ${baseImage} -o base.tar; here: docker load -i base.tar`,
    });
  }
  log.step(`no registry answers: assembling ${standIn} from Debian and npm packages`);
  await assembleNodeImage(standIn, { architecture, major: standIn.split(':')[1] ?? '', codename });
}

/**
 * Makes sure that the engine has `baseImage`, or `standIn` in its place. A present stand-in is used
 * without asking a registry again: remove it (`docker rmi`) to try the pull.
 * @throws TaskError `base-image` when the name is wrong or neither can be had
 */
export async function ensureBaseImage(baseImage: string, standIn: string | undefined): Promise<BaseImage> {
  const began = performance.now();
  const had = (reference: string, source: BaseImage['source']) => ({
    reference,
    source,
    seconds: seconds(began),
  });
  const present = await findBaseImage(standIn ? [baseImage, standIn] : [baseImage]);
  if (present) return had(present, 'present');
  log.step(`pulling ${baseImage}`);
  if (await pull(baseImage)) return had(baseImage, 'pulled');
  await assemble(baseImage, standIn);
  return had(standIn ?? baseImage, 'assembled');
}
