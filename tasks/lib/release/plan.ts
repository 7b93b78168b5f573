// What a release will do, worked out before anything is written: version, notes, image, names.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { stream } from '../command.ts';
import { TaskError } from '../errors.ts';
import { type GitTag, git, type RemoteState } from '../git.ts';
import { findEntry, insertEntry } from '../notes/changelog.ts';
import { type Changes, collectChanges } from '../notes/changes.ts';
import { commitLogArguments, parseCommitLog } from '../notes/commits.ts';
import { renderEntry } from '../notes/notes.ts';
import { imageReference, type Project, registryReference } from '../project.ts';
import { planVersion, type VersionPlan } from '../version/version.ts';
import { changesBase, isStable, knownTags, type VersionTag } from '../version/version-tags.ts';
import { isMaintenanceBranch } from './branches.ts';
import { chooseVersion, tagsEverywhere } from './choose-version.ts';

/** What git says before anything is planned. */
export interface Repository {
  head: string;
  branch: string;
  tags: GitTag[];
  /** undefined when there is no remote, or it does not answer. */
  remote: RemoteState | undefined;
}

export interface ReleasePlan {
  version: VersionPlan;
  /** The commit that the release commit will follow. */
  head: string;
  changes: Changes;
  /** The branch that is released. */
  branch: string;
  /** The tag that the notes begin at; undefined for a first release. */
  previousTag: string | undefined;
  /** `latest` follows: the highest stable version, from the release branch. */
  movesLatest: boolean;
  /** The new text of the notes file. */
  notes: string;
  /** Title of the entry and its text, to show. */
  entry: string;
  /** Nothing in the commits is worth telling, and nobody wrote an entry. */
  isEmpty: boolean;
  image: string;
  date: Date;
}

export interface ReleaseRequest {
  /** patch, minor, major, prerelease, auto, X.Y.Z; undefined: asked on a terminal. */
  requested: string | undefined;
  preid: string | undefined;
  /** The entry names the registry's image only if it will be there. */
  push: boolean;
  /** A person will look at the entry before it is committed. */
  edit?: boolean;
  date: Date;
}

/** @throws TaskError when the version is refused or there is nothing to release */
export async function planRelease(
  project: Project,
  repository: Repository,
  request: ReleaseRequest,
): Promise<ReleasePlan> {
  const { head, branch } = repository;
  const prefix = project.release.tag_prefix;
  const merged = repository.tags.filter((tag) => tag.merged);
  verifySomethingNew(project, head, merged);
  let base = changesBase(merged, request.requested ?? 'auto', prefix);
  let changes = await changesSince(project, base?.name);
  const isMaintenance = isMaintenanceBranch(project, branch);
  const everywhere = tagsEverywhere(repository);
  const versions = { merged, everywhere, changes, preid: request.preid, tagPrefix: prefix };
  const rules = { ...versions, allowBackport: isMaintenance };
  const requested = request.requested ?? (await chooseVersion(rules));
  const version = planVersion({ ...rules, requested });
  const exact = changesBase(merged, version.next, prefix);
  if (exact?.name !== base?.name) {
    base = exact;
    changes = await changesSince(project, base?.name);
  }
  const image = imageReference(project, version.tag);
  const entry = renderEntry({
    tag: version.tag,
    date: request.date.toISOString().slice(0, 10),
    changes,
    image: (request.push && registryReference(project, version.tag)) || image,
    upgrade: switchCommand(version.tag),
    ...(base ? { rollback: switchCommand(base.name), previousTag: base.name } : {}),
  });
  const movesLatest = version.isHighestStable && !isMaintenance;
  const notes = insertEntry(await readNotes(project), entry, version.tag);
  const { date } = request;
  // An entry that somebody wrote beforehand stays as it is, and is what gets shown.
  const shown = findEntry(notes, version.tag)?.text ?? entry;
  const isEmpty = shown === entry.trimEnd() && changes.changes.length === 0;
  const previousTag = base?.name;
  return {
    version,
    head,
    branch,
    previousTag,
    movesLatest,
    changes,
    notes,
    entry: shown,
    isEmpty,
    image,
    date,
  };
}

/** A prerelease that nothing followed can still be completed, but not a stable release. */
function verifySomethingNew(project: Project, head: string, merged: readonly VersionTag[]): void {
  const here = knownTags(merged, project.release.tag_prefix).find(({ commit }) => commit === head);
  if (!here || !isStable(here.version)) return;
  throw new TaskError(`Nothing to release: no commits since ${here.name}`, {
    code: 'nothing-to-release',
    hint: `the newest release is ${here.name}; run it: npm run switch -- prod --version ${here.name}; publish it: npm run release -- ${here.name} --push`,
  });
}

function switchCommand(tag: string): string {
  return `npm run switch -- prod --version ${tag}`;
}

async function changesSince(project: Project, tag: string | undefined): Promise<Changes> {
  const range = tag ? `refs/tags/${tag}..HEAD` : 'HEAD';
  const [first = 'log', ...rest] = commitLogArguments(range);
  return collectChanges(parseCommitLog(stream(git(project.root, first, ...rest))));
}

/** A notes file that is just being begun. */
export const NEW_NOTES = '# Release notes\n';

/** The notes file as it is, or the beginning of one. */
export async function readNotes(project: Project): Promise<string> {
  try {
    return await readFile(join(project.root, project.release.notes), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return NEW_NOTES;
    throw error;
  }
}
