// What a release writes into git: its commit and its tag as loose objects, then one ref transaction, then the
// work tree. And what repairs each of them after git itself was killed.
import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { probe, read, run } from '../command.ts';
import { TaskError } from '../errors.ts';
import { readIfPresent, withWorkDirectory } from '../files.ts';
import { currentBranch, git, isAncestor, resolveRevision, setting } from '../git.ts';
import { log } from '../log.ts';
import { uninterrupted } from '../session.ts';

/** The author of releases on a machine where git has no identity. */
export const FALLBACK = { name: 'Release Flow', email: 'release-flow@localhost' };

/** The variables that give git an identity; empty where it has one. */
export async function releaseIdentity(root: string): Promise<{ env: Record<string, string> }> {
  const known = await probe(git(root, '-c', 'user.useConfigOnly=true', 'var', 'GIT_COMMITTER_IDENT'));
  if (known.ok) return { env: {} };
  const { name, email } = FALLBACK;
  const author = { GIT_AUTHOR_NAME: name, GIT_AUTHOR_EMAIL: email };
  return { env: { ...author, GIT_COMMITTER_NAME: name, GIT_COMMITTER_EMAIL: email } };
}

/** A time as git objects hold it. */
function gitTime(date: Date): string {
  return `${Math.floor(date.getTime() / 1000)} +0000`;
}

/** `commit-tree` does not read commit.gpgSign itself. */
async function signingFlags(root: string): Promise<string[]> {
  return (await setting(root, 'commit.gpgSign', 'bool')) === 'true' ? ['-S'] : [];
}

interface CommitRequest {
  parent: string;
  /** The one file that the commit changes. */
  path: string;
  text: string;
  message: string;
  date: Date;
}

/**
 * Writes a commit as an object; no ref, index or work tree changes. Signed where the user's git signs. Returns its id.
 */
export async function writeCommit(root: string, request: CommitRequest): Promise<string> {
  const { parent, path, text, message, date } = request;
  return withWorkDirectory(root, async (directory) => {
    const dates = { GIT_AUTHOR_DATE: gitTime(date), GIT_COMMITTER_DATE: gitTime(date) };
    const { env: identity } = await releaseIdentity(root);
    const env = { ...identity, ...dates, GIT_INDEX_FILE: join(directory, 'index') };
    await run(git(root, 'read-tree', parent), { env });
    const blob = await run(git(root, 'hash-object', '-w', '--stdin'), { input: text, placeholder: '<blob>' });
    await run(git(root, 'update-index', '--add', '--cacheinfo', `100644,${blob},${path}`), { env });
    const tree = await run(git(root, 'write-tree'), { env, placeholder: '<tree>' });
    const command = git(root, 'commit-tree', ...(await signingFlags(root)), tree, '-p', parent, '-F', '-');
    return run(command, { env, input: message, placeholder: '<release commit>' });
  });
}

interface TagRequest {
  tag: string;
  commit: string;
  message: string;
  date: Date;
}

/**
 * Writes an annotated tag as an object; the ref comes with the transaction. `git tag` itself does it, and signs it where
 * the user's git signs, with the project's objects and settings but refs of its own. Returns its id.
 */
export async function writeTag(root: string, { tag, commit, message, date }: TagRequest): Promise<string> {
  const questions = ['--git-path', 'objects', '--git-path', 'config', '--show-object-format'];
  const answers = await read(git(root, 'rev-parse', '--path-format=absolute', ...questions));
  const [objects = '', config = '', format = 'sha1'] = answers.split('\n');
  return withWorkDirectory(root, async (directory) => {
    const refs = join(directory, 'refs.git');
    await run(['git', 'init', '--quiet', '--bare', '--template=', `--object-format=${format}`, refs]);
    const { env: identity } = await releaseIdentity(root);
    const place = { GIT_DIR: refs, GIT_OBJECT_DIRECTORY: objects };
    const env = { ...identity, ...place, GIT_COMMITTER_DATE: gitTime(date) };
    const settings = ['-c', `include.path=${config}`, '-c', 'core.hooksPath=/dev/null'];
    const create = ['tag', '--annotate', '--cleanup=verbatim', '-F', '-', tag, commit];
    await run(git(root, ...settings, ...create), { env, input: message });
    return run(git(root, 'rev-parse', `refs/tags/${tag}`), { env, placeholder: '<tag object>' });
  });
}

