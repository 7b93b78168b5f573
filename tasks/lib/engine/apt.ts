// Debian packages in two ways: installed by the system's apt, or unpacked into a folder. For the second,
// apt runs with private lists, so that the system's sources, pins and packages stay as they are; it can
// so fetch from a newer suite or for another architecture, and needs no root.
import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Command, read, run } from '../command.ts';
import { CommandError, TaskError } from '../errors.ts';
import { log } from '../log.ts';

const QUIET = { env: { DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' } };

export interface PackageSource {
  /** The suite that this system runs: its entry in the apt sources names the archive. */
  codename: string;
  /** The suite to take the packages from. */
  suite: string;
  /** Debian's name (`amd64`, `arm64`) where it is not this machine's own. */
  architecture?: string;
}

function apt(...argv: string[]): Command {
  // Another apt (unattended upgrades, most of the time) is waited for.
  return ['apt-get', '-q', '-y', '-o', 'DPkg::Lock::Timeout=120', '-o', 'Acquire::Retries=3', ...argv];
}

let updated: Promise<void> | undefined;

/** Once is enough for a run. */
function updateLists(): Promise<void> {
  // One broken third-party source must not stop us: what is truly missing fails in the install.
  updated ??= run(apt('update'), QUIET).then(
    () => {},
    (error: unknown) => {
      if (!(error instanceof CommandError)) throw error;
      log.warn(`apt-get update: ${error.stderr.trim().split('\n').at(-1) ?? ''}`);
    },
  );
  return updated;
}

/** Installs packages of the system's own suite, without what they merely recommend. Needs root. */
export async function installPackages(
  packages: readonly string[],
  options: readonly string[] = [],
): Promise<void> {
  await updateLists();
  await run(apt('install', '--no-install-recommends', ...options, ...packages), QUIET);
}

/** The archive that this system gets its Debian packages from: a mirror stays in use. */
async function debianArchive(codename: string): Promise<string> {
  const format = '$(RELEASE) $(REPO_URI) $(COMPONENT)';
  const targets = await read(['apt-get', 'indextargets', '--format', format, 'IDENTIFIER: Packages']);
  const rows = targets.split('\n').map((line) => line.split(' '));
  const uri = rows.find(([release, , component]) => release === codename && component === 'main')?.[1];
  if (uri) return uri;
  throw new TaskError(`apt has no source for Debian ${codename} main`, {
    code: 'apt-sources',
    hint: 'See /etc/apt/sources.list and /etc/apt/sources.list.d',
  });
}

function privateOptions(folder: string, architecture: string | undefined): string[] {
  const options = {
    'Dir::Etc::SourceList': join(folder, 'suite.sources'),
    'Dir::Etc::SourceParts': '-',
    'Dir::State::Lists': join(folder, 'lists'),
    'Dir::Cache::pkgcache': '',
    'Dir::Cache::srcpkgcache': '',
    'Acquire::Languages': 'none',
    // apt's own unprivileged user may not enter a folder of ours.
    'APT::Sandbox::User': 'root',
    ...(architecture ? { 'APT::Architecture': architecture, 'APT::Architectures': architecture } : {}),
  };
  return Object.entries(options).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
}

async function writeSource(folder: string, from: PackageSource): Promise<void> {
  const source = {
    Types: 'deb',
    URIs: await debianArchive(from.codename),
    Suites: from.suite,
    Components: 'main',
    'Signed-By': '/usr/share/keyrings/debian-archive-keyring.gpg',
  };
  const lines = Object.entries(source).map(([name, value]) => `${name}: ${value}\n`);
  await writeFile(join(folder, 'suite.sources'), lines.join(''));
  await mkdir(join(folder, 'lists', 'partial'), { recursive: true });
}

/** Downloads packages into `folder`, unpacks them under `folder/root` and returns that path. */
export async function unpackPackages(folder: string, from: PackageSource, packages: readonly string[]) {
  await writeSource(folder, from);
  const options = privateOptions(folder, from.architecture);
  await run(apt(...options, 'update'), QUIET);
  await run(apt(...options, 'download', ...packages), { ...QUIET, cwd: folder });
  const root = join(folder, 'root');
  for (const file of await readdir(folder)) {
    if (file.endsWith('.deb')) await run(['dpkg-deb', '--extract', join(folder, file), root]);
  }
  return root;
}

/** Runs `work` with a folder of its own that is gone afterwards. */
export async function withScratch<T>(name: string, work: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), `${name}-`));
  await chmod(folder, 0o755);
  try {
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
