// The objects of a release: its commit and its tag are written loose, which nobody sees until refs.ts
// moves branch and tag to them.
import { rm } from 'node:fs/promises';
import { probe, run } from '../command.ts';
import { git } from '../git.ts';
import { log } from '../log.ts';
import { session } from '../session.ts';
import { ensureStateDirectory, statePath } from '../state.ts';

export interface Identity {
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

export interface CommitRequest {
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

export interface TagRequest {
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
