// Do tags, images and notes agree, is everything there that a switch or a rollback needs, and is what should run by
// itself running?

import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { activeEnvironment, environmentsOf, switchCommand } from '../active.ts';
import { backupDirectory } from '../backup/places.ts';
import { loadBackupFacts } from '../backup/report.ts';
import { containerIds, inspectContainers } from '../docker/objects.ts';
import type { TaskError } from '../errors.ts';
import { readIfPresent, statePath } from '../files.ts';
import { ago } from '../format.ts';
import { shortHash } from '../git.ts';
import { runningTask } from '../lock.ts';
import { ENVIRONMENTS, imageReference, type Project, variable } from '../project.ts';
import { findEntry, outline, withdrawnVersions } from '../release/notes.ts';
import { previousRelease, type ReleaseTag, releasedDigests } from '../release/record.ts';
import { parseTag } from '../release/version.ts';
import { interruptedRuns } from '../steps.ts';
import { exposureProblems } from '../switch/checks.ts';
import { isHealthy, observe } from '../switch/observe.ts';
import { readSamples } from '../uptime.ts';
import { type Check, type Facts, type LocalImage, type Report, unchecked } from './check.ts';

export const STATE_CHECKS: readonly Check[] = [
  { id: 'releases', title: 'tags, images and notes', check: releases },
  { id: 'images', title: 'images to run and go back to', check: neededImages },
  { id: 'health', title: 'running environments', check: health },
  { id: 'exposure', title: 'open ports', check: exposure },
  { id: 'interrupted', title: 'interrupted tasks', check: interrupted },
  { id: 'leftovers', title: 'leftovers', check: leftovers },
  { id: 'backup', title: 'backup', check: backup },
  { id: 'sampling', title: 'uptime samples', check: sampling },
];

// Each way in which somebody's hand can make tags, images and notes differ is a line of its own.

const REVISION = 'org.opencontainers.image.revision';
const FETCH = 'git fetch --tags';

async function releases({ project, releases: tagsOf, images: imagesOf }: Facts, report: Report) {
  const { tag_prefix: prefix, notes: file } = project.release;
  const [tags, images] = await Promise.all([tagsOf(), imagesOf()]);
  const prodTag = variable(project, 'PROD_TAG');
  for (const tag of tags) checkTag(project, tag, images, report);
  await checkNotes(project, tags, report);
  for (const reference of images.flatMap(({ names }) => names)) {
    const tag = reference.slice(reference.lastIndexOf(':') + 1);
    if (parseTag(prefix, tag) === undefined || tags.some(({ name }) => name === tag)) continue;
    const remedy = `fetch the tags: ${FETCH}; or remove the name: docker image rm ${reference}`;
    report.fail(`image ${reference} has no git tag`, remedy);
  }
  if (prodTag && !tags.some(({ name }) => name === prodTag)) {
    const remedy = `${FETCH}, or: ${switchCommand(project, 'prod', { version: 'latest-release' })}`;
    report.fail(`.env names ${prodTag} for prod, git has no such tag`, remedy);
  }
  const count = tags.filter(({ record }) => record).length;
  const older = count < tags.length ? `; ${tags.length - count} tags from before these tasks` : '';
  return (count === 0 ? 'no release yet' : `${count}: tags, images and ${file} agree`) + older;
}

/** What is wrong with one tag, seen from its image. */
function checkTag(project: Project, tag: ReleaseTag, images: readonly LocalImage[], { fail }: Report): void {
  const { name, record, commit } = tag;
  const reference = imageReference(project, name);
  const image = images.find(({ names }) => names.includes(reference));
  const built = image?.labels[REVISION];
  // A tag of before these tasks is history. One whose image is here was a release, and has lost its record.
  if (!record && !built && name !== variable(project, 'PROD_TAG')) return;
  if (!record) {
    const remedy = `fetch the real one from the remote: ${FETCH} --force; or find it: git fsck --lost-found`;
    fail(`git tag ${name} is not the release's: it records no image`, remedy);
  } else if (image && !releasedDigests(record).includes(image.id)) {
    const what = `it is ${image.id}, git tag ${name} records ${record.digest}`;
    const remedy = `docker image rm ${reference} && npm run build-push -- ${name}`;
    fail(`image ${reference} is not the released one: ${what}`, remedy);
  } else if (built && built !== commit) {
    const what = `it names commit ${shortHash(commit)}, its image was built from ${shortHash(built)}`;
    fail(`git tag ${name} was moved: ${what}`, `${FETCH} --force`);
  }
}

