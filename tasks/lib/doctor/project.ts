// Is the repository in a state to release from?

import { constants, existsSync } from 'node:fs';
import { access, readdir, stat } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { backupDirectory } from '../backup/program.ts';
import { loadBackupFacts } from '../backup/report.ts';
import { probe, read } from '../command.ts';
import { verifyServices } from '../docker/compose.ts';
import { verifyServiceConfig } from '../docker/service-config.ts';
import { readIfPresent, statePath } from '../files.ts';
import { ago } from '../format.ts';
import { isShallow, shortHash, workTree } from '../git.ts';
import { runningTask } from '../lock.ts';
import type { JournalEntry } from '../old-journal.ts';
import { ENVIRONMENTS, imageReference, PROJECT_FILE, type Project, variable } from '../project.ts';
import { findEntry, outline, withdrawnVersions } from '../release/notes.ts';
import { type ReleaseTag, releasedDigests } from '../release/record.ts';
import { parseTag } from '../release/version.ts';
import { readSamples } from '../uptime.ts';
import {
  type Check,
  type Facts,
  type Finding,
  failed,
  gather,
  ok,
  unchecked,
  warning,
  when,
} from './check.ts';

/** What git leaves in its directory while something waits for a person. */
const UNFINISHED: [file: string, what: string, abort: string][] = [
  ['MERGE_HEAD', 'a merge', 'git merge --abort'],
  ['rebase-merge', 'a rebase', 'git rebase --abort'],
  ['rebase-apply', 'a rebase', 'git rebase --abort'],
  ['CHERRY_PICK_HEAD', 'a cherry-pick', 'git cherry-pick --abort'],
  ['REVERT_HEAD', 'a revert', 'git revert --abort'],
  ['BISECT_LOG', 'a bisect', 'git bisect reset'],
];

async function git({ project: { root, release } }: Facts): Promise<Finding> {
  const { changes, head, branch } = await workTree(root);
  const directory = await read(['git', '-C', root, 'rev-parse', '--absolute-git-dir']);
  const unfinished = UNFINISHED.filter(([file]) => existsSync(join(directory, file)));
  const problems = [
    ...unfinished.map(([, what, abort]) => failed(`${what} is not finished`, `finish it, or: ${abort}`)),
    ...when(await isShallow(root), () =>
      failed('a shallow clone: versions and notes need the whole history', 'git fetch --unshallow --tags'),
    ),
    ...when(!head, () => failed('there is no commit yet', 'git add --all && git commit')),
    ...when(changes.length > 0, () =>
      warning(`${changes.length} uncommitted: a release refuses that`, 'git status; commit, or git stash'),
    ),
    ...when(branch !== release.branch, () =>
      warning(
        `${branch ?? 'no branch'} is checked out, releases come from ${release.branch}`,
        `git switch ${release.branch}`,
      ),
    ),
  ];
  return gather(problems, `${branch} at ${shortHash(head ?? '')}, nothing uncommitted`);
}

export const REPOSITORY_CHECKS: readonly Check[] = [
  { id: 'git', withoutDotenv: true, title: 'git', run: git },
];

// Is what the project says about itself valid, and does it keep its secrets to itself?

async function composeConfig({ project, services }: Facts): Promise<Finding> {
  const found = await services();
  verifyServices(project, found);
  return ok(`${project.project.compose.join(', ')}: ${Object.keys(found).join(', ')}`);
}

async function serviceConfig({ project, services }: Facts): Promise<Finding> {
  const named = ENVIRONMENTS.filter((name) => project.environments[name].config);
  if (named.length === 0) {
    return unchecked(`${PROJECT_FILE} names no configuration of the service (environments.*.config)`);
  }
  await verifyServiceConfig(project, await services(), named);
  return ok(named.map((name) => project.environments[name].config).join(', '));
}

