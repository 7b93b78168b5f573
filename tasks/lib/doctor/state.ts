// Do tags, images and notes agree, is everything there that a switch or a rollback needs, and is what should run by
// itself running?
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { switchCommand } from '../active.ts';
import { backupDirectory } from '../backup/program.ts';
import { loadBackupFacts } from '../backup/report.ts';
import { readIfPresent, statePath } from '../files.ts';
import { ago } from '../format.ts';
import { shortHash } from '../git.ts';
import { runningTask } from '../lock.ts';
import { imageReference, type Project, variable } from '../project.ts';
import { findEntry, outline, withdrawnVersions } from '../release/notes.ts';
import { type ReleaseTag, releasedDigests } from '../release/record.ts';
import { parseTag } from '../release/version.ts';
import { interruptedRuns } from '../steps.ts';
import { readSamples } from '../uptime.ts';
import {
  type Check,
  type Facts,
  type Finding,
  failed,
  gather,
  type LocalImage,
  ok,
  unchecked,
  warning,
} from './check.ts';

export const STATE_CHECKS: readonly Check[] = [
  { id: 'releases', title: 'tags, images and notes', run: releases },
  { id: 'interrupted', title: 'interrupted tasks', run: interrupted },
  { id: 'leftovers', title: 'leftovers', run: leftovers },
  { id: 'backup', title: 'backup', run: backup },
  { id: 'sampling', title: 'uptime samples', run: sampling },
];

// Each way in which somebody's hand can make tags, images and notes differ is a line of its own.

const REVISION = 'org.opencontainers.image.revision';
const FETCH = 'git fetch --tags';

async function releases({ project, releases: tagsOf, images: imagesOf }: Facts): Promise<Finding> {
  const { tag_prefix: prefix, notes: file } = project.release;
  const [tags, images] = await Promise.all([tagsOf(), imagesOf()]);
  const notes = (await readIfPresent(join(project.root, file))) ?? '';
  const prodTag = variable(project, 'PROD_TAG');
  const problems = [
    ...tags.flatMap((tag) => tagProblems(project, tag, images)),
    ...notesProblems(file, notes, prefix, tags),
    ...untaggedImages(images, prefix, tags).map((reference) => {
      const remedy = `fetch the tags: ${FETCH}; or take the name away: docker image rm ${reference}`;
      return failed(`image ${reference} has no git tag`, remedy);
    }),
  ];
  if (prodTag && !tags.some(({ name }) => name === prodTag)) {
    const remedy = `${FETCH}, or: ${switchCommand(project, 'prod', { version: 'latest-release' })}`;
    problems.push(failed(`.env names ${prodTag} for prod, git has no such tag`, remedy));
  }
  const count = tags.filter(({ record }) => record).length;
  return gather(problems, count === 0 ? 'no release yet' : `${count}: tags, images and ${file} agree`);
}

/** What is wrong with one tag, seen from its image. */
function tagProblems(project: Project, tag: ReleaseTag, images: readonly LocalImage[]): Finding[] {
  const { name, record, commit } = tag;
  const reference = imageReference(project, name);
  const build = `npm run build-push -- ${name}`;
  if (!record) {
    const remedy = `take it away if it was set by hand: git tag -d ${name}; the real one may be at the remote: ${FETCH} --force`;
    return [failed(`git tag ${name} is not a release: it records no image`, remedy)];
  }
  const image = images.find(({ names }) => names.includes(reference));
  if (!image) {
    if (name !== variable(project, 'PROD_TAG')) return [];
    return [failed(`image ${reference}, which .env names for prod, is not on this machine`, build)];
  }
  if (!releasedDigests(record).includes(image.id)) {
    const what = `it is ${image.id}, git tag ${name} records ${record.digest}`;
    const remedy = `docker image rm ${reference} && ${build}`;
    return [failed(`image ${reference} is not the released one: ${what}`, remedy)];
  }
  const built = image.labels[REVISION];
  if (!built || built === commit) return [];
  const what = `it names commit ${shortHash(commit)}, its image was built from ${shortHash(built)}`;
  return [failed(`git tag ${name} was moved: ${what}`, `git tag -d ${name} && ${FETCH}`)];
}

