// The service configuration that an environment gets, value by value, with the layer that each came from: the very
// loader that runs in the container, given what compose gives the container.
import { relative, resolve } from 'node:path';
import type { EffectiveValue } from '../../../service/config.ts';
import { composeServices } from '../docker/compose-config.ts';
import { usageError } from '../errors.ts';
import { type EnvironmentName, PROJECT_FILE, type Project, variable } from '../project.ts';
import { verifyServiceConfig } from '../switch/service-config.ts';

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
  const { effectiveValues, loadConfig } = await import('../../../service/config.ts');
  const env = services[service]?.environment ?? {};
  const values = effectiveValues(loadConfig({ configPath: resolve(project.root, config), env }));
  const inProject = (origin: string) => (origin.startsWith('/') ? relative(project.root, origin) : origin);
  return {
    environment: name,
    values: values.map((value) => ({ ...value, origin: inProject(value.origin) })),
  };
}
