// Builds an image, tries it, names it and, where a registry is set, pushes it.
//
// `latest` comes from the working tree and says so in its labels; a version comes only from its git tag and
// is never overwritten: if its image is here and unchanged there is nothing to build.
import {
  buildLatest,
  buildRelease,
  confirm,
  engineInfo,
  imageReference,
  loadProject,
  log,
  type Project,
  pushImage,
  registryReference,
  releaseOfTag,
  runTask,
  usageError,
  versionOfTag,
  withHistory,
  withLock,
} from './lib/mod.ts';

await runTask({
  name: 'build-push',
  summary: 'Build an image: `latest` from the working tree (default), a version from its git tag.',
  arguments: '[latest|vX.Y.Z]',
  maxArguments: 1,
  flags: {
    push: {
      type: 'boolean',
      description: 'push it and compare the digest (the default when a registry is set)',
    },
    'no-push': { type: 'boolean', description: 'do not push, although a registry is set' },
    platform: {
      type: 'string',
      value: 'OS/ARCH,…',
      description: 'platforms of the image, e.g. linux/amd64,linux/arm64; with --push: image.platforms',
    },
  },
  run: async ({ flags, positionals }) => {
    const project = await loadProject();
    const tag = positionals[0] ?? 'latest';
    const push = flags.push || (!flags['no-push'] && project.image.registry !== undefined);
    verifyRequest(project, tag, push);
    const platforms = flags.platform?.split(',') ?? (push ? project.image.platforms : []);
    verifyPlatforms(platforms);
    return withLock(project.root, 'build-push', () => buildAndPush(project, { tag, push, platforms }));
  },
});

function verifyRequest(project: Project, tag: string, push: boolean): void {
  if (tag !== 'latest' && !versionOfTag(project, tag)) {
    throw usageError(`build-push: "${tag}" is neither latest nor a version`, {
      hint: `a version looks like ${project.release.tag_prefix}1.2.3`,
    });
  }
  if (push && !project.image.registry) {
    throw usageError('build-push: --push needs a registry', {
      hint: 'set image.registry in configs/release.toml',
    });
  }
}

function verifyPlatforms(platforms: readonly string[]): void {
  const wrong = platforms.find((platform) => !/^\w+\/\w+(\/\w+)?$/.test(platform));
  if (wrong !== undefined) throw usageError(`build-push: "${wrong}" is no platform, e.g. linux/arm64`);
}

interface Request {
  tag: string;
  push: boolean;
  platforms: readonly string[];
}

async function buildAndPush(project: Project, { tag, push, platforms }: Request) {
  if (tag !== 'latest') await releaseOfTag(project, tag);
  await engineInfo();
  const local = imageReference(project, tag);
  const remote = push ? registryReference(project, tag) : undefined;
  const source = tag === 'latest' ? 'the working tree' : `git tag ${tag}`;
  const forWhat = platforms.length > 0 ? ` for ${platforms.join(', ')}` : '';
  log.plan(`Build ${local} from ${source}${forWhat}, test it${remote ? `, push ${remote}` : ''}`);
  await confirm(`Build ${local}?`);

  return withHistory(project.root, 'build-push', { from: null, to: tag }, async () => {
    const built =
      tag === 'latest'
        ? await buildLatest(project, platforms)
        : await buildRelease(project, tag, { platforms });
    const pushed = remote
      ? await pushImage(local, remote, built.released ? [built.released] : undefined)
      : null;
    if (remote) log.done(`pushed ${remote} (${pushed})`);
    return {
      data: { image: local, ...built, pushed },
      text: `${built.built ? 'Built' : 'Unchanged:'} ${local} (${built.digest})`,
    };
  });
}
