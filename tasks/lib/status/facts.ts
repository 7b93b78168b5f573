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
import { releaseTags } from '../release/record.ts';
import { session } from '../session.ts';
import { interruptedRuns } from '../steps.ts';
import { type Observation, observe } from '../switch/observe.ts';
import { readSamples } from '../uptime.ts';
export type StatusFacts = Awaited<ReturnType<typeof loadFacts>>;

/** @throws TaskError only where the project itself is wrong; without an engine the other facts still come */
export async function loadFacts(project: Project, at = new Date()) {
  const { root, release } = project;
  const engine = observeEngine(project).catch((error: unknown): Running => {
    if (!(error instanceof TaskError) || error.code !== 'engine-down') throw error;
    return {
      observation: undefined,
      engineError: error,
      containers: [],
      usages: {},
      cpu: {},
      latest: undefined,
    };
  });
  const [running, task, interrupted, releases, history, samples, dataBytes, backup] = await Promise.all([
    engine,
    runningTask(root),
    interruptedRuns(root),
    releaseTags(root, release.tag_prefix),
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
  observation: Observation | undefined;
  engineError: TaskError | undefined;
  containers: Container[];
  usages: Usages;
  /** Per cent of one CPU. */
  cpu: Partial<Record<EnvironmentName, number | undefined>>;
  /** Id of the image that dev would run now. */
  latest: string | undefined;
}

function observeEngine(project: Project): Promise<Running> {
  return withEngine(async () => {
    let containers: Container[] = [];
    let before: Usages = {};
    const observation = await observe(project, async () => {
      containers = await projectContainers(project);
      before = await usagesOf(project, containers);
      return containers;
    });
    // CPU is a difference; what compose and /health took in between is long enough.
    const usages = await usagesOf(project, containers);
    const cpu = { dev: cpuPercent(before.dev, usages.dev), prod: cpuPercent(before.prod, usages.prod) };
    const image = await queryEngine(`/images/${encodeURI(imageReference(project, 'latest'))}/json`);
    const latest = (image as { Id?: string } | undefined)?.Id;
    return { observation, engineError: undefined, containers, usages, cpu, latest };
  });
}

/** More than any data directory of this kind has; beyond it the size is not known. */
const MOST_FILES = 50_000;

/** Bytes of all files below `path`, links not followed; undefined if it cannot be read, or holds too many. */
async function directorySize(path: string): Promise<number | undefined> {
  const folders = [path];
  const files: string[] = [];
  for (const folder of folders) {
    const entries = await readdir(folder, { withFileTypes: true }).catch(() => undefined);
    if (!entries || files.length > MOST_FILES) return undefined;
    for (const entry of entries) (entry.isDirectory() ? folders : files).push(join(folder, entry.name));
  }
  // A file may vanish while we look (a temporary one of SQLite).
  const found = await Promise.all(files.map((file) => lstat(file).catch(() => ({ size: 0 }))));
  return found.reduce((sum, { size }) => sum + size, 0);
}
