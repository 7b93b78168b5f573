// The models volume: used as it is where the engine and compose allow it, else copied inside a container and
// compared file by file. Nothing is ever downloaded again.
import { run } from '../command.ts';
import { docker } from '../docker/client.ts';
import { inspectImage } from '../docker/images.ts';
import type { LegacyDescription } from '../migrate-schema.ts';
import { type Project, variable } from '../project.ts';
import { containerUser, nodeImage, runProgram, volumeMount } from './container.ts';
import { engineContainers, engineVolume } from './engine-view.ts';
import type { Legacy } from './legacy.ts';
import type { ModelsPlan } from './plan.ts';
import type { MigrationFacts } from './plan-facts.ts';

export interface CopiedFile {
  path: string;
  size: number;
  sha256: string;
}

export async function surveyModels(
  project: Project,
  description: LegacyDescription,
  legacy: Legacy,
  resolved: { volumes?: Record<string, { name?: string }> },
): Promise<MigrationFacts['models']> {
  const key = description.models_volume;
  const wanted = resolved.volumes?.[key]?.name ?? `${project.project.name}_${key}`;
  const old = legacy.models === undefined ? undefined : await engineVolume(legacy.models);
  const users = (await engineContainers())
    .filter(
      ({ mounts, name }) => name !== legacy.container && mounts.some(({ source }) => source === old?.name),
    )
    .map(({ name }) => name);
  const content =
    old && (await inspectImage(nodeImage(project))) ? await measure(project, old.name) : undefined;
  return {
    wanted,
    exists: (await engineVolume(wanted)) !== undefined,
    old,
    canReuse: description.models_variable !== undefined && resolved.volumes?.[key] !== undefined,
    bytes: content?.bytes ?? null,
    unreadable: content?.unreadable.length ?? 0,
    users,
  };
}

/** Sizes, and what the new containers' user may not read. Only looks: also in a dry run. */
async function measure(project: Project, volume: string) {
  const user = containerUser(project);
  const mounts = [volumeMount(volume, '/from', 'readonly')];
  return runProgram<{ bytes: number; unreadable: string[] }>(project, {
    command: 'measure',
    mounts,
    user,
    onlyLooks: true,
  });
}

/** Labels by which compose takes a volume for its own. */
function ownLabels(project: Project, key: string): string[] {
  return [`com.docker.compose.project=${project.project.name}`, `com.docker.compose.volume=${key}`];
}

/** Copies the volume; what is there already and the same is left alone. Returns what was proven equal. */
export async function copyModels(project: Project, key: string, plan: ModelsPlan): Promise<CopiedFile[]> {
  if (!(await engineVolume(plan.to))) {
    const labels = ownLabels(project, key).map((label) => `--label=${label}`);
    await run(docker('volume', 'create', ...labels, plan.to));
  }
  const owner = {
    uid: Number(variable(project, 'UID') ?? 1000),
    gid: Number(variable(project, 'GID') ?? 1000),
  };
  const mounts = [volumeMount(plan.from, '/from', 'readonly'), volumeMount(plan.to, '/to', 'writable')];
  return (await runProgram<CopiedFile[]>(project, { command: 'copy', options: { owner }, mounts })) ?? [];
}

/** Removes a volume if it is there and nobody uses it; returns what keeps it. */
export async function removeVolume(name: string): Promise<string[]> {
  if (!(await engineVolume(name))) return [];
  const users = (await engineContainers()).filter(({ mounts }) =>
    mounts.some(({ source }) => source === name),
  );
  if (users.length === 0) await run(docker('volume', 'rm', name));
  return users.map((container) => container.name);
}