/** The files that are committed and configure something. */
async function configFiles(project: Project): Promise<string[]> {
  const folders = [...new Set(['configs', ...project.project.compose.map((file) => join(file, '..'))])];
  const listed = await Promise.all(
    folders.map(async (folder) => {
      const entries = await readdir(join(project.root, folder), { withFileTypes: true }).catch(() => []);
      return entries.filter((entry) => entry.isFile()).map(({ name }) => join(folder, name));
    }),
  );
  const single = [...project.project.compose, project.image.dockerfile, '.env.example'];
  return [...new Set([...listed.flat(), ...single])].filter(
    (file) => !/(^|\/)\.env(\.|$)(?!example)/.test(file),
  );
}

async function secrets({ project }: Facts): Promise<Finding> {
  const files = await configFiles(project);
  const found = await Promise.all(
    files.map(async (file) => {
      const text = (await readIfPresent(join(project.root, file)).catch(() => undefined)) ?? '';
      return findSecrets(text).map(({ line, why }) => `${file}:${line} ${why}`);
    }),
  );
  const remedy =
    'move it to .env (never committed, 0600) and refer to it as a variable; a secret that was ever committed must be replaced';
  return gather(
    found.flat().map((detail) => failed(detail, remedy)),
    `${files.length} files, nothing that looks like one`,
  );
}

const PRIVATE = 0o600;

async function dotenvProblems(root: string, path: string): Promise<Finding[]> {
  const file = relative(root, path);
  const found = await stat(path);
  const [ignored, tracked] = await Promise.all([
    probe(['git', '-C', root, 'check-ignore', '--quiet', path]),
    probe(['git', '-C', root, 'ls-files', '--error-unmatch', path]),
  ]);
  const mode = found.mode & 0o777;
  const unreadable = await access(path, constants.R_OK).catch((error: Error) => error);
  return [
    ...(unreadable
      ? [
          failed(
            `this user cannot read ${file}: ${unreadable.message}`,
            `sudo chown "$(id -u):$(id -g)" ${file} && chmod 0600 ${file}`,
          ),
        ]
      : []),
    ...(found.isFile() ? [] : [failed(`${file} is not a file`, `remove it, then: npm run setup`)]),
    ...(found.isFile() && mode !== PRIVATE
      ? [failed(`${file} has mode ${mode.toString(8).padStart(4, '0')}, expected 0600`, `chmod 0600 ${file}`)]
      : []),
    ...(tracked.ok
      ? [failed(`${file} is committed`, `git rm --cached ${file}, and replace every secret in it`)]
      : ignored.exitCode === 1
        ? [failed(`git does not ignore ${file}`, `add a line "${file}" to .gitignore`)]
        : []),
  ];
}

async function dotenv({ project: { root } }: Facts): Promise<Finding> {
  const names = (await readdir(root)).filter((name) => /^\.env(\.|$)/.test(name) && name !== '.env.example');
  if (!names.includes('.env')) return warning('there is none yet', 'npm run setup');
  const problems = await Promise.all(names.map((name) => dotenvProblems(root, join(root, name))));
  return gather(problems.flat(), `${names.join(', ')}: 0600, ignored by git`);
}

export const CONFIG_CHECKS: readonly Check[] = [
  { id: 'compose-config', title: 'compose files', run: composeConfig },
  { id: 'service-config', title: 'service configuration', run: serviceConfig },
  { id: 'secrets', withoutDotenv: true, title: 'secrets in configs', run: secrets },
  { id: 'dotenv', withoutDotenv: true, title: '.env', run: dotenv },
];

// Do the tags, the images and the notes tell the same story? Each way in which somebody's hand can make them differ
// is a line of its own.

type Images = Awaited<ReturnType<Facts['images']>>;
const REVISION = 'org.opencontainers.image.revision';
const FETCH = 'git fetch --tags';

