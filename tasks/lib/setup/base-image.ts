// The image that ours is built from: present, pulled, or, where no registry can be reached, assembled
// under a name of its own, so that nobody takes it for the official one.
import { chmod, copyFile, lstat, mkdir, readdir, readlink, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { probe, read, run } from '../command.ts';
import { CommandError, TaskError } from '../errors.ts';
import { seconds } from '../format.ts';
import { log } from '../log.ts';
import { loadDistribution } from './detect.ts';
import { unpackPackages, withScratch } from './install.ts';

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

// A stand-in for the official Node image, where no registry can be reached: a root file system put
// together from the npm registry (node, npm) and Debian packages (C and C++ runtime, a shell). The same
// code serves every architecture, because nothing of it is taken from this machine or run on it.

const ARCHITECTURES = {
  amd64: { npm: 'x64', triplet: 'x86_64-linux-gnu', loader: 'lib64/ld-linux-x86-64.so.2' },
  arm64: { npm: 'arm64', triplet: 'aarch64-linux-gnu', loader: 'lib/ld-linux-aarch64.so.1' },
} as const;
type ImageArchitecture = keyof typeof ARCHITECTURES;

function isImageArchitecture(name: string): name is ImageArchitecture {
  return name in ARCHITECTURES;
}

const PACKAGES = ['libc6', 'libstdc++6', 'libgcc-s1', 'busybox-static'];
/** The npm that Node 24 ships. */
const NPM = 'npm@11';
const APPLETS =
  'sh ash awk base64 basename cat chmod chown cmp cp cut date dd df diff dirname du echo env expr false find ' +
  'free grep gunzip gzip head hostname id kill ln ls md5sum mkdir mktemp mv nc nproc od pgrep ping printenv ' +
  'printf ps pwd readlink realpath rm rmdir sed seq sha256sum sleep sort stat stty sync tail tar tee test ' +
  'timeout top touch tr true uname uniq unzip uptime vi wc wget which whoami xargs yes';
const ACCOUNTS = {
  'etc/passwd':
    'root:x:0:0:root:/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n',
  'etc/group': 'root:x:0:\nnode:x:1000:\nnogroup:x:65534:\n',
  'etc/nsswitch.conf': 'passwd: files\ngroup: files\nhosts: files dns\n',
};
/** One time for every file: the same packages give the same layer. */
const FILE_TIME = '@0';

async function copyEntry(from: string, to: string): Promise<void> {
  const entry = await lstat(from);
  if (entry.isSymbolicLink()) await symlink(await readlink(from), to);
  else if (entry.isFile()) await copyFile(from, to);
}

/** Copies the shared libraries alone: what else the packages hold (locales, gconv, docs) stays behind. */
async function addLibraries(
  root: string,
  packages: string,
  { triplet, loader }: (typeof ARCHITECTURES)[ImageArchitecture],
) {
  const target = join(root, 'usr/lib', triplet);
  await mkdir(target, { recursive: true });
  // Before Debian 13, libc6 still had its files in /lib.
  for (const folder of [join(packages, 'lib', triplet), join(packages, 'usr/lib', triplet)]) {
    const names = await readdir(folder).catch(() => []);
    for (const name of names.filter((file) => file.includes('.so'))) {
      await copyEntry(join(folder, name), join(target, name));
    }
  }
  const name = loader.split('/')[1] ?? '';
  await symlink(`/usr/lib/${triplet}/${name}`, join(root, 'usr', loader));
}

async function addShell(root: string, packages: string): Promise<void> {
  const busybox = join(packages, 'bin/busybox');
  const found = await lstat(busybox).then(
    () => busybox,
    () => join(packages, 'usr/bin/busybox'),
  );
  await copyFile(found, join(root, 'usr/bin/busybox'));
  for (const applet of APPLETS.split(' ')) await symlink('busybox', join(root, 'usr/bin', applet));
}

/** The folders and files that no package brings; returns the root. */
async function addSkeleton(folder: string): Promise<string> {
  const root = join(folder, 'image');
  const folders = [
    'usr/bin',
    'usr/sbin',
    'usr/lib',
    'usr/lib64',
    'usr/local/bin',
    'usr/local/lib/node_modules',
  ];
  const places = ['etc/ssl/certs', 'var/tmp', 'tmp', 'root', 'home/node', 'opt', 'run', 'proc', 'sys', 'dev'];
  for (const path of [...folders, ...places]) await mkdir(join(root, path), { recursive: true });
  for (const link of ['bin', 'sbin', 'lib', 'lib64']) await symlink(`usr/${link}`, join(root, link));
  for (const path of ['tmp', 'var/tmp']) await chmod(join(root, path), 0o1777);
  await chmod(join(root, 'root'), 0o700);
  for (const [path, text] of Object.entries(ACCOUNTS)) await writeFile(join(root, path), text);
  return root;
}

async function addNode(folder: string, root: string, major: string, npmName: string): Promise<void> {
  const archives = join(folder, 'npm');
  await mkdir(archives);
  const names = [`node-linux-${npmName}@${major}`, NPM];
  await run(['npm', 'pack', '--silent', '--pack-destination', archives, ...names], { cwd: folder });
  for (const file of await readdir(archives)) {
    const target = file.startsWith('npm-')
      ? join(root, 'usr/local/lib/node_modules/npm')
      : join(folder, 'node');
    await mkdir(target);
    const flags = ['--extract', '--no-same-owner', '--strip-components=1', `--directory=${target}`];
    await run(['tar', ...flags, '--file', join(archives, file)]);
  }
  await copyFile(join(folder, 'node/bin/node'), join(root, 'usr/local/bin/node'));
  await chmod(join(root, 'usr/local/bin/node'), 0o755);
  for (const name of ['npm', 'npx']) {
    await symlink(`../lib/node_modules/npm/bin/${name}-cli.js`, join(root, 'usr/local/bin', name));
  }
}

/** Packs the root with owners that do not depend on who runs this: root's, but for the user's home. */
async function pack(folder: string, root: string): Promise<string> {
  const archive = join(folder, 'image.tar');
  const common = [
    '--file',
    archive,
    '--sort=name',
    `--mtime=${FILE_TIME}`,
    '--numeric-owner',
    '--format=gnu',
  ];
  const owner = (id: number) => [`--owner=${id}`, `--group=${id}`, `--directory=${root}`];
  await run(['tar', '--create', ...common, ...owner(0), '--exclude=./home/node', '.']);
  await run(['tar', '--append', ...common, ...owner(1000), './home/node']);
  return archive;
}

/** Assembles the image and gives it to the engine as `reference`. Not for dry runs. @throws CommandError */
export async function assembleNodeImage(
  reference: string,
  { architecture, major, codename }: { architecture: ImageArchitecture; major: string; codename: string },
): Promise<void> {
  const target = ARCHITECTURES[architecture];
  await withScratch('node-image', async (folder) => {
    const packages = await unpackPackages(folder, { codename, suite: codename, architecture }, PACKAGES);
    const root = await addSkeleton(folder);
    await addLibraries(root, packages, target);
    await addShell(root, packages);
    await addNode(folder, root, major, target.npm);
    const archive = await pack(folder, root);
    const changes = ['ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'CMD ["node"]'];
    const flags = ['--platform', `linux/${architecture}`, ...changes.flatMap((line) => ['--change', line])];
    await run(['docker', 'import', ...flags, archive, reference]);
    await read(['docker', 'image', 'inspect', '--format', '{{.Id}}', reference]);
  });
}
