// Where the tasks keep their own bookkeeping: `.synapse/` in the project, ignored by git. Nothing in it is
// needed to run the service; it lets an interrupted task be finished and says who did what.
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';

const STATE_DIRECTORY = '.synapse';

export function statePath(root: string, ...names: string[]): string {
  return join(root, STATE_DIRECTORY, ...names);
}

/** Makes `.synapse/`; it is not part of what a dry run keeps untouched only because dry runs never call it. */
export async function ensureStateDirectory(root: string): Promise<string> {
  const path = statePath(root);
  await mkdir(path, { recursive: true, mode: 0o700 });
  return path;
}
