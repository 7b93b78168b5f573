// What a restore will do, worked out and checked before anybody is asked: the archive is read through once, the
// place is looked at, and the release that can read its data format is found.
import { environmentOfService } from '../docker/compose.ts';
import { type Container, containerIds, inspectContainers, projectContainers } from '../docker/containers.ts';
import { TaskError, usageError } from '../errors.ts';
import { dataDirectory, type Project } from '../project.ts';
import type { BackupImage } from './places.ts';
import { askProgram } from './program.ts';
import type { Summary } from './program-schema.ts';
import { megabytes } from './progress.ts';
import { releaseFor } from './restore-format.ts';
import { PLACE, type RestoreRecord, type Running } from './restore-record.ts';
import type { RestoreSession } from './restore-session.ts';
import type { ArchivePlace } from './verify.ts';

export interface RestorePlan {
  archive: ArchivePlace;
  summary: Summary;
  record: RestoreRecord;
  /** What is in the data directory now. */
  present: { exists: boolean; files: number; bytes: number };
  /** Has looked at all of this, and carries it out. */
  session: RestoreSession;
  /** Directory to restore to, when it is not the data directory. */
  to: string | undefined;
}

/** Looks at the place, and reads the archive through. @throws TaskError naming all of its damage */
async function preview(
  project: Project,
  image: BackupImage,
  archive: ArchivePlace,
  { parent, name, program }: RestoreSession,
) {
  const { Preview } = await import('./program-schema.ts');
  const call = {
    image: image.program,
    command: 'preview',
    options: { path: `/archive/${archive.name}`, parent: PLACE, name },
    mounts: { '/archive': `${archive.directory}:ro`, [PLACE]: parent },
    asRoot: true,
    within: program,
  };
  const { problems, manifest, present, free } = await askProgram(project, call, Preview);
  if (manifest && problems.length === 0) return { summary: manifest, present, free };
  const lines = problems.map((problem) => `  - ${problem}`);
  throw new TaskError([`Cannot restore ${archive.name}; nothing was changed:`, ...lines].join('\n'), {
    code: 'bad-archive',
    hint: 'choose another one: npm run backup -- list',
  });
}

/** Containers of this project that run, by environment; any other that uses the data stops the restore. */
async function runningOn(project: Project): Promise<Running[]> {
  const users = await containerIds({ volume: [dataDirectory(project)] });
  const ours = await projectContainers(project);
  const isOurs = (id: string) => ours.some((one) => one.id === id);
  const isActive = ({ state }: Container) => ['running', 'restarting', 'paused'].includes(state);
  const foreign = (await inspectContainers(users.filter((id) => !isOurs(id)))).filter(isActive);
  if (foreign.length > 0) {
    throw new TaskError(`Other containers use the data: ${foreign.map(({ name }) => name).join(', ')}`, {
      code: 'data-in-use',
      hint: `stop them first: docker stop ${foreign.map(({ name }) => name).join(' ')}`,
    });
  }
  return ours.filter(isActive).flatMap(({ id, service }) => {
    const environment = environmentOfService(project, service);
    return environment ? [{ environment, id }] : [];
  });
}

/** Checks everything and works out what a restore would do; changes nothing. @throws TaskError */
export async function planRestore(
  project: Project,
  image: BackupImage,
  archive: ArchivePlace,
  to: string | undefined,
  session: RestoreSession,
): Promise<RestorePlan> {
  const { id, container, parent, name } = session;
  const { present, free, summary } = await preview(project, image, archive, session);
  if (to !== undefined && present.entries > 0)
    throw usageError(`${to} exists and is not empty`, { code: 'target-exists', hint: 'choose another --to' });
  if (free < summary.bytes) {
    const text = `${megabytes(free)} are free in ${parent}, ${megabytes(summary.bytes)} are needed`;
    throw new TaskError(`Not enough room to unpack: ${text}`, { code: 'no-space' });
  }
  const running = to === undefined ? await runningOn(project) : [];
  const record = {
    image: image.program,
    archive: archive.name,
    container,
    parent,
    current: name,
    staging: `.${name}.restoring-${id}`,
    previous: `.${name}.before-${id}`,
    hadCurrent: present.exists,
    running,
    prodTag: await releaseFor(project, running, summary),
    keepAs: null,
  };
  return { archive, summary, record, present, session, to };
}

/** What a person is asked about. */
export function describeRestore(project: Project, plan: RestorePlan): string {
  const { archive, summary, record, present, to } = plan;
  const stops = record.running.map(({ environment }) => environment);
  const replaced = present.exists && present.files > 0;
  return [
    `Restore ${archive.name}`,
    `  from    ${summary.at}, version ${summary.origin.version}, data format ${summary.dataFormat ?? 'unknown'}`,
    `  holds   ${summary.files} files, ${megabytes(summary.bytes)}`,
    `  to      ${to ?? dataDirectory(project)}`,
    ...(replaced
      ? [`  replaces ${present.files} files, ${megabytes(present.bytes)}, of which a backup is made first`]
      : []),
    ...(stops.length > 0
      ? [`  stops   ${stops.join(' and ')}, and starts ${stops.length > 1 ? 'them' : 'it'} again`]
      : []),
    ...(record.prodTag ? [`  prod    will run ${record.prodTag}, which reads this data format`] : []),
  ].join('\n');
}
