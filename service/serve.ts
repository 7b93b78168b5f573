// The process around the service: configuration from the environment, signals, exit codes.
// Exit 2 means the configuration is invalid, 1 that the service could not start or crashed.
import { ConfigError, effectiveValues, loadConfig } from './config/config.ts';
import { createLog, type Log } from './log.ts';
import { identify, startService } from './service.ts';
import { DATA_FORMAT } from './stores/format.ts';

type Environment = Record<string, string | undefined>;

export async function serve(env: Environment): Promise<void> {
  // Memory is private: files of the service are for its own user only.
  process.umask(0o077);
  const loaded = loadOrExit(env);
  const { config } = loaded;
  const log = createLog(config.log.level, { env: config.environment });
  process.once('uncaughtException', (error) => fail(log, 'crashed', error, { stack: error.stack }));
  try {
    const identity = identify(env);
    const { port, stop } = await startService(config, identity, log, env.SYNAPSE_TOKEN);
    stopOnSignals(stop, log);
    log.info('ready', { ...identity, port, data: config.data.directory, dataFormat: DATA_FORMAT });
    for (const { path, value, origin } of effectiveValues(loaded))
      log.debug('configuration', { path, value, origin });
  } catch (error) {
    fail(log, 'cannot start', error);
  }
}

function loadOrExit(env: Environment) {
  try {
    return loadConfig({ env });
  } catch (error) {
    const [summary] = (error as Error).message.split('\n');
    const problems = error instanceof ConfigError ? { problems: error.problems } : {};
    createLog('ERROR').error('cannot start', { error: summary, ...problems });
    process.exit(2);
  }
}

function fail(log: Log, what: string, error: unknown, details: object = {}): never {
  const { message, code } = error as Error & { code?: string };
  log.error(what, { error: message, code, ...details });
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
        (error: unknown) => fail(log, 'stop failed', error),
      );
    });
  }
}