/** Image names that are versions without a tag. */
function untaggedImages(images: readonly LocalImage[], prefix: string, tags: readonly ReleaseTag[]) {
  const names = images.flatMap((image) => image.names);
  return names.filter((reference) => {
    const tag = reference.slice(reference.lastIndexOf(':') + 1);
    return parseTag(prefix, tag) !== undefined && !tags.some(({ name }) => name === tag);
  });
}

/** Where notes and tags miss each other. */
function notesProblems(file: string, notes: string, prefix: string, tags: readonly ReleaseTag[]): Finding[] {
  const missing = tags.filter((tag) => tag.record && !findEntry(notes, tag.name));
  const finish = `fetch the tags: ${FETCH}; or resume an interrupted release: npm run release`;
  return [
    ...missing.map(({ name }) =>
      failed(`${file} has no entry for ${name}`, `see what it was: git show ${name}:${file}`),
    ),
    ...orphanEntries(notes, prefix, tags).map((version) =>
      failed(`${file} has an entry for ${prefix}${version}, git has no such tag`, finish),
    ),
  ];
}

/** Entries of versions that have no tag. */
function orphanEntries(notes: string, prefix: string, tags: readonly ReleaseTag[]): string[] {
  const known = new Set([...tags.map(({ version }) => version), ...withdrawnVersions(notes)]);
  const versions = outline(notes).headings.flatMap(({ text }) => {
    const word = /^\[?([^\]\s]+)/.exec(text)?.[1] ?? '';
    return parseTag(prefix, word) ?? [];
  });
  return versions.filter((version) => !known.has(version));
}

// Did a task die half-way, and did something stay behind?

async function interrupted({ project: { root } }: Facts): Promise<Finding> {
  const owner = await runningTask(root);
  if (owner) return ok(`${owner.task} runs since ${owner.since} (pid ${owner.pid})`);
  const problems = (await interruptedRuns(root)).map(({ task, command, at, step, error }) =>
    error
      ? failed(error.message, error.hint ?? '')
      : failed(`${task} was interrupted at ${at}${step ? ` after "${step}"` : ''}`, `resume it: ${command}`),
  );
  return gather(problems, 'no task was interrupted');
}

async function leftovers({ project, listed, images }: Facts): Promise<Finding> {
  const { root } = project;
  const owner = await runningTask(root);
  if (owner) return ok(`${owner.task} is at work; what it uses is no leftover`);
  // What an interrupted task left is what it will resume with.
  if ((await interruptedRuns(root)).length > 0) return unchecked('resume the interrupted task first');
  const isCandidate = (labels: Record<string, string>) =>
    labels['release-flow.candidate'] === project.project.name;
  const containers = (await listed()).filter(({ labels }) => isCandidate(labels));
  const names = (await images()).flatMap((image) => image.names);
  const candidates = names.filter((name) => name.startsWith(imageReference(project, 'candidate-')));
  const files = await leftFiles(root, backupDirectory(project));
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

async function backup({ project }: Facts): Promise<Finding> {
  const { report, problem } = await loadBackupFacts(project, new Date());
  if (problem) return failed(problem.message, problem.hint);
  if (!report.at)
    return warning('there is none yet', 'npm run backup; schedule it: npm run backup -- schedule');
  return ok(`the last good one was made ${ago(report.at, new Date())}`);
}

const LONGEST_GAP_MS = 10 * 60_000;

async function sampling({ project }: Facts): Promise<Finding> {
  const { samples, hours } = await readSamples(project.root);
  const schedule = 'schedule it: npm run status -- --help shows the line for cron';
  const last = samples.at(-1);
  if (!last) return warning(`uptime is not ${hours.length > 0 ? 'measured any more' : 'measured'}`, schedule);
  const taken = `the last sample was taken ${ago(last.at, new Date())}`;
  if (Date.now() - Date.parse(last.at) > LONGEST_GAP_MS)
    return warning(taken, `is cron running? ${schedule}`);
  return ok(taken);
}
