// What tasks/migrate.ts takes from this room.
export { describePlan, nothingFound } from './describe.ts';
export { describePieces, oldPieces, removeOldPieces, verifyFinish } from './finish.ts';
export { describedLegacy, prepareMigration } from './prepare.ts';
export { newRecord, Recorder, readRecord, type StoredRecord } from './record.ts';
export { migrationData, summary, told, verifyMigrateFlags } from './report.ts';
export { verifyRollback } from './rollback.ts';
export { migrateBack, migrateForward } from './run.ts';
