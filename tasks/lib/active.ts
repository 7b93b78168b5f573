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

/** Is it among the active ones, by .env? */
export function isActive(project: Project, name: EnvironmentName): boolean {
  return environmentsOf(activeEnvironment(project)).includes(name);
}

type Names = readonly EnvironmentName[];

/** The environments other than `name` that are active, or run although they are not. */
function others(project: Project, name: EnvironmentName, running: Names): EnvironmentName[] {
  const kept = [...environmentsOf(activeEnvironment(project)), ...running];
  return ENVIRONMENTS.filter((other) => other !== name && kept.includes(other));
}

/** What to switch to so that `name` runs and what is active, or among `running`, stays so. */
export function switchTarget(
  project: Project,
  name: EnvironmentName,
  running: Names = [],
): ActiveEnvironment {
  return others(project, name, running).length > 0 ? 'both' : name;
}

/** The command that starts `name`, or makes it anew, and leaves the other environment alone. */
export function switchCommand(
  project: Project,
  name: EnvironmentName,
  { version, running }: { version?: string; running?: Names } = {},
): string {
  const target = switchTarget(project, name, running);
  return `npm run switch -- ${target}${version ? ` --version ${version}` : ''}`;
}

/** The command that stops `name` and leaves the other environment alone. */
export function stopCommand(project: Project, name: EnvironmentName, running: Names = []): string {
  return `npm run switch -- ${others(project, name, running)[0] ?? 'none'}`;
}
