// What GET /health answers: who runs, how it is configured, and whether every store can be written now.
import type { Config } from '../config/schema.ts';
import { DATA_FORMAT, type Identity, SERVICE_NAME } from '../identity.ts';
import { checkStores, type Stores } from '../stores/stores.ts';

export function describeHealth(config: Config, identity: Identity, stores: Stores) {
  const states = checkStores(stores);
  const healthy = Object.values(states).every((state) => state.writable);
  return {
    status: healthy ? ('ok' as const) : ('unhealthy' as const),
    service: SERVICE_NAME,
    env: config.environment,
    ...identity,
    logLevel: config.log.level,
    automaticLearning: config.automatic_learning.mode,
    dataFormat: DATA_FORMAT,
    stores: states,
  };
}

export type Health = ReturnType<typeof describeHealth>;
