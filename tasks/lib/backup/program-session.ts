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

/** An image may be older than these tasks: its program refuses the command instead of greeting. */
async function begin(project: Project, call: Call, onOpen: (talk: Talk) => void): Promise<void> {
  const talk = await openTalk(project, call, { lasting: true });
  onOpen(talk);
  if ((await talk.answer(call))?.event !== 'ready') await talk.end();
}

/** Runs `work` with a session, which begins with its first command and ends however `work` ends. */
export async function withSession<T>(
  project: Project,
  shared: SessionCall,
  work: (session: ProgramSession) => Promise<T>,
): Promise<T> {
  const call: Call = { ...shared, command: 'session', options: shared.asRoot ? { root: true } : {} };
  let talk: Talk | undefined;
  const converse = async (asked: Call) => {
    if (!talk) await begin(project, call, (one) => (talk = one));
    throwIfInterrupted();
    if (!talk || talk.isOver()) return undefined;
    log.detail(`> ${asked.command} ${JSON.stringify(asked.options)}`);
    talk.say(JSON.stringify({ command: asked.command, options: asked.options }));
    const answer = await talk.answer(asked);
    if (answer) return resultOf(answer);
    const end = await talk.end();
    throwIfInterrupted();
    throw whyEnded(asked, end);
  };
  const perform = async (asked: Call) => {
    throwIfInterrupted();
    // Only what is under way is stopped: undoing may still need the session that waits.
    const signal = interruptSignal();
    const stop = () => void talk?.end();
    signal?.addEventListener('abort', stop);
    try {
      return await converse(asked);
    } finally {
      signal?.removeEventListener('abort', stop);
    }
  };
  try {
    return await work({ perform });
  } finally {
    await talk?.end();
  }
}
