// What a release writes into git: its commit and its tag as loose objects, then one ref transaction, then the
// work tree. And what repairs each of them after git itself was killed.
import { statSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { probe, read, run } from '../command.ts';
import { TaskError } from '../errors.ts';
import { readIfPresent, withWorkDirectory } from '../files.ts';
import { fileAt, git, isAncestor, workTree } from '../git.ts';
import { log } from '../log.ts';
import { uninterrupted } from '../session.ts';

/** The author of releases on a machine where git has no identity. */
export const FALLBACK = { name: 'Release Flow', email: 'release-flow@localhost' };

/** The variables that give git an identity; empty where it has one. */
export async function releaseIdentity(root: string): Promise<Record<string, string>> {
  const known = await probe(git(root, '-c', 'user.useConfigOnly=true', 'var', 'GIT_COMMITTER_IDENT'));
  if (known.ok) return {};
  const { name, email } = FALLBACK;
  const author = { GIT_AUTHOR_NAME: name, GIT_AUTHOR_EMAIL: email };
  return { ...author, GIT_COMMITTER_NAME: name, GIT_COMMITTER_EMAIL: email };
}

/** A time as git objects hold it. */
function gitTime(date: Date): string {
  return `${Math.floor(date.getTime() / 1000)} +0000`;
}

/** What the user's git signs by itself, e.g. `commit.gpgsign` → `true`. */
async function signing(root: string): Promise<Map<string, string>> {
  const question = ['config', '--type=bool', '--get-regexp', '^(commit|tag)\\.gpgsign$'];
  const answer = await read(git(root, ...question), { okExitCodes: [1] });
  return new Map(answer.split('\n').map((line) => line.split(' ') as [string, string]));
}

/** Where git keeps what it has: its own folder, the one that all work trees share, objects and settings. */
async function gitPlaces(root: string) {
  const paths = ['--git-dir', '--git-common-dir', '--git-path', 'objects', '--git-path', 'config'];
  const answer = await read(
    git(root, 'rev-parse', '--path-format=absolute', ...paths, '--show-object-format'),
  );
  const [own = '', common = '', objects = '', config = '', format = 'sha1'] = answer.split('\n');
  return { own, common, objects, config, format };
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
    const index = { GIT_INDEX_FILE: join(directory, 'index') };
    // `commit-tree` does not read commit.gpgSign itself.
    const [blob, identity, signs] = await Promise.all([
      run(git(root, 'hash-object', '-w', '--stdin'), { input: text, placeholder: '<blob>' }),
      releaseIdentity(root),
      signing(root),
      run(git(root, 'read-tree', parent), { env: index }),
    ]);
    await run(git(root, 'update-index', '--add', '--cacheinfo', `100644,${blob},${path}`), { env: index });
    const tree = await run(git(root, 'write-tree'), { env: index, placeholder: '<tree>' });
    const flags = signs.get('commit.gpgsign') === 'true' ? ['-S'] : [];
    const dates = { GIT_AUTHOR_DATE: gitTime(date), GIT_COMMITTER_DATE: gitTime(date) };
    const options = { env: { ...identity, ...dates }, input: message, placeholder: '<release commit>' };
    return run(git(root, 'commit-tree', ...flags, tree, '-p', parent, '-F', '-'), options);
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
  const [{ objects, config, format }, identity] = await Promise.all([gitPlaces(root), releaseIdentity(root)]);
  return withWorkDirectory(root, async (directory) => {
    const refs = join(directory, 'refs.git');
    await run(['git', 'init', '--quiet', '--bare', '--template=', `--object-format=${format}`, refs]);
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
  if (![...(await signing(root)).values()].includes('true')) return;
  const [{ objects }, identity] = await Promise.all([gitPlaces(root), releaseIdentity(root)]);
  await withWorkDirectory(root, async (directory) => {
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
  try {
    await transact(root, reason, updates);
  } catch (cause) {
    if (await settleRefs(root, reason, updates)) return;
    const names = updates.map(({ ref }) => ref.replace(/^refs\/\w+\//, '')).join(' or ');
    throw new TaskError(
      `Cannot move the refs of ${reason}: ${names} was changed by somebody else meanwhile`,
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
  const names = updates.map(({ ref }) => ref);
  const answer = await read(git(root, 'for-each-ref', '--format=%(refname) %(objectname)', ...names));
  const refs = new Map(answer.split('\n').map((line) => line.split(' ') as [string, string]));
  const now = ({ ref }: RefUpdate) => refs.get(ref) ?? null;
  const moved = await Promise.all(updates.map((update) => isMoved(root, update, now(update))));
  if (!moved.includes(true)) return false;
  const pending = updates.filter((update, index) => !moved[index] && now(update) === update.from);
  if (pending.length === 0) return true;
  log.warn(`completing the interrupted ref transaction of ${reason}`);
  await transact(root, reason, pending);
  return true;
}

async function isMoved(root: string, { ref, from, to }: RefUpdate, now: string | null): Promise<boolean> {
  if (now === to || now === from) return now === to;
  if (now === null || to === null || !ref.startsWith('refs/heads/')) return false;
  // There are commits on top. For a branch that moved back this proves nothing.
  const wentBack = from !== null && (await isAncestor(root, to, from));
  return !wentBack && (await isAncestor(root, to, now));
}

/** The lock files beside which git refuses to work, and when each was made (ms since 1970). */
export async function gitLocks(root: string): Promise<{ path: string; madeAt: number }[]> {
  const { own, common } = await gitPlaces(root);
  const refs = await readdir(join(common, 'refs'), { recursive: true });
  const inRefs = refs.filter((name) => name.endsWith('.lock')).map((name) => join(common, 'refs', name));
  const others = [join(own, 'index.lock'), join(own, 'HEAD.lock'), join(common, 'packed-refs.lock')];
  return [...others, ...inRefs].flatMap((path) => {
    const file = statSync(path, { throwIfNoEntry: false });
    return file ? [{ path, madeAt: file.mtimeMs }] : [];
  });
}

/**
 * Removes the lock files that the git of a killed run made since that run began and before this process did. Call it when
 * no git of the interrupted run is alive.
 */
export async function clearLeftovers(root: string, run: { startedAt: string } | undefined): Promise<void> {
  if (!run) return;
  const began = Date.now() - process.uptime() * 1000;
  for (const { path, madeAt } of await gitLocks(root)) {
    if (madeAt < Date.parse(run.startedAt) - 1000 || madeAt > began) continue;
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

/** A branch that moved between two commits that differ in one file. */
interface Movement {
  branch: string;
  from: string;
  to: string;
  path: string;
}

/**
 * Updates index and work tree after their branch moved; may be repeated, and does nothing if another branch is checked out
 * by now. A file that somebody edited stops it, one that a killed git left half-written does not.
 */
export async function followBranch(root: string, { branch, from, to, path }: Movement): Promise<void> {
  const tree = await workTree(root);
  if (tree.branch !== branch || (tree.head !== from && tree.head !== to)) return;
  const follow = () => run(git(root, 'read-tree', '-m', '-u', from, to));
  await uninterrupted(async () => {
    try {
      await follow();
    } catch (error) {
      const file = join(root, path);
      const [text, before, after] = await Promise.all([
        readIfPresent(file),
        fileAt(root, from, path),
        fileAt(root, to, path),
      ]);
      const isOurs =
        text !== undefined && (plain(before) === plain(text) || plain(after).startsWith(plain(text)));
      if (!isOurs) throw edited((error as Error).message);
      await rm(file);
      await follow();
    }
  });
}

function plain(text = ''): string {
  return text.replaceAll('\r\n', '\n');
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
