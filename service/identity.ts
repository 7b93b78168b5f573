// Who this running program is: what /health reports and what a release checks before it is tagged.
// The image bakes version and revision in; the data format is a property of the code itself.

/** Layout of the data directory that this program reads and writes. Raise it with a migration only. */
export const DATA_FORMAT = 1;

export const SERVICE_NAME = 'synapse';

export interface Identity {
  version: string;
  revision: string;
  startedAt: string;
}

export function identify(env: Record<string, string | undefined>, now = new Date()): Identity {
  return {
    version: env.SYNAPSE_VERSION || '0.0.0-dev',
    revision: env.SYNAPSE_REVISION || 'unknown',
    startedAt: now.toISOString(),
  };
}
