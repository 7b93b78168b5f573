// The running service: its HTTP routes, its housekeeping, and one way to stop it. Signals and exit codes are in
// serve.ts.
import type { Config } from './config/schema.ts';
import { type Context, openContext } from './context.ts';
import { type Routes, sendJson, startHttp } from './http.ts';
import type { Log } from './log.ts';
import { buildServer, mcpRoute, SERVICE_NAME } from './mcp/server.ts';
import { DATA_FORMAT } from './stores/format.ts';
import { checkStores } from './stores/stores.ts';
import { receiveUpload } from './uploads.ts';

const MINUTE_MS = 60_000;

export type Identity = ReturnType<typeof identify>;

/** What /health reports and a release checks before it is tagged: the image bakes version and revision in. */
export function identify(env: Record<string, string | undefined>) {
  return {
    version: env.SYNAPSE_VERSION || '0.0.0-dev',
    revision: env.SYNAPSE_REVISION || 'unknown',
    startedAt: new Date().toISOString(),
  };
}

export async function startService(config: Config, identity: Identity, log: Log, token?: string) {
  const context = openContext(config, log);
  try {
    const access = { allowedHosts: config.server.allowed_hosts, token };
    const requestTimeoutMs = config.server.request_timeout_seconds * 1000;
    const routes = createRoutes(identity, context);
    const http = await startHttp(routes, access, log, { ...config.server, requestTimeoutMs });
    housekeep(context);
    const timer = setInterval(() => housekeep(context), MINUTE_MS).unref();
    return {
      port: http.port,
      /** Resolves when data of an older program is in the index; never rejects. */
      caughtUp: context.catchUp(),
      stop: async () => {
        clearInterval(timer);
        await http.stop();
        context.close();
      },
    };
  } catch (error) {
    context.close();
    throw error;
  }
}

function createRoutes(identity: Identity, context: Context): Routes {
  const { config, log, uploads } = context;
  return {
    '/health': {
      open: true,
      GET: (_, response) => {
        const health = describeHealth(identity, context);
        const healthy = health.status === 'ok';
        if (!healthy) log.warn('a store is not writable', { stores: health.stores });
        sendJson(response, healthy ? 200 : 503, health);
      },
    },
    '/mcp': {
      POST: mcpRoute(() => buildServer(identity.version, context), config.server.max_body_bytes),
    },
    '/v1/upload': {
      POST: async (request, response) => {
        const uploaded = await receiveUpload(request, uploads);
        log.debug('file uploaded', { ...uploaded });
        sendJson(response, 201, uploaded);
      },
    },
  };
}

/** The response of GET /health: what runs, how it is configured, and whether every store is writable now. */
function describeHealth(identity: Identity, { config, stores, backlog }: Context) {
  const states = checkStores(stores);
  const { enabled, mode } = config.automatic_learning;
  return {
    status: Object.values(states).every(({ writable }) => writable) ? 'ok' : 'unhealthy',
    service: SERVICE_NAME,
    env: config.environment,
    ...identity,
    logLevel: config.log.level,
    automaticLearning: mode,
    automaticLearningEnabled: enabled,
    dataFormat: DATA_FORMAT,
    stores: states,
    backlog: backlog(),
  };
}

/** Deletes expired uploads, old metrics and chunks without a document. */
function housekeep({ config, log, stores, uploads, tidy }: Context): void {
  try {
    const expired = uploads.sweep();
    const pruned = config.metrics.enabled ? stores.metrics.prune(config.metrics.retention_days) : 0;
    if (expired + pruned > 0) log.debug('housekeeping', { expired_uploads: expired, pruned_calls: pruned });
    tidy();
  } catch (error) {
    log.warn('housekeeping failed', { error: String(error) });
  }
}
