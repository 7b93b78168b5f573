// Running a command of the backup program: in the session that the call belongs to, or in a container of its own.
import type { z } from 'zod';
import { describeCommand } from '../command.ts';
import { TaskError } from '../errors.ts';
import { pause, throwIfInterrupted } from '../interrupt.ts';
import { log } from '../log.ts';
import type { Project } from '../project.ts';
import { session } from '../session.ts';
import { type Call, programCommand } from './program-command.ts';
import type { ProgramSession } from './program-session.ts';
import { openTalk, resultOf, whyEnded } from './program-talk.ts';

/** A killed run's program needs a moment to notice. */
const BUSY_RETRIES = 12;
const BUSY_PAUSE_MS = 250;

export interface ProgramCall extends Call {
  /** Carries it out if it can: it has the mounts and the rights. */
  within?: ProgramSession | undefined;
}

/** In a container of its own. */
async function performAlone(project: Project, call: Call): Promise<unknown> {
  const talk = await openTalk(project, call);
  try {
    const answer = await talk.answer(call);
    const result = answer && resultOf(answer);
    const end = await talk.end();
    throwIfInterrupted();
    if (!result) throw whyEnded(call, end);
    return result;
  } finally {
    await talk.end();
  }
}

/** Runs a command of the program that only looks. @throws TaskError with the program's own words */
export async function askProgram<T>(
  project: Project,
  { within, ...call }: ProgramCall,
  schema: z.ZodType<T>,
): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return schema.parse((await within?.perform(call)) ?? (await performAlone(project, call)));
    } catch (error) {
      const isBusy = error instanceof TaskError && error.code === 'backup-running';
      if (!isBusy || attempt > BUSY_RETRIES) throw error;
      await pause(BUSY_PAUSE_MS);
    }
  }
}

/** The same for one that changes something: under --dry-run it is only printed, and undefined returned. */
export async function runProgram<T>(project: Project, call: ProgramCall, schema: z.ZodType<T>) {
  if (!session.dryRun) return askProgram(project, call, schema);
  log.would(`run: ${describeCommand(programCommand(project, call))}`);
  return undefined;
}
