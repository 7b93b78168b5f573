// A stand-in for the official Node image, where no registry can be reached: a root file system put
// together from the npm registry (node, npm) and Debian packages (C and C++ runtime, a shell). The same
// code serves every architecture, because nothing of it is taken from this machine or run on it.
import { chmod, copyFile, lstat, mkdir, readdir, readlink, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { read, run } from '../command.ts';
import { unpackPackages, withScratch } from './apt.ts';

const ARCHITECTURES = {
  amd64: { npm: 'x64', triplet: 'x86_64-linux-gnu', loader: 'lib64/ld-linux-x86-64.so.2' },
  arm64: { npm: 'arm64', triplet: 'aarch64-linux-gnu', loader: 'lib/ld-linux-aarch64.so.1' },
} as const;
export type ImageArchitecture = keyof typeof ARCHITECTURES;

export function isImageArchitecture(name: string): name is ImageArchitecture {
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