/** What is wrong with one tag, seen from its image. */
function tagProblems(project: Project, tag: ReleaseTag, images: Images): Finding[] {
  const { name, record, commit } = tag;
  const reference = imageReference(project, name);
  const build = `npm run build-push -- ${name}`;
  if (!record) {
    const remedy = `take it away if it was set by hand: git tag -d ${name}; the real one may be at the remote: ${FETCH} --force`;
    return [failed(`git tag ${name} is not a release: it records no image`, remedy)];
  }
  const image = images.find(({ names }) => names.includes(reference));
  if (!image) {
    return when(name === variable(project, 'PROD_TAG'), () =>
      failed(`image ${reference}, which .env names for prod, is not on this machine`, build),
    );
  }
  if (!releasedDigests(record).includes(image.id)) {
    const what = `it is ${image.id}, git tag ${name} records ${record.digest}`;
    return [
      failed(
        `image ${reference} is not the released one: ${what}`,
        `docker image rm ${reference} && ${build}`,
      ),
    ];
  }
  const built = image.labels[REVISION];
  return when(built && built !== commit, () => {
    const what = `it names commit ${shortHash(commit)}, its image was built from ${shortHash(built!)}`;
    return failed(`git tag ${name} was moved: ${what}`, `git tag -d ${name} && ${FETCH}`);
  });
}

/** Entries of versions that have no tag. */
function orphanEntries(notes: string, prefix: string, tags: readonly ReleaseTag[]): string[] {
  const known = new Set(tags.map(({ version }) => version));
  const withdrawn = withdrawnVersions(notes);
  const versions = outline(notes).headings.flatMap(({ text }) => {
    const word = /^\[?([^\]\s]+)/.exec(text)?.[1] ?? '';
    return parseTag(prefix, word) ?? [];
  });
  return versions.filter((version) => !known.has(version) && !withdrawn.has(version));
}

/** Image names that are versions without a tag. */
function untaggedImages(images: Images, prefix: string, tags: readonly ReleaseTag[]): string[] {
  return images
    .flatMap(({ names }) => names)
    .filter((reference) => {
      const name = reference.slice(reference.lastIndexOf(':') + 1);
      return parseTag(prefix, name) !== undefined && !tags.some((tag) => tag.name === name);
    });
}

/** Where notes and tags miss each other. */
function notesProblems(file: string, notes: string, prefix: string, tags: readonly ReleaseTag[]): Finding[] {
  const missing = tags.filter((tag) => tag.record && !findEntry(notes, tag.name));
  const finish = `fetch the tags: ${FETCH}; or finish an interrupted release: npm run release`;
  return [
    ...missing.map(({ name }) =>
      failed(`${file} has no entry for ${name}`, `see what it was: git show ${name}:${file}`),
    ),
    ...orphanEntries(notes, prefix, tags).map((version) =>
      failed(`${file} has an entry for ${prefix}${version}, git has no such tag`, finish),
    ),
  ];
}

async function releases({ project, releases: tagsOf, images: imagesOf }: Facts): Promise<Finding> {
  const { tag_prefix: prefix, notes: file } = project.release;
  const [tags, images] = await Promise.all([tagsOf(), imagesOf()]);
  const notes = (await readIfPresent(join(project.root, file))) ?? '';
  const prodTag = variable(project, 'PROD_TAG');
  const problems = [
    ...tags.flatMap((tag) => tagProblems(project, tag, images)),
    ...notesProblems(file, notes, prefix, tags),
    ...untaggedImages(images, prefix, tags).map((reference) =>
      failed(
        `image ${reference} has no git tag`,
        `fetch the tags: ${FETCH}; or take the name away: docker image rm ${reference}`,
      ),
    ),
    ...when(prodTag && !tags.some(({ name }) => name === prodTag), () =>
      failed(
        `.env names ${prodTag} for prod, git has no such tag`,
        `${FETCH}, or: npm run switch -- prod --version latest-release`,
      ),
    ),
  ];
  const count = tags.filter(({ record }) => record).length;
  return gather(problems, count === 0 ? 'no release yet' : `${count}: tags, images and ${file} agree`);
}

export const RELEASE_CHECKS: readonly Check[] = [
  { id: 'releases', title: 'tags, images and notes', run: releases },
];

