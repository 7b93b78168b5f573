// The data directory: checks its format, opens and closes the stores. All file names inside it are here.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Config } from '../config/schema.ts';
import type { Log } from '../log.ts';
import { type ImportProgress, importChunksJson } from './chunks-json.ts';
import { openEpisodic } from './episodic.ts';
import { verifyDataFormat } from './format.ts';
import { openMemory } from './memory.ts';
import { openMetrics } from './metrics.ts';
import { openSemantic } from './semantic.ts';
import { ownerHint, whyNotWritable } from './sqlite.ts';

export type Stores = ReturnType<typeof openStores>;

/** The memories in their order of authority, by the names that the tools give them. */
export function memoriesOf({ memory, episodic, semantic }: Stores) {
  return [
    ['symbolic', memory],
    ['episodic', episodic],
    ['semantic', semantic],
  ] as const;
}

export function openStores(config: Config) {
  const { directory } = config.data;
  const timeout = config.sqlite.busy_timeout_ms;
  const index = join(directory, 'semantic_index');
  makeDirectory(index);
  verifyDataFormat(directory);
  return {
    memory: openMemory(join(directory, 'memory.db'), timeout),
    episodic: openEpisodic(join(directory, 'episodic.db'), timeout),
    semantic: openSemantic(join(index, 'index.db'), timeout, config.semantic),
    metrics: openMetrics(join(directory, 'metrics.db'), timeout, config.environment),
  };
}

function makeDirectory(directory: string): void {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  } catch (cause) {
    throw new Error(`Cannot create ${directory}: ${(cause as Error).message}${ownerHint()}`, { cause });
  }
}

/** What is still to be done on a data directory of an older program. */
export type Backlog = { importing: ImportProgress } | { unindexed: number };

/** Brings data of an older program into the index, in slices, while the service already answers. */
export async function catchUp(
  { memory, episodic, semantic }: Stores,
  directory: string,
  log: Log,
  report: (backlog: Backlog | undefined) => void,
): Promise<void> {
  const file = join(directory, 'semantic_index', 'chunks.json');
  await importChunksJson(semantic, file, log, (importing) => report({ importing }));
  for (const index of [memory.index, episodic.index, semantic.index])
    await index.catchUp((unindexed) => report({ unindexed }));
  report(undefined);
}

export function closeStores(stores: Stores): void {
  for (const { database } of Object.values(stores)) database.sql.close();
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
