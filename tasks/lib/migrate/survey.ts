// Looking at everything that a migration depends on: data, room, ports, networks, models. Changes nothing.
import { readdir } from 'node:fs/promises';
import { backupDirectory } from '../backup/places.ts';
import { resolvedConfig } from '../docker/compose-config.ts';
import { parseResolved } from '../docker/compose-schema.ts';
import { projectContainers } from '../docker/containers.ts';
import { engineInfo } from '../docker/engine-info.ts';
import { askHealth } from '../docker/health.ts';
import { inspectImage } from '../docker/images.ts';
import { overlaps } from '../doctor/addresses.ts';
import type { LegacyDescription } from '../migrate-schema.ts';
import {
  dataDirectory,
  ENVIRONMENTS,
  type EnvironmentName,
  type Project,
  portOf,
  variable,
  variableName,
} from '../project.ts';
import { isFree, listeningProcess, publishingContainer } from '../switch/ports.ts';
import { engineContainers, engineNetworks } from './engine-view.ts';
import type { Legacy } from './legacy.ts';
import { surveyModels } from './models.ts';
import type { MigrationFacts } from './plan-facts.ts';
import { exists, ownerOf, resolvedPath, roomAt, surveyData } from './survey-files.ts';

async function surveyPort(project: Project, legacy: Legacy, name: EnvironmentName) {
  const port = portOf(project, name);
  const isOurs = legacy.state === 'running' && legacy.ports.includes(port);
  if (isOurs || (await isFree({ published: port, target: 0, address: '' })))
    return { port, holder: undefined };
  const holder = (await publishingContainer(port)) ?? (await listeningProcess(port));
  return { port, holder };
}

interface Resolved {
  networks?: Record<string, { name?: string; ipam?: { config?: { subnet?: string }[] } }>;
  volumes?: Record<string, { name?: string }>;
}

export async function resolvedProject(project: Project): Promise<Resolved> {
  return parseResolved(await resolvedConfig(project, variable(project, 'PROD_TAG'))) as Resolved;
}

async function surveyNetworks(project: Project, resolved: Resolved): Promise<MigrationFacts['subnets']> {
  const networks = await engineNetworks();
  const own = Object.values(resolved.networks ?? {});
  const wanted = own.flatMap(({ ipam }) =>
    (ipam?.config ?? []).flatMap(({ subnet }) => (subnet ? [subnet] : [])),
  );
  const taken = networks.flatMap(({ subnets }) => subnets);
  const candidates = Array.from({ length: 14 }, (_none, index) => `172.${31 - index}.0.0/16`);
  const free = candidates.find((one) => !taken.some((subnet) => overlaps(one, subnet))) ?? '10.222.0.0/16';
  const isOwn = (labels: Record<string, string>) =>
    labels['com.docker.compose.project'] === project.project.name;
  const ownNetworks = [
    ...own.flatMap(({ name }) => name ?? []),
    ...networks.filter(({ labels }) => isOwn(labels)).map(({ name }) => name),
  ];
  return { wanted, free, ownNetworks, networks };
}

/** Everything, asked side by side where it can be. @throws TaskError when something cannot be read */
export async function surveyMigration(
  project: Project,
  description: LegacyDescription,
  legacy: Legacy,
): Promise<MigrationFacts> {
  const to = await resolvedPath(dataDirectory(project));
  const [resolved, engine, containers] = await Promise.all([
    resolvedProject(project),
    engineInfo(),
    engineContainers(),
  ]);
  const [data, subnets, models, health, entries, owner, dev, prod, image, own] = await Promise.all([
    surveyData(legacy),
    surveyNetworks(project, resolved),
    surveyModels(project, description, legacy, resolved),
    legacy.state === 'running'
      ? askHealth(`http://127.0.0.1:${legacy.ports[0]}${description.health}`)
      : undefined,
    readdir(to).then(
      (names) => names.length,
      () => undefined,
    ),
    ownerOf(to),
    surveyPort(project, legacy, 'dev'),
    surveyPort(project, legacy, 'prod'),
    inspectImage(legacy.image),
    projectContainers(project),
  ]);
  const network = subnets.networks.find(({ name }) => name === legacy.network?.name);
  const neighbours = (network?.containers ?? []).flatMap(
    (id) => containers.find((one) => one.id === id)?.name ?? id,
  );
  const deprecated = legacy.isRebuilt ? [] : legacy.composeFiles.map((file) => `${file}.deprecated`);
  const present = await Promise.all(deprecated.map(exists));
  return {
    now: new Date(),
    legacy,
    answered: health?.status === 200,
    healthPath: description.health,
    data,
    target: { path: to, entries, owner: owner ?? null },
    room: await Promise.all([
      roomAt('copy', to),
      roomAt('backup', backupDirectory(project)),
      ...((await exists(engine.dataRoot)) ? [roomAt('models', engine.dataRoot)] : []),
    ]),
    backups: backupDirectory(project),
    ports: { dev, prod },
    variables: {
      subnet: variableName(project, 'SUBNET'),
      data: variableName(project, 'DATA_DIR'),
      port: Object.fromEntries(
        ENVIRONMENTS.map((name) => [name, variableName(project, `${name.toUpperCase()}_PORT`)]),
      ) as Record<EnvironmentName, string>,
    },
    subnets,
    models,
    running: own.filter(({ state }) => state === 'running').map(({ name }) => name),
    neighbours: neighbours.filter((name) => name !== legacy.container),
    hasOldImage: image !== undefined,
    inTheWay: deprecated.filter((_path, index) => present[index]),
  };
}
