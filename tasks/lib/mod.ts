// The one door to the typed helper module: tasks import from here and from nowhere else.
export type { BackupImage } from './backup/places.ts';
export { inspectImage } from './docker/images.ts';
export { seconds } from './duration.ts';
export { TaskError, usageError } from './errors.ts';
export { CONTEXT_FLAG } from './flags.ts';
export { shortHash } from './git.ts';
export { readHistory, withHistory } from './journal.ts';
export { withLock } from './lock.ts';
export { log } from './log.ts';
export { logPhases, type Phases } from './phases.ts';
export {
  dataDirectory,
  ENVIRONMENTS,
  type EnvironmentName,
  imageReference,
  loadProject,
  type Project,
  registryReference,
  variable,
} from './project.ts';
export { choose, confirm } from './prompt.ts';
export type { PreparedRelease } from './release/prepared.ts';
export type { ActiveEnvironment, Observation } from './switch/environments.ts';
export { runTask } from './task.ts';
export { resultOfOtherTask, runOtherTask } from './task-process.ts';

/**
 * Rooms that one or two tasks need. They are loaded when a task asks for them: to load everything for every
 * task would cost each of them half a second.
 */
export const rooms = {
  backup: () => import('./backup/door.ts'),
  build: () => import('./release/build-door.ts'),
  doctor: () => import('./doctor/door.ts'),
  migrate: () => import('./migrate/door.ts'),
  performing: () => import('./release/perform-door.ts'),
  release: () => import('./release/door.ts'),
  schemas: () => import('./schemas.ts'),
  setup: () => import('./engine/setup.ts'),
  status: () => import('./status/door.ts'),
  switching: () => import('./switch/door.ts'),
  undo: () => import('./release/undo-door.ts'),
};
