// What a release will do, worked out before anything is written: version, notes, image. Everything is read from commits
// and tags, nothing from the working tree.

import { join } from 'node:path';
import semver from 'semver';
import { switchCommand } from '../active.ts';
import { read, run, stream } from '../command.ts';
import { TaskError } from '../errors.ts';
import { readIfPresent, withWorkDirectory, writeFileAtomic } from '../files.ts';
import { fileAt, type GitTag, git, localTags, type RemoteState, remoteState } from '../git.ts';
import { imageReference, type Project, registryReference } from '../project.ts';
import { choose } from '../prompt.ts';
import { type Changes, collectChanges, commitLogArguments, parseCommitLog } from './commits.ts';
import { findEntry, insertEntry, NEW_NOTES, renderEntry } from './notes.ts';
import { readRelease } from './record.ts';
import {
  changesBase,
  isStable,
  knownTags,
  planVersion,
  type VersionPlan,
  type VersionRequest,
  type VersionTag,
  versionChoices,
} from './version.ts';

/** The state of git that a plan starts from. */
export interface Repository {
  head: string;
  branch: string;
  tags: GitTag[];
  /** undefined without a remote, or where it did not respond. */
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
  /** No commit is worth an entry, and nobody wrote one. */
  isEmpty: boolean;
  /** What a person should know before they confirm. */
  warning: string | undefined;
  date: Date;
}

export interface ReleaseRequest {
  /** patch, minor, major, prerelease, auto, X.Y.Z; undefined: chosen on a terminal. */
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
  const { tag_prefix: tagPrefix, notes: path, sections } = project.release;
  const merged = repository.tags.filter((tag) => tag.merged);
  await verifySomethingNew(project, head, merged);
  const started = changesBase(merged, request.requested ?? 'auto', tagPrefix);
  const first = await changesSince(project, started?.name);
  const isMaintenance = isMaintenanceBranch(project, branch);
  const everywhere = tagsEverywhere(repository);
  const versions = { merged, everywhere, changes: first, preid: request.preid, tagPrefix };
  const rules = { ...versions, allowBackport: isMaintenance };
  const requested = request.requested ?? (await chooseVersion(rules));
  const version = planVersion({ ...rules, requested });
  const base = changesBase(merged, version.next, tagPrefix);
  const changes = base?.name === started?.name ? first : await changesSince(project, base?.name);
  const written = renderEntry({
    tag: version.tag,
    date: request.date.toISOString().slice(0, 10),
    changes,
    sections,
    image: (request.push && registryReference(project, version.tag)) || imageReference(project, version.tag),
    upgrade: commandInNotes(version.tag),
    ...(base ? { previousTag: base.name } : {}),
    // A tag without our record is history: it has no image to go back to.
    ...(base && (await readRelease(project.root, base.name)) ? { rollback: commandInNotes(base.name) } : {}),
  });
  const notes = insertEntry((await fileAt(project.root, head, path)) ?? NEW_NOTES, written, version.tag);
  // An entry that was written by hand stays as it is and is shown.
  const entry = findEntry(notes, version.tag)?.text ?? written;
  const isEmpty = entry === written.trimEnd() && changes.changes.length === 0;
  const movesLatest = version.isHighestStable && !isMaintenance;
  const warning = breakingWarning(version, changes, base?.version);
  const place = { head, branch, previousTag: base?.name, date: request.date };
  return { ...place, version, changes, notes, entry, isEmpty, movesLatest, warning };
}

/** A breaking change may be released as a patch, but not unawares. */
function breakingWarning({ next, isPrerelease }: VersionPlan, { bump }: Changes, base: string | undefined) {
  const isExpected = bump !== 'major' || isPrerelease || !base || semver.major(base) === 0;
  if (isExpected || semver.major(next) > semver.major(base)) return undefined;
  return `${next} has a breaking change since ${base}: by semantic versioning it should be a major release: npm run release -- major`;
}

/** A prerelease that nothing followed can still be completed, but not a stable release. */
async function verifySomethingNew(project: Project, head: string, merged: readonly VersionTag[]) {
  const here = knownTags(merged, project.release.tag_prefix).find(({ commit }) => commit === head);
  if (!here || !isStable(here.version) || !(await readRelease(project.root, here.name))) return;
  const run = switchCommand(project, 'prod', { version: here.name });
  const hint = `the newest release is ${here.name}; run it: ${run}; publish it: npm run release -- ${here.name} --push`;
  throw nothingToRelease(here.name, hint);
}

export function nothingToRelease(tag: string | undefined, hint: string): TaskError {
  return new TaskError(`Nothing to release: no commits since ${tag ?? 'the beginning'}`, {
    code: 'nothing-to-release',
    hint,
  });
}

