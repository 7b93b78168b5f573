// Undoing a release that may be running: prod goes back first, dev once `latest` is another image. Both by the
// switch task itself, as a person would, with its own lock and its own proof of health.
import { updateDotenv } from '../dotenv.ts';
import { withHistory } from '../journal.ts';
import { withLock } from '../lock.ts';
import { type Project, variable, variableName } from '../project.ts';
import { runOtherTask } from '../task-process.ts';
import { planUndo, type UndoPlan } from './undo.ts';
import { performUndo } from './undo-run.ts';

/** Before the release goes: prod must not lose its image. Not to be called with the lock held. */
async function moveProdBack(project: Project, { isProd, successor }: UndoPlan): Promise<void> {
  if (!isProd || !successor) return;
  const active = variable(project, 'ACTIVE_ENV');
  if (active === 'prod' || active === 'both')
    await runOtherTask(project, 'switch-env', active, '--version', successor);
  else await updateDotenv(project.root, { [variableName(project, 'PROD_TAG')]: successor });
}

/** Once `latest` is another image again: dev follows it. Not to be called with the lock held. */
async function moveDevBack(project: Project, { isLatest, successor }: UndoPlan): Promise<void> {
  const active = variable(project, 'ACTIVE_ENV');
  if (!isLatest.local || !successor || (active !== 'dev' && active !== 'both')) return;
  await runOtherTask(project, 'switch-env', active);
}

/** Takes the release back and what runs it. Not to be called with the lock held. */
export async function takeBack(project: Project, plan: UndoPlan): Promise<void> {
  const { tag, successor = null } = plan;
  await moveProdBack(project, plan);
  // Planned again under the lock: between the question and the answer anything may have happened.
  await withLock(project.root, 'release', () =>
    withHistory(project.root, 'undo', { from: tag, to: successor }, async () =>
      performUndo(project, await planUndo(project, tag)),
    ),
  );
  await moveDevBack(project, plan);
}
