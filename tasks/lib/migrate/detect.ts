// Finding the older setup: by the engine's containers, by compose files, or both. Nothing is changed; what is
// not understood is said, and then nothing goes on.
import { realpath } from 'node:fs/promises';
import { dirname } from 'node:path';
import { combinedError, TaskError } from '../errors.ts';
import { readIfPresent } from '../files.ts';
import type { LegacyDescription } from '../migrate-schema.ts';
import type { Project } from '../project.ts';
import { type EngineContainer, engineContainers, engineNetworks, engineVolume } from './engine-view.ts';
import type { Legacy, Shape } from './legacy.ts';
import { composeFileFrom, composeHandle, findComposeFiles, resolveCompose } from './legacy-compose.ts';
import { writeRebuilt } from './rebuilt-file.ts';
import { evidenceOf, legacyContainers, understand, unknown } from './understand.ts';

/** What is there, before it is understood. */
interface Found {
  container: EngineContainer | undefined;
  composeFiles: string[];
  isRebuilt: boolean;
  directory: string | undefined;
}

const composeLabel = (container: EngineContainer, name: string) =>
  container.labels[`com.docker.compose.${name}`];

/**
 * The older setup, or undefined if there is none. `from`: its compose file, or the folder of it.
 * @throws TaskError naming everything that is not understood; nothing was changed then
 */
export async function detectLegacy(
  project: Project,
  description: LegacyDescription,
  from?: string,
): Promise<Legacy | undefined> {
  const named = from === undefined ? undefined : await composeFileFrom(description, from);
  const files = named ? [named] : await findComposeFiles(project, description);
  const all = legacyContainers(description, await engineContainers(), project.project.name);
  const containers = named ? await ofComposeFile(all, named) : all;
  if (containers.length > 1) {
    const names = containers.map(({ name }) => name).join(', ');
    throw unknown(`there are several: ${names}; name the compose file of one: --from FILE`);
  }
  const [container] = containers;
  if (container) return describeLegacy(description, await filesOf(project, container, files));
  if (files.length > 1)
    throw unknown(`there are several compose files: ${files.join(', ')}; name one: --from FILE`);
  if (files.length === 0) return undefined;
  return describeLegacy(description, {
    container,
    composeFiles: files,
    isRebuilt: false,
    directory: undefined,
  });
}

async function ofComposeFile(containers: readonly EngineContainer[], file: string) {
  const { name } = await resolveCompose(composeHandle([file]));
  return containers.filter((container) => composeLabel(container, 'project') === name);
}

/** The compose files that a container was made from; rebuilt where they are gone. */
async function filesOf(
  project: Project,
  container: EngineContainer,
  files: readonly string[],
): Promise<Found> {
  const name = composeLabel(container, 'project');
  if (!name) throw unknown(`the container ${container.name} was not started by docker compose`);
  const labelled = (composeLabel(container, 'project.config_files') ?? '').split(',').filter(Boolean);
  const present = await Promise.all(labelled.map((path) => realpath(path).catch(() => undefined)));
  const directory = composeLabel(container, 'project.working_dir');
  if (labelled.length > 0 && present.every((path) => path !== undefined)) {
    return { container, composeFiles: present as string[], isRebuilt: false, directory };
  }
  for (const file of files) {
    const { name: resolved } = await resolveCompose(composeHandle([file]));
    if (resolved === name)
      return { container, composeFiles: [file], isRebuilt: false, directory: dirname(file) };
  }
  const rebuilt = await writeRebuilt(project, container);
  return { container, composeFiles: [rebuilt], isRebuilt: true, directory };
}

async function shapeOf({ container, composeFiles, directory }: Found, description: LegacyDescription) {
  const isThere = await Promise.all(composeFiles.map(readIfPresent));
  const resolved = isThere.every((text) => text !== undefined)
    ? await resolveCompose(composeHandle(composeFiles, undefined, directory))
    : undefined;
  const problems: TaskError[] = [];
  const services = Object.keys(resolved?.services ?? {});
  const [file = ''] = composeFiles;
  if (resolved && !services.includes(description.service))
    problems.push(unknown(`${file} has no service ${description.service}, but ${services.join(', ')}`));
  else if (services.length > 1)
    problems.push(unknown(`${file} has ${services.length} services: ${services.join(', ')}`));
  const shape: Shape | undefined = container
    ? { ...container, ports: container.ports.map(({ host }) => host) }
    : resolved?.services[description.service];
  return { resolved, shape, problems };
}

async function describeLegacy(description: LegacyDescription, found: Found): Promise<Legacy> {
  const { container, composeFiles } = found;
  const { resolved, shape, problems } = await shapeOf(found, description);
  const understood = shape ? understand(description, shape) : [];
  if (problems.length > 0 || Array.isArray(understood)) {
    const all = [...problems, ...(Array.isArray(understood) ? understood : [])];
    throw combinedError('The older setup is not understood:', all);
  }
  const { ports, models, readOnlyMounts, data, network } = understood;
  return {
    service: description.service,
    project: (container && composeLabel(container, 'project')) ?? resolved?.name ?? '',
    composeFiles,
    directory: found.directory ?? dirname(composeFiles[0]!),
    isRebuilt: found.isRebuilt,
    state: container ? (container.isRunning ? 'running' : 'stopped') : 'absent',
    container: container?.name,
    image: shape!.image,
    ports,
    data: { source: data, path: await dataPath(data) },
    models: models && (await engineVolume(models)) ? models : undefined,
    readOnlyMounts,
    network: await networkOf(network, resolved?.networks ?? {}),
    evidence: container ? evidenceOf(description, container) : [`compose file ${composeFiles[0]}`],
  };
}

async function dataPath(source: string): Promise<string> {
  return realpath(source).catch((error: NodeJS.ErrnoException) => {
    throw new TaskError(`Cannot read the data directory ${source} of the older setup: ${error.message}`, {
      code: 'data-directory',
      hint: 'nothing was changed',
    });
  });
}

async function networkOf(name: string, resolved: Record<string, string[]>): Promise<Legacy['network']> {
  if (!name || ['bridge', 'host', 'none'].includes(name)) return undefined;
  const present = (await engineNetworks()).find((network) => network.name === name);
  return { name, subnets: present?.subnets ?? resolved[name] ?? [] };
}
