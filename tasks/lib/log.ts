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
function withoutControls(text: string): string {
  return text.replaceAll('\r\n', '\n').replace(CONTROL, '$1');
}

/** What may be printed: no secret, no control character. */
function printable(text: string): string {
  return redact(withoutControls(text));
}

type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'cyan';

/** Colours `text` when `stream` is a terminal and NO_COLOR is unset (https://no-color.org). */
export function paint(style: Style, text: string, stream: NodeJS.WriteStream = process.stderr): string {
  const coloured = stream.isTTY && !process.env.NO_COLOR && process.env.TERM !== 'dumb';
  return coloured ? chalk[style](text) : text;
}

/** `text` with each line broken at words to fit `columns`; what continues a line keeps its indentation. Pure. */
function wrapWords(text: string, columns: number): string {
  const wrapLine = (line: string) => {
    const [indent = ''] = /^\s*/.exec(line) ?? [];
    const lines = [indent];
    for (const word of line.trim().split(' ')) {
      const last = lines.at(-1)!;
      const fits = last === indent || last.length + 1 + word.length <= columns;
      if (fits) lines[lines.length - 1] = last === indent ? last + word : `${last} ${word}`;
      else lines.push(`${indent}${word}`);
    }
    return lines.join('\n');
  };
  const isLong = (line: string) => line.length > columns && columns > 20;
  return text.replace(/^.*$/gm, (line) => (isLong(line) ? wrapLine(line) : line));
}

function write(text: string, mark = '', stream: NodeJS.WriteStream = process.stderr): void {
  clearProgress();
  const shown = printable(text);
  const { isTTY, columns } = stream;
  stream.write(`${mark}${isTTY ? wrapWords(shown, columns - (mark ? 2 : 0)) : shown}\n`);
}

// What is being done at the moment: on a terminal one line that is drawn again and again, elsewhere a line now and then.

const REDRAW_MS = 250;
const PLAIN_EVERY_MS = 10_000;
const DRAWS_OVER = process.stderr.isTTY && process.env.TERM !== 'dumb';

let working: { title: string; since: number; detail: string; printedAt: number } | undefined;
/** What is being done where no step is. */
let between: string | undefined;
let isDrawn = false;
let ticker: NodeJS.Timeout | undefined;

/** Shows from now on that this is being done, until something else is, or the terminal is needed for a question. */
function startProgress(title: string): void {
  const now = performance.now();
  working = { title, since: now, detail: '', printedAt: now };
  ticker ??= setInterval(tick, REDRAW_MS).unref();
}

function clearProgress(): void {
  if (isDrawn) process.stderr.write('\r\u001b[K');
  isDrawn = false;
}

function tick(): void {
  if (!working || session.quiet) return;
  const now = performance.now();
  const { title, since, detail, printedAt } = working;
  const elapsed = Math.round((now - since) / 1000);
  if (elapsed < 1) return;
  const text = printable([`${title}: ${elapsed} s`, detail].filter(Boolean).join(', ')).replaceAll('\n', ' ');
  if (DRAWS_OVER) {
    process.stderr.write(`\r\u001b[K${paint('dim', `  ${text.slice(0, process.stderr.columns - 3)}`)}`);
    isDrawn = true;
  } else if (now - printedAt >= PLAIN_EVERY_MS) {
    write(`  ${text}`);
    working.printedAt = now;
  }
}

export const log = {
  /** One line for one step, whose progress is shown while it lasts. */
  step: (text: string) => {
    if (!session.quiet) write(text, `${paint('cyan', '→')} `);
    startProgress(text);
  },
  /** Shows as progress that this is being done, without a line of its own. */
  working: (title: string) => {
    between = title;
    startProgress(title);
  },
  /** How far the present step is, e.g. `512 MB of 1.1 GB`; shown beside its duration. */
  progress: (detail: string) => {
    if (working) working.detail = detail;
  },
  /** Nothing is being done, or somebody else has the terminal: no progress until the next step. */
  idle: () => {
    clearProgress();
    clearInterval(ticker);
    ticker = undefined;
    working = undefined;
  },
  /** Silent once a dry run has withheld something: then nothing was done. */
  done: (text: string) => {
    if (!session.withheld && !session.quiet) write(text, `${paint('green', '✓')} `);
    if (working && between) startProgress(between);
  },
  warn: (text: string) => write(text, `${paint('yellow', '!')} `),
  error: (text: string) => write(text, `${paint('red', '✗')} `),
  /** What to do about the warning or error above. */
  hint: (text: string) => write(`  hint: ${text.replaceAll('\n', '\n        ')}`),
  info: (text: string) => {
    if (!session.quiet) write(text);
  },
  /** The plan: the result of a dry run (`--dry-run > plan.txt`), progress otherwise. */
  plan: (text: string) => {
    if (session.dryRun && !session.json) log.result(text);
    else log.info(text);
  },
  /** What a task was run for, on stdout. */
  result: (text: string) => write(text, '', process.stdout),
  /** The one gate of a dry run: true, and said, where it holds back what `text` describes. */
  withhold: (text: string): boolean => {
    if (!session.dryRun) return false;
    session.withheld = true;
    write(text, `${paint('dim', 'would')} `);
    return true;
  },
  /** Only with `--verbose`. */
  detail: (text: string) => {
    if (session.verbose) write(paint('dim', text));
  },
};
