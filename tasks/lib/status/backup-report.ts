// What status and doctor tell about backups: when the last good one was made, and whether that is too long ago.
import { backupHealth } from '../backup/history.ts';
import type { Project } from '../project.ts';
import { duration } from './format.ts';
import type { BackupReport, Problem } from './reported.ts';

export interface BackupFacts {
  report: BackupReport;
  problem: Problem | undefined;
}

/** A project that was never backed up is no problem yet: it may be an hour old. */
export async function loadBackupFacts(project: Project, now: Date): Promise<BackupFacts> {
  const { last, failure, overdue, maxAgeSeconds } = await backupHealth(project, now);
  const report: BackupReport = {
    at: last?.at ?? null,
    name: last?.archive ?? null,
    ageSeconds: last?.ageSeconds ?? null,
    overdue: overdue && (last !== null || failure !== null),
    failure: failure?.error ?? null,
  };
  const again = 'make one, and see why: npm run backup';
  if (failure) {
    return {
      report,
      problem: { code: 'backup-failed', message: `the last backup failed: ${failure.error}`, hint: again },
    };
  }
  if (!report.overdue) return { report, problem: undefined };
  const message = `the last good backup is ${duration(last?.ageSeconds ?? 0)} old, expected less than ${duration(maxAgeSeconds)}`;
  const hint = `${again}; is it scheduled? npm run backup -- schedule`;
  return { report, problem: { code: 'backup-overdue', message, hint } };
}
