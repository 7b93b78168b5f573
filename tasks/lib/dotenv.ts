// `.env`: what this machine decided (active environment, prod's tag, directories). It means to the tasks exactly what it
// means to compose, whose grammar (compose-go, dotenv and template) is followed here; people edit it, too, so every byte
// that is not a value we set stays as it is.
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
  const text = await readIfPresent(path).catch((error: Error) => {
    throw unreadable(path, error);
  });
  try {
    return parseDotenv(text ?? '');
  } catch (error) {
    if (!(error instanceof DotenvError)) throw error;
    // Never with its text, which may be a secret.
    throw usageError(`${basename(path)}:${error.line}: ${error.message}`, {
      code: 'config-invalid',
      hint: 'write NAME=value, or # before a comment; compose refuses the file, too',
    });
  }
}

class DotenvError extends Error {
  readonly line: number;

  constructor(line: number, message: string) {
    super(message);
    this.line = line;
  }
}

interface Assignment {
  name: string;
  value: string;
  /** Where the value stands in the text, quotes included. */
  from: number;
  to: number;
  /** Where the assignment begins, `export` included. */
  start: number;
}

type Lookup = (name: string) => string | undefined;

/** The variables that the text sets; the shell's beat them in what they refer to. @throws DotenvError */
export function parseDotenv(text: string): Variables {
  return Object.fromEntries(assignments(text).map(({ name, value }) => [name, value]));
}

