// The `docker run` of the backup program: what it may see, whom it may become, and nothing more.
import type { Command } from '../command.ts';
import { docker } from '../docker/client.ts';
import type { Project } from '../project.ts';

export interface Call {
  /** Image that has the program. */
  image: string;
  command: string;
  options: Record<string, unknown>;
  /** The engine makes the backup directory where it is missing. */
  makesBackups?: boolean;
  /** Path in the container → directory on the engine's machine; `:ro` at its end mounts read-only. */
  mounts: Record<string, string>;
  /** Name of its container, where a later run has to find it. */
  name?: string;
  /** It acts on files of any owner. */
  asRoot?: boolean;
  /** Joins a container's network; default: none at all. */
  network?: string;
  /** Answers what the program asks: `pause` and `thaw`. */
  answer?: (question: 'pause' | 'thaw') => Promise<string>;
}

/** Where the program finds the backup directory. */
export const BACKUPS = '/backups';
export const DATA = '/data';

/** Enough to become the data's owner, and to hand a new backup directory over to it. */
const CAPABILITIES = ['SETUID', 'SETGID', 'CHOWN'];
const ROOT_CAPABILITIES = ['CHOWN', 'FOWNER', 'DAC_OVERRIDE'];
/** Beside the writers, not in front of them. */
const CPU_SHARES = 256;
export function backupLabel(project: Project): string {
  return `release-flow.backup=${project.project.name}`;
}

/** The `docker run` of a call: no network, a read-only root, and no more rights than the call needs. */
export function programCommand(project: Project, call: Call): Command {
  const [entrypoint = '', ...argv] = project.backup.program;
  const mounts = Object.entries(call.mounts).map(([target, source]) =>
    // Anything else that is missing is a mistake.
    target === BACKUPS && call.makesBackups
      ? `--volume=${source}:${target}`
      : `--mount=type=bind,source=${source.replace(/:ro$/, ',readonly')},target=${target}`,
  );
  return docker(
    'run',
    '--rm',
    '--interactive',
    '--init',
    '--label',
    backupLabel(project),
    ...(call.name ? ['--name', call.name] : []),
    `--network=${call.network ?? 'none'}`,
    '--read-only',
    '--tmpfs=/tmp:mode=1777',
    '--cap-drop=ALL',
    ...(call.asRoot ? ROOT_CAPABILITIES : CAPABILITIES).map((name) => `--cap-add=${name}`),
    '--security-opt=no-new-privileges',
    '--user=0:0',
    `--cpu-shares=${CPU_SHARES}`,
    ...mounts,
    `--entrypoint=${entrypoint}`,
    call.image,
    ...argv,
    call.command,
    JSON.stringify({ ...call.options, attached: true }),
  );
}
