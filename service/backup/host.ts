// The task on the other end of stdin: it answers, and when it dies, stdin ends. A backup whose task is gone
// stops and cleans up; nobody would ever hear of it.
import { createInterface } from 'node:readline';
import { BackupError, report } from './report.ts';

const lines: string[] = [];
let waiting: ((line: string) => void) | undefined;

/** Ends this process, which removes what is unfinished, when the task is gone or a signal comes. */
export function followHost(attached: boolean): void {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => process.exit(143));
  if (!attached) return;
  const input = createInterface({ input: process.stdin });
  input.on('line', (line) => {
    if (waiting) waiting(line);
    else lines.push(line);
    waiting = undefined;
  });
  input.on('close', () => process.exit(143));
}

/** What the task says next. */
export async function nextLine(): Promise<string> {
  return lines.shift() ?? (await new Promise<string>((resolve) => (waiting = resolve)));
}

/** Asks the task for something and waits until it says `answer`. */
export async function askHost(question: string, answer: string): Promise<void> {
  report.ask(question);
  const given = await nextLine();
  if (given !== answer) throw new BackupError('host', `The task answered ${given} to ${question}`);
}
