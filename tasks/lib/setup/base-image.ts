// The image that ours is built from: present, pulled, or, where no registry can be reached, assembled from the npm
// registry (node, npm) and Debian packages (C and C++ runtime, a shell) under a name of its own, so that nobody takes
// it for the official one. Nothing of it is taken from this machine or run on it: the same code serves every processor.
import { chmod, copyFile, lstat, mkdir, readdir, readlink, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { read, run } from '../command.ts';
import { docker } from '../docker/engine.ts';
import { inspectImage } from '../docker/objects.ts';
import { transientReason } from '../docker/registry.ts';
import { updateDotenv } from '../dotenv.ts';
import { CommandError, TaskError } from '../errors.ts';
import { log } from '../log.ts';
import { type Project, variable, variableName } from '../project.ts';
import type { Step } from '../steps.ts';
import { loadDistribution, unpackPackages, withScratch } from './install.ts';

const PULL_WITHIN_MS = 600_000;

/** True where a pull failed because the registry cannot be had; any other failure is about the name. */
export function isRegistryFailure(stderr: string): boolean {
  return transientReason(stderr) !== undefined || /x509|tls:|time(d ?)?out|did not end within/i.test(stderr);
}

/** What a stand-in for `baseImage` is called: `synapse-node:24`; undefined for what is no Node image. */
export function standInFor(project: string, baseImage: string): string | undefined {
  const major = baseImage.match(/(?:^|\/)node:(\d+)/)?.[1];
  return major ? `${project}-node:${major}` : undefined;
}

/** How to get the base image, and what .env has to remember of it: undefined where it is the configured one. */
export async function planBaseImage(project: Project, engineRuns: boolean) {
  const official = project.image.base_image;
  if (!official) return { steps: [], settings: {} };
  const remembered = (reference: string) => ({ BASE_IMAGE: reference === official ? undefined : reference });
  const standIn = standInFor(project.project.name, official);
  const chosen = variable(project, 'BASE_IMAGE') ?? official;
  const present = engineRuns ? await findBaseImage([chosen, official, standIn]) : undefined;
  if (present) return { steps: [], settings: present === chosen ? {} : remembered(present) };
  // The stand-in is ours to make again; another name in .env is the user's own choice.
  const wanted = chosen === standIn ? official : chosen;
  const otherwise = standIn ? `, or assemble ${standIn} if no registry responds` : '';
  const step: Step<unknown> = {
    name: 'base-image',
    title: `pull the base image ${wanted}${otherwise}`,
    apply: async () => {
      const reference = await ensureBaseImage(wanted, standIn);
      const { BASE_IMAGE } = remembered(reference);
      await updateDotenv(project.root, { [variableName(project, 'BASE_IMAGE')]: BASE_IMAGE });
      log.done(`base image ${reference}`);
    },
  };
  return { steps: [step], settings: {} };
}

/** The first of `references` that the engine has. */
async function findBaseImage(references: readonly (string | undefined)[]): Promise<string | undefined> {
  for (const reference of references) if (reference && (await inspectImage(reference))) return reference;
  return undefined;
}

/**
 * Makes sure that the engine has `baseImage`, or `standIn` in its place; returns which. A present stand-in is used
 * without asking a registry again: remove it (`docker rmi`) to try the pull.
 * @throws TaskError `base-image` when the name is wrong or neither can be had
 */
export async function ensureBaseImage(baseImage: string, standIn: string | undefined): Promise<string> {
  const present = await findBaseImage([baseImage, standIn]);
  if (present) return present;
  if (await pull(baseImage)) return baseImage;
  const architecture = await read(docker('version', '--format', '{{.Server.Arch}}'));
  if (!standIn || (await loadDistribution()).id !== 'debian' || !isImageArchitecture(architecture)) {
    throw new TaskError(`Cannot get the base image ${baseImage} (${architecture}): no registry responds`, {
      code: 'base-image',
      hint: `on a machine with network: docker save ${baseImage} -o base.tar; here: docker load -i base.tar`,
    });
  }
  log.step(`no registry responds: assembling ${standIn} from Debian and npm packages`);
  await assembleNodeImage(standIn, architecture);
  return standIn;
}

/** False if no registry could be reached. @throws TaskError `base-image` for every other failure */
async function pull(baseImage: string): Promise<boolean> {
  try {
    await run(docker('pull', '--quiet', baseImage), { timeoutMs: PULL_WITHIN_MS });
    return true;
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    if (isRegistryFailure(error.stderr)) return false;
    throw new TaskError(`Cannot pull the base image ${baseImage}: ${error.stderr.trim()}`, {
      code: 'base-image',
      hint: 'check its name: image.base_image in configs/release.toml',
      cause: error,
    });
  }
}

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
const FOLDERS =
  'usr/bin usr/sbin usr/lib usr/lib64 usr/local/bin usr/local/lib/node_modules ' +
  'etc/ssl/certs var/tmp tmp root home/node opt run proc sys dev';
const ACCOUNTS = {
  'etc/passwd':
    'root:x:0:0:root:/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n',
  'etc/group': 'root:x:0:\nnode:x:1000:\nnogroup:x:65534:\n',
  'etc/nsswitch.conf': 'passwd: files\ngroup: files\nhosts: files dns\n',
};

/** Assembles an image of Node `reference` (`NAME:MAJOR`) and gives it to the engine. @throws CommandError */
export async function assembleNodeImage(reference: string, architecture: ImageArchitecture): Promise<void> {
  const target = ARCHITECTURES[architecture];
  await withScratch('node-image', async (folder) => {
    const root = join(folder, 'image');
    const packages = await unpackPackages(folder, PACKAGES, { architecture });
    await addSkeleton(root);
    await addLibraries(root, packages, target);
    await addShell(root, packages);
    await addNode(root, folder, `node-linux-${target.npm}@${reference.split(':').at(-1)}`);
    const changes = ['ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'CMD ["node"]'];
    const flags = ['--platform', `linux/${architecture}`, ...changes.flatMap((line) => ['--change', line])];
    await run(docker('import', ...flags, await pack(root, folder), reference));
  });
}

/** The folders and files that no package brings. */
async function addSkeleton(root: string): Promise<void> {
  for (const path of FOLDERS.split(' ')) await mkdir(join(root, path), { recursive: true });
  for (const link of ['bin', 'sbin', 'lib', 'lib64']) await symlink(`usr/${link}`, join(root, link));
  for (const path of ['tmp', 'var/tmp']) await chmod(join(root, path), 0o1777);
  await chmod(join(root, 'root'), 0o700);
  for (const [path, text] of Object.entries(ACCOUNTS)) await writeFile(join(root, path), text);
}

/** Copies the shared libraries alone: what else the packages hold (locales, gconv, docs) stays behind. */
async function addLibraries(
  root: string,
  packages: string,
  { triplet, loader }: { triplet: string; loader: string },
) {
  const target = join(root, 'usr/lib', triplet);
  await mkdir(target, { recursive: true });
  // Before Debian 13, libc6 still had its files in /lib.
  for (const folder of [join(packages, 'lib', triplet), join(packages, 'usr/lib', triplet)]) {
    const names = await readdir(folder).catch(() => []);
    for (const name of names.filter((file) => file.includes('.so'))) {
      const [from, to] = [join(folder, name), join(target, name)];
      const entry = await lstat(from);
      if (entry.isSymbolicLink()) await symlink(await readlink(from), to);
      else if (entry.isFile()) await copyFile(from, to);
    }
  }
  await symlink(`/usr/lib/${triplet}/${loader.split('/')[1]}`, join(root, 'usr', loader));
}

async function addShell(root: string, packages: string): Promise<void> {
  const busybox = join(root, 'usr/bin/busybox');
  await copyFile(join(packages, 'bin/busybox'), busybox).catch(() =>
    copyFile(join(packages, 'usr/bin/busybox'), busybox),
  );
  for (const applet of APPLETS.split(' ')) await symlink('busybox', join(root, 'usr/bin', applet));
}

async function addNode(root: string, folder: string, nodePackage: string): Promise<void> {
  const archives = join(folder, 'npm');
  await mkdir(archives);
  await run(['npm', 'pack', '--silent', '--pack-destination', archives, nodePackage, NPM], { cwd: folder });
  for (const file of await readdir(archives)) {
    const isNpm = file.startsWith('npm-');
    const target = isNpm ? join(root, 'usr/local/lib/node_modules/npm') : join(folder, 'node');
    await mkdir(target);
    const flags = ['--extract', '--no-same-owner', '--strip-components=1', `--directory=${target}`];
    await run(['tar', ...flags, '--file', join(archives, file)]);
  }
  await copyFile(join(folder, 'node/bin/node'), join(root, 'usr/local/bin/node'));
  await chmod(join(root, 'usr/local/bin/node'), 0o755);
  for (const name of ['npm', 'npx'])
    await symlink(`../lib/node_modules/npm/bin/${name}-cli.js`, join(root, 'usr/local/bin', name));
}

/** Packs the root with owners that do not depend on who runs this: root's, but for the user's home. */
async function pack(root: string, folder: string): Promise<string> {
  const archive = join(folder, 'image.tar');
  // One time for every file: the same packages give the same layer.
  const common = ['--file', archive, '--sort=name', '--mtime=@0', '--numeric-owner', '--format=gnu'];
  const owner = (id: number) => [`--owner=${id}`, `--group=${id}`, `--directory=${root}`];
  await run(['tar', '--create', ...common, ...owner(0), '--exclude=./home/node', '.']);
  await run(['tar', '--append', ...common, ...owner(1000), './home/node']);
  return archive;
}
