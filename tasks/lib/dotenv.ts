// `.env`: what this machine decided (active environment, prod's tag, directories).
//
// With `--context`, what that other machine decided lies in `.env.context.NAME`; it inherits from `.env` what
// it does not say itself, except for which environment is active and what prod runs.
import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { usageError } from './errors.ts';
import { readIfPresent, writeFileAtomic } from './files.ts';
import { session } from './session.ts';

export type Variables = Record<string, string>;

const OF_ONE_MACHINE = /_(?:ACTIVE_ENV|PROD_TAG)$/;

/** The file that decisions about the engine at hand are written to. */
export function dotenvPath(root: string): string {
  const { context } = session;
  return join(root, context && context !== 'default' ? `.env.context.${context}` : '.env');
}

/** The files that are there, the ones that beat others last. */
export function dotenvFiles(root: string): string[] {
  return [...new Set([join(root, '.env'), dotenvPath(root)])].filter((file) => existsSync(file));
}

/** The variables of this machine; empty if there is no file. @throws TaskError (exit 2) if it cannot be read */
export async function loadDotenv(root: string): Promise<Variables> {
  const [own, shared] = [dotenvPath(root), join(root, '.env')];
  const variables = await parseFile(shared);
  if (own === shared) return variables;
  const inherited = Object.entries(variables).filter(([name]) => !OF_ONE_MACHINE.test(name));
  return { ...Object.fromEntries(inherited), ...(await parseFile(own)) };
}

function unreadable(path: string, error: Error) {
  const name = basename(path);
  return usageError(`Cannot read ${path}: ${error.message}`, {
    code: 'dotenv-unreadable',
    hint: `it must be a file of this user: sudo chown "$(id -u):$(id -g)" ${name} && chmod 0600 ${name}`,
    cause: error,
  });
}

async function parseFile(path: string): Promise<Variables> {
  const found = await readIfPresent(path).catch((error: Error) => {
    throw unreadable(path, error);
  });
  const text = found ?? '';
  const strange = strangeLine(text);
  if (strange) {
    throw usageError(`${basename(path)}:${strange.number}: "${strange.line}" is no assignment`, {
      code: 'config-invalid',
      hint: 'write NAME=value, or # before a remark; compose refuses the file, too',
    });
  }
  return parseDotenv(text);
}

/** Writes the changes to `dotenvPath` (0600, atomically); nothing is written if nothing changes. */
export async function updateDotenv(
  root: string,
  changes: Record<string, string | undefined>,
): Promise<boolean> {
  const path = dotenvPath(root);
  const text = (await readIfPresent(path)) ?? '';
  const edited = editDotenv(text, changes);
  if (edited === text) return false;
  await writeFileAtomic(path, edited, { mode: 0o600 });
  return true;
}

// The text of `.env`, read and edited by one and the same idea of what an assignment is: compose's, which reads
// the file as well (node's own parser swallows lines after one that is no assignment, and cuts `a#b`). People
// edit it, too: every byte that is not the value we set stays as it is. Pure.

/** Start of a line, a name, a value (quoted ones may go over several lines), and a comment after a blank. */
const ASSIGNMENT =
  /(?<![^\n])(\uFEFF?[ \t]*(?:export[ \t]+)?([A-Za-z_][\w.-]*)[ \t]*=[ \t]*)('[^']*'|"(?:\\[\s\S]|[^"\\])*"|[^\r\n]*?)([ \t]+#[^\r\n]*|[ \t]*)(?=\r?\n|\r?$(?![\s\S]))/g;

interface Assignment {
  name: string;
  /** The value as written, quotes included. */
  raw: string;
  /** Where `raw` begins in the text. */
  at: number;
  start: number;
  end: number;
}

function assignments(text: string): Assignment[] {
  return [...text.matchAll(ASSIGNMENT)].map((match) => {
    const [whole, before = '', name = '', raw = ''] = match;
    return {
      name,
      raw,
      at: match.index + before.length,
      start: match.index,
      end: match.index + whole.length,
    };
  });
}

