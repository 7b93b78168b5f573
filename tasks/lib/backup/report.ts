// The results of the backup task, for people and for --json.
import type { Phases } from '../phases.ts';
import type { Project } from '../project.ts';
import type { TaskResult } from '../task.ts';
import type { Listed, Verdict } from './archives.ts';
import type { BackupResult } from './create.ts';
import { archiveData, describeArchives, describeCreated, describeVerdict } from './describe.ts';
import { backupHealth } from './history.ts';
import { backupDirectory } from './places.ts';
import type { RestoreResult } from './restore.ts';
import type { RestorePlan } from './restore-plan.ts';

export function reportCreated(
  project: Project,
  { created, removed }: BackupResult,
  phases: Phases,
): TaskResult {
  if (!created) return {};
  const { archives: _, ...made } = created;
  const lines = [
    describeCreated(created, backupDirectory(project)),
    ...removed.map((name) => `  removed ${name}`),
  ];
  return { data: { ...made, removed, phases }, text: lines.join('\n') };
}

export async function reportList(
  project: Project,
  { archives, free }: { archives: Listed[]; free: number },
): Promise<TaskResult> {
  const now = new Date();
  const health = await backupHealth(project, now);
  const data = { archives: archives.map((one) => archiveData(one, now)), free, health };
  return { data, text: describeArchives(archives, now) };
}

/** Exit code 1 if any archive is damaged. */
export function reportVerdicts(verdicts: readonly Verdict[]): TaskResult {
  const text = verdicts.length > 0 ? verdicts.map(describeVerdict).join('\n') : 'No archives.';
  return { data: { verdicts }, text, exitCode: verdicts.every(({ ok }) => ok) ? 0 : 1 };
}

export function reportRestored(plan: RestorePlan, result: RestoreResult, phases: Phases): TaskResult {
  const { name } = plan.archive;
  const { before, kept } = result;
  const lines = [
    `Restored ${name}${plan.to === undefined ? '' : ` to ${plan.to}`}`,
    ...(before ? [`What was there before: ${before}`] : []),
    ...(kept ? [`What was there before is kept as ${kept}`] : []),
  ];
  const { version } = plan.summary.origin;
  return { data: { archive: name, to: plan.to ?? null, ...result, version, phases }, text: lines.join('\n') };
}
