// Do tags, images and notes agree, is everything there that a switch or a rollback needs, and is what should run by
// itself running?

import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { activeEnvironment, environmentsOf, switchCommand } from '../active.ts';
import { backupDirectory } from '../backup/places.ts';
import { loadBackupFacts } from '../backup/report.ts';
import type { TaskError } from '../errors.ts';
import { readIfPresent, statePath } from '../files.ts';
import { ago } from '../format.ts';
import { shortHash } from '../git.ts';
import { runningTask } from '../lock.ts';
import { ENVIRONMENTS, imageReference, type Project, variable, variableName } from '../project.ts';
import { findEntry, outline, withdrawnVersions } from '../release/notes.ts';
import { previousRelease, type ReleaseTag, releasedDigests } from '../release/record.ts';
import { parseTag } from '../release/version.ts';
import { interruptedRuns } from '../steps.ts';
import { isHealthy, observe } from '../switch/observe.ts';
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
  { id: 'images', title: 'images to run and go back to', run: neededImages },
  { id: 'health', title: 'running environments', run: health },
  { id: 'exposure', title: 'open ports', run: exposure },
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
  const older = count < tags.length ? `; ${tags.length - count} tags of before these tasks` : '';
  return gather(
    problems,
    (count === 0 ? 'no release yet' : `${count}: tags, images and ${file} agree`) + older,
  );
}

/** What is wrong with one tag, seen from its image. */
function tagProblems(project: Project, tag: ReleaseTag, images: readonly LocalImage[]): Finding[] {
  const { name, record, commit } = tag;
  const reference = imageReference(project, name);
  const build = `npm run build-push -- ${name}`;
  const image = images.find(({ names }) => names.includes(reference));
  if (!record) {
    // A tag of before these tasks is history. One whose image is here was a release, and has lost its record.
    if (!image?.labels[REVISION] && name !== variable(project, 'PROD_TAG')) return [];
    const remedy = `fetch the real one from the remote: ${FETCH} --force; or find it: git fsck --lost-found`;
    return [failed(`git tag ${name} is not the release's: it records no image`, remedy)];
  }
  if (!image) return [];
  if (!releasedDigests(record).includes(image.id)) {
    const what = `it is ${image.id}, git tag ${name} records ${record.digest}`;
    const remedy = `docker image rm ${reference} && ${build}`;
    return [failed(`image ${reference} is not the released one: ${what}`, remedy)];
  }
  const built = image.labels[REVISION];
  if (!built || built === commit) return [];
  const what = `it names commit ${shortHash(commit)}, its image was built from ${shortHash(built)}`;
  return [failed(`git tag ${name} was moved: ${what}`, `${FETCH} --force`)];
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

// Is there what a switch, a rollback and a build need, and does what is active work?

async function neededImages({ project, images, releases: tagsOf, ask }: Facts): Promise<Finding> {
  const present = new Set((await images()).flatMap(({ names }) => names));
  const released = (await tagsOf()).filter(({ record }) => record).map(({ name }) => name);
  const prodTag = variable(project, 'PROD_TAG');
  const previous = prodTag ? await tagBefore(project, prodTag) : undefined;
  const needed: [tag: string | undefined, why: string][] = [
    [prodTag, 'which .env names for prod'],
    [previous, 'which a rollback goes back to'],
  ];
  const problems = needed
    .filter(([tag]) => tag && released.includes(tag) && !present.has(imageReference(project, tag)))
    .map(([tag = '', why]) => {
      const detail = `image ${imageReference(project, tag)}, ${why}, is not on this machine`;
      return failed(detail, `npm run build-push -- ${tag}`);
    });
  const latest = imageReference(project, 'latest');
  if (released.length > 0 && !present.has(latest)) {
    const detail = `image ${latest}, which dev runs, is not on this machine`;
    problems.push(failed(detail, 'npm run build-push -- latest'));
  }
  // Where .env names none, each build fetches it.
  const base = variable(project, 'BASE_IMAGE');
  if (base && (await ask(`/images/${encodeURI(base)}/json`)) === undefined)
    problems.unshift(failed(`base image ${base} is not on this machine`, 'npm run setup'));
  return gather(
    problems,
    released.length === 0 ? 'none yet' : [prodTag, previous].filter(Boolean).join(', '),
  );
}

function tagBefore(project: Project, tag: string): Promise<string | undefined> {
  return previousRelease(project, tag).catch((error: TaskError) => {
    if (error.code !== 'no-previous') throw error;
    return undefined;
  });
}

async function health({ project, containers }: Facts): Promise<Finding> {
  const active = environmentsOf(activeEnvironment(project));
  if (active.length === 0) return ok('none is active');
  const { environments } = await observe(project, containers);
  const ill = active.filter((name) => !isHealthy(environments[name]));
  return gather(
    ill.map((name) => failed(`${name} is active, and not healthy`, 'see why: npm run status')),
    `${active.join(' and ')} healthy`,
  );
}

const LOOPBACK = /^(127\.|::1$|\[::1\]$|localhost$)/;

async function exposure({ project, services }: Facts): Promise<Finding> {
  const all = await services();
  const open = ENVIRONMENTS.flatMap((name) =>
    (all[project.environments[name].service]?.publishes ?? [])
      .filter(({ address }) => !LOOPBACK.test(address))
      .map(({ address, published }) => `${name} listens on ${address || '0.0.0.0'}:${published}`),
  );
  const token = project.live?.token;
  const address = `${variableName(project, 'BIND_ADDRESS')}=`;
  if (open.length === 0) return ok('only this machine reaches them');
  if (!token) return warning(open.join('\n'), `does it ask for a token? Else, in .env: ${address}127.0.0.1`);
  const name = variableName(project, token);
  if (variable(project, token)) return ok(`${open.join(', ')}, with ${name}`);
  const remedy = `close it, in .env: ${address}127.0.0.1\nor open it properly, in .env:\n${name}=… (openssl rand -hex 32)\n${address}0.0.0.0`;
  return failed(
    `${open.join('\n')}\nwithout ${name}: whoever reaches this machine can read and write`,
    remedy,
  );
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
