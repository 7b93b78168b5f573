// Everything that a status page tells, looked up at once and as cheaply as possible: one connection to the engine,
// two calls of compose, one of git, our own files. Making sense of it is the report's.

import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type BackupFacts, loadBackupFacts } from '../backup/report.ts';
import { withEngine } from '../docker/engine.ts';
import { cpuPercent, projectContainers, type Usages, usagesOf } from '../docker/objects.ts';
import { TaskError } from '../errors.ts';
import { type HistoryEntry, readHistory } from '../history.ts';
import { dataDirectory, type Project } from '../project.ts';
import { type ReleaseTag, releaseTags } from '../release/record.ts';
import { session } from '../session.ts';
import { type Observation, observe } from '../switch/observe.ts';
import { readSamples, type SampleLog } from '../uptime.ts';

export interface StatusFacts {
  at: Date;
  /** Undefined when no engine answers; then `engineError` says why. */
  observation: Observation | undefined;
  engineError: TaskError | undefined;
  usages: Usages;
  /** Per cent of one CPU. */
  cpu: { dev?: number | undefined; prod?: number | undefined };
  releases: ReleaseTag[];
  history: HistoryEntry[];
  samples: SampleLog;
  data: { directory: string; bytes: number | undefined };
  backup: BackupFacts;
}

type Running = Pick<StatusFacts, 'observation' | 'engineError' | 'usages' | 'cpu'>;

async function observeRunning(project: Project): Promise<Running> {
  return withEngine(async (ask) => {
    let first: Usages = {};
    const observation = await observe(project, async () => {
      const containers = await projectContainers(project, ask);
      first = await usagesOf(ask, project, containers);
      return containers;
    });
    const containers = Object.values(observation.environments).flatMap(({ container }) => container ?? []);
    // CPU is a difference; what compose and /health took in between is long enough.
    const usages = await usagesOf(ask, project, containers);
    const cpu = { dev: cpuPercent(first.dev, usages.dev), prod: cpuPercent(first.prod, usages.prod) };
    return { observation, engineError: undefined, usages, cpu };
  });
}

/** Switches are an engine's; releases and backups are the project's. */
function isOfThisEngine({ task, context = 'default' }: HistoryEntry): boolean {
  return task !== 'switch' || context === (session.context ?? 'default');
}

/** @throws TaskError only where the project itself is wrong; without an engine the other facts still come */
export async function loadStatusFacts(project: Project, at = new Date()): Promise<StatusFacts> {
  const directory = dataDirectory(project);
  const [running, releases, history, samples, bytes, backup] = await Promise.all([
    observeRunning(project).catch((error: unknown): Running => {
      if (!(error instanceof TaskError) || error.code !== 'engine-down') throw error;
      return { observation: undefined, engineError: error, usages: {}, cpu: {} };
    }),
    releaseTags(project.root, project.release.tag_prefix),
    readHistory(project.root),
    readSamples(project.root),
    directorySize(directory),
    loadBackupFacts(project, at),
  ]);
  return {
    at,
    ...running,
    releases,
    history: history.filter(isOfThisEngine),
    samples,
    data: { directory, bytes },
    backup,
  };
}

// How much a directory holds, without a process and without waiting for ever on a huge one.

/** More than any data directory of this kind has; beyond it the size is not known. */
const MOST_FILES = 50_000;

/** Bytes of all files below `path`, links not followed; undefined if it cannot be read, or holds too many. */
async function directorySize(path: string): Promise<number | undefined> {
  let left = MOST_FILES;
  const size = async (directory: string): Promise<number> => {
    const entries = await readdir(directory, { withFileTypes: true });
    left -= entries.length;
    if (left < 0) throw new Error('too many files');
    const sizes = await Promise.all(
      entries.map((entry) => {
        const child = join(directory, entry.name);
        // A file may vanish while we look (a temporary one of SQLite).
        return entry.isDirectory()
          ? size(child)
          : lstat(child).then(
              ({ size: bytes }) => bytes,
              () => 0,
            );
      }),
    );
    return sizes.reduce((sum, bytes) => sum + bytes, 0);
  };
  return size(path).catch(() => undefined);
}
