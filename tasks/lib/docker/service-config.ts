// The service's own configuration, checked with the very loader that runs inside the container, so that a
// mistake is found here and not by a container that dies.
import { relative, resolve } from 'node:path';
import { ConfigError, effectiveValues, loadConfig } from '../../../service/config/config.ts';
import { EXIT, TaskError, usageError } from '../errors.ts';
import { ENVIRONMENTS, type EnvironmentName, PROJECT_FILE, type Project, variable } from '../project.ts';
import { type ComposeService, parseServices, resolvedModel } from './compose.ts';

type Services = Record<string, ComposeService>;

/** With the variables that compose would give the container. @throws TaskError (exit 2) */
function loadServiceConfig(project: Project, services: Services, name: EnvironmentName, config: string) {
  const configPath = resolve(project.root, config);
  const env = services[project.environments[name].service]?.environment ?? {};
  try {
    return loadConfig({ configPath, env });
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw new TaskError(error.message.replaceAll(`${project.root}/`, ''), {
      code: 'service-config-invalid',
      hint: `repair ${relative(project.root, configPath)}, the synapse.json beside it or, for a variable, .env.${name}`,
      exitCode: EXIT.usage,
    });
  }
}

/** Checks the configuration of the environments that name one in release.toml. @throws TaskError (exit 2) */
export async function verifyServiceConfig(
  project: Project,
  services: Services,
  names: readonly EnvironmentName[] = ENVIRONMENTS,
): Promise<void> {
  for (const name of names) {
    const { config } = project.environments[name];
    if (config) loadServiceConfig(project, services, name, config);
  }
}

export type EffectiveConfig = Awaited<ReturnType<typeof effectiveConfig>>;

/**
 * The service configuration that an environment gets, value by value, with the layer that each came from.
 * @throws TaskError (exit 2) when the configuration is not valid, or not of the form that we can read
 */
export async function effectiveConfig(project: Project, environment: EnvironmentName) {
  const { config } = project.environments[environment];
  if (!config) {
    throw usageError(
      `${PROJECT_FILE} names no configuration of ${environment} (environments.${environment}.config)`,
      { code: 'no-config', hint: "only Synapse's own form can be read" },
    );
  }
  const services = parseServices(await resolvedModel(project, variable(project, 'PROD_TAG')));
  const inProject = (origin: string) => (origin.startsWith('/') ? relative(project.root, origin) : origin);
  const values = effectiveValues(loadServiceConfig(project, services, environment, config));
  return { environment, values: values.map((value) => ({ ...value, origin: inProject(value.origin) })) };
}
