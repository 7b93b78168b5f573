// Freezing the containers while files are copied (--pause), so that the files belong to the same moment as the
// databases. Written down before the first one is frozen: whatever kills this task, the next one thaws them.
import { probe, run } from '../command.ts';
import { docker } from '../docker/client.ts';
import { inspectContainers, projectContainers } from '../docker/containers.ts';
import { withEngineRetries } from '../docker/retry.ts';
import { TaskError } from '../errors.ts';
import { uninterrupted } from '../interrupt.ts';
import { openJournal, readJournal } from '../journal.ts';
import { log } from '../log.ts';
import type { Project } from '../project.ts';

const JOURNAL = 'backup-pause';

interface Frozen {
  containers: string[];
}

async function pausedOf(ids: readonly string[]): Promise<string[]> {
  const containers = await inspectContainers(ids);
  return containers.filter(({ state }) => state === 'paused').map(({ id }) => id);
}

async function unpause(ids: readonly string[]): Promise<void> {
  const paused = await pausedOf(ids);
  if (paused.length === 0) return;
  const answer = await probe(docker('unpause', ...paused));
  const left = await pausedOf(paused);
  if (left.length === 0) return;
  throw new TaskError(`Cannot thaw ${left.join(' ')}: ${answer.stderr.trim()}`, {
    code: 'not-thawed',
    hint: `docker unpause ${left.join(' ')}`,
  });
}

/** The kernel's older freezer gives up on a container that starts a process, a health check, at just that moment. */
function pauseAll(ids: readonly string[]): Promise<void> {
  return withEngineRetries(/unable to freeze/, async () => {
    const paused = await pausedOf(ids);
    const left = ids.filter((id) => !paused.includes(id));
    if (left.length > 0) await run(docker('pause', ...left));
  });
}

/** Thaws what a killed task left frozen. */
export async function thawLeftovers(project: Project): Promise<void> {
  const journal = await readJournal<Frozen>(project.root, JOURNAL);
  if (!journal) return;
  log.warn(`a backup died while the containers were frozen (${journal.at}); thawing them`);
  await unpause(journal.data.containers);
  await openJournal<Frozen>(project.root, JOURNAL).close();
}

export interface Freezer {
  freeze: () => Promise<void>;
  thaw: () => Promise<void>;
}

/** Runs `work` with a freezer; what it froze is thawed however `work` ends. */
export async function withFreezer<T>(project: Project, work: (freezer: Freezer) => Promise<T>): Promise<T> {
  const journal = openJournal<Frozen>(project.root, JOURNAL);
  let frozen: string[] = [];
  const thaw = async () => {
    if (frozen.length === 0) return;
    await uninterrupted(async () => {
      await unpause(frozen);
      frozen = [];
      await journal.close();
    });
  };
  const freeze = async () => {
    if (frozen.length > 0) return;
    const running = (await projectContainers(project))
      .filter(({ state }) => state === 'running')
      .map(({ id }) => id);
    if (running.length === 0) return;
    await journal.record('freeze', { containers: running });
    frozen = running;
    await pauseAll(running);
    await journal.record('frozen', { containers: running });
  };
  try {
    return await work({ freeze, thaw });
  } finally {
    await thaw();
  }
}
