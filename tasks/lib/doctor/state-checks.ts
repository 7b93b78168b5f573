// Did a task die half-way, did something stay behind, is what should run by itself running?
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { backupDirectory } from '../backup/places.ts';
import { readIfPresent } from '../files.ts';
import type { JournalEntry } from '../journal.ts';
import { isAlive, readOwner } from '../lock.ts';
import { imageReference } from '../project.ts';
import { statePath } from '../state.ts';
import { loadBackupFacts } from '../status/backup-report.ts';
import { ago } from '../status/format.ts';
import { readSamples } from '../status/samples.ts';
import { type Check, type Finding, failed, gather, ok, unchecked, warning } from './check.ts';
import type { Facts } from './facts.ts';

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
  const owner = await readOwner(root);
  if (owner && (await isAlive(owner)))
    return ok(`${owner.task} runs since ${owner.since} (pid ${owner.pid})`);
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
  const owner = await readOwner(project.root);
  if (owner && (await isAlive(owner))) return ok(`${owner.task} is at work; what it uses is no leftover`);
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
