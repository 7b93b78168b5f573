// Debian packages in two ways: installed by the system's apt, or unpacked into a folder. For the second, apt runs with
// private lists, so that the system's sources, pins and packages stay as they are; it can so fetch from a newer suite
// or for another architecture, and needs no root. And what makes a Docker engine of such packages.
import { chmod, mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Command, probe, read, run } from '../command.ts';
import { CommandError, TaskError } from '../errors.ts';
import { makeDirectory, readIfPresent, writeFileAtomic } from '../files.ts';
import { log } from '../log.ts';

export const DAEMON_CONFIG = '/etc/docker/daemon.json';
/** The containerd store keeps multi-platform images and provenance; the classic one drops both. */
const DAEMON_SETTINGS = { features: { 'containerd-snapshotter': true } };

const PROGRAMS = '/usr/local/bin';
const PLUGINS = '/usr/local/lib/docker/cli-plugins';
/** The files that we take out of the newer suite's packages, and where they go: removing the engine is removing them. */
const PLACES: Record<string, string> = {
  'usr/bin/docker': PROGRAMS,
  'usr/sbin/dockerd': PROGRAMS,
  'usr/sbin/docker-proxy': PROGRAMS,
  'usr/bin/containerd': PROGRAMS,
  'usr/bin/containerd-shim-runc-v2': PROGRAMS,
  'usr/bin/ctr': PROGRAMS,
  'usr/libexec/docker/cli-plugins/docker-compose': PLUGINS,
  'usr/libexec/docker/cli-plugins/docker-buildx': PLUGINS,
};
const UNIT = `[Unit]
Description=Docker engine, unpacked from Debian packages by tasks/setup.ts
After=network-online.target firewalld.service
Wants=network-online.target

[Service]
Type=notify
ExecStart=${PROGRAMS}/dockerd
ExecReload=/bin/kill -s HUP $MAINPID
Restart=always
RestartSec=2
LimitNOFILE=infinity
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
Delegate=yes
KillMode=process
OOMScoreAdjust=-500

[Install]
WantedBy=multi-user.target
`;

/** Settles what cannot be changed later without losing sight of images: before the first start. */
export async function configureEngine(): Promise<void> {
  await makeDirectory('/etc/docker');
  await writeFileAtomic(DAEMON_CONFIG, `${JSON.stringify(DAEMON_SETTINGS, null, 2)}\n`);
}

/** Installs the parts that the system's own suite has. */
export async function installEngine(packages: readonly string[]): Promise<void> {
  await installPackages(packages);
  if (!packages.includes('tini') || (await probe(['which', 'docker-init'])).ok) return;
  // `init: true` of a compose file runs this name; only the docker.io package would have made the link.
  await run(['ln', '-s', '/usr/bin/tini-static', `${PROGRAMS}/docker-init`]);
}

/** Adds programs of a newer suite to /usr/local, and what their packages would have set up. */
export async function unpackEngine(suite: string, packages: readonly string[], systemd: boolean) {
  await withScratch('docker-engine', async (folder) => {
    const root = await unpackPackages(folder, packages, { suite });
    for (const [file, target] of Object.entries(PLACES)) {
      if (await stat(join(root, file)).catch(() => undefined))
        await run(['install', '-D', '--mode=0755', `--target-directory=${target}`, join(root, file)]);
    }
  });
  if (!packages.includes('docker.io')) return;
  await run(['groupadd', '--force', '--system', 'docker']);
  if (!systemd) return;
  await writeFileAtomic('/etc/systemd/system/docker.service', UNIT);
  await run(['systemctl', 'daemon-reload']);
}

export interface Distribution {
  /** From os-release: `debian`, 12, `bookworm`; an empty id where there is no such file. */
  id: string;
  version: number;
  codename: string;
  name: string;
}

export async function loadDistribution(): Promise<Distribution> {
  const text = (await readIfPresent('/etc/os-release')) ?? '';
  const field = (name: string) => text.match(new RegExp(`^${name}="?([^"\n]*)"?$`, 'm'))?.[1] ?? '';
  return {
    id: field('ID'),
    version: Number.parseInt(field('VERSION_ID'), 10) || 0,
    codename: field('VERSION_CODENAME'),
    name: field('PRETTY_NAME'),
  };
}

const QUIET = { env: { DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' } };

function apt(...argv: string[]): Command {
  // Another apt (unattended upgrades, most of the time) is waited for.
  return ['apt-get', '-q', '-y', '-o', 'DPkg::Lock::Timeout=120', '-o', 'Acquire::Retries=3', ...argv];
}

/** Installs packages of the system's own suite, without what they merely recommend. Needs root. */
export async function installPackages(
  packages: readonly string[],
  options: readonly string[] = [],
): Promise<void> {
  // One broken third-party source must not stop us: what is truly missing fails in the install.
  await run(apt('update'), QUIET).catch((error: unknown) => {
    if (!(error instanceof CommandError)) throw error;
    log.warn(`apt-get update: ${error.stderr.trim().split('\n').at(-1) ?? ''}`);
  });
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
    hint: 'see /etc/apt/sources.list and /etc/apt/sources.list.d',
  });
}

/**
 * Downloads packages into `folder`, unpacks them under `folder/root` and returns that path. They are of this
 * system's suite and architecture (Debian's name: `amd64`, `arm64`), unless another is named.
 */
export async function unpackPackages(
  folder: string,
  packages: readonly string[],
  { suite, architecture }: { suite?: string; architecture?: string } = {},
): Promise<string> {
  const { codename } = await loadDistribution();
  const source = {
    Types: 'deb',
    URIs: await debianArchive(codename),
    Suites: suite ?? codename,
    Components: 'main',
    'Signed-By': '/usr/share/keyrings/debian-archive-keyring.gpg',
  };
  const lines = Object.entries(source).map(([name, value]) => `${name}: ${value}\n`);
  await writeFile(join(folder, 'suite.sources'), lines.join(''));
  await mkdir(join(folder, 'lists', 'partial'), { recursive: true });
  const settings = {
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
  const options = Object.entries(settings).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
  await run(apt(...options, 'update'), QUIET);
  await run(apt(...options, 'download', ...packages), { ...QUIET, cwd: folder });
  const root = join(folder, 'root');
  for (const file of await readdir(folder))
    if (file.endsWith('.deb')) await run(['dpkg-deb', '--extract', join(folder, file), root]);
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
