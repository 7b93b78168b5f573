// Everything that a status report is made of, looked up once and cheaply: one connection to the engine, compose, git
// and our own files. It only looks.
import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { loadBackupFacts } from '../backup/report.ts';
import { queryEngine, withEngine } from '../docker/engine.ts';
import { type Container, cpuPercent, projectContainers, type Usages, usagesOf } from '../docker/objects.ts';
import { TaskError } from '../errors.ts';
import { type HistoryEntry, readHistory } from '../history.ts';
import { runningTask } from '../lock.ts';
import { dataDirectory, type EnvironmentName, imageReference, type Project } from '../project.ts';
import { releasesHere } from '../release/record.ts';
import { session } from '../session.ts';
import { interruptedRuns } from '../steps.ts';
import { type Observation, observe } from '../switch/observe.ts';
import { readSamples } from '../uptime.ts';

export type StatusFacts = Awaited<ReturnType<typeof loadFacts>>;

/** @throws TaskError only where the project itself is wrong; without an engine the other facts still come */
export async function loadFacts(project: Project, at = new Date()) {
  const { root } = project;
  const [running, task, interrupted, releases, history, samples, dataBytes, backup] = await Promise.all([
    observeEngine(project).catch(withoutEngine),
    runningTask(root),
    interruptedRuns(root),
    releasesHere(project),
    readHistory(root),
    readSamples(root),
    directorySize(dataDirectory(project)),
    loadBackupFacts(project, at),
  ]);
  // Switches belong to an engine; releases and backups to the project.
  const isOurs = ({ task, context = 'default' }: HistoryEntry) =>
    task !== 'switch' || context === (session.context ?? 'default');
  return {
    ...{ at, ...running, releases, history: history.filter(isOurs), samples, dataBytes, backup },
    /** The task that is at work now, which may have stopped or renamed something for a moment. */
    task: task?.task,
    interrupted: task ? [] : interrupted,
  };
}

interface Running {
  /** Undefined: no engine answers. */
  observation?: Observation | undefined;
  engineError?: TaskError;
  containers: Container[];
  usages: Usages;
  /** Per cent of one CPU. */
  cpu: Partial<Record<EnvironmentName, number | undefined>>;
  /** Id of the image that dev would run now. */
  latest?: string | undefined;
}

function withoutEngine(error: unknown): Running {
  if (!(error instanceof TaskError) || error.code !== 'engine-down') throw error;
  return { engineError: error, containers: [], usages: {}, cpu: {} };
}

function observeEngine(project: Project): Promise<Running> {
  return withEngine(async () => {
    const containers = await projectContainers(project);
    const before = await usagesOf(project, containers);
    const observation = await observe(project, async () => containers);
    // CPU is a difference; what compose and /health took in between is long enough.
    const usages = await usagesOf(project, containers);
    const cpu = { dev: cpuPercent(before.dev, usages.dev), prod: cpuPercent(before.prod, usages.prod) };
    const image = await queryEngine(`/images/${encodeURI(imageReference(project, 'latest'))}/json`);
    return { observation, containers, usages, cpu, latest: (image as { Id?: string } | undefined)?.Id };
  });
}

/** More than any data directory of this kind has; beyond it the size is not known. */
const MOST_FILES = 50_000;

/** Bytes of all files below `path`, links not followed; undefined if it cannot be read, or holds too many. */
async function directorySize(path: string): Promise<number | undefined> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true }).catch(() => undefined);
  if (!entries || entries.length > MOST_FILES) return undefined;
  const files = entries.filter((entry) => !entry.isDirectory());
  // A file may vanish while we look (a temporary one of SQLite).
  const sizes = files.map(({ parentPath, name }) => lstat(join(parentPath, name)).catch(() => ({ size: 0 })));
  return (await Promise.all(sizes)).reduce((sum, { size }) => sum + size, 0);
}
