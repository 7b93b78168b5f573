// The one door to the typed helper module: tasks import from here and from nowhere else.
export { type ActiveEnvironment, switchCommand } from './active.ts';
export {
  describeDecisions,
  findArchive,
  listArchives,
  planRetention,
  removeArchives,
  verifyArchives,
  verifyPolicy,
} from './backup/archives.ts';
export { performBackup } from './backup/create.ts';
export { verifyDirectories } from './backup/places.ts';
export {
  BACKUP_TASK,
  describeMissing,
  reportCreated,
  reportList,
  reportRestored,
  reportVerdicts,
  verifyBackupFlags,
} from './backup/report.ts';
export { describeRestore, performRestore, planRestore, resumeRestore } from './backup/restore.ts';
export { schedule, withLockWithin } from './backup/schedule.ts';
export { engineInfo } from './docker/engine.ts';
export { pushImage } from './docker/registry.ts';
export { withReach } from './docker/remote.ts';
export { effectiveConfig } from './docker/service-config.ts';
export { countVerdicts, describeEffectiveConfig, describeFindings, examine } from './doctor/check.ts';
export { LIVE_CHECKS } from './doctor/live.ts';
export { MACHINE_CHECKS } from './doctor/machine.ts';
export { PROJECT_CHECKS } from './doctor/project.ts';
export { TaskError, usageError } from './errors.ts';
export { writeFileAtomic } from './files.ts';
export { seconds } from './format.ts';
export { shortHash } from './git.ts';
export { type HistoryDetails, logPhases, type Phases, withHistory } from './history.ts';
export { withLock } from './lock.ts';
export { log } from './log.ts';
export { describedLegacy } from './migrate/detect.ts';
export { type Migration, planMigration } from './migrate/plan.ts';
export {
  describeMigrated,
  describePlan,
  describeRecord,
  describeRollback,
  migrationData,
  nothingFound,
  readRecord,
  verifyRollback,
} from './migrate/report.ts';
export { migrationJourney } from './migrate/steps.ts';
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
export { choose, confirm, confirmByName } from './prompt.ts';
export { existingRelease, isComplete, releaseJourney, resumeRelease } from './release/perform.ts';
export {
  describeReleasePlan,
  editEntry,
  planRelease,
  type ReleaseData,
  type ReleaseRequest,
} from './release/plan.ts';
export { readRepository, verifyReleasable } from './release/preflight.ts';
export {
  buildLatest,
  buildRelease,
  newestRelease,
  previousRelease,
  releaseOfTag,
  versionOfTag,
} from './release/record.ts';
export { describeUndo, planUndo, resumeUndo, type UndoData, undoJourney } from './release/undo.ts';
export { BUMPS, verifyRequested } from './release/version.ts';
export { outdatedSchemas, writeSchemas } from './schemas.ts';
export { applySetup, planSetup } from './setup/setup.ts';
export { describeStatus } from './status/describe.ts';
export { loadFacts } from './status/facts.ts';
export { statusPage } from './status/page.ts';
export { recordStatus, WATCH_MS, watch } from './status/record.ts';
export { reportStatus, seriesOf } from './status/report.ts';
export {
  describeSteps,
  interruptedProblem,
  interruptedRun,
  resumeSteps,
  runSteps,
  undoSteps,
} from './steps.ts';
export { ensureImages } from './switch/checks.ts';
export {
  describeEnvironment,
  describeObservation,
  isHealthy,
  type Observation,
  observationData,
  observe,
} from './switch/observe.ts';
export {
  composeSwitch,
  engineLockFolder,
  interruptedSwitch,
  logReport,
  resumeSwitch,
} from './switch/run.ts';
export { observeSwarm, resumeSwarm, swarmSwitch } from './switch/swarm.ts';
export { CONTEXT_FLAG, resultOfOtherTask, runOtherTask, runTask } from './task.ts';
