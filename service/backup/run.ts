// One command of the backup program, from its arguments to its exit code.
import { COMMANDS } from './commands.ts';
import { followHost } from './host.ts';
import { failureOf, report } from './report.ts';

/** Runs `COMMAND OPTIONS_AS_JSON` and ends the process. */
export async function runCommand([name = '', json = '{}']: readonly string[]): Promise<never> {
  // Backups hold everything that the data holds: for their owner alone.
  process.umask(0o077);
  process.on('uncaughtException', (error) => {
    report.failure(failureOf(error));
    process.exit(1);
  });
  const command = COMMANDS[name];
  if (!command) {
    report.failure({ code: 'usage', message: `unknown command "${name}"` });
    process.exit(2);
  }
  const { attached = false, ...options } = JSON.parse(json) as { attached?: boolean };
  followHost(attached);
  try {
    report.result(await command(options));
  } catch (error) {
    report.failure(failureOf(error));
    process.exitCode = 1;
  }
  // Not by an empty event loop: stdin is still open. What is unfinished goes on the way out.
  process.exit();
}
