// The process around the service: configuration from the environment, signals, exit codes.
// Exit 2 means the configuration is wrong, 1 that the service could not start or broke.
import { ConfigError, effectiveValues, type LoadedConfig, loadConfig } from './config/config.ts';
import { DATA_FORMAT, identify } from './identity.ts';
import { createLog, type Log } from './log.ts';
import { startService } from './service.ts';

type Environment = Record<string, string | undefined>;

export async function serve(env: Environment): Promise<void> {
  // Memory is private: files of the service are for its own user only.
  process.umask(0o077);
  const loaded = loadOrExit(env);
  const { config } = loaded;
  const log = createLog(config.log.level, { env: config.environment });
  process.once('uncaughtException', (error) => fail(log, 'broken', error));
  try {
    const identity = identify(env);
    const service = await startService({ config, identity, log, token: env.SYNAPSE_TOKEN });
    stopOnSignals(service.stop, log);
    log.info('ready', {
      ...identity,
      port: service.port,
      data: config.data.directory,
      dataFormat: DATA_FORMAT,
    });
    for (const { path, value, origin } of effectiveValues(loaded))
      log.debug('configuration', { path, value, origin });
  } catch (error) {
    fail(log, 'cannot start', error);
  }
}

function loadOrExit(env: Environment): LoadedConfig {
  try {
    return loadConfig({ env });
  } catch (error) {
    const [summary] = (error as Error).message.split('\n');
    const problems = error instanceof ConfigError ? { problems: error.problems } : {};
    createLog('ERROR').error('cannot start', { error: summary, ...problems });
    process.exit(2);
  }
}

function fail(log: Log, what: string, error: unknown): never {
  const { message, stack, code } = error as Error & { code?: string };
  log.error(what, { error: message, code, ...(what === 'broken' ? { stack } : {}) });
  process.exit(1);
}

/** The first signal stops in order; a second one does not wait. */
function stopOnSignals(stop: () => Promise<void>, log: Log): void {
  let stopping = false;
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      if (stopping) process.exit(1);
      stopping = true;
      log.info('stopping', { signal });
      stop().then(
        () => process.exit(0),
        (error: unknown) => fail(log, 'stopped badly', error),
      );
    });
  }
}
