// Showing an answer again and again on the same screen, until Ctrl-C.
import { interruptSignal, pause } from '../interrupt.ts';
import { redact } from '../log.ts';
import type { TaskResult } from '../task.ts';

const PAUSE_MS = 2000;
/** Cursor home; clear from the cursor to the end of the screen. */
const [HOME, CLEAR] = ['\u001b[H', '\u001b[J'];

/** The last answer, once Ctrl-C ends it: being stopped is how watching ends well. */
export async function watch(look: () => Promise<TaskResult>): Promise<TaskResult> {
  let last: TaskResult = {};
  while (!interruptSignal()?.aborted) {
    try {
      last = await look();
      show(last.text ?? '');
      await pause(PAUSE_MS);
    } catch (error) {
      if ((error as { code?: string }).code !== 'interrupted') throw error;
    }
  }
  return { ...last, text: '' };
}

function show(text: string): void {
  const screen = process.stdout.isTTY ? `${HOME}${CLEAR}` : '';
  process.stdout.write(`${screen}${redact(text)}\n${process.stdout.isTTY ? '' : '\n'}`);
}
