// One container of the program for several commands: its start and end cost more than most of what it is asked.
// Where there can be none, each command gets a container of its own, and says itself why that fails.
import { interruptSignal, throwIfInterrupted } from '../interrupt.ts';
import { log } from '../log.ts';
import type { Project } from '../project.ts';
import type { Call } from './program-command.ts';
import { openTalk, resultOf, type Talk, whyEnded } from './program-talk.ts';

export interface ProgramSession {
  /** The program's answer; undefined where there is no session. @throws TaskError in the program's words */
  perform: (call: Call) => Promise<unknown>;
}

/** What all of its commands share. */
export type SessionCall = Pick<Call, 'image' | 'mounts' | 'asRoot' | 'name' | 'network' | 'makesBackups'>;

/** Asks it to carry a command out; undefined if it cannot any more. */
async function request(talk: Talk, call: Call): Promise<unknown> {
  throwIfInterrupted();
  if (talk.isOver()) return undefined;
  log.detail(`> ${call.command} ${JSON.stringify(call.options)}`);
  talk.say(JSON.stringify({ command: call.command, options: call.options }));
  const answer = await talk.answer(call);
  if (answer && !talk.isOver()) return resultOf(answer);
  const end = await talk.end();
  throwIfInterrupted();
  if (!answer) throw whyEnded(call, end);
  return resultOf(answer);
}

/** Ctrl-C stops what is under way, and with it the session; one that waits lasts, undoing may still need it. */
async function stoppable<T>(stop: () => void, work: () => Promise<T>): Promise<T> {
  throwIfInterrupted();
  const signal = interruptSignal();
  signal?.addEventListener('abort', stop);
  try {
    return await work();
  } finally {
    signal?.removeEventListener('abort', stop);
  }
}

/** Runs `work` with a session, which begins with its first command and ends however `work` ends. */
export async function withSession<T>(
  project: Project,
  shared: SessionCall,
  work: (session: ProgramSession) => Promise<T>,
): Promise<T> {
  const call: Call = { ...shared, command: 'session', options: shared.asRoot ? { root: true } : {} };
  let talk: Talk | undefined;
  const begin = async () => {
    talk = await openTalk(project, call, { lasting: true });
    // An image may be older than these tasks: its program refuses the command instead of greeting.
    if ((await talk.answer(call))?.event !== 'ready') await talk.end();
    return talk;
  };
  const end = () => talk?.end();
  const perform = (asked: Call) =>
    stoppable(
      () => void end(),
      async () => request(talk ?? (await begin()), asked),
    );
  try {
    return await work({ perform });
  } finally {
    await end();
  }
}