function assignments(text: string): Assignment[] {
  const found: Assignment[] = [];
  const known: Variables = {};
  const lookup: Lookup = (name) => process.env[name] ?? known[name];
  const lineAt = (position: number) => text.slice(0, position).split('\n').length;
  let position = text.startsWith('\uFEFF') ? 1 : 0;
  for (;;) {
    position = skip(/(?:\s|#[^\n]*(?:\n|$))*/y, text, position);
    if (position >= text.length) return found;
    const start = position;
    const key = /(?:export[^\S\n]+)?([^=:\n]*)([=:\n]|$)/y;
    key.lastIndex = position;
    const [whole, raw = '', end] = key.exec(text)!;
    const name = raw.trimEnd();
    if (!/^[\p{L}\p{N}_.\-[\]]+$/u.test(name))
      throw new DotenvError(lineAt(start), 'invalid line, expected NAME=value');
    position += whole.length;
    if (end !== '=' && end !== ':') {
      // A bare name takes its value from the shell.
      if (process.env[name] !== undefined) known[name] = process.env[name];
      continue;
    }
    position = skip(/[^\S\n]*/y, text, position);
    try {
      const { value, to, next } = readValue(text, position, lookup);
      known[name] = value;
      found.push({ name, value, from: position, to, start });
      position = next;
    } catch (error) {
      throw new DotenvError(lineAt(position), `the value of ${name} ${(error as Error).message}`);
    }
  }
}

function skip(pattern: RegExp, text: string, position: number): number {
  pattern.lastIndex = position;
  return position + (pattern.exec(text)?.[0].length ?? 0);
}

function readValue(text: string, from: number, lookup: Lookup) {
  const quote = text[from];
  if (quote !== '"' && quote !== "'") {
    const newline = text.indexOf('\n', from);
    const next = newline < 0 ? text.length : newline;
    const value = text.slice(from, next).split(' #', 1)[0]!.trimEnd();
    return { value: substitute(value, lookup), to: from + value.length, next };
  }
  let to = from + 1;
  while (to < text.length && text[to] !== quote) to += text[to] === '\\' ? 2 : 1;
  if (to >= text.length) throw new Error('has a quote that is never closed');
  const inner = text.slice(from + 1, to).replaceAll(`\\${quote}`, quote);
  const value = quote === "'" ? inner : substitute(inner.replace(ESCAPE, unescaped), lookup);
  return { value, to: to + 1, next: to + 1 };
}

const ESCAPE = /\\(?:([abfnrtv$"\\])|0(\d{0,3}))/g;
const ESCAPES: Record<string, string> = {
  a: '\u0007',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
  $: '$$',
};

function unescaped(_found: string, letter: string | undefined, octal: string): string {
  if (letter !== undefined) return ESCAPES[letter] ?? letter;
  return /^[0-3][0-7]{2}$/.test(octal) ? String.fromCharCode(Number.parseInt(octal, 8)) : `\\${octal}`;
}

/** Compose's interpolation: `$NAME`, `${NAME}`, `${NAME:-default}` and its kin, `$$`; any other `$` is itself. @throws Error */
function substitute(text: string, lookup: Lookup): string {
  const reference = /\$(?:(\$)|([a-z_]\w*)|\{(?:([a-z_]\w*)(:?[-+?])?)?)/gi;
  let result = '';
  let position = 0;
  for (let match = reference.exec(text); match; match = reference.exec(text)) {
    const [found, escaped, plain, braced, operator] = match;
    result += text.slice(position, match.index);
    position = match.index + found.length;
    if (escaped) result += '$';
    else if (plain) result += lookup(plain) ?? '';
    else {
      if (!braced) throw new Error('has a brace that names no variable');
      const end = closingBrace(text, position);
      if (!operator && end > position) throw new Error('has a brace that is not closed as compose expects');
      result += substituteBraced(braced, operator, text.slice(position, end), lookup);
      position = end + 1;
    }
    reference.lastIndex = position;
  }
  return result + text.slice(position);
}

function closingBrace(text: string, from: number): number {
  let open = 1;
  for (let position = from; position < text.length; position += 1) {
    if (text[position] === '{') open += 1;
    if (text[position] === '}') open -= 1;
    if (open === 0) return position;
  }
  throw new Error('has a ${ that is never closed');
}

function substituteBraced(name: string, operator: string | undefined, word: string, lookup: Lookup): string {
  const value = lookup(name);
  const isSet = operator?.startsWith(':') ? Boolean(value) : value !== undefined;
  switch (operator?.at(-1)) {
    case '-':
      return isSet ? value! : substitute(word, lookup);
    case '+':
      return isSet ? substitute(word, lookup) : '';
    case '?':
      if (!isSet) throw new Error(`needs ${name}, which is not set`);
      return value!;
    default:
      return value ?? '';
  }
}

/** A value as it has to be written, in the quotes that are there already if they will do. */
function written(value: string, present = ''): string {
  const quote = /^["']/.exec(present)?.[0] ?? '';
  if (/^[\w./:@,+-]*$/.test(value)) return `${quote}${value}${quote}`;
  if (quote !== "'" && !/[\\"$\n]/.test(value)) return `"${value}"`;
  if (quote !== '"' && !/'|\\$/.test(value)) return `'${value}'`;
  return `"${value.replace(/[\\"$]/g, '\\$&').replaceAll('\n', '\\n')}"`;
}

/** `text` with the given variables set; undefined removes a variable's lines. @throws DotenvError */
export function editDotenv(text: string, changes: Record<string, string | undefined>): string {
  let edited = text;
  for (const [name, value] of Object.entries(changes)) {
    const own = assignments(edited).filter((one) => one.name === name);
    const last = own.at(-1);
    if (value === undefined) edited = own.reduceRight(withoutLine, edited);
    else if (last)
      edited =
        edited.slice(0, last.from) + written(value, edited.slice(last.from, last.to)) + edited.slice(last.to);
    else edited = appended(edited, `${name}=${written(value)}`);
  }
  return edited;
}

function withoutLine(text: string, { start, to }: Assignment): string {
  const from = text.lastIndexOf('\n', start - 1) + 1;
  const newline = text.indexOf('\n', to);
  return text.slice(0, from) + (newline < 0 ? '' : text.slice(newline + 1));
}

function appended(text: string, line: string): string {
  const ending = text.includes('\r\n') ? '\r\n' : '\n';
  const separator = text === '' || text.endsWith('\n') ? '' : ending;
  return text + separator + line + ending;
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
