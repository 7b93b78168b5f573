// Talking with the backup program: JSON lines on its stdout, answers and requests on its stdin. When this task dies,
// its stdin ends and it cleans up.
import { connect } from '../command.ts';
import { TaskError } from '../errors.ts';
import { log } from '../log.ts';
import type { Project } from '../project.ts';
import { type Call, programCommand } from './program-command.ts';
import type { Line } from './program-schema.ts';
import { progress } from './progress.ts';

export interface Talk {
  say: (text: string) => void;
  /** What the program answers to a command; undefined if it has ended without. */
  answer: (call: Call) => Promise<Answer | undefined>;
  /** Lets the program end and waits for that; never rejects. */
  end: () => Promise<{ exitCode: number; stderr: string }>;
  isOver: () => boolean;
}

type Answer = Extract<Line, { event: 'result' | 'error' | 'ready' }>;

async function takeLine(call: Call, line: Line, say: (text: string) => void): Promise<Answer | undefined> {
  if (line.event === 'result' || line.event === 'error' || line.event === 'ready') return line;
  if (line.event === 'progress') progress.show(line.phase, line.done, line.total);
  else progress.clear();
  if (line.event === 'note') log.info(line.message);
  if (line.event === 'warn') log.warn(line.message);
  if (line.event === 'pause' || line.event === 'thaw') say((await call.answer?.(line.event)) ?? 'no');
  return undefined;
}

async function* linesOf(stream: AsyncIterable<Buffer>): AsyncGenerator<string> {
  let rest = '';
  for await (const chunk of stream) {
    const lines = (rest + chunk.toString()).split('\n');
    rest = lines.pop() ?? '';
    yield* lines;
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The result of a command. @throws TaskError with the program's own words */
export function resultOf(answer: Answer): unknown {
  if (answer.event !== 'error') return answer;
  throw new TaskError(answer.message, { code: answer.code, hint: answer.hint });
}

/** Why the program ended without an answer. */
export function whyEnded({ image }: Call, { exitCode, stderr }: { exitCode: number; stderr: string }) {
  const tail = stderr.trim().split('\n').slice(-5).join('\n');
  const noProgram = /Cannot find module|executable file not found/.test(stderr);
  const noSource = /bind source path does not exist/.test(stderr);
  return new TaskError(`The backup program ended with exit code ${exitCode}${tail ? `:\n${tail}` : ''}`, {
    code: noProgram ? 'no-program' : noSource ? 'no-directory' : 'program-failed',
    hint: noProgram
      ? `${image} has no backup program: name an image that has one, [backup] image in configs/release.toml`
      : noSource
        ? 'the directory is not on the engine’s machine'
        : undefined,
  });
}

/** A running program as lines in both directions. */
function connectTo(project: Project, call: Call, lasting: boolean) {
  const { stream, closed } = connect(programCommand(project, call), { lasting });
  const lines = linesOf(stream);
  const next = () => lines.next().catch(() => ({ done: true as const, value: undefined }));
  let over = false;
  // How it ended is told by its exit code and what it said on stderr.
  stream.on('error', () => {});
  void closed.then(() => {
    over = true;
  });
  const end = async () => {
    progress.clear();
    over = true;
    stream.end();
    // Read to its end: with nobody to write to, the client would be gone before the container is.
    while (!(await next()).done);
    stream.destroy();
    return closed;
  };
  return { next, say: (text: string) => void stream.write(`${text}\n`), end, isOver: () => over };
}

/** Starts the program for a call. A `lasting` one outlives Ctrl-C, until it is ended. */
export async function openTalk(project: Project, call: Call, { lasting = false } = {}): Promise<Talk> {
  const { Line } = await import('./program-schema.ts');
  const { next, say, end, isOver } = connectTo(project, call, lasting);
  // It waits for what it asked, and cannot be asked anything else.
  const giveUp = async (error: unknown) => {
    await end();
    throw error;
  };
  const answer = async (asked: Call) => {
    for (;;) {
      const line = await next();
      if (line.done) return undefined;
      const parsed = Line.safeParse(parse(line.value));
      const found = parsed.success ? await takeLine(asked, parsed.data, say).catch(giveUp) : undefined;
      if (found) return found;
    }
  };
  return { say, answer, end, isOver };
}
