// What the tasks ask of git: every function is named for the question that it answers. Nothing here moves a branch or a
// tag. The user's settings that would change what is read or written are overruled; those about how to reach a remote,
// how to sign and who one is stay. A question that fails is an error, never a "no".
import { join } from 'node:path';
import { type Command, describeCommand, probe, read, run } from './command.ts';
import { CommandError, TaskError } from './errors.ts';
import { makeDirectory } from './files.ts';

const OVERRULED = [
  ...['color.ui=false', 'log.showSignature=false', 'status.showUntrackedFiles=normal'],
  ...['submodule.recurse=false', 'diff.ignoreSubmodules=none', 'core.fsmonitor=false'],
];

/** `git` in a given repository, whatever the user configured. */
export function git(root: string, ...argv: string[]): Command {
  return ['git', '--no-optional-locks', ...OVERRULED.flatMap((one) => ['-c', one]), '-C', root, ...argv];
}

/** The answer of a command that says "no" by one exit code; undefined for that. @throws CommandError for any other */
async function answerOf(command: Command, noExitCode: number): Promise<string | undefined> {
  const { ok, exitCode, stdout, stderr } = await probe(command);
  if (ok) return stdout.replace(/\n$/, '');
  if (exitCode === noExitCode) return undefined;
  throw new CommandError(describeCommand(command), exitCode, stderr);
}

/** A commit as people read it; a dry run's placeholder stays whole. */
export function shortHash(commit: string): string {
  return commit.startsWith('<') ? commit : commit.slice(0, 7);
}

/**
 * For every command that speaks to a remote: nothing may ask for a password and so hang a task, and git's messages must be
 * English, since they are matched. How to reach the remote is the user's choice.
 */
export const REMOTE_ENVIRONMENT = { GIT_TERMINAL_PROMPT: '0', SSH_ASKPASS_REQUIRE: 'never', LC_ALL: 'C' };

export interface WorkTree {
  /** Checked-out branch; undefined when HEAD is detached. */
  branch: string | undefined;
  /** Commit of HEAD; undefined before the first commit. */
  head: string | undefined;
  /** Changed, staged and untracked paths, as `git status` shows them. */
  changes: string[];
}

/** @throws TaskError if `root` is not in a git repository, or git refuses it */
export async function workTree(root: string): Promise<WorkTree> {
  const status = await probe(git(root, 'status', '--porcelain=v2', '--branch', '-z'));
  if (status.ok) return parseStatus(status.stdout);
  const isRefused = status.stderr.includes('safe.directory');
  throw new TaskError(`Cannot read the git state of ${root}: ${status.stderr.trim()}`, {
    code: isRefused ? 'repository-refused' : 'not-a-repository',
    hint: isRefused
      ? `run the task as the owner of ${root}, or trust it: git config --global --add safe.directory ${root}`
      : 'run the task in a git clone of the project',
  });
}

/** The `-z` form of porcelain v2 (git-status(1)): a rename's old path is an entry of its own. */
function parseStatus(output: string): WorkTree {
  const tree: WorkTree = { branch: undefined, head: undefined, changes: [] };
  const entries = output.split('\0');
  for (let index = 0; index < entries.length; index += 1) {
    const entry = entries[index]!;
    if (entry.startsWith('# branch.oid '))
      tree.head = entry.slice(13) === '(initial)' ? undefined : entry.slice(13);
    if (entry.startsWith('# branch.head '))
      tree.branch = entry.slice(14) === '(detached)' ? undefined : entry.slice(14);
    const fields = { '1': 8, '2': 9, u: 10, '?': 1 }[entry[0] ?? ''];
    if (fields && entry[1] === ' ') tree.changes.push(entry.split(' ').slice(fields).join(' '));
    if (entry.startsWith('2 ')) index += 1;
  }
  return tree;
}

/** A tag that names a commit, however many tags lie between. */
export interface GitTag {
  name: string;
  /** The tag object; of a lightweight tag the commit. */
  oid: string;
  commit: string;
  /** Of an annotated tag; undefined for a lightweight one. */
  message: string | undefined;
}

/** The tag of that name, or all of them; without those that name no commit. */
export async function readTags(root: string, name = ''): Promise<GitTag[]> {
  // %01 cannot be in a message.
  const fields = ['refname:strip=2', 'objecttype', 'objectname', '*objecttype', '*objectname', 'contents'];
  const format = `${fields.map((field) => `%(${field})`).join('%00')}%01`;
  const ref = `refs/tags${name ? `/${name}` : ''}`;
  const entries = (await read(git(root, 'for-each-ref', `--format=${format}`, ref))).split('\u0001');
  const rows = entries.map((entry) => entry.replace(/^\n/, '').split('\0'));
  const wanted = rows.filter(([tag]) => tag && (!name || tag === name));
  const found = wanted.map(
    async ([tag = '', type, oid = '', peeledType, peeled, text]): Promise<GitTag[]> => {
      if (type === 'commit') return [{ name: tag, oid, commit: oid, message: undefined }];
      // Before git 2.45 for-each-ref follows a tag by one step only.
      const isNested = peeledType === 'tag';
      const commit = isNested ? await resolveRevision(root, `${oid}^{commit}`) : peeled;
      return commit && (isNested || peeledType === 'commit')
        ? [{ name: tag, oid, commit, message: text }]
        : [];
    },
  );
  return (await Promise.all(found)).flat();
}

/** The names of the tags that HEAD contains. */
export async function mergedTags(root: string): Promise<Set<string>> {
  const format = '--format=%(refname:strip=2)';
  const names = await read(git(root, 'for-each-ref', '--merged=HEAD', format, 'refs/tags'));
  return new Set(names.split('\n'));
}

