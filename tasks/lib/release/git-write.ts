// The objects of a release: its commit and its tag are written loose, which nobody sees until refs.ts
// moves branch and tag to them.
import { rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { probe, read, run } from '../command.ts';
import { TaskError } from '../errors.ts';
import { ensureStateDirectory, readIfPresent, statePath } from '../files.ts';
import { git, isAncestor, resolveRevision } from '../git.ts';
import { log } from '../log.ts';
import { session } from '../session.ts';

interface Identity {
  /** Environment for git: empty when git knows somebody itself. */
  env: Record<string, string>;
  /** `Name <email>`, as the tag names its tagger. */
  person: string;
}

/** Who signs for releases on a machine where git knows nobody. */
const FALLBACK = { name: 'Release Flow', email: 'release-flow@localhost' };

/** Git's own identity, else the release identity, with a warning. */
export async function releaseIdentity(root: string): Promise<Identity> {
  const known = await probe(git(root, '-c', 'user.useConfigOnly=true', 'var', 'GIT_COMMITTER_IDENT'));
  const { name, email } = FALLBACK;
  if (known.ok) return { env: {}, person: known.stdout.trim().replace(/ \d+ [+-]\d{4}$/, '') };
  log.warn(`git has no identity here; the release is signed as ${name} <${email}>`);
  log.info('  hint: git config user.name "…" && git config user.email "…"');
  const env = {
    GIT_AUTHOR_NAME: name,
    GIT_AUTHOR_EMAIL: email,
    GIT_COMMITTER_NAME: name,
    GIT_COMMITTER_EMAIL: email,
  };
  return { env, person: `${name} <${email}>` };
}

/** A time as git objects hold it. */
function gitTime(date: Date): string {
  return `${Math.floor(date.getTime() / 1000)} +0000`;
}

interface CommitRequest {
  parent: string;
  /** Path in the repository → new text. */
  files: Record<string, string>;
  message: string;
  identity: Identity;
  date: Date;
}

/**
 * Writes the release commit as an object; no ref, index or work tree changes. The same request gives the
 * same commit. Returns its id (a placeholder under --dry-run).
 */
export async function writeCommit(root: string, request: CommitRequest): Promise<string> {
  if (!session.dryRun) await ensureStateDirectory(root);
  const index = statePath(root, `index-${process.pid}`);
  const date = gitTime(request.date);
  const env = {
    ...request.identity.env,
    GIT_INDEX_FILE: index,
    GIT_AUTHOR_DATE: date,
    GIT_COMMITTER_DATE: date,
  };
  try {
    await run(git(root, 'read-tree', request.parent), { env });
    for (const [path, text] of Object.entries(request.files)) {
      const blob = await run(git(root, 'hash-object', '-w', '--stdin'), { input: text });
      await run(git(root, 'update-index', '--add', '--cacheinfo', `100644,${blob || '<blob>'},${path}`), {
        env,
      });
    }
    const tree = await run(git(root, 'write-tree'), { env });
    const argv = git(root, 'commit-tree', tree || '<tree>', '-p', request.parent, '-F', '-');
    return (await run(argv, { env, input: request.message })) || '<release commit>';
  } finally {
    await rm(index, { force: true });
  }
}

interface TagRequest {
  tag: string;
  commit: string;
  message: string;
  identity: Identity;
  date: Date;
}

/** Writes an annotated tag as an object; the ref comes with the transaction. Returns its id. */
export async function writeTag(root: string, request: TagRequest): Promise<string> {
  const { tag, commit, message, identity, date } = request;
  const header = `object ${commit}\ntype commit\ntag ${tag}\ntagger ${identity.person} ${gitTime(date)}`;
  return (await run(git(root, 'mktag'), { input: `${header}\n\n${message}` })) || '<tag object>';
}

// The commit point: one ref transaction moves the branch and creates the tag together, or does neither; then
// the work tree follows. And what mends both where git itself was killed in the middle.

interface RefMove {
  branch: string;
  from: string;
  to: string;
  tag: string;
  tagObject: string;
}

/** One transaction of `git update-ref --stdin`: all of it or nothing. */
export async function updateRefs(root: string, message: string, lines: readonly string[]): Promise<void> {
  const input = ['start', ...lines, 'prepare', 'commit', ''].join('\n');
  log.detail(input);
  await run(git(root, 'update-ref', '-m', message, '--stdin'), { input });
}

/**
 * The commit point: branch and tag move together, or neither does (git-update-ref(1), `start`/`commit`).
 * @throws TaskError if somebody moved the branch or took the tag meanwhile
 */
export async function moveRefs(root: string, move: RefMove): Promise<void> {
  try {
    await updateRefs(root, `release: ${move.tag}`, [
      `update refs/heads/${move.branch} ${move.to} ${move.from}`,
      `create refs/tags/${move.tag} ${move.tagObject}`,
    ]);
  } catch (cause) {
    throw new TaskError(
      `Cannot tag ${move.tag}: ${move.branch} or the tag was changed by somebody else meanwhile`,
      {
        code: 'refs-moved',
        hint: 'nothing was released; run the release again',
        cause,
      },
    );
  }
}

/**
 * Was the commit point passed? A git that is killed inside the transaction may have moved one ref of the two:
 * then the other one follows here. Returns false when neither was moved.
 */
export async function settleRefs(root: string, move: RefMove): Promise<boolean> {
  const [tag, branch] = await Promise.all([
    resolveRevision(root, `refs/tags/${move.tag}`),
    resolveRevision(root, `refs/heads/${move.branch}`),
  ]);
  const tagThere = tag === move.tagObject;
  const branchThere = branch !== undefined && (await isAncestor(root, move.to, branch));
  if (tagThere === branchThere) return tagThere;
  if (!tagThere && tag !== undefined) return false;
  // A tag whose branch went elsewhere was moved, or left there, by a person: not ours to repair.
  if (tagThere && branch !== move.from) return true;
  log.warn(`completing the ref transaction of ${move.tag}, which was cut in half`);
  const line = tagThere
    ? `update refs/heads/${move.branch} ${move.to} ${move.from}`
    : `create refs/tags/${move.tag} ${move.tagObject}`;
  await updateRefs(root, `release: ${move.tag}`, [line]);
  return true;
}

/**
 * Removes lock files that a killed git left, beside which git refuses to work: those made since the interrupted
 * run's last step and before this process began. Call it when no git of the interrupted run is alive.
 */
export async function removeStaleLocks(root: string, refs: readonly string[], since: Date): Promise<void> {
  const began = Date.now() - process.uptime() * 1000;
  const directory = resolve(root, await read(git(root, 'rev-parse', '--git-common-dir')));
  for (const name of ['index', 'HEAD', 'packed-refs', ...refs]) {
    const path = join(directory, `${name}.lock`);
    const found = await stat(path).catch(() => undefined);
    if (!found || found.mtimeMs < since.getTime() - 1000 || found.mtimeMs > began) continue;
    log.warn(`removing ${path}, which the interrupted run left`);
    await rm(path, { force: true });
  }
}

/** @throws TaskError before anything is moved if the work tree could not follow to `to` */
export async function verifyWorkTreeCanFollow(root: string, from: string, to: string): Promise<void> {
  // There is no such commit under --dry-run.
  if (session.dryRun) return;
  const answer = await probe(git(root, 'read-tree', '-n', '-m', '-u', from, to));
  if (!answer.ok) throw edited(answer.stderr);
}

/**
 * Brings index and work tree from one commit to another; repeating it does no harm. A file that somebody
 * edited meanwhile stops it, one that a killed git left half-written does not.
 */
export async function updateWorkTree(root: string, from: string, to: string): Promise<void> {
  const follow = git(root, 'read-tree', '-m', '-u', from, to);
  try {
    await run(follow);
  } catch (error) {
    const changed = await read(git(root, 'diff-tree', '-r', '-z', '--name-only', from, to));
    const paths = changed.split('\0').filter(Boolean);
    if (!(await Promise.all(paths.map((path) => isOurs(root, from, to, path)))).every(Boolean)) {
      throw edited((error as Error).message);
    }
    await run(git(root, 'read-tree', '-i', '-m', from, to));
    await run(git(root, 'checkout-index', '--force', '--index', '--', ...paths));
  }
}

/** True if a file holds the text of one of the two commits, or the beginning of it, or is missing. */
async function isOurs(root: string, from: string, to: string, path: string): Promise<boolean> {
  const text = await readIfPresent(join(root, path));
  if (text === undefined) return true;
  const before = await probe(git(root, 'cat-file', 'blob', `${from}:${path}`));
  const after = await probe(git(root, 'cat-file', 'blob', `${to}:${path}`));
  return before.stdout === text || (after.ok && after.stdout.startsWith(text));
}

function edited(reason: string): TaskError {
  return new TaskError(
    `Cannot update the working tree: files were changed meanwhile\n${reason.trim().replace(/^/gm, '    ')}`,
    {
      code: 'work-tree-changed',
      hint: 'put the changes aside (git stash) and run the same command again',
    },
  );
}