// Did a task die half-way, did something stay behind, is what should run by itself running?

/** A file name in .synapse/journal → the command that finishes it. */
function finisher(task: string): string {
  const [name = '', context] = task.split('@');
  const script = name === 'undo' ? 'release' : name;
  return `finish it by running it again: npm run ${script}${context ? ` -- --context ${context}` : ''}`;
}

/** The journals of tasks that did not come to an end: file names. */
async function unfinishedTasks(root: string): Promise<string[]> {
  const files = await readdir(statePath(root, 'journal')).catch(() => []);
  return files.filter((name) => name.endsWith('.json'));
}

async function interrupted({ project: { root } }: Facts): Promise<Finding> {
  const owner = await runningTask(root);
  if (owner) return ok(`${owner.task} runs since ${owner.since} (pid ${owner.pid})`);
  const problems = await Promise.all(
    (await unfinishedTasks(root)).map(async (name) => {
      const task = name.slice(0, -'.json'.length);
      const entry = await readEntry(statePath(root, 'journal', name));
      const when = entry ? ` at ${entry.at} after "${entry.step}"` : '';
      return failed(`${task} was interrupted${when}`, finisher(task));
    }),
  );
  return gather(problems, 'no task was interrupted');
}

async function readEntry(path: string): Promise<JournalEntry<unknown> | undefined> {
  const text = await readIfPresent(path);
  try {
    return text ? (JSON.parse(text) as JournalEntry<unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** Files below the project that only a killed run leaves. */
async function leftFiles(root: string, backups: string): Promise<string[]> {
  const looks: [folder: string, pattern: RegExp][] = [
    [root, /^\..*\.partial$/],
    [join(root, 'configs'), /^\..*\.partial$/],
    [statePath(root), /^work-|\.partial$/],
    [statePath(root, 'journal'), /\.partial$/],
    [backups, /\.partial$/],
  ];
  const found = await Promise.all(
    looks.map(async ([folder, pattern]) => {
      const names = await readdir(folder).catch(() => []);
      return names.filter((name) => pattern.test(name)).map((name) => join(folder, name));
    }),
  );
  return found.flat();
}

async function leftovers({ project, listed, images }: Facts): Promise<Finding> {
  const owner = await runningTask(project.root);
  if (owner) return ok(`${owner.task} is at work; what it uses is no leftover`);
  // What an interrupted task left is what it will go on with.
  if ((await unfinishedTasks(project.root)).length > 0) return unchecked('finish the interrupted task first');
  const label = project.project.name;
  const containers = (await listed()).filter(({ labels }) => labels['release-flow.candidate'] === label);
  const candidates = (await images())
    .flatMap(({ names }) => names)
    .filter((name) => name.startsWith(imageReference(project, 'candidate-')));
  const files = await leftFiles(project.root, backupDirectory(project));
  const problems = [
    ...containers.map(({ name }) =>
      failed(`container ${name} is left of a release that died`, `docker rm --force --volumes ${name}`),
    ),
    ...candidates.map((name) =>
      failed(`image ${name} is left of a build that died`, `docker image rm ${name}`),
    ),
    ...files.map((path) => failed(`${path} is left of a task that died`, `rm -r ${path}`)),
  ];
  return gather(problems, 'nothing was left behind');
}

async function backup({ project }: Facts): Promise<Finding> {
  const { report, problem } = await loadBackupFacts(project, new Date());
  if (problem) return failed(problem.message, problem.hint);
  if (!report.at)
    return warning('there is none yet', 'npm run backup; schedule it: npm run backup -- schedule');
  return ok(`the last good one was made ${ago(report.at, new Date())}`);
}

const SILENCE_MS = 10 * 60_000;

async function sampling({ project }: Facts): Promise<Finding> {
  const { samples, hours } = await readSamples(project.root);
  const schedule = 'schedule it: npm run status -- --help shows the line for cron';
  const last = samples.at(-1);
  if (!last) return warning(`uptime is not ${hours.length > 0 ? 'measured any more' : 'measured'}`, schedule);
  if (Date.now() - Date.parse(last.at) > SILENCE_MS) {
    return warning(`the last sample was taken ${ago(last.at, new Date())}`, `is cron running? ${schedule}`);
  }
  return ok(`the last sample was taken ${ago(last.at, new Date())}`);
}

export const STATE_CHECKS: readonly Check[] = [
  { id: 'interrupted', title: 'interrupted tasks', run: interrupted },
  { id: 'leftovers', title: 'leftovers', run: leftovers },
  { id: 'backup', title: 'backup', run: backup },
  { id: 'sampling', title: 'uptime samples', run: sampling },
];

// Values in configuration files that look like secrets: by the name of their key, or by their own well-known form.
// Pure; it reports places, never values.

interface SuspiciousLine {
  /** From 1. */
  line: number;
  /** Why, without the value. */
  why: string;
}

const SECRET_KEY =
  /(?:^|[\s"'{,;.-])([\w.-]*(?:token|secret|password|passwd|api[_-]?key|private[_-]?key|credential)[\w.-]*)["']?\s*[:=]\s*(.*)$/i;

/** Forms that issuers give their secrets, so that they can be found. */
const KNOWN_FORMS: [form: RegExp, name: string][] = [
  [/-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----/, 'a private key'],
  [/\bgh[pousr]_[A-Za-z0-9]{36,}\b|\bgithub_pat_\w{22,}/, 'a GitHub token'],
  [/\bglpat-[\w-]{20,}/, 'a GitLab token'],
  [/\bAKIA[0-9A-Z]{16}\b/, 'an AWS access key'],
  [/\bxox[baprs]-[\w-]{10,}/, 'a Slack token'],
  [/\bsk-[A-Za-z0-9_-]{20,}/, 'an API key'],
  [/\bnpm_[A-Za-z0-9]{36}\b/, 'an npm token'],
  [/\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}/, 'a JSON web token'],
  [/\b[a-z][a-z0-9+.-]*:\/\/[^\s/:@"'$]+:[^\s/@"'${]+@/i, 'a password in a URL'],
];

/** Names of keys that speak about secrets without holding one. */
const HARMLESS_KEY =
  /(?:_file|_files|file|path|_env|_name|_header|_length|_limit|max_tokens|tokens|_type|_url|_id|expiry|minutes|seconds)$/i;

/** A value that a person would recognize as no secret: empty, a variable, a path, a word of configuration. */
function isHarmlessValue(text: string): boolean {
  const value = text
    .replace(/[,;}\]]*\s*(?:#.*)?$/, '')
    .replace(/^["']|["']$/g, '')
    .trim();
  if (value === '' || value.startsWith('#')) return true;
  if (/^\$\{?\w+/.test(value) || /^<.*>$/.test(value) || /^%\w+%$/.test(value)) return true;
  if (/^(true|false|null|none|\d{1,6}|\[|\{|\||>)$/i.test(value) || /^[[{]/.test(value)) return true;
  if (/^(\/|\.\/|\.\.\/|~\/)/.test(value)) return true;
  // The name of a variable stands for its value.
  return /^[A-Z][A-Z0-9_]*$/.test(value);
}

export function findSecrets(text: string): SuspiciousLine[] {
  return text.split('\n').flatMap((line, index): SuspiciousLine[] => {
    const form = KNOWN_FORMS.find(([pattern]) => pattern.test(line));
    if (form) return [{ line: index + 1, why: `looks like ${form[1]}` }];
    const [, key = '', value = ''] = SECRET_KEY.exec(withoutComment(line)) ?? [];
    if (!key || HARMLESS_KEY.test(key) || isHarmlessValue(value)) return [];
    return [{ line: index + 1, why: `gives ${key} a value of its own` }];
  });
}

/** A whole-line comment explains and sets nothing. */
function withoutComment(line: string): string {
  return /^\s*(#|\/\/)/.test(line) ? '' : line;
}
