// Building the image: a release from its commit's tree, `latest` from the working tree. Same inputs, same digest.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { type Command, read, run } from '../command.ts';
import { CommandError, lastLines, TaskError } from '../errors.ts';
import { withWorkDirectory } from '../files.ts';
import { commitTime, exportTree, sourceUrl } from '../git.ts';
import { log } from '../log.ts';
import { type Project, variable } from '../project.ts';
import { csvOption, docker, engineInfo } from './engine.ts';
import { type Image, inspectImage } from './objects.ts';
import { withEngineRetries } from './registry.ts';

interface BuildRequest {
  /** Directory that plays the project: an exported commit, or the working tree. */
  directory: string;
  /** The local name that the image gets, e.g. `synapse:candidate-3f2a91c`. */
  tag: string;
  /** What the service reports, without the tag prefix. */
  version: string;
  /** Commit, with `-dirty` when the working tree was. */
  revision: string;
  /** Seconds since 1970: what every time stamp inside the image is set to. */
  epoch: number;
  /** URL of the project, '' if unknown. */
  source: string;
  /**
   * Empty: one image, for the engine's own. Else, for what is pushed, an index of these platforms with provenance, which
   * makes its digest different from build to build.
   */
  platforms: readonly string[];
}

/** An image with what identifies it whoever builds it: the manifest digest of each platform. */
export interface BuiltImage extends Image {
  /** `linux/amd64` → manifest digest; in an engine without containerd's store the config digest. */
  platforms: Record<string, string>;
}

/** The output of an engine without containerd's store, which holds neither an index nor provenance. */
const DOCKER_STORE = 'type=docker';

/** The `buildx build` command; `output` is its --output value. Pure but for the presence of secret files. */
function buildCommand(project: Project, request: BuildRequest, output: string): Command {
  const { image } = project;
  const baseImage = variable(project, 'BASE_IMAGE') ?? image.base_image;
  const buildArgs = {
    ...image.build_args,
    ...(image.base_image_arg && baseImage ? { [image.base_image_arg]: baseImage } : {}),
    VERSION: request.version,
    REVISION: request.revision,
    CREATED: new Date(request.epoch * 1000).toISOString().replace('.000', ''),
    SOURCE: request.source,
    SOURCE_DATE_EPOCH: String(request.epoch),
  };
  const secrets = Object.entries(image.secret_files).flatMap(([id, name]) => {
    const path = process.env[name];
    return path && existsSync(path) ? ['--secret', csvOption({ id, src: path })] : [];
  });
  return docker(
    'buildx',
    'build',
    '--progress=plain',
    `--provenance=${request.platforms.length > 0 && output !== DOCKER_STORE ? 'mode=min' : 'false'}`,
    ...(image.target ? ['--target', image.target] : []),
    ...(request.platforms.length > 0 ? ['--platform', request.platforms.join(',')] : []),
    ...Object.entries(buildArgs).flatMap(([name, value]) => ['--build-arg', `${name}=${value}`]),
    ...secrets,
    '--tag',
    request.tag,
    '--output',
    output,
    '--file',
    join(request.directory, image.dockerfile),
    join(request.directory, image.context),
  );
}

/**
 * Builds and loads the image under `request.tag`. In a containerd store the image goes through an OCI
 * archive, the only way in which BuildKit rewrites time stamps, so that a commit always has one digest.
 */
export async function buildImage(project: Project, request: BuildRequest): Promise<BuiltImage> {
  const { containerdStore } = await engineInfo();
  const platforms = containerdStore
    ? await buildThroughArchive(project, request)
    : await build(buildCommand(project, request, DOCKER_STORE));
  const image = await inspectImage(request.tag);
  if (image) return { ...image, platforms: platforms ?? { [`linux/${image.architecture}`]: image.id } };
  throw new TaskError(`The build of ${request.tag} succeeded, but the engine does not have the image`, {
    code: 'image-missing',
    hint: 'is another docker context or builder in use? see: docker buildx ls',
  });
}

/** BuildKit now and then loses a snapshot that another build has just released. */
const LOST_LAYER = /parent snapshot \S+ does not exist/;

async function build(command: Command): Promise<undefined> {
  // Buildx would attest the commit of the surrounding repository: the one before the release.
  const options = { env: { BUILDX_GIT_INFO: 'false' }, onLine: showBuildStep };
  await withEngineRetries(LOST_LAYER, () => run(command, options)).catch((error: unknown) => {
    throw error instanceof CommandError ? buildFailure(error) : error;
  });
  return undefined;
}

/** Of BuildKit's plain progress, the steps: `#7 [build 2/5] RUN npm ci`. */
function showBuildStep(line: string): void {
  const [, step] = /^#\d+ (\[.*)/.exec(line) ?? [];
  if (step) log.progress(step);
}

function buildFailure(cause: CommandError): TaskError {
  return new TaskError(`The build failed:\n${lastLines(cause.stderr).replace(/^/gm, '    ')}`, {
    code: 'build-failed',
    hint: 'nothing was tagged or released; --verbose shows the build command',
    cause,
  });
}

/** Returns the manifest digests of an index, undefined for an image of one platform. */
async function buildThroughArchive(project: Project, request: BuildRequest) {
  return withWorkDirectory(project.root, async (directory) => {
    const archive = join(directory, 'image.tar');
    const output = csvOption({ type: 'oci', dest: archive, 'rewrite-timestamp': 'true' });
    await build(buildCommand(project, request, output));
    await run(docker('load', '--quiet', '--input', archive));
    return request.platforms.length > 0 ? archivePlatforms(archive) : undefined;
  });
}

interface CommitBuild {
  commit: string;
  version: string;
  candidate: string;
  platforms: readonly string[];
  /** The commit's time, where the caller knows it. */
  date?: Date;
}

/** Builds the image of a commit's tree under the name `candidate`. The commit decides every byte. */
export async function buildCommit(
  project: Project,
  { commit, version, candidate, platforms, date }: CommitBuild,
): Promise<BuiltImage> {
  const { root, release } = project;
  return withWorkDirectory(root, async (folder) => {
    const [directory, source, epoch] = await Promise.all([
      exportTree(root, commit, folder),
      sourceUrl(root, release.remote),
      date ? Math.floor(date.getTime() / 1000) : commitTime(root, commit),
    ]);
    const names = { tag: candidate, version, revision: commit };
    return buildImage(project, { directory, source, epoch, platforms, ...names });
  });
}

const manifestsSchema = z.object({
  manifests: z.array(
    z.object({
      digest: z.string(),
      platform: z
        .object({ os: z.string(), architecture: z.string(), variant: z.string().optional() })
        .optional(),
    }),
  ),
});

/**
 * `linux/arm64` → manifest digest, from an archive in the OCI image layout; attestations are left out. No engine reports
 * those of other platforms than its own.
 */
async function archivePlatforms(archive: string): Promise<Record<string, string>> {
  const open = async (name: string) => {
    const text = await read(['tar', '--extract', '--to-stdout', '--file', archive, name]);
    return manifestsSchema.parse(JSON.parse(text)).manifests;
  };
  const [root] = await open('index.json');
  const manifests = root ? await open(`blobs/${root.digest.replace(':', '/')}`) : [];
  const found = manifests.flatMap(({ digest, platform }) => {
    if (!platform || platform.os === 'unknown') return [];
    const { os, architecture, variant } = platform;
    return [[[os, architecture, variant].filter(Boolean).join('/'), digest]];
  });
  return Object.fromEntries(found);
}
