// Questions. They go to stderr, only to a terminal, and are never waited for without one.
import { InterruptedError, TaskError, usageError } from './errors.ts';
import { interrupt, pause, session } from './session.ts';

const needsNoAnswer = () => session.assumeYes || session.dryRun;

/**
 * Asks for a yes before something changes. `--yes` and `--dry-run` answer it.
 * @throws TaskError exit 2 without a terminal, exit 1 on a no; InterruptedError on Ctrl-C
 */
export async function confirm(question: string): Promise<void> {
  if (needsNoAnswer()) return;
  const prompts = await openPrompts(question, 'add --yes to go ahead, or --dry-run to see what would happen');
  const answer = await prompts.confirm({ message: question, output: process.stderr });
  if (prompts.isCancel(answer)) throw new InterruptedError('SIGINT');
  if (!answer) throw declined();
}

/**
 * The same for what cannot be taken back: one of `names` has to be typed, everything else is a no.
 * @throws TaskError, InterruptedError as `confirm`
 */
export async function confirmByName(question: string, names: readonly [string, ...string[]]): Promise<void> {
  if (needsNoAnswer()) return;
  const prompts = await openPrompts(question, 'add --yes to go ahead, or --dry-run to see what would happen');
  const message = `${question}\nIt cannot be taken back. Type ${names.join(' or ')} to go ahead, Enter to stop.`;
  const answer = await prompts.text({ message, output: process.stderr });
  if (prompts.isCancel(answer)) throw new InterruptedError('SIGINT');
  if (!names.includes((answer ?? '').trim())) throw declined();
}

/** Lets a person pick one; the first choice is the recommended one. @throws TaskError exit 2 without a terminal */
export async function choose<T extends string>(
  question: string,
  choices: readonly { value: T; label: string; hint?: string }[],
  usage: string,
): Promise<T> {
  const prompts = await openPrompts(question, usage);
  const options = choices.map((choice) => ({ ...choice, value: choice.value as string }));
  const answer = await prompts.select({ message: question, options, output: process.stderr });
  if (prompts.isCancel(answer)) throw new InterruptedError('SIGINT');
  return answer as T;
}

function declined(): TaskError {
  return new TaskError('Stopped: the answer was no. Nothing was changed.', { code: 'declined' });
}

/** The prompt library, where there is somebody to ask. @throws TaskError exit 2 without a terminal */
async function openPrompts(question: string, hint: string) {
  if (session.json || !process.stdin.isTTY || !process.stderr.isTTY) {
    const message = `Would ask: "${question}", but there is no terminal to ask on`;
    throw usageError(message, { code: 'no-terminal', hint });
  }
  await dropTypedKeys();
  return import('@clack/prompts');
}

/** Keys that were typed before the question are no answer to it; Ctrl-C is one to all questions. */
async function dropTypedKeys(): Promise<void> {
  const { stdin } = process;
  const drop = (keys: Buffer) => {
    if (keys.includes('\u0003')) interrupt('SIGINT');
  };
  stdin.setRawMode(true).on('data', drop).resume();
  await pause(50).finally(() => stdin.off('data', drop).pause().setRawMode(false));
}
