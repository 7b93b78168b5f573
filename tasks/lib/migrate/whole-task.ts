// Steps that are whole tasks. A dry run only names them: what they would look at is not there yet.
import { log } from '../log.ts';
import type { Project } from '../project.ts';
import { session } from '../session.ts';
import { runOtherTask } from '../task-process.ts';

export async function runWholeTask(project: Project, name: string, ...argv: string[]): Promise<void> {
  if (session.dryRun) tellWholeTask(name, ...argv);
  else await runOtherTask(project, name, ...argv);
}

export function tellWholeTask(name: string, ...argv: string[]): void {
  log.would(`run: ${['npx tsx', `tasks/${name}.ts`, ...argv].join(' ')}`);
}
