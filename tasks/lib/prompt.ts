// Questions. They go to stderr, only to a terminal, and are never waited for without one.
import { InterruptedError, TaskError, usageError } from './errors.ts';
import { session } from './session.ts';

function isInteractive(): boolean {
  return Boolean(process.stdin.isTTY && process.stderr.isTTY) && !session.json;
}

/**
 * Asks for a yes before something changes. `--yes` and `--dry-run` answer it.
 * @throws TaskError exit 2 without a terminal, exit 1 on a no; InterruptedError on Ctrl-C
 */
export async function confirm(question: string): Promise<void> {
  if (session.assumeYes || session.dryRun) return;
  if (!isInteractive()) {
    throw usageError(`Would ask: "${question}", but there is no terminal to ask on`, {
      code: 'no-terminal',
      hint: 'add --yes to go ahead, or --dry-run to see what would happen',
    });
  }
  const prompts = await import('@clack/prompts');
  const answer = await prompts.confirm({ message: question, output: process.stderr });
  if (prompts.isCancel(answer)) throw new InterruptedError('SIGINT');
  if (!answer) throw new TaskError('Stopped: the answer was no. Nothing was changed.', { code: 'declined' });
}

interface Choice<T> {
  value: T;
  label: string;
  hint?: string;
}

/** Lets a person pick one; the first choice is the recommended one. @throws TaskError exit 2 without a terminal */
export async function choose<T extends string>(
  question: string,
  choices: readonly Choice<T>[],
  usage: string,
) {
  if (!isInteractive()) {
    throw usageError(`Which one? "${question}" cannot be asked without a terminal`, {
      code: 'no-terminal',
      hint: usage,
    });
  }
  const prompts = await import('@clack/prompts');
  const options = choices.map(({ value, label, hint }) => ({
    value: value as string,
    label,
    ...(hint ? { hint } : {}),
  }));
  const answer = await prompts.select({ message: question, options, output: process.stderr });
  if (prompts.isCancel(answer)) throw new InterruptedError('SIGINT');
  return answer as T;
}
