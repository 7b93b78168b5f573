// The service's own configuration, checked with the very loader that runs inside the container, so that a
// mistake is found here and not by a container that dies.
import { relative, resolve } from 'node:path';
import {
  ConfigError,
  type EffectiveValue,
  effectiveValues,
  loadConfig,
} from '../../../service/config/config.ts';

import { EXIT, TaskError, usageError } from '../errors.ts';
import { ENVIRONMENTS, type EnvironmentName, PROJECT_FILE, type Project, variable } from '../project.ts';
import { type ComposeService, composeServices } from './compose.ts';

/**
 * Checks the configuration of the given environments, with the variables that compose would give them.
 * Environments without `config` in release.toml have nothing to check. @throws TaskError (exit 2)
 */
export async function verifyServiceConfig(
  project: Project,
  services: Record<string, ComposeService>,
  names: readonly EnvironmentName[] = ENVIRONMENTS,
): Promise<void> {
  for (const name of names) {
    const { config, service } = project.environments[name];
    if (!config) continue;
    try {
      loadConfig({ configPath: resolve(project.root, config), env: services[service]?.environment ?? {} });
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      throw new TaskError(error.message.replaceAll(`${project.root}/`, ''), {
        code: 'service-config-invalid',
        hint: `repair ${relative(project.root, resolve(project.root, config))}, the synapse.json beside it or, for a variable, .env.${name}`,
        exitCode: EXIT.usage,
      });
    }
  }
}

// The service configuration that an environment gets, value by value, with the layer that each came from: the very
// loader that runs in the container, given what compose gives the container.

export interface EffectiveConfig {
  environment: EnvironmentName;
  values: EffectiveValue[];
}

/** @throws TaskError (exit 2) when the configuration is not valid, or not of the form that we can read */
export async function effectiveConfig(project: Project, name: EnvironmentName): Promise<EffectiveConfig> {
  const { config, service } = project.environments[name];
  if (!config) {
    throw usageError(`${PROJECT_FILE} names no configuration of ${name} (environments.${name}.config)`, {
      code: 'no-config',
      hint: "only Synapse's own form can be read",
    });
  }
  const services = await composeServices(project, variable(project, 'PROD_TAG'));
  await verifyServiceConfig(project, services, [name]);
  const env = services[service]?.environment ?? {};
  const values = effectiveValues(loadConfig({ configPath: resolve(project.root, config), env }));
  const inProject = (origin: string) => (origin.startsWith('/') ? relative(project.root, origin) : origin);
  return {
    environment: name,
    values: values.map((value) => ({ ...value, origin: inProject(value.origin) })),
  };
}
