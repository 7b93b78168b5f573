// The service's own configuration, checked with the very loader that runs inside the container, so that a
// mistake is found here and not by a container that dies.
import { relative, resolve } from 'node:path';
import type { ComposeService } from '../docker/compose-schema.ts';
import { EXIT, TaskError } from '../errors.ts';
import { ENVIRONMENTS, type EnvironmentName, type Project } from '../project.ts';

/** Not every project has a service of ours: its loader is there only where a configuration is named. */
function serviceLoader() {
  return import('../../../service/config.ts');
}

/** Loads what the check needs, while something else is waited for. */
export async function prepareServiceCheck(project: Project): Promise<void> {
  if (ENVIRONMENTS.some((name) => project.environments[name].config)) await serviceLoader();
}

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
    const { ConfigError, loadConfig } = await serviceLoader();
    try {
      loadConfig({ configPath: resolve(project.root, config), env: services[service]?.environment ?? {} });
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      throw new TaskError(error.message.replaceAll(`${project.root}/`, ''), {
        code: 'service-config-invalid',
        hint: `repair ${relative(project.root, resolve(project.root, config))} or the synapse.json beside it; editors complete the keys`,
        exitCode: EXIT.usage,
      });
    }
  }
}
