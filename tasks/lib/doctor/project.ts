// Is the repository fit to release from, is what the project says about itself valid, and does it keep its secrets?
import { constants, existsSync } from 'node:fs';
import { access, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { probe, read } from '../command.ts';
import { verifyServices } from '../docker/compose.ts';
import { verifyServiceConfig } from '../docker/service-config.ts';
import { readIfPresent } from '../files.ts';
import { git as gitIn, isShallow, shortHash, workTree } from '../git.ts';
import { ENVIRONMENTS, PROJECT_FILE, type Project } from '../project.ts';
import { type Check, type Facts, type Report, unchecked } from './check.ts';

export const PROJECT_CHECKS: readonly Check[] = [
  { id: 'compose-config', title: 'compose files', check: composeConfig },
  { id: 'service-config', title: 'service configuration', check: serviceConfig },
  { id: 'secrets', withoutDotenv: true, title: 'secrets in configs', check: secrets },
  { id: 'dotenv', withoutDotenv: true, title: '.env', check: dotenv },
  { id: 'git', withoutDotenv: true, title: 'git', check: git },
];

/** What git leaves in its directory while something waits for a person. */
const UNFINISHED: [file: string, what: string, abort: string][] = [
  ['MERGE_HEAD', 'a merge', 'git merge --abort'],
  ['rebase-merge', 'a rebase', 'git rebase --abort'],
  ['rebase-apply', 'a rebase', 'git rebase --abort'],
  ['CHERRY_PICK_HEAD', 'a cherry-pick', 'git cherry-pick --abort'],
  ['REVERT_HEAD', 'a revert', 'git revert --abort'],
  ['BISECT_LOG', 'a bisect', 'git bisect reset'],
];

async function git({ project: { root, release } }: Facts, { fail, warn }: Report) {
  const { changes, head, branch } = await workTree(root);
  const directory = await read(gitIn(root, 'rev-parse', '--absolute-git-dir'));
  for (const [file, what, abort] of UNFINISHED)
    if (existsSync(join(directory, file))) fail(`${what} is not finished`, `finish it, or: ${abort}`);
  if (await isShallow(root))
    fail('a shallow clone: versions and notes need the whole history', 'git fetch --unshallow --tags');
  if (!head) fail('there is no commit yet', 'git add --all && git commit');
  if (changes.length > 0)
    warn(`${changes.length} uncommitted: a release refuses that`, 'git status; commit, or git stash');
  if (branch !== release.branch) {
    const detail = `${branch ?? 'no branch'} is checked out, releases come from ${release.branch}`;
    warn(detail, `git switch ${release.branch}`);
  }
  return `${branch} at ${shortHash(head ?? '')}, nothing uncommitted`;
}

async function composeConfig({ project, services }: Facts) {
  const found = await services();
  verifyServices(project, found);
  return `${project.project.compose.join(', ')}: ${Object.keys(found).join(', ')}`;
}

async function serviceConfig({ project, services }: Facts) {
  const named = ENVIRONMENTS.filter((name) => project.environments[name].config);
  if (named.length === 0) {
    return unchecked(`${PROJECT_FILE} names no configuration of the service (environments.*.config)`);
  }
  await verifyServiceConfig(project, await services(), named);
  return named.map((name) => project.environments[name].config).join(', ');
}

const PRIVATE = 0o600;

async function dotenv({ project: { root } }: Facts, report: Report) {
  const names = (await readdir(root)).filter((name) => /^\.env(\.|$)/.test(name) && name !== '.env.example');
  if (!names.includes('.env')) report.warn('there is none yet', 'npm run setup');
  for (const name of names) await checkDotenv(root, name, report);
  return `${names.join(', ')}: 0600, ignored by git`;
}

async function checkDotenv(root: string, file: string, { fail }: Report): Promise<void> {
  const path = join(root, file);
  const found = await stat(path);
  const mode = found.mode & 0o777;
  const unreadable = await access(path, constants.R_OK).catch((error: Error) => error);
  if (unreadable) {
    const remedy = `sudo chown "$(id -u):$(id -g)" ${file} && chmod 0600 ${file}`;
    fail(`this user cannot read ${file}: ${unreadable.message}`, remedy);
  }
  if (!found.isFile()) fail(`${file} is not a file`, 'remove it, then: npm run setup');
  else if (mode !== PRIVATE)
    fail(`${file} has mode ${mode.toString(8).padStart(4, '0')}, expected 0600`, `chmod 0600 ${file}`);
  const tracked = await probe(gitIn(root, 'ls-files', '--error-unmatch', path));
  const ignored = await probe(gitIn(root, 'check-ignore', '--quiet', path));
  if (tracked.ok) fail(`${file} is committed`, `git rm --cached ${file}, and replace every secret in it`);
  else if (ignored.exitCode === 1) fail(`git does not ignore ${file}`, `add a line "${file}" to .gitignore`);
}

/** The files that are committed and configure something. */
async function configFiles({ root, project, image }: Project): Promise<string[]> {
  const folders = [...new Set(['configs', ...project.compose.map((file) => join(file, '..'))])];
  const listed = await Promise.all(
    folders.map(async (folder) => {
      const entries = await readdir(join(root, folder), { withFileTypes: true }).catch(() => []);
      return entries.filter((entry) => entry.isFile()).map(({ name }) => join(folder, name));
    }),
  );
  const all = new Set([...listed.flat(), ...project.compose, image.dockerfile, '.env.example']);
  return [...all].filter((file) => !/(^|\/)\.env(\.|$)(?!example)/.test(file));
}

async function secrets({ project }: Facts, { fail }: Report) {
  const files = await configFiles(project);
  const remedy =
    'move it to .env (never committed, 0600) and refer to it as a variable; a secret that was ever committed must be replaced';
  for (const file of files) {
    const text = (await readIfPresent(join(project.root, file)).catch(() => undefined)) ?? '';
    for (const { line, why } of findSecrets(text)) fail(`${file}:${line} ${why}`, remedy);
  }
  return `${files.length} files, nothing that looks like one`;
}

// Values in configuration files that look like secrets: by the name of their key, or by their own well-known form.
// Each pattern starts at a fixed word or at the beginning of a name, so that a long line takes no long time.

const ASSIGNED_NAME = /(?<![\w.-])([\w.-]+)["']?[^\S\n]*[:=]/g;
const SECRET_KEY = /token|secret|password|passwd|api[_-]?key|private[_-]?key|credential/i;
/** Names of keys that speak about secrets without holding one. */
const HARMLESS_KEY =
  /(?:_file|_files|file|path|_env|_name|_header|_length|_limit|max_tokens|tokens|_type|_url|_id|expiry|minutes|seconds)$/i;

/** Forms that issuers give their secrets, so that they can be found. */
const KNOWN_FORMS: [form: RegExp, name: string][] = [
  [/-----BEGIN (?:[A-Z]{1,20} ){0,4}PRIVATE KEY-----/, 'a private key'],
  [/\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_\w{22}/, 'a GitHub token'],
  [/\bglpat-[\w-]{20}/, 'a GitLab token'],
  [/\bAKIA[0-9A-Z]{16}\b/, 'an AWS access key'],
  [/\bxox[baprs]-[\w-]{10}/, 'a Slack token'],
  [/\bsk-[A-Za-z0-9_-]{20}/, 'an API key'],
  [/\bnpm_[A-Za-z0-9]{36}\b/, 'an npm token'],
  [/\beyJ[\w-]{10,2000}\.eyJ[\w-]{10,2000}\.[\w-]{10}/, 'a JSON web token'],
  [/[a-z]:\/\/[^\s/:@"'$]{1,200}:[^\s/@"'${]{1,200}@/i, 'a password in a URL'],
];

/** Lines, from 1, and why; never the value. Pure. */
export function findSecrets(text: string): { line: number; why: string }[] {
  return text.split('\n').flatMap((line, index) => {
    const form = KNOWN_FORMS.find(([pattern]) => pattern.test(line));
    if (form) return [{ line: index + 1, why: `looks like ${form[1]}` }];
    const key = secretKey(line);
    return key ? [{ line: index + 1, why: `gives ${key} a value of its own` }] : [];
  });
}

/** The first name on the line that speaks of a secret and is given one. */
function secretKey(line: string): string | undefined {
  // A whole-line comment explains and sets nothing.
  if (/^\s*(#|\/\/)/.test(line)) return undefined;
  for (const { 0: found, 1: name = '', index } of line.matchAll(ASSIGNED_NAME)) {
    if (!SECRET_KEY.test(name)) continue;
    const value = line.slice(index + found.length);
    return HARMLESS_KEY.test(name) || isHarmlessValue(value) ? undefined : name;
  }
  return undefined;
}

/** A value that a person would recognize as no secret: empty, a variable, a path, a word of configuration. */
function isHarmlessValue(text: string): boolean {
  // Its beginning tells; the patterns below would take long over a megabyte.
  const value = text
    .slice(0, 1000)
    .replace(/#.*$/, '')
    .trim()
    .replace(/[,;}\]]+$/, '')
    .replace(/^["']|["']$/g, '')
    .trim();
  if (value === '') return true;
  if (/^\$\{?\w+/.test(value) || /^<.*>$/.test(value) || /^%\w+%$/.test(value)) return true;
  if (/^(true|false|null|none|\d{1,6}|\[|\{|\||>)$/i.test(value) || /^[[{]/.test(value)) return true;
  if (/^(\/|\.\/|\.\.\/|~\/)/.test(value)) return true;
  // The name of a variable stands for its value.
  return /^[A-Z][A-Z0-9_]*$/.test(value);
}
