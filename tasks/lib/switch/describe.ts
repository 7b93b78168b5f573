// An observation in words, and as the data of `--json`.
import { ENVIRONMENTS, type EnvironmentName, type Project } from '../project.ts';
import { type EnvironmentState, isHealthy, type Observation } from './environments.ts';

/** How one environment is: `healthy  synapse:v1.0.0 (1.0.0)`. */
export function describeEnvironment(project: Project, state: EnvironmentState): string {
  const { container, health } = state;
  if (container?.state !== 'running') return container?.state ?? 'not there';
  const version = health?.body[project.health.version ?? ''];
  const mood = isHealthy(state) ? 'healthy' : `not healthy (${health?.error ?? health?.status})`;
  return `${mood}  ${container.image}${version ? ` (${version})` : ''}`;
}

function isActive(observed: Observation, name: EnvironmentName): boolean {
  return observed.active === name || observed.active === 'both';
}

/** One line per environment; `*` marks the active ones. */
export function describeObservation(project: Project, observed: Observation): string {
  return ENVIRONMENTS.map((name) => {
    const state = observed.environments[name];
    const url = state.container?.state === 'running' ? `  ${state.url}` : '';
    const mark = isActive(observed, name) ? '*' : ' ';
    return `${mark} ${name.padEnd(5)} ${describeEnvironment(project, state)}${url}`;
  }).join('\n');
}

/** The same for `--json`. */
export function observationData(project: Project, observed: Observation): Record<string, unknown> {
  const environments = ENVIRONMENTS.map((name) => {
    const state = observed.environments[name];
    const { version, revision } = project.health;
    return [
      name,
      {
        state: state.container?.state ?? null,
        healthy: isHealthy(state),
        url: state.url,
        image: state.container?.image ?? null,
        imageId: state.container?.imageId ?? null,
        version: state.health?.body[version ?? ''] ?? null,
        revision: state.health?.body[revision ?? ''] ?? null,
      },
    ];
  });
  return {
    active: observed.active,
    prodTag: observed.prodTag ?? null,
    environments: Object.fromEntries(environments),
  };
}