/** For the notes, which are read on any machine. */
function commandInNotes(tag: string): string {
  return `npm run switch -- prod --version ${tag}`;
}

async function changesSince(project: Project, tag: string | undefined): Promise<Changes> {
  const range = tag ? `refs/tags/${tag}..HEAD` : 'HEAD';
  const log = stream(git(project.root, ...commitLogArguments(range)));
  return collectChanges(parseCommitLog(log), Object.values(project.release.sections).flat());
}

// From which branches releases are made: the release branch, and maintenance branches for fixes of older
// versions, which `latest` never follows.

type ReleaseSettings = Pick<Project, 'release'>;

export function isMaintenanceBranch({ release }: ReleaseSettings, branch: string): boolean {
  if (branch === release.branch) return false;
  return release.maintenance.some((pattern) =>
    new RegExp(`^${pattern.split('*').map(escapeRegExp).join('.*')}$`).test(branch),
  );
}

export function isReleaseBranch(project: ReleaseSettings, branch: string): boolean {
  return branch === project.release.branch || isMaintenanceBranch(project, branch);
}

function escapeRegExp(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

function tagsEverywhere({ tags, remote }: Pick<Repository, 'tags' | 'remote'>): VersionTag[] {
  const there = [...(remote?.tags ?? [])].map(([name, commit]) => ({
    name,
    commit,
    where: 'remote' as const,
  }));
  return [...tags.map((tag) => ({ ...tag, where: 'local' as const })), ...there];
}

/** @throws TaskError exit 2 without a terminal */
async function chooseVersion(request: Omit<VersionRequest, 'requested'>): Promise<string> {
  const choices = versionChoices(request).map(({ requested, version, bump, isRecommended }) => ({
    value: requested,
    label: `${requested === 'auto' ? bump : requested} → ${version}`,
    hint: isRecommended ? 'recommended by the commits' : '',
  }));
  return choose(
    'Which version?',
    choices,
    'name it: npm run release -- patch|minor|major|prerelease|auto|X.Y.Z',
  );
}

/** The plan in words: what is released, the steps that will run, the notes. */
export function describeReleasePlan(project: Project, plan: ReleasePlan, steps: readonly string[]): string {
  const { version, changes, previousTag } = plan;
  const current = version.current ? `${project.release.tag_prefix}${version.current} → ` : '';
  const commits = `${changes.commits} commit${changes.commits === 1 ? '' : 's'}`;
  return [
    `Release ${current}${version.tag}, ${commits} since ${previousTag ?? 'the beginning'}`,
    ...steps.map((title) => `  → ${title}`),
    ...(plan.movesLatest ? [] : ['  latest does not move']),
    '',
    plan.entry.replace(/^/gm, '  │ ').trimEnd(),
  ].join('\n');
}

/** The plan with the entry as a person left it in their editor. @throws TaskError if it lost its heading or everything */
export async function editEntry(project: Project, plan: ReleasePlan): Promise<ReleasePlan> {
  const { root, release } = project;
  const { tag } = plan.version;
  const existing = (await fileAt(root, plan.head, release.notes)) ?? NEW_NOTES;
  if (findEntry(existing, tag)) {
    throw new TaskError(`Cannot edit the notes of ${tag}: ${release.notes} already has its entry`, {
      code: 'notes-exist',
      hint: 'edit it there and commit it; the release takes it as it is',
    });
  }
  // $GIT_EDITOR, core.editor, $VISUAL, $EDITOR, vi: the order that people have set up for git.
  const editor = await read(git(root, 'var', 'GIT_EDITOR'));
  const entry = await withWorkDirectory(root, async (directory) => {
    const file = join(directory, `${tag}.md`);
    await writeFileAtomic(file, `${plan.entry.trimEnd()}\n`);
    const [program = 'vi', ...argv] = editor.split(/\s+/);
    await run([program, ...argv, file], { terminal: 'all' });
    return (await readIfPresent(file)) ?? plan.entry;
  });
  if (!findEntry(entry, tag)) {
    const date = plan.date.toISOString().slice(0, 10);
    const message = `Cannot release ${tag}: the edited entry has no heading for it. Nothing was changed.`;
    const hint = `its first line must be like: ## [${tag}] - ${date}`;
    throw new TaskError(message, { code: 'notes-empty', hint });
  }
  return { ...plan, entry, notes: insertEntry(existing, entry, tag), isEmpty: false };
}

/** `latest` moves only forward: another clone may have released something higher in the meantime. */
export async function isOvertaken(project: Project, version: string, push: boolean): Promise<boolean> {
  const { root, release } = project;
  const remote = push ? await remoteState(root, release.remote) : undefined;
  const known = knownTags(tagsEverywhere({ tags: await localTags(root), remote }), release.tag_prefix);
  return known.some((other) => isStable(other.version) && semver.gt(other.version, version));
}
