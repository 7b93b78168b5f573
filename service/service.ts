// The running service, put together: stores, uploads, learning, MCP and HTTP, with one way to stop it.
// It knows nothing of the process (signals, exit codes), so tests start as many as they like.
import { join } from 'node:path';
import type { Config } from './config/schema.ts';
import { type Routes, sendJson, startHttp } from './http.ts';
import { DATA_FORMAT, type Identity, SERVICE_NAME } from './identity.ts';
import { createLearning } from './learning.ts';
import type { Log } from './log.ts';
import { buildServer, mcpRoute } from './mcp/server.ts';
import type { CallContext } from './mcp/tool.ts';
import { type Backlog, catchUp, checkStores, closeStores, openStores } from './stores/stores.ts';
import { openUploads, receiveUpload } from './uploads.ts';

export interface Service {
  port: number;
  /** Resolves when data of an older program is in the index; never rejects. */
  caughtUp: Promise<void>;
  stop(): Promise<void>;
}

const MINUTE_MS = 60_000;

export async function startService({
  config,
  identity,
  log,
  token,
}: {
  config: Config;
  identity: Identity;
  log: Log;
  token?: string | undefined;
}): Promise<Service> {
  const data = openDataDirectory(config, log);
  try {
    const access = { allowedHosts: config.server.allowed_hosts, token };
    const requestTimeoutMs = config.server.request_timeout_seconds * 1000;
    const routes = createRoutes(config, identity, data, log);
    const http = await startHttp(routes, access, log, { ...config.server, requestTimeoutMs });
    const endHousekeeping = startHousekeeping(config, data, log);
    return {
      port: http.port,
      caughtUp: data.catchUp(),
      stop: async () => {
        endHousekeeping();
        await http.stop();
        data.close();
      },
    };
  } catch (error) {
    data.close();
    throw error;
  }
}

export type DataDirectory = ReturnType<typeof openDataDirectory>;

export function openDataDirectory(config: Config, log: Log) {
  const { directory } = config.data;
  const stores = openStores(config);
  const { max_bytes, expiry_minutes } = config.uploads;
  const uploads = openUploads(join(directory, 'uploads'), max_bytes, expiry_minutes);
  let backlog: Backlog | undefined;
  let closed = false;
  /** Work that is cut off by a stop goes on at the next start. */
  const inBackground = (what: string, work: Promise<void>) =>
    work.catch((error: unknown) => {
      if (!closed) log.error(`${what} failed, trying again later`, { error: String(error) });
    });
  return {
    stores,
    uploads,
    /** Indexes what an older program left; to be called once. */
    catchUp: () =>
      inBackground(
        'indexing',
        catchUp(stores, directory, log, (left) => {
          backlog = left;
        }),
      ),
    /** What is left of that work, while it runs. */
    backlog: () => backlog,
    /** Deletes chunks that no document needs any more. */
    tidy: () => void inBackground('deleting old chunks', stores.semantic.removeUnlisted()),
    close: () => {
      closed = true;
      closeStores(stores);
    },
  };
}

/** What a tool call needs. */
export function callContext(config: Config, { stores, uploads, tidy }: DataDirectory, log: Log): CallContext {
  const recordCall = config.metrics.enabled ? stores.metrics.record : undefined;
  const learn = createLearning(config.automatic_learning, stores.episodic.addEpisode);
  return { stores, uploads, tidy, log, recordCall, learn };
}

function createRoutes(config: Config, identity: Identity, data: DataDirectory, log: Log): Routes {
  const context = callContext(config, data, log);
  const mcp = mcpRoute(() => buildServer(identity.version, context), config.server.max_body_bytes);
  return {
    '/health': {
      open: true,
      methods: {
        GET: (_, response) => {
          const health = describeHealth(config, identity, data);
          if (health.status !== 'ok') log.warn('a store cannot be written', { stores: health.stores });
          sendJson(response, health.status === 'ok' ? 200 : 503, health);
        },
      },
    },
    '/mcp': { methods: { POST: mcp } },
    '/v1/upload': {
      methods: {
        POST: async (request, response) => {
          const uploaded = await receiveUpload(request, data.uploads);
          log.debug('file uploaded', { ...uploaded });
          sendJson(response, 201, uploaded);
        },
      },
    },
  };
}

/** What GET /health answers: who runs, how it is configured, and whether every store can be written now. */
function describeHealth(config: Config, identity: Identity, { stores, backlog }: DataDirectory) {
  const states = checkStores(stores);
  const healthy = Object.values(states).every((state) => state.writable);
  const left = backlog();
  return {
    status: healthy ? ('ok' as const) : ('unhealthy' as const),
    service: SERVICE_NAME,
    env: config.environment,
    ...identity,
    logLevel: config.log.level,
    automaticLearning: config.automatic_learning.mode,
    automaticLearningEnabled: config.automatic_learning.enabled,
    dataFormat: DATA_FORMAT,
    stores: states,
    ...(left === undefined ? {} : { backlog: left }),
  };
}

/** Deletes expired uploads, old metrics and abandoned chunks, now and every minute. Returns how to end it. */
function startHousekeeping(config: Config, { stores, uploads, tidy }: DataDirectory, log: Log): () => void {
  const run = () => {
    try {
      const expired = uploads.sweep();
      const pruned = config.metrics.enabled ? stores.metrics.prune(config.metrics.retention_days) : 0;
      if (expired + pruned > 0) log.debug('housekeeping', { expired_uploads: expired, pruned_calls: pruned });
      tidy();
    } catch (error) {
      log.warn('housekeeping failed', { error: String(error) });
    }
  };
  run();
  const timer = setInterval(run, MINUTE_MS);
  timer.unref();
  return () => clearInterval(timer);
}
