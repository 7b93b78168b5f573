// How the older, single-service setup is recognised: by what a container does, never by its name alone. Here and not
// in migrate/, because setup must not touch what still belongs to it.
import { realpath } from 'node:fs/promises';
import { sep } from 'node:path';
import { type Container, containerIds, inspectContainers, type Mount } from '../docker/objects.ts';
import type { Project } from '../project.ts';
import type { LegacyDescription } from '../project-schema.ts';

/** `registry/path/rag-mcp:latest` → `rag-mcp` */
function repository(reference: string): string {
  const withoutTag = reference.replace(/@.*$/, '').replace(/:[^/]*$/, '');
  return withoutTag.split('/').at(-1) ?? '';
}

export function isLegacyData(description: LegacyDescription, { type, target }: Mount): boolean {
  return type === 'bind' && description.data_targets.includes(target);
}

/** Why a container looks like the older setup: service, image, data, models. Two reasons make one. */
export function legacyEvidence(
  description: LegacyDescription,
  { labels, image, mounts }: Pick<Container, 'labels' | 'image' | 'mounts'>,
): string[] {
  const { service, models_volume_suffix: suffix } = description;
  const models = mounts.filter(({ type, source }) => type === 'volume' && source.endsWith(suffix));
  return [
    ...(labels['com.docker.compose.service'] === service ? [`service ${service}`] : []),
    ...(repository(image) === description.image ? [`image ${image}`] : []),
    ...models.map(({ source }) => `volume ${source}`),
    ...mounts
      .filter((mount) => isLegacyData(description, mount))
      .map(({ source, target }) => `${source} on ${target}`),
  ];
}

/**
 * The containers that are the older setup: the service by its label or by its data, and one thing more. Others may
 * share its image or its models; those of the new project are not it, whatever they look like.
 */
export function legacyContainers<T extends Pick<Container, 'labels' | 'image' | 'mounts'>>(
  description: LegacyDescription,
  containers: readonly T[],
  ownProject: string,
): T[] {
  return containers.filter((container) => {
    const { labels, mounts } = container;
    const isService =
      labels['com.docker.compose.service'] === description.service ||
      mounts.some((mount) => isLegacyData(description, mount));
    const isOwn = labels['com.docker.compose.project'] === ownProject;
    return !isOwn && isService && legacyEvidence(description, container).length >= 2;
  });
}

/** The older setup's container that has `directory`, or a part of it, or more than it, as its data; else undefined. */
export async function legacyHolder(project: Project, directory: string): Promise<Container | undefined> {
  const { migrate: description, project: own } = project;
  if (!description) return undefined;
  const path = await realPath(directory);
  const isWithin = (inner: string, outer: string) => inner === outer || inner.startsWith(outer + sep);
  const all = await inspectContainers(await containerIds({}));
  for (const container of legacyContainers(description, all, own.name)) {
    const data = container.mounts.filter((mount) => isLegacyData(description, mount));
    const sources = await Promise.all(data.map(({ source }) => realPath(source)));
    if (sources.some((source) => isWithin(path, source) || isWithin(source, path))) return container;
  }
  return undefined;
}

const realPath = (path: string) => realpath(path).catch(() => path);
