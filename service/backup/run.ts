// One command of the backup program, from its arguments to its exit code.
import { COMMANDS } from './commands.ts';
import { followHost } from './host.ts';
import { failureOf, report } from './report.ts';
import { findCommand, serveSession } from './session.ts';

/** Runs `COMMAND OPTIONS_AS_JSON` and ends the process. */
export async function runCommand([name = '', json = '{}']: readonly string[]): Promise<never> {
  // Backups hold everything that the data holds: for their owner alone.
  process.umask(0o077);
  process.on('uncaughtException', (error) => {
    report.failure(failureOf(error));
    process.exit(1);
  });
  const { attached = false, ...options } = JSON.parse(json) as { attached?: boolean };
  followHost(attached);
  if (name === 'session') return serveSession(COMMANDS, options);
  try {
    report.result(await findCommand(COMMANDS, name)(options));
  } catch (error) {
    report.failure(failureOf(error));
    process.exitCode = 1;
  }
  // Not by an empty event loop: stdin is still open. What is unfinished goes on the way out.
  process.exit();
}
