// Progress for people, always on stderr: stdout belongs to a task's result. Whatever is printed passes here, so that no
// message leaks a secret and none that others wrote (file names, container logs) controls the terminal.
import { chalk } from 'zx/core';
import { session } from './session.ts';

// Whether to colour is decided below, for each stream.
chalk.level = 1;

const secrets = new Set<string>();

/** From now on `value` is printed as `***`. Short values are ignored: they would mangle ordinary text. */
export function registerSecret(value: string | undefined): void {
  if (!value) return;
  // A value of several lines may be printed a line at a time, one with quotes as JSON has it.
  const lines = value.split(/\r?\n/).map((line) => line.trim());
  const forms = [value, ...lines].flatMap((one) => [one, JSON.stringify(one).slice(1, -1)]);
  for (const form of forms) if (form.length >= 6) secrets.add(form);
}

export function redact(text: string): string {
  let result = text;
  // The longest first: a part of a secret must not hide the rest from being found.
  for (const secret of [...secrets].sort((a, b) => b.length - a.length))
    result = result.replaceAll(secret, '***');
  return result;
}

/** Sequences that control a terminal (ECMA-48) and every other control character; the first group, `paint`'s, may stay. */
const CONTROL = new RegExp(
  [
    String.raw`(\x1b\[(?:1|2|22|31|32|33|36|39)m)`,
    String.raw`\x1b\[[0-?]*[ -/]*[@-~]`,
    String.raw`\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?`,
    String.raw`\x1b[ -~]?`,
    String.raw`(?![\n\t])\p{Cc}`,
  ].join('|'),
  'gu',
);

/** Text that others wrote, without what would control the terminal. */
export function withoutControls(text: string): string {
  return text.replaceAll('\r\n', '\n').replace(CONTROL, '$1');
}

/** What may be printed: no secret, no control character. */
export function printable(text: string): string {
  return redact(withoutControls(text));
}

type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'cyan';

/** Colours `text` when `stream` is a terminal and NO_COLOR is unset (https://no-color.org). */
export function paint(style: Style, text: string, stream: NodeJS.WriteStream = process.stderr): string {
  const coloured = stream.isTTY && !process.env.NO_COLOR && process.env.TERM !== 'dumb';
  return coloured ? chalk[style](text) : text;
}

function write(text: string, mark = ''): void {
  process.stderr.write(`${mark}${printable(text)}\n`);
}

export const log = {
  /** One line for one step. */
  step: (text: string) => write(text, `${paint('cyan', '→')} `),
  /** Silent in a dry run, in which nothing gets done. */
  done: (text: string) => {
    if (!session.dryRun) write(text, `${paint('green', '✓')} `);
  },
  warn: (text: string) => write(text, `${paint('yellow', '!')} `),
  error: (text: string) => write(text, `${paint('red', '✗')} `),
  info: (text: string) => write(text),
  /** The one gate of a dry run: true, and said, where it holds back what `text` describes. */
  withhold: (text: string): boolean => {
    if (session.dryRun) {
      session.withheld = true;
      write(text, `${paint('dim', 'would')} `);
    }
    return session.dryRun;
  },
  /** Only with `--verbose`. */
  detail: (text: string) => {
    if (session.verbose) process.stderr.write(`${paint('dim', printable(text))}\n`);
  },
};