/** Where notes and tags miss each other. */
async function checkNotes({ root, release }: Project, tags: readonly ReleaseTag[], { fail }: Report) {
  const { notes: file, tag_prefix: prefix } = release;
  const notes = (await readIfPresent(join(root, file))) ?? '';
  for (const { name } of tags.filter((tag) => tag.record && !findEntry(notes, tag.name)))
    fail(`${file} has no entry for ${name}`, `see what it was: git show ${name}:${file}`);
  const remedy = `fetch the tags: ${FETCH}; or resume an interrupted release: npm run release`;
  for (const version of orphanEntries(notes, prefix, tags))
    fail(`${file} has an entry for ${prefix}${version}, git has no such tag`, remedy);
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

async function neededImages({ project, images, releases: tagsOf, ask }: Facts, { fail }: Report) {
  const present = new Set((await images()).flatMap(({ names }) => names));
  const released = (await tagsOf()).filter(({ record }) => record).map(({ name }) => name);
  const prodTag = variable(project, 'PROD_TAG');
  const previous = prodTag ? await tagBefore(project, prodTag) : undefined;
  // Where .env names none, each build fetches it.
  const base = variable(project, 'BASE_IMAGE');
  if (base && (await ask(`/images/${encodeURI(base)}/json`)) === undefined)
    fail(`base image ${base} is not on this machine`, 'npm run setup');
  const needed: [tag: string | undefined, why: string][] = [
    [prodTag, 'which .env names for prod'],
    [previous, 'which a rollback goes back to'],
    ['latest', 'which dev runs'],
  ];
  for (const [tag, why] of needed) {
    const isReleased = tag === 'latest' ? released.length > 0 : released.includes(tag ?? '');
    if (!tag || !isReleased || present.has(imageReference(project, tag))) continue;
    const detail = `image ${imageReference(project, tag)}, ${why}, is not on this machine`;
    fail(detail, `npm run build-push -- ${tag}`);
  }
  return released.length === 0 ? 'none yet' : [prodTag, previous].filter(Boolean).join(', ');
}

function tagBefore(project: Project, tag: string): Promise<string | undefined> {
  return previousRelease(project, tag).catch((error: TaskError) => {
    if (error.code !== 'no-previous') throw error;
    return undefined;
  });
}

async function health({ project, containers }: Facts, { fail }: Report) {
  const active = environmentsOf(activeEnvironment(project));
  if (active.length === 0) return 'none is active';
  const { environments } = await observe(project, containers);
  for (const name of active.filter((one) => !isHealthy(environments[one])))
    fail(`${name} is active, but not healthy`, 'see why: npm run status');
  return `${active.join(' and ')} healthy`;
}

async function exposure({ project, services }: Facts, { fail }: Report) {
  const all = await services();
  const found = ENVIRONMENTS.flatMap((name) => {
    const service = all[project.environments[name].service];
    if (!service) return [];
    for (const { message, hint } of exposureProblems(project, name, service)) fail(message, hint ?? '');
    return service.publishes.map(({ address, published }) => `${name} ${address || '0.0.0.0'}:${published}`);
  });
  return found.join(', ') || 'none';
}

// Did a task die half-way, and did something stay behind?

async function interrupted({ project: { root } }: Facts, { fail }: Report) {
  const owner = await runningTask(root);
  if (owner) return `${owner.task} runs since ${owner.since} (pid ${owner.pid})`;
  for (const { task, command, at, step, error } of await interruptedRuns(root)) {
    if (error) fail(error.message, error.hint ?? '');
    else fail(`${task} was interrupted at ${at}${step ? ` after "${step}"` : ''}`, `resume it: ${command}`);
  }
  return 'no task was interrupted';
}

async function leftovers({ project, images }: Facts, { fail }: Report) {
  const { root } = project;
  const owner = await runningTask(root);
  if (owner) return `${owner.task} is running; what it uses is no leftover`;
  // What an interrupted task left is what it will resume with.
  if ((await interruptedRuns(root)).length > 0) return unchecked('resume the interrupted task first');
  const label = `release-flow.candidate=${project.project.name}`;
  for (const { name } of await inspectContainers(await containerIds({ label: [label] })))
    fail(`container ${name} is left over from a release that died`, `docker rm --force --volumes ${name}`);
  for (const name of (await images()).flatMap((image) => image.names)) {
    if (!name.startsWith(imageReference(project, 'candidate-'))) continue;
    fail(`image ${name} is left over from a build that died`, `docker image rm ${name}`);
  }
  for (const path of await leftFiles(root, backupDirectory(project)))
    fail(`${path} is left over from a task that died`, `rm -r ${path}`);
  return 'nothing was left behind';
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

async function backup({ project }: Facts, { fail, warn }: Report) {
  const { report, problem } = await loadBackupFacts(project, new Date());
  if (problem) fail(problem.message, problem.hint);
  else if (!report.at) warn('there is none yet', 'npm run backup; schedule it: npm run backup -- schedule');
  return `the last good one was made ${ago(report.at ?? '', new Date())}`;
}

const LONGEST_GAP_MS = 10 * 60_000;

async function sampling({ project }: Facts, { warn }: Report) {
  const { samples, hours } = await readSamples(project.root);
  const schedule = 'schedule it: npm run status -- --help shows the line for cron';
  const last = samples.at(-1);
  if (!last) warn(`uptime is not ${hours.length > 0 ? 'measured any more' : 'measured'}`, schedule);
  const taken = `the last sample was taken ${ago(last?.at ?? '', new Date())}`;
  if (last && Date.now() - Date.parse(last.at) > LONGEST_GAP_MS) warn(taken, `is cron running? ${schedule}`);
  return taken;
}
