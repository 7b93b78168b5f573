// From what was found to what is understood of it. Pure: anything that the description in release.toml does
// not cover is a problem here, never a guess.
import { TaskError } from '../errors.ts';
import type { LegacyDescription } from '../migrate-schema.ts';
import type { EngineContainer } from './engine-view.ts';
import type { Legacy, Mount, Shape } from './legacy.ts';

/** `registry/path/rag-mcp:latest` → `rag-mcp` */
function repository(reference: string): string {
  return (
    reference
      .replace(/@.*$/, '')
      .replace(/:[^/]*$/, '')
      .split('/')
      .at(-1) ?? ''
  );
}

function isData(description: LegacyDescription, { type, target }: Mount): boolean {
  return type === 'bind' && description.data_targets.includes(target);
}

function isModels(description: LegacyDescription, { type, source, target }: Mount): boolean {
  return (
    type === 'volume' &&
    (source.endsWith(description.models_volume_suffix) || description.models_targets.includes(target))
  );
}

function isService(description: LegacyDescription, { labels, mounts }: EngineContainer): boolean {
  const isNamed = labels['com.docker.compose.service'] === description.service;
  return isNamed || mounts.some((mount) => isData(description, mount));
}

/** Why a container looks like the older setup: service, image, data, models. Two reasons make one. */
export function evidenceOf(description: LegacyDescription, container: EngineContainer): string[] {
  const { labels, image, mounts } = container;
  const suffix = description.models_volume_suffix;
  return [
    ...(labels['com.docker.compose.service'] === description.service
      ? [`service ${description.service}`]
      : []),
    ...(repository(image) === description.image ? [`image ${image}`] : []),
    ...mounts
      .filter(({ type, source }) => type === 'volume' && source.endsWith(suffix))
      .map(({ source }) => `volume ${source}`),
    ...mounts
      .filter((mount) => isData(description, mount))
      .map(({ source, target }) => `${source} on ${target}`),
  ];
}

/**
 * The containers that are the older setup: the service by its label or by its data, and one thing more. Others may
 * share its image or its models; those of the new project are not it, whatever they look like.
 */
export function legacyContainers(
  description: LegacyDescription,
  containers: readonly EngineContainer[],
  ownProject: string,
): EngineContainer[] {
  return containers.filter(
    (container) =>
      container.labels['com.docker.compose.project'] !== ownProject &&
      isService(description, container) &&
      evidenceOf(description, container).length >= 2,
  );
}

export type Understood = Pick<Legacy, 'ports' | 'models' | 'readOnlyMounts'> & {
  data: string;
  network: string;
};

/** @returns what is understood, or every reason why it is not */
export function understand(description: LegacyDescription, shape: Shape): Understood | TaskError[] {
  const data = shape.mounts.filter((mount) => isData(description, mount));
  const models = shape.mounts.filter((mount) => isModels(description, mount));
  const others = shape.mounts.filter((mount) => !data.includes(mount) && !models.includes(mount));
  const problems = [
    ...dataProblems(description, data),
    ...others
      .filter(({ type, isReadOnly }) => !isReadOnly && type !== 'tmpfs')
      .map(({ type, source, target }) =>
        unknown(`it writes to the ${type} ${source || '(anonymous)'} on ${target}`),
      ),
    ...(models.length > 1 ? [unknown(`it has several models volumes: ${list(models)}`)] : []),
    ...(shape.ports.length === 0 ? [unknown('it publishes no port')] : []),
    ...(shape.networks.length > 1
      ? [unknown(`it is in several networks: ${shape.networks.join(', ')}`)]
      : []),
  ];
  if (problems.length > 0) return problems;
  return {
    ports: shape.ports,
    models: models[0]?.source,
    readOnlyMounts: others.filter(({ isReadOnly }) => isReadOnly).map(({ source }) => source),
    data: data[0]!.source,
    network: shape.networks[0] ?? '',
  };
}

function dataProblems(description: LegacyDescription, data: readonly Mount[]): TaskError[] {
  if (data.length === 1) return [];
  if (data.length > 1) return [unknown(`it has several data directories: ${list(data)}`)];
  return [unknown(`no directory of this machine is mounted on ${description.data_targets.join(' or ')}`)];
}

const list = (mounts: readonly Mount[]) => mounts.map(({ source }) => source).join(', ');

/** Something that this migration was not made for. */
export function unknown(what: string): TaskError {
  return new TaskError(`Not understood: ${what}`, {
    code: 'unknown-shape',
    hint: 'nothing was changed; if the older setup really is so, describe it in [migrate] of configs/release.toml',
  });
}
