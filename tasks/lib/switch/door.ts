// What tasks need of this room; see `rooms` in mod.ts. What only a swarm needs is loaded for a swarm.
import type { Project } from '../project.ts';
import type { ActiveEnvironment } from './environments.ts';

export { withReach } from '../docker/reach.ts';
export { newestRelease, previousRelease } from '../release/releases.ts';
export { composeSwitch } from './compose-switch.ts';
export { describeEnvironment, describeObservation, observationData } from './describe.ts';
export { observe } from './environments.ts';
export { logReport } from './report.ts';
export { repairIfUnfinished, repairSwitch } from './unfinished.ts';

export async function observeSwarm(project: Project) {
  return (await import('./swarm-plan.ts')).observeSwarm(project);
}

export async function swarmSwitch(project: Project, active: ActiveEnvironment, prodTag: string | undefined) {
  return (await import('./swarm-run.ts')).swarmSwitch(project, active, prodTag);
}
