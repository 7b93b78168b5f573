// The next run after a switch that was killed: brings back what ran before it, or finishes it if it had come
// as far as its commit.
import { probe } from '../command.ts';
import { withReach } from '../docker/reach.ts';
import { pause, uninterrupted } from '../interrupt.ts';
import { type JournalEntry, readHistory, withHistory } from '../journal.ts';
import { log } from '../log.ts';
import { type Project, portOf } from '../project.ts';
import { session } from '../session.ts';
import { COMMIT, openSwitchJournal, type SwitchRecord } from './record.ts';
import { restore } from './restore.ts';
import { commit, historyDetails, tidy } from './run.ts';

const SETTLE_MS = 15_000;

/** Under the project's lock; says what it did. @throws TaskError if it cannot */
export async function repair(
  project: Project,
  { step, data: record }: JournalEntry<SwitchRecord>,
): Promise<void> {
  const what = `the switch ${record.from.active} → ${record.to.active} of ${record.startedAt}`;
  if (session.dryRun) {
    log.would(`${step === COMMIT ? 'finish' : 'undo'} ${what}, which ended at the step ${step}`);
    return;
  }
  await settle(project);
  if (step === COMMIT) {
    log.warn(`${what} was interrupted at its end: finishing it`);
    await uninterrupted(() => finish(project, record));
  } else {
    log.warn(`${what} was interrupted (at ${step}): bringing back what ran before`);
    await uninterrupted(() => undo(project, record));
  }
}

/** A client that outlived its killed task may still be making a container: waits for it to end. */
async function settle(project: Project): Promise<void> {
  const mark = `--project-name ${project.project.name} --file -`;
  const deadline = Date.now() + SETTLE_MS;
  while (Date.now() < deadline) {
    const processes = await probe(['ps', '-A', '-o', 'args=']);
    if (!processes.stdout.split('\n').some((line) => line.includes(mark))) return;
    await pause(100);
  }
}

async function wasWritten(project: Project, record: SwitchRecord): Promise<boolean> {
  const last = (await readHistory(project.root)).at(-1);
  return last?.task === 'switch' && last.at >= record.startedAt;
}

async function finish(project: Project, record: SwitchRecord): Promise<void> {
  const journal = openSwitchJournal(project.root);
  if (await wasWritten(project, record)) await commit(project, journal, record);
  else {
    await withHistory(project.root, 'switch', historyDetails(record, { phases: {}, gaps: {} }), () =>
      commit(project, journal, record),
    );
  }
  await tidy(journal, record);
}

async function undo(project: Project, record: SwitchRecord): Promise<void> {
  await withReach(async (reach) => {
    const address = async (name: 'dev' | 'prod') => {
      const found = await reach(portOf(project, name));
      return { ...found, url: found.url + project.environments[name].health };
    };
    await restore(project, record, { dev: await address('dev'), prod: await address('prod') });
  });
  await openSwitchJournal(project.root).close();
}
