// What the tasks ask of git. Every function is one git process, named for what it answers; nothing here
// moves a branch or a tag (release-commit.ts does).
import { join } from 'node:path';
import { type Command, probe, read, run } from './command.ts';
import { TaskError } from './errors.ts';
import { makeDirectory } from './files.ts';

/** `git` in a given repository, untouched by the user's aliases, pagers and prompts. */
export function git(root: string, ...argv: string[]): Command {
  return ['git', '-C', root, ...argv];
}

/** A commit as people read it; a dry run's placeholder stays whole. */
export function shortHash(commit: string): string {
  return commit.startsWith('<') ? commit : commit.slice(0, 7);
}

/** No credential prompt may hang a task: asking for one fails instead. */
export const NO_PROMPT = {
  GIT_TERMINAL_PROMPT: '0',
  GIT_SSH_COMMAND: process.env.GIT_SSH_COMMAND ?? 'ssh -oBatchMode=yes',
};

export interface WorkTree {
  /** Checked-out branch; undefined when HEAD is detached. */
  branch: string | undefined;
  /** Commit of HEAD; undefined before the first commit. */
  head: string | undefined;
  /** Changed, staged and untracked paths, as `git status` shows them. */
  changes: string[];
}

/** @throws TaskError if `root` is not in a git repository */
export async function workTree(root: string): Promise<WorkTree> {
  const status = await probe(git(root, 'status', '--porcelain=v2', '--branch', '-z'));
  if (!status.ok) {
    throw new TaskError(`Cannot read the git state of ${root}: ${status.stderr.trim()}`, {
      code: 'not-a-repository',
      hint: 'run the task in a git clone of the project',
    });
  }
  return parseStatus(status.stdout);
}

/** The `-z` form of porcelain v2 (git-status(1)): a rename's old path is an entry of its own. */
export function parseStatus(output: string): WorkTree {
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

/** A tag and the commit that it names, be it annotated or not. */
export interface GitTag {
  name: string;
  commit: string;
  /** Merged into HEAD. */
  merged: boolean;
}

/** Every local tag that names a commit. */
export async function localTags(root: string): Promise<GitTag[]> {
  const format = '%(refname:strip=2)%00%(objecttype)%00%(objectname)%00%(*objecttype)%00%(*objectname)';
  const [all, merged] = await Promise.all([
    read(git(root, 'for-each-ref', `--format=${format}`, 'refs/tags')),
    read(git(root, 'for-each-ref', '--merged=HEAD', '--format=%(refname:strip=2)', 'refs/tags')),
  ]);
  const mergedNames = new Set(merged.split('\n'));
  return all.split('\n').flatMap((line) => {
    const [name = '', type, oid = '', peeledType, peeledOid = ''] = line.split('\0');
    const commit = type === 'commit' ? oid : peeledType === 'commit' ? peeledOid : undefined;
    return commit ? [{ name, commit, merged: mergedNames.has(name) }] : [];
  });
}

export interface RemoteState {
  /** Tag name → commit that it names. */
  tags: Map<string, string>;
  /** Branch name → commit. */
  branches: Map<string, string>;
}

export async function hasRemote(root: string, remote: string): Promise<boolean> {
  return (await probe(git(root, 'remote', 'get-url', remote))).ok;
}

/** What the remote has now, asked of the remote itself. @throws CommandError if it does not answer */
export async function remoteState(root: string, remote: string): Promise<RemoteState> {
  const output = await read(git(root, 'ls-remote', '--heads', '--tags', remote), {
    env: NO_PROMPT,
    timeoutMs: 60_000,
  });
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

/** True when `ancestor` is contained in `descendant`; false also when git does not know it. */
export async function isAncestor(root: string, ancestor: string, descendant: string): Promise<boolean> {
  return (await probe(git(root, 'merge-base', '--is-ancestor', ancestor, descendant))).ok;
}

/** The object that a revision names, or undefined if there is none. */
export async function resolveRevision(root: string, revision: string): Promise<string | undefined> {
  const answer = await probe(git(root, 'rev-parse', '--verify', '--quiet', revision));
  return answer.ok ? answer.stdout.trim() : undefined;
}

/** Seconds since 1970 of a commit: SOURCE_DATE_EPOCH of what is built from it. */
export async function commitTime(root: string, commit: string): Promise<number> {
  return Number(await read(git(root, 'show', '--no-patch', '--format=%ct', commit)));
}

/** A file's text as of a commit, or undefined if it is not there. */
export async function fileAt(root: string, commit: string, path: string): Promise<string | undefined> {
  const answer = await probe(git(root, 'cat-file', 'blob', `${commit}:${path}`));
  return answer.ok ? answer.stdout : undefined;
}

/** The message of an annotated tag, or undefined for a lightweight or missing one. */
export async function tagMessage(root: string, tag: string): Promise<string | undefined> {
  const answer = await probe(git(root, 'cat-file', 'tag', `refs/tags/${tag}`));
  return answer.ok ? answer.stdout.slice(answer.stdout.indexOf('\n\n') + 2) : undefined;
}

/** The URL of the project as browsers and OCI labels write it, without credentials; '' if there is none. */
export async function sourceUrl(root: string, remote: string): Promise<string> {
  const answer = await probe(git(root, 'remote', 'get-url', remote));
  return answer.ok ? publicUrl(answer.stdout.trim()) : '';
}

/** `git@host:me/it.git` and `https://user:token@host/me/it.git` → `https://host/me/it`; local paths → ''. */
export function publicUrl(url: string): string {
  const ssh = /^(?:ssh:\/\/)?[\w.-]+@([\w.-]+)(?::\d+)?[:/](.+?)(?:\.git)?$/.exec(url);
  if (ssh) return `https://${ssh[1]}/${ssh[2]}`;
  const web = /^https?:\/\/(?:[^/]*@)?(.+?)(?:\.git)?$/.exec(url);
  return web ? `https://${web[1]}` : '';
}

// The files of a commit as they were committed, for what must not depend on the working directory.

/** Writes a commit's tree below `directory`, with `git archive`: never the working directory's files. */
export async function exportTree(root: string, commit: string, directory: string): Promise<string> {
  const tree = join(directory, 'tree');
  const archive = join(directory, 'tree.tar');
  await makeDirectory(tree);
  // A fixed umask gives the same modes, and so the same layers, on every machine.
  await run(git(root, '-c', 'tar.umask=0022', 'archive', '--format=tar', `--output=${archive}`, commit));
  await run(['tar', '--extract', '--preserve-permissions', '--no-same-owner', '-f', archive, '-C', tree]);
  return tree;
}
