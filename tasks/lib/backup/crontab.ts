// The crontab of the user who runs the task: one line of ours among those of others.
import { probe, run } from '../command.ts';
import { TaskError } from '../errors.ts';
import { editCrontab, type Job } from './schedule-plan.ts';

async function presentCrontab(): Promise<string> {
  const answer = await probe(['crontab', '-l']);
  if (answer.ok) return answer.stdout;
  if (/no crontab/i.test(answer.stderr)) return '';
  throw new TaskError(`Cannot read the crontab: ${answer.stderr.trim()}`, {
    code: 'no-cron',
    hint: 'apt-get install cron, or choose another --kind',
  });
}

/** Puts our line in, or takes it away; every other line stays. */
export async function writeCrontab(job: Job, line: string | undefined): Promise<void> {
  await run(['crontab', '-'], { input: editCrontab(await presentCrontab(), job, line) });
}

export async function isInCrontab(job: Job): Promise<boolean> {
  const present = await presentCrontab();
  return editCrontab(present, job, undefined) !== present;
}
