// What tasks/backup.ts needs of this room; see `rooms` in mod.ts.
export { listArchives, removeArchives } from './archives.ts';
export { performBackup } from './create.ts';
export { describeDecisions } from './describe.ts';
export { verifyBackupFlags, verifyPolicy } from './flags.ts';
export { BACKUP_TASK, backupHealth } from './history.ts';
export { withLockWithin } from './lock-wait.ts';
export { backupImage, verifyDirectories } from './places.ts';
export { recoverBackups } from './recover.ts';
export { reportCreated, reportList, reportRestored, reportVerdicts } from './report.ts';
export { performRestore } from './restore.ts';
export { describeRestore, planRestore } from './restore-plan.ts';
export { withRestoreSession } from './restore-session.ts';
export { planRetention } from './retention.ts';
export { schedule } from './schedule.ts';
export { shortenLog } from './schedule-log.ts';
export { findArchive, verifyArchives } from './verify.ts';
