// `.env`: what this machine decided (active environment, prod's tag, directories).
//
// With `--context`, what that other machine decided lies in `.env.context.NAME`; it inherits from `.env` what
// it does not say itself, except for which environment is active and what prod runs.
import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { editDotenv, parseDotenv, strangeLine } from './dotenv-text.ts';
import { usageError } from './errors.ts';
import { readIfPresent, writeFileAtomic } from './files.ts';
import { session } from './session.ts';

export { editDotenv };

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
