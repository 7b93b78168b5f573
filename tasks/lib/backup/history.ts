// How backups went, from the history of this machine: needs no engine and no archive, so that `status` and
// `doctor` can tell also when nothing runs.
import { readHistory } from '../journal.ts';
import type { Project } from '../project.ts';

/** The name of backups in the history; `to` is the archive. */
export const BACKUP_TASK = 'backup';

export interface BackupHealth {
  /** The last backup that was proven; null if there never was one. */
  last: { archive: string; at: string; ageSeconds: number } | null;
  /** The last failure, if it is newer than the last good backup. */
  failure: { at: string; error: string } | null;
  /** None, or none within [backup] max_age hours. */
  overdue: boolean;
  maxAgeSeconds: number;
}

/** What `status` and `doctor` tell about backups. */
export async function backupHealth(project: Project, now = new Date()): Promise<BackupHealth> {
  const runs = (await readHistory(project.root)).filter(({ task }) => task === BACKUP_TASK);
  const good = runs.findLast(({ outcome, to }) => outcome === 'done' && to !== null);
  const bad = runs.findLast(({ outcome }) => outcome === 'failed');
  const ended = good ? new Date(new Date(good.at).getTime() + good.seconds * 1000) : undefined;
  const ageSeconds = ended ? Math.max(0, Math.round((now.getTime() - ended.getTime()) / 1000)) : 0;
  const maxAgeSeconds = project.backup.max_age * 3600;
  const isNewer = bad !== undefined && (!good || bad.at > good.at);
  return {
    last: good && ended ? { archive: good.to!, at: ended.toISOString(), ageSeconds } : null,
    failure: isNewer ? { at: bad.at, error: bad.error ?? 'unknown' } : null,
    overdue: !good || ageSeconds > maxAgeSeconds,
    maxAgeSeconds,
  };
}
