// A command as data and as text. Apart from command.ts, which starts processes and has no room for it.
import { redact } from './log.ts';

export type Command = readonly [program: string, ...argv: string[]];

/** The command as a person could type it, secrets redacted. */
export function describeCommand(command: Command): string {
  const quoted = command.map((part) =>
    /^[\w@%+=:,./{}~^-]+$/.test(part) ? part : `'${part.replaceAll("'", "'\\''")}'`,
  );
  return redact(quoted.join(' '));
}
