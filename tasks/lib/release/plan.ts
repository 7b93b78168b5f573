// What a release will do, worked out before anything is written: version, notes, image. Everything is read from commits
// and tags, nothing from the working tree.

import { join } from 'node:path';
import semver from 'semver';
import { z } from 'zod';
import { switchCommand } from '../active.ts';
import { read, run, stream } from '../command.ts';
import { TaskError } from '../errors.ts';
import { readIfPresent, withWorkDirectory, writeFileAtomic } from '../files.ts';
import { fileAt, git, type RemoteState, readTags, remoteState } from '../git.ts';
import { imageReference, type Project, registryReference } from '../project.ts';
import { choose } from '../prompt.ts';
import { type Changes, collectChanges, commitLogArguments, parseCommitLog } from './commits.ts';
import { findEntry, insertEntry, NEW_NOTES, renderEntry } from './notes.ts';
import type { ReleaseTag } from './record.ts';
import { changesBase, isStable, parseTag, planVersion, versionChoices, versionTags } from './version.ts';

/** The state of git that a plan starts from. */
export interface Repository {
  head: string;
  branch: string;
  /** Tags that are versions, highest first. */
  tags: ReleaseTag[];
  /** Those of them that HEAD contains. */
  merged: ReleaseTag[];
  /** undefined without a remote, or where it did not respond. */
  remote: RemoteState | undefined;
}

export interface ReleaseRequest {
  /** patch, minor, major, prerelease, auto, X.Y.Z; undefined: chosen on a terminal. */
  requested: string | undefined;
  preid: string | undefined;
  /** Publish it: image to the registry if one is set, branch and tag to the remote. */
  push: boolean;
  /** Switch prod to it at the end. */
  deploy: boolean;
  /** A person will look at the entry before it is committed. */
  edit: boolean;
  date: Date;
}

/** What the steps of a release start from and find out; it is in their journal. */
export const releaseSchema = z.strictObject({
  tag: z.string(),
  /** Without prefix. */
  version: z.string(),
  branch: z.string(),
  /** The branch's commit before. */
  head: z.string(),
  /** Of commit and tag; ISO 8601. */
  date: z.string(),
  /** The new text of the notes file. */
  notes: z.string(),
  /** The version before on this branch, and the tag that the notes begin at. */
  current: z.string().nullable(),
  previous: z.string().nullable(),
  /** `latest` follows: the highest stable version, from the release branch. */
  movesLatest: z.boolean(),
  push: z.boolean(),
  deploy: z.boolean(),
  /** It is released already, and named again to do what is left. */
  isReleased: z.boolean(),
  // What the steps find out.
  commit: z.string(),
  tagObject: z.string(),
  /** `Image.id` of the image that was tried. */
  digest: z.string(),
  platforms: z.record(z.string(), z.string()),
  /** Dev, which follows `latest`, did not start with it. */
  failedFollow: z.boolean().optional(),
  /** Why prod could not be switched: the release stands all the same. */
  failedDeploy: z.strictObject({ message: z.string(), code: z.string(), hint: z.string() }).optional(),
});

export type ReleaseData = z.output<typeof releaseSchema>;

export interface ReleasePlan {
  data: ReleaseData;
  /** Title of the entry and its text, to show. */
  entry: string;
  /** Commits since the tag that the notes begin at. */
  commits: number;
  /** No commit is worth an entry, and nobody wrote one. */
  isEmpty: boolean;
  /** What a person should know before they confirm. */
  warning: string | undefined;
}

/** @throws TaskError when the version is refused or there is nothing to release */
export async function planRelease(
  project: Project,
  repository: Repository,
  request: ReleaseRequest,
): Promise<ReleasePlan> {
  const { head, branch, merged } = repository;
  const { tag_prefix: tagPrefix, sections } = project.release;
  const { preid, push, deploy, date } = request;
  verifySomethingNew(project, repository);
  const started = changesBase(merged, request.requested ?? 'auto');
  const [first, text = NEW_NOTES] = await Promise.all([
    changesSince(project, started?.name),
    fileAt(project.root, head, project.release.notes),
  ]);
  const allowBackport = isMaintenanceBranch(project, branch);
  const rules = { merged, everywhere: tagsEverywhere(repository, tagPrefix), preid, tagPrefix };
  const open = { ...rules, bump: first.bump, allowBackport };
  const requested = request.requested ?? (await chooseVersion(open));
  const { current, next, tag, isHighestStable } = planVersion({ ...open, requested });
  const base = changesBase(merged, next);
  const changes = base?.name === started?.name ? first : await changesSince(project, base?.name);
  const written = renderEntry({
    tag,
    date: date.toISOString().slice(0, 10),
    changes: changes.changes,
    sections,
    image: imageName(project, { tag, push }),
    // A tag without our record is history: it has no image to go back to.
    rollback: base?.record ? base.name : undefined,
  });
  const notes = insertEntry(text, written, tag);
  // An entry that was written by hand stays as it is and is shown.
  const isOurs = notes !== text;
  const entry = isOurs ? written.trimEnd() : findEntry(notes, tag)!.text;
  const from = { current: current ?? null, previous: base?.name ?? null, notes };
  const names = { tag, version: next, branch, head, date: date.toISOString() };
  const found = { commit: '', tagObject: '', digest: '', platforms: {} };
  const movesLatest = isHighestStable && !allowBackport;
  return {
    data: { ...names, ...from, movesLatest, push, deploy, isReleased: false, ...found },
    ...{ entry, commits: changes.commits },
    isEmpty: isOurs && changes.changes.length === 0,
    warning: breakingWarning(next, changes, base?.version),
  };
}

