// Questions. They go to stderr, only to a terminal, and are never waited for without one. A terminal that cannot move its
// cursor (TERM=dumb) gets plain lines.
import { createInterface } from 'node:readline/promises';
import { EXIT, InterruptedError, TaskError, usageError } from './errors.ts';
import { log } from './log.ts';
import { interrupt, interruptSignal, pause, session } from './session.ts';

const CANCELLED = 'Cancelled. Nothing was changed.';
const PASS_YES = 'pass --yes to confirm, or --dry-run to see the plan';

const needsNoAnswer = () => session.assumeYes || session.dryRun;
const isDumb = () => process.env.TERM === 'dumb';

/**
 * Asks for a yes before something changes. `--yes` and `--dry-run` answer it.
 * @throws TaskError exit 2 without a terminal, exit 1 on a no; InterruptedError on Ctrl-C
 */
export async function confirm(question: string): Promise<void> {
  if (needsNoAnswer()) return;
  await openTerminal(question, PASS_YES);
  if (isDumb()) return declineUnless(/^y(es)?$/i.test(await typedLine(`${question} [y/N]`)));
  const prompts = await import('@clack/prompts');
  const answer = await prompts.confirm({ message: question, ...onTerminal() });
  if (prompts.isCancel(answer)) throw cancelled();
  declineUnless(answer);
}

/**
 * The same for what is hard to undo: one of `names` has to be typed, everything else is a no. `consequence`: what it means.
 * @throws TaskError, InterruptedError as `confirm`
 */
export async function confirmByName(
  question: string,
  names: readonly [string, ...string[]],
  consequence = 'This cannot be undone.',
): Promise<void> {
  if (needsNoAnswer()) return;
  await openTerminal(question, PASS_YES);
  const message = `${question}\n${consequence} Type ${names.join(' or ')} to confirm, or press Enter to cancel.`;
  if (isDumb()) return declineUnless(names.includes(await typedLine(message)));
  const prompts = await import('@clack/prompts');
  const answer = await prompts.text({ message, ...onTerminal() });
  if (prompts.isCancel(answer)) throw cancelled();
  declineUnless(names.includes((answer ?? '').trim()));
}

/** Lets a person pick one; the first choice is the recommended one. @throws TaskError exit 2 without a terminal */
export async function choose<T extends string>(
  question: string,
  choices: readonly { value: T; label: string; hint?: string }[],
  usage: string,
): Promise<T> {
  await openTerminal(question, usage);
  if (isDumb()) {
    const lines = choices.map(
      ({ label, hint }, index) => `  ${index + 1} ${label}${hint ? ` (${hint})` : ''}`,
    );
    const number = await typedLine([question, ...lines, 'Number:'].join('\n'));
    const choice = /^\d+$/.test(number) ? choices[Number(number) - 1] : undefined;
    if (choice) return choice.value;
    throw new TaskError(CANCELLED, { code: 'declined' });
  }
  const prompts = await import('@clack/prompts');
  const options = choices.map((choice) => ({ ...choice, value: choice.value as string }));
  const answer = await prompts.select({ message: question, options, ...onTerminal() });
  if (prompts.isCancel(answer)) throw cancelled();
  return answer as T;
}

/** Questions go to stderr and end when a signal comes. */
function onTerminal() {
  const signal = interruptSignal();
  return { output: process.stderr, ...(signal ? { signal } : {}) };
}

/** Ctrl-C at a question, or what a signal asked for. */
function cancelled(): InterruptedError {
  const reason = interruptSignal()?.reason as InterruptedError | undefined;
  return new InterruptedError(reason?.exitCode === EXIT.sigterm ? 'SIGTERM' : 'SIGINT', CANCELLED);
}

function declineUnless(isConfirmed: boolean): void {
  if (!isConfirmed) throw new TaskError(CANCELLED, { code: 'declined' });
}

/** Makes sure that there is somebody to ask. @throws TaskError exit 2 without a terminal */
async function openTerminal(question: string, hint: string): Promise<void> {
  if (session.json || !process.stdin.isTTY || !process.stderr.isTTY)
    throw usageError(`Confirmation required: ${question}`, { code: 'no-terminal', hint });
  log.idle();
  await dropTypedKeys();
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

/** One line as it was typed; '' at the end of the input. @throws InterruptedError on Ctrl-C */
async function typedLine(question: string): Promise<string> {
  const lines = createInterface({ input: process.stdin, output: process.stderr, terminal: false });
  const ended = new Promise<string>((resolve) => lines.once('close', () => resolve('')));
  const signal = interruptSignal();
  const answer = lines.question(`${question} `, signal ? { signal } : {}).catch(() => {
    throw cancelled();
  });
  return Promise.race([answer, ended])
    .then((line) => line.trim())
    .finally(() => lines.close());
}
