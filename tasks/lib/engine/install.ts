// What makes a Docker engine of Debian packages: its configuration before the first start, and where the
// programs of a newer suite go. All of it lies under /usr/local, so removing it is removing files.
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { probe, run } from '../command.ts';
import { makeDirectory, writeFileAtomic } from '../files.ts';
import { installPackages, type PackageSource, unpackPackages, withScratch } from './apt.ts';

export const DAEMON_CONFIG = '/etc/docker/daemon.json';
/** The containerd store keeps multi-platform images and provenance; the classic one drops both. */
const DAEMON_SETTINGS = { features: { 'containerd-snapshotter': true } };

const PROGRAMS = '/usr/local/bin';
const PLUGINS = '/usr/local/lib/docker/cli-plugins';
/** The files that we take out of the newer suite's packages, and where they go. */
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

/** Installs the packages of the system's own suite. */
export async function installEngine(packages: readonly string[]): Promise<void> {
  await installPackages(packages);
  if (!packages.includes('tini') || (await probe(['which', 'docker-init'])).ok) return;
  // `init: true` of a compose file runs this name; only the docker.io package would have made the link.
  await run(['ln', '-s', '/usr/bin/tini-static', `${PROGRAMS}/docker-init`]);
}

async function place(root: string): Promise<void> {
  for (const [file, target] of Object.entries(PLACES)) {
    if (await stat(join(root, file)).catch(() => undefined)) {
      await run(['install', '-D', '--mode=0755', `--target-directory=${target}`, join(root, file)]);
    }
  }
}

/** Adds programs of a newer suite to /usr/local, and what their packages would have set up. */
export async function unpackEngine(from: PackageSource, packages: readonly string[], systemd: boolean) {
  await withScratch('docker-engine', async (folder) => place(await unpackPackages(folder, from, packages)));
  if (!packages.includes('docker.io')) return;
  await run(['groupadd', '--force', '--system', 'docker']);
  if (!systemd) return;
  await writeFileAtomic('/etc/systemd/system/docker.service', UNIT);
  await run(['systemctl', 'daemon-reload']);
}
