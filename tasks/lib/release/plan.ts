// What a release will do, worked out before anything is written: version, notes, image, names.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { read, runAttached, stream } from '../command.ts';
import { TaskError } from '../errors.ts';
import { withWorkDirectory } from '../files.ts';
import { type GitTag, git, localTags, type RemoteState, remoteState } from '../git.ts';
import { imageReference, type Project, registryReference } from '../project.ts';
import { choose } from '../prompt.ts';
import { session } from '../session.ts';
import { type Changes, collectChanges, commitLogArguments, parseCommitLog } from './commits.ts';
import { findEntry, insertEntry, renderEntry } from './notes.ts';
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
async function readNotes(project: Project): Promise<string> {
  try {
    return await readFile(join(project.root, project.release.notes), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return NEW_NOTES;
    throw error;
  }
}

// From which branches releases are made: the release branch, and maintenance branches for fixes of older
// versions, which `latest` never follows. Pure.

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

// Which version a person wants: a choice on a terminal, each with the version it leads to, the recommended
// one first; and the tags that decide, those of the remote included.

function tagsEverywhere({
  tags,
  remote,
}: {
  tags: GitTag[];
  remote: RemoteState | undefined;
}): VersionRequest['everywhere'] {
  const remoteTags = [...(remote?.tags ?? [])].map(([name, commit]) => ({
    name,
    commit,
    where: 'remote' as const,
  }));
  return [...tags.map((tag) => ({ ...tag, where: 'local' as const })), ...remoteTags];
}

/** @throws TaskError exit 2 without a terminal */
async function chooseVersion(request: Omit<VersionRequest, 'requested'>): Promise<string> {
  const choices = versionChoices(request).map(({ requested, version, bump, isRecommended }) => ({
    value: requested,
    label: `${requested === 'auto' ? bump : requested} → ${version}`,
    hint: isRecommended ? 'recommended by the commits' : '',
  }));
  return choose('Which version?', choices, 'name it: release.ts patch|minor|major|prerelease|auto|X.Y.Z');
}

// The plan of a release, or of its undoing, in words: what is shown before the question.

export function describeReleasePlan(
  project: Project,
  plan: ReleasePlan,
  { push, deploy }: { push: boolean; deploy: boolean },
): string {
  const { version, changes, image, branch, previousTag } = plan;
  const current = version.current ? `${project.release.tag_prefix}${version.current}` : undefined;
  const commits = `${changes.commits} commit${changes.commits === 1 ? '' : 's'}`;
  const latest = plan.movesLatest ? `, then ${imageReference(project, 'latest')}` : ' (latest stays)';
  return [
    `Release ${current ? `${current} → ` : ''}${version.tag}`,
    `  commits  ${commits} since ${previousTag ?? 'the beginning'}`,
    `  writes   ${project.release.notes}, one commit on ${branch}, tag ${version.tag}`,
    `  builds   ${image} from that commit${latest}`,
    ...(push ? pushLines(project, plan) : []),
    ...(deploy ? [`  deploys  ${version.tag} to prod`] : []),
    '',
    plan.entry.replace(/^/gm, '  │ ').trimEnd(),
  ].join('\n');
}

function pushLines(project: Project, { version, branch, movesLatest }: ReleasePlan): string[] {
  const reference = registryReference(project, version.tag);
  const platforms = project.image.platforms.length > 0 ? ` (${project.image.platforms.join(', ')})` : '';
  const image = reference
    ? [`  pushes   ${reference}${platforms}${movesLatest ? ' and latest' : ''}`]
    : ['  pushes   no image: image.registry is not set in configs/release.toml'];
  return [...image, `  pushes   ${branch} and ${version.tag} to ${project.release.remote}`];
}

// The entry in the hands of a person before it is committed: opened in their editor, taken as they left it.

/** The plan with the entry as it was edited. @throws TaskError if it lost its heading or everything */
export async function editEntry(project: Project, plan: ReleasePlan): Promise<ReleasePlan> {
  const { tag } = plan.version;
  const existing = await readNotes(project);
  if (findEntry(existing, tag)) {
    throw new TaskError(`Cannot edit the notes of ${tag}: ${project.release.notes} already has its entry`, {
      code: 'notes-exist',
      hint: 'edit it there and commit it; the release takes it as it is',
    });
  }
  // $GIT_EDITOR, core.editor, $VISUAL, $EDITOR, vi: the order that people have set up for git.
  const editor = await read(git(project.root, 'var', 'GIT_EDITOR'));
  const entry = await withWorkDirectory(project.root, async (directory) => {
    const file = join(directory, `${tag}.md`);
    if (!session.dryRun) await writeFile(file, `${plan.entry.trimEnd()}\n`);
    const [program = 'vi', ...argv] = editor.split(/\s+/);
    await runAttached([program, ...argv, file]);
    return session.dryRun ? plan.entry : readFile(file, 'utf8');
  });
  const notes = insertEntry(existing, entry, tag);
  if (entry.trim() !== '' && findEntry(notes, tag)) return { ...plan, entry, notes, isEmpty: false };
  throw new TaskError(`Stopped: the edited entry has no heading for ${tag}. Nothing was changed.`, {
    code: 'notes-empty',
    hint: `its first line must be like: ## [${tag}] - ${plan.date.toISOString().slice(0, 10)}`,
  });
}

// Whether a release is the highest stable one: only that one is `latest`.

/** `latest` moves only forward: another clone may have released something higher in the meantime. */
export async function isHighestStable(project: Project, { tag, push }: { tag: string; push: boolean }) {
  const { root, release } = project;
  const remote = push ? await remoteState(root, release.remote) : undefined;
  const everywhere = [
    ...(await localTags(root)),
    ...[...(remote?.tags ?? [])].map(([name, commit]) => ({ name, commit })),
  ];
  const highest = knownTags(everywhere, release.tag_prefix).find(({ version }) => isStable(version));
  return highest?.name === tag;
}