function isQuoted(raw: string): boolean {
  return raw.length > 1 && /^(["'])[\s\S]*\1$/.test(raw);
}

const ESCAPES: Record<string, string> = { n: '\n', r: '\r', t: '\t' };

function readValue(raw: string, known: Record<string, string>): string {
  if (isQuoted(raw) && raw.startsWith("'")) return raw.slice(1, -1);
  const inner = isQuoted(raw) ? raw.slice(1, -1) : raw;
  return inner.replace(/\\([\s\S])|\$(?:\{(\w+)\}|(\w+))/g, (found, escaped, braced, plain) => {
    if (escaped !== undefined) return isQuoted(raw) ? (ESCAPES[escaped] ?? escaped) : found;
    const name: string = braced ?? plain;
    return known[name] ?? process.env[name] ?? '';
  });
}

/** The variables that the text sets; of several lines for one name the last counts. */
export function parseDotenv(text: string): Record<string, string> {
  const variables: Record<string, string> = {};
  for (const { name, raw } of assignments(text)) variables[name] = readValue(raw, variables);
  return variables;
}

/** The first line that is neither an assignment nor a comment nor a bare name, counted from 1. */
export function strangeLine(text: string): { number: number; line: string } | undefined {
  // What belongs to assignments, which may go over several lines, is blanked out, line ends excepted.
  const rest = assignments(text).reduce(
    (left, { start, end }) =>
      left.slice(0, start) + left.slice(start, end).replace(/[^\n]/g, ' ') + left.slice(end),
    text,
  );
  const lines = rest.split('\n').map((line) => line.trim());
  const index = lines.findIndex((line) => !/^(#.*|(export\s+)?[\w.-]+|)$/.test(line));
  return index < 0 ? undefined : { number: index + 1, line: lines[index]! };
}

/** A value as it has to be written, in the quotes that are there already if they will do. */
function written(value: string, present = ''): string {
  const quote = isQuoted(present) ? present[0] : '';
  const isPlain = /^[\w./:@,+-]*$/.test(value);
  if (isPlain) return `${quote}${value}${quote}`;
  if (quote !== "'" && !/[\\"$\n]/.test(value)) return `"${value}"`;
  if (quote !== '"' && !value.includes("'")) return `'${value}'`;
  return `"${value.replace(/[\\"$]/g, '\\$&').replaceAll('\n', '\\n')}"`;
}

/** `text` with the given variables set; undefined removes a variable's lines. */
export function editDotenv(text: string, changes: Record<string, string | undefined>): string {
  let edited = text;
  for (const [name, value] of Object.entries(changes)) {
    const own = assignments(edited).filter((one) => one.name === name);
    if (value === undefined) edited = own.reduceRight(withoutLine, edited);
    else edited = replaced(edited, own.at(-1), value) ?? appended(edited, `${name}=${written(value)}`);
  }
  return edited;
}

/** With another value in its place; undefined where there is none, or where the file would then be read otherwise. */
function replaced(text: string, last: Assignment | undefined, value: string): string | undefined {
  if (!last) return undefined;
  const { at, raw } = last;
  const edited = text.slice(0, at) + written(value, raw) + text.slice(at + raw.length);
  // A quote that is open further up may now end elsewhere.
  const names = (one: string) => assignments(one).map(({ name }) => name);
  return names(edited).join() === names(text).join() ? edited : undefined;
}

function withoutLine(text: string, { start, end }: Assignment): string {
  return text.slice(0, start) + text.slice(end).replace(/^\r?\n/, '');
}

function appended(text: string, line: string): string {
  const ending = text.includes('\r\n') ? '\r\n' : '\n';
  const separator = text === '' || text.endsWith('\n') ? '' : ending;
  return text + separator + line + ending;
}
