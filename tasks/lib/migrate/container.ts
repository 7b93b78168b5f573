// Running program/ in a container of the base image: without network, with the mounts that it needs and
// nothing else, under a label by which the next run finds what a killed one left.
import { fileURLToPath } from 'node:url';
import { read, run } from '../command.ts';
import { docker } from '../docker/client.ts';
import { containerIds } from '../docker/containers.ts';
import { type Project, variable } from '../project.ts';
import { session } from '../session.ts';

const PROGRAM = fileURLToPath(new URL('program', import.meta.url));

export interface ContainerJob {
  command: 'inventory' | 'settle' | 'sample' | 'copy' | 'measure';
  options?: object;
  /** `--mount` values. */
  mounts: string[];
  /** `uid:gid`; default: root. */
  user?: string;
  /** Changes nothing: it runs also under --dry-run. */
  onlyLooks?: boolean;
}

export interface Inventory {
  databases: Record<string, Record<string, TableState>>;
  files: Record<string, string>;
}

export interface TableState {
  columns: string[];
  rows: number;
  recent: number;
  sha256: string;
}

function label(project: Project): string {
  return `release-flow.migrate=${project.project.name}`;
}

/** The image whose node runs the program. */
export function nodeImage(project: Project): string {
  return variable(project, 'BASE_IMAGE') ?? project.image.base_image ?? `${project.image.name}:latest`;
}

/** `uid:gid` that the new service's containers run as. */
export function containerUser(project: Project): string {
  return `${variable(project, 'UID') ?? 1000}:${variable(project, 'GID') ?? 1000}`;
}

/** Runs one command of the program; undefined under --dry-run. @throws CommandError with its words */
export async function runProgram<T>(project: Project, job: ContainerJob): Promise<T | undefined> {
  const argv = docker(
    'run',
    ...['--rm', '--interactive', '--init', '--network=none', '--read-only', '--tmpfs=/tmp'],
    `--label=${label(project)}`,
    `--user=${job.user ?? '0:0'}`,
    ...job.mounts.map((mount) => `--mount=${mount}`),
    `--mount=${bindMount(PROGRAM, '/program', 'readonly')}`,
    ...['--entrypoint=node', nodeImage(project), '--no-warnings', '/program/main.ts', job.command],
  );
  const output = await (job.onlyLooks ? read : run)(argv, { input: JSON.stringify(job.options ?? {}) });
  return session.dryRun && !job.onlyLooks ? undefined : (JSON.parse(output) as T);
}

/** Removes what a killed run left running. */
export async function removeLeftovers(project: Project): Promise<void> {
  const left = await containerIds({ label: [label(project)] });
  if (left.length > 0) await run(docker('rm', '--force', '--volumes', ...left));
}

/** A bind mount of the host, as `--mount` takes it. */
export function bindMount(source: string, target: string, access: 'readonly' | 'writable'): string {
  return `type=bind,"source=${source.replaceAll('"', '""')}",target=${target}${access === 'readonly' ? ',readonly' : ''}`;
}

export function volumeMount(volume: string, target: string, access: 'readonly' | 'writable'): string {
  return `type=volume,source=${volume},target=${target},volume-nocopy${access === 'readonly' ? ',readonly' : ''}`;
}
