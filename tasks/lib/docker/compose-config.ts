// What the compose files say once everything is resolved, and whether release.toml speaks of the same.
import { probe } from '../command.ts';
import { usageError } from '../errors.ts';
import { ENVIRONMENTS, type Project, portOf, variableName } from '../project.ts';
import { composeCommand, composeEnvironment } from './compose.ts';
import { type ComposeService, parseServices } from './compose-schema.ts';

/** The compose files with everything resolved, as JSON. @throws TaskError (exit 2) with compose's own words */
export async function resolvedConfig(project: Project, tag: string | undefined): Promise<string> {
  const options = { env: composeEnvironment(project, tag) };
  const answer = await probe(composeCommand(project, 'config', '--format', 'json'), options);
  if (!answer.ok) {
    throw usageError(`The compose file is not valid: ${answer.stderr.trim()}`, {
      code: 'compose-invalid',
      hint: `see: ${project.project.compose.join(', ')} and .env`,
    });
  }
  return answer.stdout;
}

/** The services as compose understands them. @throws TaskError (exit 2) */
export async function composeServices(project: Project, tag: string | undefined) {
  return parseServices(project, await resolvedConfig(project, tag));
}

/** release.toml and the compose file must speak of the same services and ports. @throws TaskError (exit 2) */
export function verifyServices(project: Project, services: Record<string, ComposeService>): void {
  for (const name of ENVIRONMENTS) {
    const { service } = project.environments[name];
    const found = services[service];
    if (!found) {
      throw usageError(
        `configs/release.toml: environments.${name}.service is "${service}", which no compose file has`,
        {
          code: 'config-invalid',
          hint: `services: ${Object.keys(services).join(', ')}`,
        },
      );
    }
    if (!found.ports.includes(portOf(project, name))) {
      throw usageError(
        `Service ${service} publishes port ${found.ports.join(', ') || '(none)'}, expected ${portOf(project, name)}`,
        {
          code: 'config-invalid',
          hint: `publish "\${${variableName(project, `${name.toUpperCase()}_PORT`)}}" in the compose file, or correct environments.${name}.port`,
        },
      );
    }
  }
  if (services[project.environments.prod.service]?.hasBuild) {
    throw usageError(`Service ${project.environments.prod.service} has a \`build:\``, {
      code: 'config-invalid',
      hint: "remove it: compose would build working-tree code under a released version's name",
    });
  }
}
