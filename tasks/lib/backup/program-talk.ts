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
  /** What the program answers to a command; undefined if it has ended without. @throws TaskError in its words */
  answer: (call: Call) => Promise<unknown>;
  /** Lets the program end and waits for that; never rejects. */
  end: () => Promise<{ exitCode: number; stderr: string }>;
  isOver: () => boolean;
}

function failure(line: Extract<Line, { event: 'error' }>): TaskError {
  return new TaskError(line.message, { code: line.code, hint: line.hint });
}

async function takeLine(call: Call, line: Line, say: (answer: string) => void): Promise<unknown> {
  if (line.event === 'result' || line.event === 'ready') return line;
  if (line.event === 'error') throw failure(line);
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

/** Starts the program for a call. A `lasting` one outlives Ctrl-C, until it is ended. */
export async function openTalk(project: Project, call: Call, { lasting = false } = {}): Promise<Talk> {
  const { Line } = await import('./program-schema.ts');
  const { stream, closed } = connect(programCommand(project, call), { lasting });
  const lines = linesOf(stream);
  let over = false;
  // How it ended is told by its exit code and what it said on stderr.
  stream.on('error', () => {});
  void closed.then(() => {
    over = true;
  });
  const say = (text: string) => void stream.write(`${text}\n`);
  return {
    say,
    answer: async (asked) => {
      for (;;) {
        const line = await lines.next().catch(() => undefined);
        if (!line || line.done) return undefined;
        const parsed = Line.safeParse(parse(line.value));
        const result = parsed.success ? await takeLine(asked, parsed.data, say) : undefined;
        if (result !== undefined) return result;
      }
    },
    end: () => {
      progress.clear();
      over = true;
      stream.destroy();
      return closed;
    },
    isOver: () => over,
  };
}