/** Tries the user's signing key on objects that are thrown away. @throws TaskError if it cannot sign */
export async function verifySigning(root: string, head: string): Promise<void> {
  const [commits, tags] = await Promise.all([
    setting(root, 'commit.gpgSign', 'bool'),
    setting(root, 'tag.gpgSign', 'bool'),
  ]);
  if (commits !== 'true' && tags !== 'true') return;
  const objects = await read(git(root, 'rev-parse', '--path-format=absolute', '--git-path', 'objects'));
  await withWorkDirectory(root, async (directory) => {
    const { env: identity } = await releaseIdentity(root);
    const place = { GIT_OBJECT_DIRECTORY: directory, GIT_ALTERNATE_OBJECT_DIRECTORIES: objects };
    const env = { ...identity, ...place };
    try {
      await run(git(root, 'commit-tree', '-S', `${head}^{tree}`, '-m', 'can this key sign?'), { env });
    } catch (cause) {
      throw new TaskError(`Cannot sign the release: ${(cause as Error).message}`, {
        code: 'cannot-sign',
        hint: 'try it: echo | git commit-tree -S HEAD^{tree}; or turn it off: git config commit.gpgSign false, tag.gpgSign false',
        cause,
      });
    }
  });
}

/** One ref of a transaction; null: it does not exist. */
export interface RefUpdate {
  ref: string;
  from: string | null;
  to: string | null;
}

/** One transaction of `git update-ref --stdin`, all of it or nothing. */
async function transact(root: string, reason: string, updates: readonly RefUpdate[]): Promise<void> {
  const lines = updates.map(({ ref, from, to }) => {
    if (to === null) return `delete ${ref} ${from}`;
    return from === null ? `create ${ref} ${to}` : `update ${ref} ${to} ${from}`;
  });
  const input = ['start', ...lines, 'prepare', 'commit', ''].join('\n');
  log.detail(input);
  await run(git(root, 'update-ref', '-m', `release: ${reason}`, '--stdin'), { input });
}

/**
 * The commit point; does nothing where it was passed. @throws TaskError if somebody else moved one of the refs
 */
