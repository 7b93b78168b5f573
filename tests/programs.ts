// The programs that tests use beside node, git and docker, and Debian's packages that they are installed from.
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { installPackages } from '../tasks/lib/setup/install.ts';

const PACKAGES = {
  busybox: 'busybox-static',
  chromium: 'chromium',
  'docker-registry': 'docker-registry',
  ip: 'iproute2',
  python3: 'python3',
  restic: 'restic',
  sshd: 'openssh-server',
} as const;
type Program = keyof typeof PACKAGES;

/** Their pages would be indexed, with all others, after each installation. */
const WITHOUT_MANUALS = ['-o', 'Dpkg::Options::=--path-exclude=/usr/share/man/*'];

const ALL = Object.keys(PACKAGES) as Program[];
/** Debian's own first: a version manager's stand-in on PATH starts dozens of processes before the program. */
const FOLDERS = ['/usr/bin', '/usr/sbin', '/bin', '/sbin', ...(process.env.PATH ?? '').split(delimiter)];

function find(program: Program): string | undefined {
  return FOLDERS.map((folder) => join(folder, program)).find((path) => existsSync(path));
}

/** All that are missing are installed at once: each time that apt runs it takes some seconds. Needs root then. */
export async function ensurePrograms(programs: readonly Program[] = ALL): Promise<void> {
  const missing = programs.filter((program) => !find(program));
  if (missing.length > 0)
    await installPackages(
      missing.map((program) => PACKAGES[program]),
      WITHOUT_MANUALS,
    );
}

/** The path of a program, installed if need be. */
export async function ensureProgram(program: Program): Promise<string> {
  await ensurePrograms([program]);
  const path = find(program);
  if (!path) throw new Error(`${PACKAGES[program]} was installed, but there is no ${program}`);
  return path;
}
