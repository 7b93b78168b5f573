// Running the backup program inside the image and talking with it: JSON lines on its stdout, answers on its
// stdin. When this task dies, its stdin ends and it cleans up.
import type { z } from 'zod';
import { connect, describeCommand } from '../command.ts';
import { TaskError } from '../errors.ts';
import { pause, throwIfInterrupted } from '../interrupt.ts';
import { log } from '../log.ts';
import type { Project } from '../project.ts';
import { session } from '../session.ts';
import { type Call, programCommand } from './program-command.ts';
import type { Line } from './program-schema.ts';
import { progress } from './progress.ts';

/** A killed run's program needs a moment to notice. */
const BUSY_RETRIES = 12;
const BUSY_PAUSE_MS = 250;

function failure(line: Extract<Line, { event: 'error' }>): TaskError {
  return new TaskError(line.message, { code: line.code, hint: line.hint });
}

async function takeLine(call: Call, line: Line, say: (answer: string) => void): Promise<unknown> {
  if (line.event === 'result') return line;
  if (line.event === 'error') throw failure(line);
  if (line.event === 'progress') progress.show(line.phase, line.done, line.total);
  else progress.clear();
  if (line.event === 'note') log.info(line.message);
  if (line.event === 'warn') log.warn(line.message);
  if (line.event === 'pause' || line.event === 'thaw') say((await call.answer?.(line.event)) ?? 'no');
  return undefined;
}

function ended(call: Call, exitCode: number, stderr: string): TaskError {
  const tail = stderr.trim().split('\n').slice(-5).join('\n');
  const noProgram = /Cannot find module|executable file not found/.test(stderr);
  const noSource = /bind source path does not exist/.test(stderr);
  return new TaskError(`The backup program ended with exit code ${exitCode}${tail ? `:\n${tail}` : ''}`, {
    code: noProgram ? 'no-program' : noSource ? 'no-directory' : 'program-failed',
    hint: noProgram
      ? `${call.image} has no backup program: name an image that has one, [backup] image in configs/release.toml`
      : noSource
        ? 'the directory is not on the engine’s machine'
        : undefined,
  });
}

async function* linesOf(stream: AsyncIterable<Buffer>): AsyncGenerator<string> {
  let rest = '';
  for await (const chunk of stream) {
    const lines = (rest + chunk.toString()).split('\n');
    rest = lines.pop() ?? '';
    yield* lines;
  }
}

async function converse<T>(project: Project, call: Call, schema: z.ZodType<T>): Promise<T> {
  const { Line } = await import('./program-schema.ts');
  const { stream, closed } = connect(programCommand(project, call));
  stream.on('error', () => {});
  let result: unknown;
  try {
    for await (const text of linesOf(stream)) {
      const parsed = Line.safeParse(parse(text));
      if (!parsed.success) continue;
      result ??= await takeLine(call, parsed.data, (answer) => void stream.write(`${answer}\n`));
    }
    const { exitCode, stderr } = await closed;
    throwIfInterrupted();
    if (result === undefined) throw ended(call, exitCode, stderr);
    return schema.parse(result);
  } finally {
    progress.clear();
    stream.destroy();
    await closed;
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Runs a command of the program that only looks. @throws TaskError with the program's own words */
export async function askProgram<T>(project: Project, call: Call, schema: z.ZodType<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await converse(project, call, schema);
    } catch (error) {
      const isBusy = error instanceof TaskError && error.code === 'backup-running';
      if (!isBusy || attempt > BUSY_RETRIES) throw error;
      await pause(BUSY_PAUSE_MS);
    }
  }
}

/** The same for one that changes something: under --dry-run it is only printed, and undefined returned. */
export async function runProgram<T>(project: Project, call: Call, schema: z.ZodType<T>) {
  if (!session.dryRun) return askProgram(project, call, schema);
  log.would(`run: ${describeCommand(programCommand(project, call))}`);
  return undefined;
}