export async function moveRefs(root: string, reason: string, updates: readonly RefUpdate[]): Promise<void> {
  if (await settleRefs(root, reason, updates)) return;
  try {
    await transact(root, reason, updates);
  } catch (cause) {
    const names = updates.map(({ ref }) => ref.replace(/^refs\/\w+\//, '')).join(' or ');
    throw new TaskError(
      `Cannot move the refs of ${reason}: ${names} was changed by somebody else in the meantime`,
      {
        code: 'refs-moved',
        hint: 'nothing was changed; run the same command again',
        cause,
      },
    );
  }
}

/**
 * Was the commit point passed? A git that is killed inside the transaction may have moved one ref of the two:
 * then the other one follows here. Returns false when none was moved.
 */
export async function settleRefs(
  root: string,
  reason: string,
  updates: readonly RefUpdate[],
): Promise<boolean> {
  const states = await Promise.all(updates.map((update) => stateOf(root, update)));
  if (!states.includes('moved')) return false;
  const pending = updates.filter((_, index) => states[index] === 'pending');
  if (pending.length === 0) return true;
  log.warn(`completing the interrupted ref transaction of ${reason}`);
  await transact(root, reason, pending);
  return true;
}

async function stateOf(
  root: string,
  { ref, from, to }: RefUpdate,
): Promise<'pending' | 'moved' | 'elsewhere'> {
  const now = (await resolveRevision(root, ref)) ?? null;
  if (now === from) return 'pending';
  if (now === to) return 'moved';
  if (now === null || to === null || !ref.startsWith('refs/heads/')) return 'elsewhere';
  // There are commits on top. For a branch that moved back this proves nothing.
  const wentBack = from !== null && (await isAncestor(root, to, from));
  return !wentBack && (await isAncestor(root, to, now)) ? 'moved' : 'elsewhere';
}

interface GitLock {
  path: string;
  /** Milliseconds since 1970. */
  madeAt: number;
}

/** The lock files beside which git refuses to work. */
export async function gitLocks(root: string): Promise<GitLock[]> {
  const answer = await read(
    git(root, 'rev-parse', '--path-format=absolute', '--git-dir', '--git-common-dir'),
  );
  const [own = '', common = ''] = answer.split('\n');
  const absent = (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
    return undefined;
  };
  const refs = (await readdir(join(common, 'refs'), { recursive: true }).catch(absent)) ?? [];
  const paths = [
    ...['index.lock', 'HEAD.lock'].map((name) => join(own, name)),
    join(common, 'packed-refs.lock'),
    ...refs.filter((name) => name.endsWith('.lock')).map((name) => join(common, 'refs', name)),
  ];
  const found = paths.map(async (path): Promise<GitLock[]> => {
    const file = await stat(path).catch(absent);
    return file ? [{ path, madeAt: file.mtimeMs }] : [];
  });
  return (await Promise.all(found)).flat();
}

/**
 * Removes the lock files that the git of a killed run made since that run began and before this process did. Call it when
 * no git of the interrupted run is alive.
 */
export async function clearLeftovers(root: string, { startedAt }: { startedAt: string }): Promise<void> {
  const began = Date.now() - process.uptime() * 1000;
  for (const { path, madeAt } of await gitLocks(root)) {
    if (madeAt < Date.parse(startedAt) - 1000 || madeAt > began) continue;
    if (log.withhold(`remove ${path}, left by the interrupted run`)) continue;
    log.warn(`removing ${path}, left by the interrupted run`);
    await rm(path, { force: true });
  }
}

/** @throws TaskError before anything is moved if the work tree could not follow to `to` */
export async function verifyWorkTreeCanFollow(root: string, from: string, to: string): Promise<void> {
  const answer = await probe(git(root, 'read-tree', '-n', '-m', '-u', from, to));
  if (!answer.ok) throw edited(answer.stderr);
}

/** Updates the work tree after its branch moved; does nothing if another branch is checked out by now. */
export async function followBranch(root: string, branch: string, from: string, to: string): Promise<void> {
  const [checkedOut, head] = await Promise.all([currentBranch(root), resolveRevision(root, 'HEAD')]);
  if (checkedOut !== branch || (head !== from && head !== to)) return;
  await uninterrupted(() => updateWorkTree(root, from, to));
}

/**
 * Updates index and work tree from one commit to another; may be repeated. A file that somebody edited
 * stops it, one that a killed git left half-written does not.
 */
async function updateWorkTree(root: string, from: string, to: string): Promise<void> {
  try {
    await run(git(root, 'read-tree', '-m', '-u', from, to));
  } catch (error) {
    const changed = await read(git(root, 'diff-tree', '-r', '-z', '--name-only', from, to));
    const paths = changed.split('\0').filter(Boolean);
    if (!(await Promise.all(paths.map((path) => isOurs(root, from, to, path)))).every(Boolean)) {
      throw edited((error as Error).message);
    }
    await run(git(root, 'read-tree', '-i', '-m', from, to));
    const input = paths.map((path) => `${path}\0`).join('');
    await run(git(root, 'checkout-index', '--force', '--index', '-z', '--stdin'), { input });
  }
}

/** True if a file holds the text of one of the two commits, or the beginning of it, or is missing. */
async function isOurs(root: string, from: string, to: string, path: string): Promise<boolean> {
  const text = (await readIfPresent(join(root, path)))?.replaceAll('\r\n', '\n');
  if (text === undefined) return true;
  const before = await probe(git(root, 'cat-file', 'blob', `${from}:${path}`));
  const after = await probe(git(root, 'cat-file', 'blob', `${to}:${path}`));
  const plain = (stdout: string) => stdout.replaceAll('\r\n', '\n');
  return (before.ok && plain(before.stdout) === text) || (after.ok && plain(after.stdout).startsWith(text));
}

function edited(reason: string): TaskError {
  return new TaskError(
    `Cannot update the working tree: files were changed during the run\n${reason.trim().replace(/^/gm, '    ')}`,
    {
      code: 'work-tree-changed',
      hint: 'stash the changes (git stash) and run the same command again',
    },
  );
}
