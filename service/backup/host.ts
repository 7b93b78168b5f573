// The task on the other end of stdin: it answers, and when it dies, stdin ends. A backup whose task is gone
// stops and cleans up; nobody would ever hear of it.
import { createInterface } from 'node:readline';
import { BackupError, report } from './report.ts';

const answers: string[] = [];
let waiting: ((answer: string) => void) | undefined;

/** Ends this process, which removes what is unfinished, when the task is gone or a signal comes. */
export function followHost(attached: boolean): void {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => process.exit(143));
  if (!attached) return;
  const lines = createInterface({ input: process.stdin });
  lines.on('line', (line) => {
    if (waiting) waiting(line);
    else answers.push(line);
    waiting = undefined;
  });
  lines.on('close', () => process.exit(143));
}

/** Asks the task for something and waits until it says `answer`. */
export async function askHost(question: string, answer: string): Promise<void> {
  report.ask(question);
  const given = answers.shift() ?? (await new Promise<string>((resolve) => (waiting = resolve)));
  if (given !== answer) throw new BackupError('host', `The task answered ${given} to ${question}`);
}
