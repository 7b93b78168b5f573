// From the command line to a plan that can be confirmed: find, understand, look at everything, refuse or go.
import { combinedError, TaskError, usageError } from '../errors.ts';
import { workTree } from '../git.ts';
import type { LegacyDescription } from '../migrate-schema.ts';
import type { Project } from '../project.ts';
import { workTreeProblems } from '../release/work-tree-check.ts';
import { detectLegacy } from './detect.ts';
import type { Legacy } from './legacy.ts';
import { type NewSettings, planNewSettings } from './new-settings.ts';
import { type MigrationPlan, planMigration } from './plan.ts';
import { planProblems } from './plan-problems.ts';
import { oldPaths, strangers } from './steps-setup.ts';
import { surveyMigration } from './survey.ts';

export interface Prepared {
  legacy: Legacy;
  plan: MigrationPlan;
  settings: NewSettings;
}

/** @throws TaskError (exit 2) if release.toml describes no older setup */
export function describedLegacy(project: Project): LegacyDescription {
  if (project.migrate) return project.migrate;
  throw usageError('configs/release.toml has no [migrate]: there is no older setup to come from', {
    code: 'config-invalid',
  });
}

/** The whole plan, or undefined when there is no older setup. @throws TaskError with every problem found */
export async function prepareMigration(
  project: Project,
  description: LegacyDescription,
  from?: string,
): Promise<Prepared | undefined> {
  const legacy = await detectLegacy(project, description, from);
  if (!legacy) return undefined;
  const facts = await surveyMigration(project, description, legacy);
  const plan = planMigration(facts);
  const problems = [
    ...planProblems(facts, plan),
    ...(await treeProblems(project, description, { legacy, plan })),
  ];
  const settings = await planNewSettings(project, description, legacy);
  if (problems.length > 0) {
    throw combinedError('Cannot migrate; nothing was changed:', problems, { code: problems[0]!.code });
  }
  return { legacy, plan, settings };
}

/** The repository must be fit for a release, and for a commit of what changes; the old files do not count. */
async function treeProblems(
  project: Project,
  description: LegacyDescription,
  subject: { legacy: Legacy; plan: MigrationPlan },
): Promise<TaskError[]> {
  const tree = await workTree(project.root);
  const old = await strangers(project, oldPaths(subject, description.config_files));
  const changes = tree.changes.filter(
    (path) => !old.some((one) => one === path || (path.endsWith('/') && one.startsWith(path))),
  );
  return workTreeProblems(project, { ...tree, changes }).map(
    (one) =>
      new TaskError(one.message.replace('Cannot release', 'Cannot commit the new settings'), {
        code: one.code,
        hint: one.hint,
      }),
  );
}