export interface RemoteState {
  /** Tag name → commit that it names. */
  tags: Map<string, string>;
  /** Branch name → commit. */
  branches: Map<string, string>;
}

/** The URL of a remote as it is configured, or undefined if there is none of that name. */
export async function remoteUrl(root: string, remote: string): Promise<string | undefined> {
  return answerOf(git(root, 'remote', 'get-url', remote), 2);
}

/** What the remote has now, asked of the remote itself. @throws CommandError if it does not answer */
export async function remoteState(root: string, remote: string): Promise<RemoteState> {
  const options = { env: REMOTE_ENVIRONMENT, timeoutMs: 60_000 };
  const output = await read(git(root, 'ls-remote', '--heads', '--tags', remote), options);
  const state: RemoteState = { tags: new Map(), branches: new Map() };
  for (const line of output.split('\n')) {
    const [oid = '', ref = ''] = line.split('\t');
    if (ref.startsWith('refs/heads/')) state.branches.set(ref.slice(11), oid);
    // An annotated tag is listed twice; the peeled line (`^{}`), which names the commit, comes second.
    if (ref.startsWith('refs/tags/')) state.tags.set(ref.slice(10).replace(/\^\{\}$/, ''), oid);
  }
  return state;
}

export async function isShallow(root: string): Promise<boolean> {
  return (await read(git(root, 'rev-parse', '--is-shallow-repository'))) === 'true';
}

/** Is the object in this repository? A remote may name commits that were never fetched. */
export async function hasObject(root: string, oid: string): Promise<boolean> {
  return (await answerOf(git(root, 'cat-file', '-e', oid), 1)) !== undefined;
}

/** True when `descendant`, which must be here, contains `ancestor`; a commit that is not here is in none that is. */
export async function isAncestor(root: string, ancestor: string, descendant: string): Promise<boolean> {
  const command = git(root, 'merge-base', '--is-ancestor', ancestor, descendant);
  const { ok, exitCode, stderr } = await probe(command);
  if (ok || exitCode === 1) return ok;
  if (!(await hasObject(root, ancestor))) return false;
  throw new CommandError(describeCommand(command), exitCode, stderr);
}

/** The object that a revision names, or undefined if there is none. */
export async function resolveRevision(root: string, revision: string): Promise<string | undefined> {
  return answerOf(git(root, 'rev-parse', '--verify', '--quiet', revision), 1);
}

/** Seconds since 1970 of a commit: SOURCE_DATE_EPOCH of what is built from it. */
export async function commitTime(root: string, commit: string): Promise<number> {
  return Number(await read(git(root, 'show', '--no-patch', '--format=%ct', commit)));
}

/** The entries of a commit, folders and submodules included, with paths from the root of the repository. */
export async function treeEntries(root: string, commit: string) {
  const output = await read(git(root, 'ls-tree', '--full-tree', '-r', '-t', '-z', commit));
  return output.split('\0').flatMap((line) => {
    const [, type, oid, path] = /^\d+ (\w+) (\w+)\t(.*)$/s.exec(line) ?? [];
    return type && oid && path ? [{ type, oid, path }] : [];
  });
}

/** A file's text as of a commit, or undefined if it is not there. */
export async function fileAt(root: string, commit: string, path: string): Promise<string | undefined> {
  const command = git(root, 'cat-file', 'blob', `${commit}:${path}`);
  const { ok, stdout, exitCode, stderr } = await probe(command);
  if (ok) return stdout;
  const listed = await read(git(root, 'ls-tree', '--full-tree', '--name-only', commit, '--', path));
  if (listed === '') return undefined;
  throw new CommandError(describeCommand(command), exitCode, stderr);
}

/** The URL of the project as browsers and OCI labels write it, without credentials; '' if there is none. */
export async function sourceUrl(root: string, remote: string): Promise<string> {
  return publicUrl((await remoteUrl(root, remote)) ?? '');
}

/** `git@host:me/it.git` and `https://user:token@host/me/it.git` → `https://host/me/it`; local paths → ''. */
export function publicUrl(url: string): string {
  const ssh = /^(?:ssh:\/\/)?[\w.-]+@([\w.-]+)(?::\d+)?[:/](.+?)(?:\.git)?$/.exec(url);
  if (ssh) return `https://${ssh[1]}/${ssh[2]}`;
  const web = /^https?:\/\/(?:[^/]*@)?(.+?)(?:\.git)?$/.exec(url);
  return web ? `https://${web[1]}` : '';
}

/**
 * Writes a commit's tree below `directory`, with `git archive`: never the working directory's files, never with its line
 * ends. Submodules come from their own repositories, at the commit that this one names.
 */
export async function exportTree(
  root: string,
  commit: string,
  directory: string,
  tree = join(directory, 'tree'),
): Promise<string> {
  const archive = join(directory, 'tree.tar');
  await makeDirectory(tree);
  // A fixed umask gives the same modes, and so the same layers, on every machine.
  const plain = ['tar.umask=0022', 'core.autocrlf=false', 'core.eol=lf', 'core.attributesFile=/dev/null'];
  const settings = plain.flatMap((one) => ['-c', one]);
  const [entries] = await Promise.all([
    commit.startsWith('<') ? [] : treeEntries(root, commit),
    run(git(root, ...settings, 'archive', '--format=tar', `--output=${archive}`, commit)),
  ]);
  await run(['tar', '--extract', '--preserve-permissions', '--no-same-owner', '-f', archive, '-C', tree]);
  for (const { type, path, oid } of entries)
    if (type === 'commit') await exportTree(join(root, path), oid, directory, join(tree, path));
  return tree;
}
