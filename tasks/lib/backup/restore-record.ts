// What a restore in place has done so far, written down before each step, so that the next run of any backup
// command can finish it or put everything back.
import type { EnvironmentName } from '../project.ts';

/** Where the container sees the directory that holds the data directory. */
export const PLACE = '/place';
export const RESTORE_JOURNAL = 'backup-restore';

export interface Running {
  environment: EnvironmentName;
  /** Container id. */
  id: string;
}

export interface RestoreRecord {
  /** Image that has the backup program. */
  image: string;
  archive: string;
  /** Name of the container that carries it out; records from before there was one have none. */
  container?: string;
  /** Directory on the engine's machine that holds all three of the names. */
  parent: string;
  current: string;
  staging: string;
  previous: string;
  /** Was there a directory before? */
  hadCurrent: boolean;
  /** What ran, and runs again afterwards. */
  running: Running[];
  /** The release that prod has to run on the restored data; null: what it ran before. */
  prodTag: string | null;
  /** The previous directory stays under this name, because no backup holds what is in it; null: it goes. */
  keepAs: string | null;
}

export const STEPS = ['unpack', 'stop', 'backup', 'swap', 'start', 'finish'] as const;
export type RestoreStep = (typeof STEPS)[number];

/** What to do about a restore that died in or after `step`: before the start there is nothing to lose. Pure. */
export function remedy(step: string): 'undo' | 'start' | 'finish' {
  if (step === 'start') return 'start';
  return step === 'finish' ? 'finish' : 'undo';
}
