// The running service, put together: stores, uploads, learning, MCP and HTTP, with one way to stop it.
// It knows nothing of the process (signals, exit codes), so tests start as many as they like.
import { join } from 'node:path';
import type { Config } from './config/schema.ts';
import { describeHealth } from './http/health.ts';
import { mcpRoute } from './http/mcp.ts';
import { sendJson } from './http/reply.ts';
import { type Routes, startHttp } from './http/server.ts';
import { receiveUpload } from './http/upload.ts';
import type { Identity } from './identity.ts';
import { createLearning } from './learning.ts';
import type { Log } from './log.ts';
import type { CallContext } from './mcp/call.ts';
import { buildServer } from './mcp/server.ts';
import { closeStores, openStores, type Stores } from './stores/stores.ts';
import { openUploads, type Uploads } from './uploads.ts';

export interface ServiceOptions {
  config: Config;
  identity: Identity;
  log: Log;
  token?: string | undefined;
}

export interface Service {
  port: number;
  stop(): Promise<void>;
}

const MINUTE_MS = 60_000;

export async function startService({ config, identity, log, token }: ServiceOptions): Promise<Service> {
  const data = openDataDirectory(config, log);
  try {
    const access = { allowedHosts: config.server.allowed_hosts, token };
    const http = await startHttp(createRoutes(config, identity, data, log), access, log, config.server);
    const endHousekeeping = startHousekeeping(config, data, log);
    return {
      port: http.port,
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

export interface DataDirectory {
  stores: Stores;
  uploads: Uploads;
  close(): void;
}

export function openDataDirectory(config: Config, log: Log): DataDirectory {
  const stores = openStores(config, log);
  const { max_bytes, expiry_minutes } = config.uploads;
  const uploads = openUploads(join(config.data.directory, 'uploads'), max_bytes, expiry_minutes);
  return { stores, uploads, close: () => closeStores(stores) };
}

/** What a tool call needs, apart from the list of tools. */
export function callContext(
  config: Config,
  { stores, uploads }: DataDirectory,
  log: Log,
): Omit<CallContext, 'tools'> {
  const recordCall = config.metrics.enabled ? stores.metrics.record : undefined;
  const learn = createLearning(config.automatic_learning.mode, stores.episodic.addEpisode);
  return { stores, uploads, log, recordCall, learn };
}

function createRoutes(config: Config, identity: Identity, data: DataDirectory, log: Log): Routes {
  const context = callContext(config, data, log);
  const mcp = mcpRoute(() => buildServer(identity.version, context), config.server.max_body_bytes);
  return {
    '/health': {
      open: true,
      methods: {
        GET: (_, response) => {
          const health = describeHealth(config, identity, data.stores);
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

/** Deletes expired uploads and old metrics, now and every minute. Returns how to end it. */
function startHousekeeping(config: Config, { stores, uploads }: DataDirectory, log: Log): () => void {
  const run = () => {
    try {
      const expired = uploads.sweep();
      const pruned = config.metrics.enabled ? stores.metrics.prune(config.metrics.retention_days) : 0;
      if (expired + pruned > 0) log.debug('housekeeping', { expired_uploads: expired, pruned_calls: pruned });
    } catch (error) {
      log.warn('housekeeping failed', { error: String(error) });
    }
  };
  run();
  const timer = setInterval(run, MINUTE_MS);
  timer.unref();
  return () => clearInterval(timer);
}
