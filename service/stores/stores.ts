// The data directory as a whole: its format is checked first, then the stores are opened, and they are
// closed together. Everything that knows file names inside the directory is here.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Config } from '../config/schema.ts';
import type { Log } from '../log.ts';
import { importChunksJson } from './chunks-json.ts';
import { type EpisodicStore, openEpisodic } from './episodic.ts';
import { verifyDataFormat } from './format.ts';
import { type MemoryStore, openMemory } from './memory.ts';
import { type MetricsStore, openMetrics } from './metrics.ts';
import { openSemantic, type SemanticStore } from './semantic.ts';
import { whyNotWritable } from './sqlite.ts';

export interface Stores {
  memory: MemoryStore;
  episodic: EpisodicStore;
  semantic: SemanticStore;
  metrics: MetricsStore;
}

export function openStores(config: Config, log: Log): Stores {
  const { directory } = config.data;
  const timeout = config.sqlite.busy_timeout_ms;
  const index = join(directory, 'semantic_index');
  makeDirectory(index);
  verifyDataFormat(directory);
  const stores = {
    memory: openMemory(join(directory, 'memory.db'), timeout),
    episodic: openEpisodic(join(directory, 'episodic.db'), timeout),
    semantic: openSemantic(join(index, 'index.db'), timeout, config.semantic),
    metrics: openMetrics(join(directory, 'metrics.db'), timeout, config.environment),
  };
  importChunksJson(stores.semantic, join(index, 'chunks.json'), log);
  return stores;
}

function makeDirectory(directory: string): void {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  } catch (error) {
    const owner = `user id ${process.getuid?.()} must own the data directory`;
    throw new Error(`Cannot create ${directory}: ${(error as Error).message}\nhint: ${owner}`, {
      cause: error,
    });
  }
}

export function closeStores(stores: Stores): void {
  for (const store of Object.values(stores) as { database: { sql: { close(): void } } }[])
    store.database.sql.close();
}

export type StoreHealth = { writable: true } | { writable: false; reason: string };

/** Each store's name → whether it can be written right now. */
export function checkStores(stores: Stores): Record<keyof Stores, StoreHealth> {
  const entries = Object.entries(stores).map(([name, { database }]) => {
    const reason = whyNotWritable(database);
    return [name, reason === undefined ? { writable: true } : { writable: false, reason }];
  });
  return Object.fromEntries(entries);
}
