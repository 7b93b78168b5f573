// Finding the older setup: its container, as the engine knows it, and the compose file that its labels name. Nothing is
// changed; what [migrate] of release.toml does not describe is refused, never guessed.
import { lstat, realpath } from 'node:fs/promises';
import { z } from 'zod';
import { type Command, probe } from '../command.ts';
import { docker } from '../docker/engine.ts';
import { type Container, containerIds, inspectContainers, type Mount } from '../docker/objects.ts';
import { combinedError, TaskError, usageError } from '../errors.ts';
import type { Project } from '../project.ts';
import type { LegacyDescription } from '../project-schema.ts';
import { isLegacyData, legacyContainers } from '../setup/data-directory.ts';

/** The older setup as data: enough to stop it, to carry it over and to bring it back. */
export const legacySchema = z.strictObject({
  service: z.string(),
  container: z.string(),
  image: z.string(),
  isRunning: z.boolean(),
  /** Its compose project, that project's files, and the folder that relative paths in them start from. */
  project: z.string(),
  composeFiles: z.array(z.string()),
  directory: z.string(),
  /** Host ports, and the address that they listen on. */
  ports: z.array(z.number()),
  address: z.string(),
  /** Its data directory, links resolved. */
  data: z.string(),
  /** Volume of its model files. */
  models: z.string().nullable(),
  /** Its settings; not carried over as they are. */
  readOnlyMounts: z.array(z.string()),
});

export type Legacy = z.output<typeof legacySchema>;

/** @throws TaskError (exit 2) if release.toml describes no older setup */
export function describedLegacy(project: Project): LegacyDescription {
  if (project.migrate) return project.migrate;
  throw usageError('configs/release.toml has no [migrate]: it describes no older setup', {
    code: 'config-invalid',
  });
}

export async function exists(path: string): Promise<boolean> {
  return (await lstat(path).catch(() => undefined)) !== undefined;
}

export async function allContainers(): Promise<Container[]> {
  return inspectContainers(await containerIds({}));
}

export const projectOf = ({ labels }: Pick<Container, 'labels'>) => labels['com.docker.compose.project'];

const isModels = ({ models_targets }: LegacyDescription, { type, target }: Mount) =>
  type === 'volume' && models_targets.includes(target);

/**
 * The older setup and the variables of its container, secrets among them; undefined if there is none.
 * @throws TaskError naming everything that is not understood; nothing was changed then
 */
export async function detectLegacy(
  project: Project,
): Promise<{ legacy: Legacy; variables: Record<string, string> } | undefined> {
  const description = describedLegacy(project);
  const all = await allContainers();
  const found = legacyContainers(description, all, project.project.name);
  const [container] = found;
  if (!container) return undefined;
  const beside = all.filter((one) => found.includes(one) || projectOf(one) === projectOf(container));
  const others = beside.filter((one) => one !== container).map(({ name }) => name);
  const problems = legacyProblems(description, container, others).map(notUnderstood);
  if (problems.length > 0) throw combinedError('Cannot understand the older setup:', problems);
  const legacy = await describeLegacy(description, container);
  await verifyComposeFiles(legacy);
  return { legacy, variables: container.environment };
}

/** Every reason why a container cannot be migrated. `others`: containers of the same project or kind. Pure. */
export function legacyProblems(
  description: LegacyDescription,
  { name, labels, mounts, publishedPorts }: Pick<Container, 'name' | 'labels' | 'mounts' | 'publishedPorts'>,
  others: readonly string[],
): string[] {
  const data = mounts.filter((mount) => isLegacyData(description, mount));
  const models = mounts.filter((mount) => isModels(description, mount));
  const writable = mounts.filter(
    (mount) => !mount.isReadOnly && mount.type !== 'tmpfs' && ![...data, ...models].includes(mount),
  );
  const sources = (list: readonly Mount[]) => list.map(({ source }) => source).join(', ');
  return [
    !labels['com.docker.compose.project.config_files'] && `${name} was not started by docker compose`,
    others.length > 0 && `there are more containers than ${name}, remove them first: ${others.join(', ')}`,
    data.length === 0 &&
      `no directory of this machine is mounted on ${description.data_targets.join(' or ')}`,
    data.length > 1 && `it has several data directories: ${sources(data)}`,
    ...writable.map(({ type, source, target }) => `it writes to the ${type} ${source} on ${target}`),
    models.length > 1 && `it has several models volumes: ${sources(models)}`,
    publishedPorts.length === 0 && 'it publishes no port',
  ].filter((problem) => problem !== false);
}

function notUnderstood(what: string): TaskError {
  return new TaskError(`Not understood: ${what}`, {
    code: 'unknown-shape',
    hint: 'nothing was changed; describe the older setup in [migrate] of configs/release.toml',
  });
}

async function describeLegacy(description: LegacyDescription, container: Container): Promise<Legacy> {
  const { name, image, labels, mounts, state } = container;
  const composeLabel = (key: string) => labels[`com.docker.compose.${key}`] ?? '';
  // Docker Desktop shows the directories of a Mac below /host_mnt.
  const source = mounts
    .find((mount) => isLegacyData(description, mount))!
    .source.replace(/^\/host_mnt\//, '/');
  const data = await realpath(source).catch((cause: Error) => {
    const message = `Cannot read the data directory ${source} of the older setup: ${cause.message}`;
    throw new TaskError(message, { code: 'data-directory', hint: 'nothing was changed', cause });
  });
  return {
    ...{ service: composeLabel('service'), container: name, image, data },
    isRunning: ['running', 'restarting', 'paused'].includes(state),
    project: composeLabel('project'),
    composeFiles: composeLabel('project.config_files').split(','),
    directory: composeLabel('project.working_dir'),
    ports: container.publishedPorts,
    address: container.publishedAddresses[0]!.replace(/:\d+$/, ''),
    models: mounts.find((mount) => isModels(description, mount))?.source ?? null,
    readOnlyMounts: mounts.filter(({ isReadOnly }) => isReadOnly).map((mount) => mount.source),
  };
}

/** A rollback starts the old service from them. @throws TaskError if one is missing, or does not describe it */
async function verifyComposeFiles(legacy: Legacy): Promise<void> {
  const { service, container, project, composeFiles } = legacy;
  for (const file of composeFiles) {
    if (await exists(file)) continue;
    throw new TaskError(`The compose file of ${container} is gone: ${file}. A rollback needs it`, {
      code: 'no-compose-file',
      hint: `restore it, or write one with name: ${project} and a service ${service} like the container: docker inspect ${container}; nothing was changed`,
    });
  }
  const { ok, stdout, stderr } = await probe(legacyCommand(legacy, 'config', '--services'));
  if (ok && stdout.split('\n').includes(service)) return;
  const why = ok ? `it has no service ${service}` : stderr.trim();
  throw new TaskError(`Cannot read ${composeFiles.join(', ')}: ${why}`, {
    code: 'unknown-shape',
    hint: 'fix it first; nothing was changed',
  });
}

/** `docker compose` for the older setup. */
export function legacyCommand(legacy: Legacy, ...argv: string[]): Command {
  return docker(
    ...['compose', '--project-name', legacy.project, '--project-directory', legacy.directory],
    ...legacy.composeFiles.flatMap((file) => ['--file', file]),
    ...argv,
  );
}
