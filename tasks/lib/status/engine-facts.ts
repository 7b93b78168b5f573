// What the engine knows of the project's containers, asked over one connection: who runs, and what each uses.

import { environmentOfService } from '../docker/compose.ts';
import type { Container } from '../docker/containers.ts';
import type { AskEngine } from '../docker/engine-api.ts';
import type { EnvironmentName, Project } from '../project.ts';
import { kernelPeak, parseUsage, type Usage } from './resources.ts';

export type Usages = Partial<Record<EnvironmentName, Usage>>;

/** What each running environment uses now; cheap, because it does not wait for a second reading. */
export async function usagesOf(
  ask: AskEngine,
  project: Project,
  containers: readonly Container[],
): Promise<Usages> {
  const usages: Usages = {};
  for (const { id, service, state } of containers) {
    const name = environmentOfService(project, service);
    if (!name || state !== 'running') continue;
    const usage = await parseUsage(await ask(`/containers/${id}/stats?stream=false&one-shot=true`));
    if (usage) usages[name] = { ...usage, peak: usage.peak ?? (await kernelPeak(id)) };
  }
  return usages;
}
