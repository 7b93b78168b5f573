// The engine's client, `docker`: how it is called, and what it means when it finds no engine.
import type { Command } from '../command.ts';
import { TaskError } from '../errors.ts';
import { session } from '../session.ts';

/** Every call of `docker` goes through here, so that `--context` reaches them all. */
export function docker(...argv: string[]): Command {
  const { context, engineSocket } = session;
  if (engineSocket) return ['docker', '--host', `unix://${engineSocket}`, ...argv];
  return ['docker', ...(context ? ['--context', context] : []), ...argv];
}

export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The error of a task that needs an engine and has none. */
export function engineDown(stderr: string): TaskError {
  const reason = stderr.trim().split('\n').at(-1) ?? '';
  return new TaskError(`No Docker engine answers${reason ? `: ${reason}` : ''}`, {
    code: 'engine-down',
    hint: howToReach(reason),
  });
}

function howToReach(reason: string): string {
  const host = process.env.DOCKER_HOST;
  if (/permission denied/i.test(reason))
    return 'this user may not use it: sudo usermod -aG docker "$USER", then log in again';
  if (host)
    return `DOCKER_HOST names the engine at ${host}: start that one, or unset DOCKER_HOST to use this machine's`;
  return 'start Docker, or let `npm run setup` install and start it (Debian, Raspberry Pi OS)';
}
