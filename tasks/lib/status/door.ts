// What tasks/status.ts needs of this room; see `rooms` in mod.ts. The parts that only one flag needs, and those that
// are not needed before the engine has answered, are loaded while it is being asked.
import type { Project } from '../project.ts';
import type { TaskResult } from '../task.ts';
import { loadStatusFacts } from './facts.ts';
import type { StatusReport } from './reported.ts';

export async function recordStatus(project: Project, heal: boolean) {
  return (await import('./record.ts')).recordStatus(project, heal);
}

export async function watch(look: () => Promise<TaskResult>): Promise<TaskResult> {
  return (await import('./watch.ts')).watch(look);
}

export interface Status {
  report: StatusReport;
  /** One screen. */
  text: string;
  /** Writes the same as a page, if a file is named. */
  writePage: (file: string) => Promise<void>;
}

/** Looks at everything once. @throws TaskError only where the project itself is wrong */
export async function lookAtStatus(project: Project): Promise<Status> {
  const [facts, { reportStatus }, { describeStatus }] = await Promise.all([
    loadStatusFacts(project),
    import('./report.ts'),
    import('./describe.ts'),
  ]);
  const report = reportStatus(project, facts);
  const writePage = async (file: string) => {
    const { writeStatusPage } = await import('./page/write.ts');
    await writeStatusPage(project, facts, report, file);
  };
  return { report, text: describeStatus(project, report), writePage };
}
