// Progress for people, always on stderr: stdout belongs to a task's result. Secrets are redacted here
// and in command.ts, so that no message can leak one.
import { session } from './session.ts';

const secrets = new Set<string>();

/** From now on `value` is printed as `***`. Short values are ignored: they would mangle ordinary text. */
export function registerSecret(value: string | undefined): void {
  if (value && value.length >= 6) secrets.add(value);
}

export function redact(text: string): string {
  let result = text;
  for (const secret of secrets) result = result.replaceAll(secret, '***');
  return result;
}

const CODES = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33, cyan: 36 } as const;

/** Colours `text` when `stream` is a terminal and NO_COLOR is unset (https://no-color.org). */
export function paint(style: keyof typeof CODES, text: string, stream: NodeJS.WriteStream = process.stderr) {
  const coloured = stream.isTTY && !process.env.NO_COLOR && process.env.TERM !== 'dumb';
  return coloured ? `\u001b[${CODES[style]}m${text}\u001b[0m` : text;
}

function write(text: string): void {
  process.stderr.write(`${redact(text)}\n`);
}

export const log = {
  /** One line for one act. */
  step: (text: string) => write(`${paint('cyan', '→')} ${text}`),
  /** Silent in a dry run, in which nothing gets done. */
  done: (text: string) => {
    if (!session.dryRun) write(`${paint('green', '✓')} ${text}`);
  },
  warn: (text: string) => write(`${paint('yellow', '!')} ${text}`),
  error: (text: string) => write(`${paint('red', '✗')} ${text}`),
  info: (text: string) => write(text),
  /** What a dry run would have done. */
  would: (text: string) => {
    session.withheld = true;
    write(`${paint('dim', 'would')} ${text}`);
  },
  /** Only with `--verbose`. */
  detail: (text: string) => {
    if (session.verbose) write(paint('dim', text));
  },
};
