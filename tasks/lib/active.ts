// Which environments are active, by .env, and the one table of hints that name a switch: none of them stops a running
// environment that it does not name.
import { usageError } from './errors.ts';
import { ENVIRONMENTS, type EnvironmentName, type Project, variable, variableName } from './project.ts';

const ACTIVE = [...ENVIRONMENTS, 'both', 'none'] as const;

export type ActiveEnvironment = (typeof ACTIVE)[number];

/** @throws TaskError (exit 2) where .env says anything else: it must not count as none */
export function activeEnvironment(project: Project): ActiveEnvironment {
  const value = variable(project, 'ACTIVE_ENV') ?? 'none';
  const active = ACTIVE.find((one) => one === value);
  if (active) return active;
  throw usageError(
    `.env: ${variableName(project, 'ACTIVE_ENV')} is "${value}", expected ${ACTIVE.join(', ')}`,
    {
      code: 'config-invalid',
      hint: 'correct that line, or remove it and switch: npm run switch -- dev|prod|both|none',
    },
  );
}

/** The environments that are meant by an active one. */
export function environmentsOf(active: ActiveEnvironment): EnvironmentName[] {
  return ENVIRONMENTS.filter((name) => active === 'both' || active === name);
}

/** What to switch to so that `name` runs and what is active stays so. */
export function switchTarget(project: Project, name: EnvironmentName): ActiveEnvironment {
  return environmentsOf(activeEnvironment(project)).some((other) => other !== name) ? 'both' : name;
}

/** The command that starts `name`, or makes it anew, and leaves the other environment alone. */
export function switchCommand(project: Project, name: EnvironmentName, version?: string): string {
  return `npm run switch -- ${switchTarget(project, name)}${version ? ` --version ${version}` : ''}`;
}

/** The command that stops `name` and leaves the other environment alone. */
export function stopCommand(project: Project, name: EnvironmentName): string {
  const [other = 'none'] = environmentsOf(activeEnvironment(project)).filter((one) => one !== name);
  return `npm run switch -- ${other}`;
}
