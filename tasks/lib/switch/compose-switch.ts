// A switch on one engine, by compose: surveyed, planned and checked, for the task to show and to carry out.
import type { Project } from '../project.ts';
import { describeObservation, observationData } from './describe.ts';
import { type ActiveEnvironment, survey } from './environments.ts';
import { describeStep, planSwitch } from './plan.ts';
import { prepareServiceCheck } from './service-config.ts';
import type { PlannedSwitch } from './switching.ts';
import { checkTarget } from './target.ts';

/** @throws TaskError with everything that stands in the way */
export async function composeSwitch(
  project: Project,
  active: ActiveEnvironment,
  prodTag: string | undefined,
): Promise<PlannedSwitch> {
  // What checks and carries it out is loaded while git and the engine are asked.
  const [scene, check, { verifySwitch }, { slowStarts }, { runSwitch }] = await Promise.all([
    survey(project, prodTag),
    checkTarget(project, active, prodTag),
    import('./checks.ts'),
    import('./worst-case.ts'),
    import('./run.ts'),
    prepareServiceCheck(project),
  ]);
  const { target, images } = check;
  const steps = planSwitch(scene.observed, target);
  await verifySwitch(project, scene, check, steps);
  let { observed } = scene;
  return {
    steps: steps.map(describeStep),
    warnings: await slowStarts(project, scene.services, steps),
    run: async (waitSeconds) => {
      const done = await runSwitch(project, { scene, target, images, steps, waitSeconds });
      ({ observed } = done);
      return done.report;
    },
    observe: async () => ({
      text: describeObservation(project, observed),
      data: observationData(project, observed),
    }),
  };
}
