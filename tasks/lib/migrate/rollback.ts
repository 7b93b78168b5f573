// Is there still everything that a rollback needs? Asked before it begins: once the old pieces are gone, going
// back is refused with what is missing.
import { inspectImage } from '../docker/images.ts';
import { combinedError, TaskError } from '../errors.ts';
import { engineVolume } from './engine-view.ts';
import type { MigrationRecord } from './record.ts';
import { exists } from './survey-files.ts';

/** @throws TaskError naming every old piece that is gone */
export async function verifyRollback(record: MigrationRecord): Promise<void> {
  const { legacy, plan, steps } = record;
  if (record.state === 'finished' || record.state === 'finishing') {
    const archive = steps.backup?.evidence.archive;
    throw new TaskError(`Cannot go back: the old pieces were removed by --finish at ${record.endedAt}`, {
      code: 'finished',
      hint: `the data of that time is in the backup ${archive}`,
    });
  }
  const isOldDataThere =
    (await exists(legacy.data.path)) || (plan.data.aside !== null && (await exists(plan.data.aside)));
  const files = [
    ...plan.compose,
    ...(legacy.isRebuilt ? legacy.composeFiles.map((path) => ({ path, deprecated: path })) : []),
  ];
  const missing = [
    ...(isOldDataThere &&
    (!plan.data.aside || !steps.data || steps.data.state !== 'done' || (await exists(plan.data.aside)))
      ? []
      : [`the old data ${plan.data.aside ?? legacy.data.path}`]),
    ...(await Promise.all(
      files.map(async ({ path, deprecated }) =>
        (await exists(path)) || (await exists(deprecated)) ? [] : [`the old compose file ${deprecated}`],
      ),
    )),
    ...(legacy.state === 'absent' || (await inspectImage(legacy.image))
      ? []
      : [`the old image ${legacy.image}`]),
    ...(legacy.models === undefined || (await engineVolume(legacy.models))
      ? []
      : [`the models volume ${legacy.models}`]),
  ].flat();
  if (missing.length === 0) return;
  const problems = missing.map((what) => new TaskError(`gone: ${what}`, { code: 'old-pieces-gone' }));
  throw combinedError('Cannot go back to the old service; nothing was changed:', [...problems], {
    code: 'old-pieces-gone',
    hint: `the data of that time is in the backup ${steps.backup?.evidence.archive ?? '(none was made)'}`,
  });
}
