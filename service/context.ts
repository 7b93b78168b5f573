// What a request or a tool call works with: the stores, the uploads, learning, and work in the background.
import { join } from 'node:path';
import type { Config } from './config/schema.ts';
import { createLearning } from './learning.ts';
import type { Log } from './log.ts';
import { type Backlog, catchUp, closeStores, openStores } from './stores/stores.ts';
import { openUploads } from './uploads.ts';

export type Context = ReturnType<typeof openContext>;

/** Opens the data directory. @throws if it cannot be used */
export function openContext(config: Config, log: Log) {
  const { directory } = config.data;
  const { max_bytes, expiry_minutes } = config.uploads;
  const stores = openStores(config);
  let backlog: Backlog | undefined;
  let closed = false;
  /** Work that a stop cuts off is resumed at the next start. */
  const inBackground = (what: string, work: Promise<void>) =>
    work.catch((error: unknown) => {
      if (!closed) log.error(`${what} failed, will be retried`, { error: String(error) });
    });
  const report = (left: Backlog | undefined) => {
    backlog = left;
  };
  return {
    config,
    log,
    stores,
    uploads: openUploads(join(directory, 'uploads'), max_bytes, expiry_minutes),
    learn: createLearning(config.automatic_learning, stores.episodic.addEpisode),
    /** Indexes what an older program left; to be called once. */
    catchUp: () => inBackground('indexing', catchUp(stores, directory, log, report)),
    /** What is left of that work, while it runs. */
    backlog: () => backlog,
    /** Deletes chunks whose document is gone. */
    tidy: () => void inBackground('deleting old chunks', stores.semantic.removeUnlisted()),
    close: () => {
      closed = true;
      closeStores(stores);
    },
  };
}
