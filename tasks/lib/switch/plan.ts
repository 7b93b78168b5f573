// From what is to what should be: the steps of a switch, worked out before anything is touched. Pure.
import { ENVIRONMENTS, type EnvironmentName } from '../project.ts';
import {
  type ActiveEnvironment,
  type EnvironmentState,
  environmentsOf,
  type Observation,
} from './observe.ts';

export interface SwitchTarget {
  active: ActiveEnvironment;
  /** The release that prod shall run; undefined keeps what .env says. */
  prodTag: string | undefined;
  /** `Image.id` of the image that each environment shall run. */
  imageIds: Partial<Record<EnvironmentName, string>>;
  /** How prod's image, which is not here, is had. */
  fetch?: 'pull' | 'build' | undefined;
}

export type SwitchStep =
  | { kind: 'fetch'; tag: string; by: 'pull' | 'build' }
  | { kind: 'start'; environment: EnvironmentName; how: StartKind; reason: string }
  | { kind: 'stop'; environment: EnvironmentName }
  | { kind: 'remember'; active: ActiveEnvironment; prodTag: string | undefined };

/** `create`: there is no container · `replace`: by a new one · `resume`: the present one is right, but stopped. */
type StartKind = 'create' | 'replace' | 'resume';

/** How an environment has to be started and why; undefined when it runs as it should. */
export function planStart(
  state: EnvironmentState,
  imageId: string | undefined,
): { how: StartKind; reason: string } | undefined {
  const { container, health } = state;
  if (!container) return { how: 'create', reason: 'it has no container' };
  const replace = (reason: string) => ({ how: 'replace' as const, reason });
  if (imageId !== undefined && container.imageId !== imageId) return replace('it runs another image');
  if (state.outdated) return replace('its configuration changed');
  if (container.name !== state.containerName) return replace(`its container is called ${container.name}`);
  if (container.state === 'exited') return { how: 'resume', reason: 'it is stopped' };
  if (container.state !== 'running') return replace(`its container is ${container.state}`);
  if (health?.status !== 200)
    return replace(health?.status ? `it answers ${health.status}` : 'it does not answer');
  if (container.health === 'unhealthy') return replace('its container is unhealthy');
  return undefined;
}

/** The steps in order: what is wanted starts first, what is not stops after that, .env changes last. */
export function planSwitch(observed: Observation, target: SwitchTarget): SwitchStep[] {
  const wanted = environmentsOf(target.active);
  const starts = wanted.flatMap((environment) => {
    const start = planStart(observed.environments[environment], target.imageIds[environment]);
    return start ? [{ kind: 'start' as const, environment, ...start }] : [];
  });
  const stops = ENVIRONMENTS.filter((name) => !wanted.includes(name) && mayRun(observed.environments[name]));
  const remembers = observed.active !== target.active || observed.prodTag !== target.prodTag;
  return [
    ...(target.fetch && target.prodTag
      ? [{ kind: 'fetch' as const, tag: target.prodTag, by: target.fetch }]
      : []),
    ...starts,
    ...stops.map((environment) => ({ kind: 'stop' as const, environment })),
    ...(remembers ? [{ kind: 'remember' as const, active: target.active, prodTag: target.prodTag }] : []),
  ];
}

function mayRun({ container }: EnvironmentState): boolean {
  return ['running', 'restarting', 'paused'].includes(container?.state ?? '');
}

/** One line a step, for the plan that is shown. */
export function describeStep(step: SwitchStep): string {
  switch (step.kind) {
    case 'fetch':
      return `${step.by === 'pull' ? 'pull' : 'build from its git tag'} the image of ${step.tag}, which is not here`;
    case 'start':
      return step.how === 'replace'
        ? `replace ${step.environment}: ${step.reason}; the present container is kept until the new one is healthy`
        : `start ${step.environment}: ${step.reason}`;
    case 'stop':
      return `stop ${step.environment}`;
    case 'remember':
      return `write .env: active environment ${step.active}${step.prodTag ? `, prod runs ${step.prodTag}` : ''}`;
  }
}
