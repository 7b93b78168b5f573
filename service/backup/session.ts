// Several commands by one process, for a task that has more than one: the start and the end of a container cost
// more than most of what it is asked. One request a line on stdin, one result or error for each on stdout.
import { nextLine } from './host.ts';
import { stayRoot } from './identity.ts';
import { BackupError, failureOf, report } from './report.ts';

export type Command = (options: object) => object | Promise<object>;

/** Between requests a restore may wait for an hour; a network forgets connections over which nothing goes. */
const ALIVE_MS = 30_000;

async function carryOut(commands: Record<string, Command>, request: string): Promise<void> {
  try {
    const { command = '', options = {} } = JSON.parse(request) as { command?: string; options?: object };
    report.result(await findCommand(commands, command)(options));
  } catch (error) {
    report.failure(failureOf(error));
  }
}

/** @throws BackupError for a name that is none */
export function findCommand(commands: Record<string, Command>, name: string): Command {
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (command) return command;
  throw new BackupError('usage', `unknown command "${name}"`);
}

/** Serves requests until stdin ends, which ends this process: what is under way then stops as any command does. */
export async function serveSession(
  commands: Record<string, Command>,
  { root = false }: { root?: boolean },
): Promise<never> {
  if (root) stayRoot();
  report.ready();
  setInterval(report.alive, ALIVE_MS);
  for (;;) await carryOut(commands, await nextLine());
}