/** How the image of a release is called where it will be had. */
export function imageName(project: Project, { tag, push }: Pick<ReleaseData, 'tag' | 'push'>): string {
  return (push && registryReference(project, tag)) || imageReference(project, tag);
}

/** A breaking change may be released as a patch, but not unawares. */
function breakingWarning(next: string, { bump }: Changes, base: string | undefined): string | undefined {
  const isExpected = bump !== 'major' || !isStable(next) || !base || semver.major(base) === 0;
  if (isExpected || semver.major(next) > semver.major(base)) return undefined;
  return `${next} has a breaking change since ${base}: by semantic versioning it should be a major release: npm run release -- major`;
}

/** A prerelease that nothing followed can still be completed, but not a stable release. */
function verifySomethingNew(project: Project, { head, merged }: Repository): void {
  const here = merged.find(({ commit }) => commit === head);
  if (!here?.record || !isStable(here.version)) return;
  const { name } = here;
  const run = switchCommand(project, 'prod', { version: name });
  const hint = `the newest release is ${name}; run it: ${run}; publish it: npm run release -- ${name} --push`;
  throw nothingToRelease(name, hint);
}

export function nothingToRelease(tag: string | null, hint: string): TaskError {
  return new TaskError(`Nothing to release: no commits since ${tag ?? 'the beginning'}`, {
    code: 'nothing-to-release',
    hint,
  });
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

function tagsEverywhere({ tags, remote }: Repository, tagPrefix: string) {
  const there = [...(remote?.tags ?? [])].map(([name, commit]) => ({
    name,
    commit,
    where: 'remote' as const,
  }));
  return versionTags([...tags, ...there], tagPrefix);
}

/** @throws TaskError exit 2 without a terminal */
function chooseVersion(request: Parameters<typeof versionChoices>[0]): Promise<string> {
  const usage = 'name it: npm run release -- patch|minor|major|prerelease|auto|X.Y.Z';
  return choose('Which version?', versionChoices(request), usage);
}

/** The plan in words: what is released, the steps that will run, the notes. */
export function describeReleasePlan(project: Project, plan: ReleasePlan, steps: readonly string[]): string {
  const { tag, current, previous, movesLatest } = plan.data;
  const from = current ? `${project.release.tag_prefix}${current} → ` : '';
  const commits = `${plan.commits} commit${plan.commits === 1 ? '' : 's'}`;
  return [
    `Release ${from}${tag}, ${commits} since ${previous ?? 'the beginning'}`,
    ...steps.map((title) => `  → ${title}`),
    ...(movesLatest ? [] : ['  latest does not move']),
    '',
    plan.entry.replace(/^/gm, '  │ ').trimEnd(),
  ].join('\n');
}

/** The plan with the entry as a person left it in their editor. @throws TaskError if it lost its heading or everything */
export async function editEntry(
  project: Project,
  { data, entry: written }: ReleasePlan,
): Promise<ReleaseData> {
  const { root, release } = project;
  const { tag } = data;
  const existing = (await fileAt(root, data.head, release.notes)) ?? NEW_NOTES;
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
    await writeFileAtomic(file, `${written.trimEnd()}\n`);
    const [program = 'vi', ...argv] = editor.split(/\s+/);
    await run([program, ...argv, file], { terminal: 'all' });
    return (await readIfPresent(file)) ?? written;
  });
  if (findEntry(entry, tag)) return { ...data, notes: insertEntry(existing, entry, tag) };
  const message = `Cannot release ${tag}: the edited entry has no heading for it. Nothing was changed.`;
  const hint = `its first line must be like: ## [${tag}] - ${data.date.slice(0, 10)}`;
  throw new TaskError(message, { code: 'notes-empty', hint });
}

/** `latest` moves only forward: another clone may have released something higher in the meantime. */
export async function isOvertaken(
  { root, release }: Project,
  { version, push }: Pick<ReleaseData, 'version' | 'push'>,
): Promise<boolean> {
  const [here, there] = await Promise.all([
    readTags(root),
    push ? remoteState(root, release.remote) : undefined,
  ]);
  const names = [...here.map(({ name }) => name), ...(there?.tags.keys() ?? [])];
  const known = names.flatMap((name) => parseTag(release.tag_prefix, name) ?? []);
  return known.some((other) => isStable(other) && semver.gt(other, version));
}
