// Is the repository fit to release from, is what the project says about itself valid, and does it keep its secrets? Do
// tags, images and notes agree, is everything there that a switch or a rollback needs, and does what should run, run?
import { constants, existsSync } from 'node:fs';
import { access, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { activeEnvironment, environmentsOf, switchCommand } from '../active.ts';
import { backupDirectory } from '../backup/places.ts';
import { loadBackupFacts } from '../backup/report.ts';
import { probe, read } from '../command.ts';
import { verifyServices } from '../docker/compose.ts';
import { containerIds, inspectContainers } from '../docker/objects.ts';
import { verifyServiceConfig } from '../docker/service-config.ts';
import type { TaskError } from '../errors.ts';
import { readIfPresent, statePath } from '../files.ts';
import { ago } from '../format.ts';
import { git as gitIn, isShallow, shortHash, workTree } from '../git.ts';
import { runningTask } from '../lock.ts';
import { ENVIRONMENTS, imageReference, PROJECT_FILE, type Project, variable } from '../project.ts';
import { findEntry, outline, withdrawnVersions } from '../release/notes.ts';
import { previousRelease, type ReleaseHere } from '../release/record.ts';
import { parseTag } from '../release/version.ts';
import { interruptedProblem, interruptedRuns } from '../steps.ts';
import { exposureProblems } from '../switch/checks.ts';
import { isHealthy, observe } from '../switch/observe.ts';
import { readSamples } from '../uptime.ts';
import { type Check, type Facts, type LocalImage, type Report, unchecked } from './check.ts';

export const PROJECT_CHECKS: readonly Check[] = [
  { id: 'compose-config', title: 'compose files', look: composeConfig },
  { id: 'service-config', title: 'service configuration', look: serviceConfig },
  { id: 'secrets', withoutDotenv: true, title: 'secrets in configs', look: secrets },
  { id: 'dotenv', withoutDotenv: true, title: '.env', look: dotenv },
  { id: 'git', withoutDotenv: true, title: 'git', look: git },
  { id: 'releases', title: 'tags, images and notes', look: releases },
  { id: 'images', title: 'images to run and go back to', look: neededImages },
  { id: 'health', title: 'running environments', look: health },
  { id: 'exposure', title: 'open ports', look: exposure },
  { id: 'interrupted', title: 'interrupted tasks', look: interrupted },
  { id: 'leftovers', title: 'leftovers', look: leftovers },
  { id: 'backup', title: 'backup', look: backup },
  { id: 'sampling', title: 'uptime samples', look: sampling },
];

async function composeConfig({ project, services }: Facts) {
  const found = await services();
  verifyServices(project, found);
  return `${project.project.compose.join(', ')}: ${Object.keys(found).join(', ')}`;
}

async function serviceConfig({ project, services }: Facts) {
  const named = ENVIRONMENTS.filter((name) => project.environments[name].config);
  if (named.length === 0)
    return unchecked(`${PROJECT_FILE} names no configuration of the service (environments.*.config)`);
  await verifyServiceConfig(project, await services(), named);
  return named.map((name) => project.environments[name].config).join(', ');
}

/** Values that look like secrets, in the files that are committed and configure something. */
async function secrets({ project: { root, project, image } }: Facts, { fail }: Report) {
  const folders = new Set(['configs', ...project.compose.map((file) => join(file, '..'))]);
  const files = new Set([...project.compose, image.dockerfile, '.env.example']);
  for (const folder of folders) {
    const entries = await readdir(join(root, folder), { withFileTypes: true }).catch(() => []);
    for (const entry of entries) if (entry.isFile()) files.add(join(folder, entry.name));
  }
  const committed = [...files].filter((file) => !/(^|\/)\.env(\.|$)(?!example)/.test(file));
  const remedy =
    'move it to .env (never committed, 0600) and refer to it as a variable; a secret that was ever committed must be replaced';
  for (const file of committed) {
    const text = (await readIfPresent(join(root, file)).catch(() => undefined)) ?? '';
    for (const { line, why } of findSecrets(text)) fail(`${file}:${line} ${why}`, remedy);
  }
  return `${committed.length} files, nothing that looks like one`;
}

async function dotenv({ project: { root } }: Facts, report: Report) {
  const names = (await readdir(root)).filter((name) => /^\.env(\.|$)/.test(name) && name !== '.env.example');
  if (!names.includes('.env')) report.warn('there is none yet', 'npm run setup');
  for (const name of names) await checkDotenv(root, name, report);
  return `${names.join(', ')}: 0600, ignored by git`;
}

async function checkDotenv(root: string, file: string, { fail }: Report): Promise<void> {
  const path = join(root, file);
  const found = await stat(path);
  const mode = (found.mode & 0o777).toString(8).padStart(4, '0');
  const unreadable = await access(path, constants.R_OK).catch((error: Error) => error);
  if (unreadable) {
    const remedy = `sudo chown "$(id -u):$(id -g)" ${file} && chmod 0600 ${file}`;
    fail(`this user cannot read ${file}: ${unreadable.message}`, remedy);
  }
  if (!found.isFile()) fail(`${file} is not a file`, 'remove it, then: npm run setup');
  else if (mode !== '0600') fail(`${file} has mode ${mode}, expected 0600`, `chmod 0600 ${file}`);
  const tracked = await probe(gitIn(root, 'ls-files', '--error-unmatch', path));
  const ignored = await probe(gitIn(root, 'check-ignore', '--quiet', path));
  if (tracked.ok) fail(`${file} is committed`, `git rm --cached ${file}, and replace every secret in it`);
  else if (ignored.exitCode === 1) fail(`git does not ignore ${file}`, `add a line "${file}" to .gitignore`);
}

/** What git leaves in its directory while something waits for a person, and the command that aborts it. */
const UNFINISHED: [file: string, command: string][] = [
  ['MERGE_HEAD', 'merge'],
  ['rebase-merge', 'rebase'],
  ['rebase-apply', 'rebase'],
  ['CHERRY_PICK_HEAD', 'cherry-pick'],
  ['REVERT_HEAD', 'revert'],
];

async function git({ project: { root, release } }: Facts, { fail, warn }: Report) {
  const { changes, head, branch } = await workTree(root);
  const directory = await read(gitIn(root, 'rev-parse', '--absolute-git-dir'));
  for (const [file, command] of UNFINISHED)
    if (existsSync(join(directory, file)))
      fail(`a ${command} is not finished`, `finish it, or: git ${command} --abort`);
  if (await isShallow(root))
    fail('a shallow clone: versions and notes need the whole history', 'git fetch --unshallow --tags');
  if (!head) fail('there is no commit yet', 'git add --all && git commit');
  if (changes.length > 0)
    warn(`${changes.length} uncommitted: a release refuses that`, 'git status; commit, or git stash');
  if (branch !== release.branch) {
    const detail = `${branch ?? 'no branch'} is checked out, releases come from ${release.branch}`;
    warn(detail, `git switch ${release.branch}`);
  }
  return `${branch} at ${shortHash(head ?? '')}, nothing uncommitted`;
}

// Each way in which somebody's hand can make tags, images and notes differ is a line of its own.

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
function checkTag(project: Project, tag: ReleaseHere, images: readonly LocalImage[], report: Report): void {
  const { fail, warn } = report;
  const { name, record, commit, digests, isRebuilt } = tag;
  const reference = imageReference(project, name);
  const image = images.find(({ names }) => names.includes(reference));
  const built = image?.labels['org.opencontainers.image.revision'];
  // A tag of before these tasks is history. One whose image is here was a release, and has lost its record.
  if (!record && !built && name !== variable(project, 'PROD_TAG')) return;
  if (!record) {
    const remedy = `fetch the real one from the remote: ${FETCH} --force; or find it: git fsck --lost-found`;
    fail(`git tag ${name} is not the release's: it records no image`, remedy);
  } else if (image && !digests.includes(image.id)) {
    const what = `it is ${image.id}, git tag ${name} records ${record.digest}`;
    const remedy = `docker image rm ${reference} && npm run build-push -- ${name}`;
    fail(`image ${reference} is not the released one: ${what}`, remedy);
  } else if (built && built !== commit) {
    const what = `it names commit ${shortHash(commit)}, its image was built from ${shortHash(built)}`;
    fail(`git tag ${name} was moved: ${what}`, `${FETCH} --force`);
  } else if (image && isRebuilt) {
    const remedy = `to run the released image: docker save ${reference} on another machine, docker load here; or make a new release`;
    warn(`image ${reference} was built again here, and is not byte for byte the released one`, remedy);
  }
}

/** Where notes and tags miss each other. */
async function checkNotes({ root, release }: Project, tags: readonly ReleaseHere[], { fail }: Report) {
  const { notes: file, tag_prefix: prefix } = release;
  const notes = (await readIfPresent(join(root, file))) ?? '';
  for (const { name } of tags.filter((tag) => tag.record && !findEntry(notes, tag.name)))
    fail(`${file} has no entry for ${name}`, `see what it was: git show ${name}:${file}`);
  const known = new Set([...tags.map(({ version }) => version), ...withdrawnVersions(notes)]);
  const entries = outline(notes).headings.flatMap(
    ({ text }) => parseTag(prefix, /^\[?([^\]\s]+)/.exec(text)?.[1] ?? '') ?? [],
  );
  const remedy = `fetch the tags: ${FETCH}; or resume an interrupted release: npm run release`;
  for (const version of entries.filter((entry) => !known.has(entry)))
    fail(`${file} has an entry for ${prefix}${version}, git has no such tag`, remedy);
}

// Is there what a switch, a rollback and a build need, and does what is active work?

async function neededImages({ project, images, releases: tagsOf, ask }: Facts, { fail }: Report) {
  const present = new Set((await images()).flatMap(({ names }) => names));
  const released = (await tagsOf()).filter(({ record }) => record).map(({ name }) => name);
  const prodTag = variable(project, 'PROD_TAG');
  const before = prodTag && (await previousRelease(project, prodTag).catch(noneBefore));
  // Where .env names none, each build fetches it.
  const base = variable(project, 'BASE_IMAGE');
  if (base && (await ask(`/images/${encodeURI(base)}/json`)) === undefined)
    fail(`base image ${base} is not on this machine`, 'npm run setup');
  const needed: [tag: string | undefined, why: string][] = [
    [prodTag, 'which .env names for prod'],
    [before, 'which a rollback goes back to'],
    ['latest', 'which dev runs'],
  ];
  for (const [tag, why] of needed) {
    const isReleased = tag === 'latest' ? released.length > 0 : released.includes(tag ?? '');
    if (!tag || !isReleased || present.has(imageReference(project, tag))) continue;
    const detail = `image ${imageReference(project, tag)}, ${why}, is not on this machine`;
    fail(detail, `npm run build-push -- ${tag}`);
  }
  return released.length === 0 ? 'none yet' : [prodTag, before].filter(Boolean).join(', ');
}

function noneBefore(error: TaskError): undefined {
  if (error.code !== 'no-previous') throw error;
}

async function health({ project, containers }: Facts, { fail }: Report) {
  const active = environmentsOf(activeEnvironment(project));
  if (active.length === 0) return 'none is active';
  const { environments } = await observe(project, containers);
  for (const name of active.filter((one) => !isHealthy(environments[one])))
    fail(`${name} is active, but not healthy`, 'see why: npm run status');
  return `${active.join(' and ')} healthy`;
}

/** By the compose files and .env; and where a container still listens elsewhere, that too. */
async function exposure({ project, services, containers }: Facts, { fail, warn }: Report) {
  const [all, found] = [await services(), await containers()];
  const listed = ENVIRONMENTS.flatMap((name) => {
    const service = all[project.environments[name].service];
    if (!service) return [];
    for (const { message, hint } of exposureProblems(project, name, service)) fail(message, hint ?? '');
    const wanted = service.publishes.map(({ address, published }) => `${address || '0.0.0.0'}:${published}`);
    const running = found.find(
      (one) => one.service === project.environments[name].service && one.state === 'running',
    );
    const open = running?.publishedAddresses ?? wanted;
    if (open.toSorted().join() !== wanted.toSorted().join())
      warn(
        `${name} listens on ${open.join(', ')} until it is replaced; .env says ${wanted.join(', ')}`,
        `apply it: ${switchCommand(project, name)}`,
      );
    return wanted.map((address) => `${name} ${address}`);
  });
  return listed.join(', ') || 'none';
}

// Did a task die half-way, and did something stay behind?

async function interrupted({ project: { root } }: Facts, { fail }: Report) {
  const owner = await runningTask(root);
  if (owner) return `${owner.task} runs since ${owner.since} (pid ${owner.pid})`;
  for (const run of await interruptedRuns(root)) {
    const { message, hint } = interruptedProblem(run, new Date());
    fail(message, hint);
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
  for (const name of (await images()).flatMap((image) => image.names))
    if (name.startsWith(imageReference(project, 'candidate-')))
      fail(`image ${name} is left over from a build that died`, `docker image rm ${name}`);
  const folders: [folder: string, pattern: RegExp][] = [
    [root, /^\..*\.partial$/],
    [join(root, 'configs'), /^\..*\.partial$/],
    [statePath(root), /^work-|\.partial$/],
    [statePath(root, 'journal'), /\.partial$/],
    [backupDirectory(project), /\.partial$/],
  ];
  for (const [folder, pattern] of folders)
    for (const name of (await readdir(folder).catch(() => [])).filter((one) => pattern.test(one)))
      fail(`${join(folder, name)} is left over from a task that died`, `rm -r ${join(folder, name)}`);
  return 'nothing was left behind';
}

async function backup({ project }: Facts, { fail, warn }: Report) {
  const { report, problem } = await loadBackupFacts(project, new Date());
  if (problem) fail(problem.message, problem.hint);
  else if (!report.at) warn('there is none yet', 'npm run backup; schedule it: npm run backup -- schedule');
  return `the last good one was made ${ago(report.at ?? '', new Date())}`;
}

const LONGEST_GAP_MS = 10 * 60_000;

async function sampling({ project }: Facts, { warn }: Report) {
  const last = (await readSamples(project.root)).samples.at(-1)?.at;
  const schedule = 'schedule it: npm run status -- --help shows the line for cron';
  if (!last) warn('uptime is not measured', schedule);
  const taken = `the last sample was taken ${ago(last ?? '', new Date())}`;
  if (last && Date.now() - Date.parse(last) > LONGEST_GAP_MS) warn(taken, `is cron running? ${schedule}`);
  return taken;
}

// Values in configuration files that look like secrets: by the name of their key, or by their own well-known form.
// Each pattern starts at a fixed word or at the beginning of a name, so that a long line takes no long time.

const ASSIGNED_NAME = /(?<![\w.-])([\w.-]+)["']?[^\S\n]*[:=]/g;
const SECRET_KEY = /token|secret|password|passwd|api[_-]?key|private[_-]?key|credential/i;
/** Names of keys that speak about secrets without holding one. */
const HARMLESS_KEY =
  /(?:_file|_files|file|path|_env|_name|_header|_length|_limit|max_tokens|tokens|_type|_url|_id|expiry|minutes|seconds)$/i;
/** Values that a person recognizes as no secret: empty, a variable or the name of one, a path, a word of configuration. */
const HARMLESS_VALUE =
  /^(?:$|\$\{?\w|<.*>$|%\w+%$|[[{|>/~]|\.{1,2}\/|(?:true|false|null|none|\d{1,6})$|[A-Z][A-Z0-9_]*$)/;

/** Forms that issuers give their secrets, so that they can be found. */
const KNOWN_FORMS: [form: RegExp, name: string][] = [
  [/-----BEGIN (?:[A-Z]{1,20} ){0,4}PRIVATE KEY-----/, 'a private key'],
  [/\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_\w{22}/, 'a GitHub token'],
  [/\bglpat-[\w-]{20}/, 'a GitLab token'],
  [/\bAKIA[0-9A-Z]{16}\b/, 'an AWS access key'],
  [/\bxox[baprs]-[\w-]{10}/, 'a Slack token'],
  [/\bsk-[A-Za-z0-9_-]{20}/, 'an API key'],
  [/\bnpm_[A-Za-z0-9]{36}\b/, 'an npm token'],
  [/\beyJ[\w-]{10,2000}\.eyJ[\w-]{10,2000}\.[\w-]{10}/, 'a JSON web token'],
  [/[a-z]:\/\/[^\s/:@"'$]{1,200}:[^\s/@"'${]{1,200}@/i, 'a password in a URL'],
];

/** Lines, from 1, and why; never the value. Pure. */
export function findSecrets(text: string): { line: number; why: string }[] {
  return text.split('\n').flatMap((line, index) => {
    const form = KNOWN_FORMS.find(([pattern]) => pattern.test(line));
    const key = form ? undefined : secretKey(line);
    if (form) return [{ line: index + 1, why: `looks like ${form[1]}` }];
    return key ? [{ line: index + 1, why: `gives ${key} a value of its own` }] : [];
  });
}

/** The first name on the line that speaks of a secret and is given one. */
function secretKey(line: string): string | undefined {
  // A whole-line comment explains and sets nothing.
  if (/^\s*(#|\/\/)/.test(line)) return undefined;
  for (const { 0: found, 1: name = '', index } of line.matchAll(ASSIGNED_NAME)) {
    if (!SECRET_KEY.test(name)) continue;
    const start = index + found.length;
    // Its beginning tells; the patterns would take long over a megabyte.
    const text = line.slice(start, start + 1000).replace(/#.*$/, '');
    const value = text.replace(/^\s*["']?|["']?[\s,;}\]]*$/g, '');
    return HARMLESS_KEY.test(name) || HARMLESS_VALUE.test(value) ? undefined : name;
  }
  return undefined;
}
