// Sets up this machine and starts both environments: setup, the first release if there is none, missing images, switch,
// status. Each step is a task of its own and finds nothing to do where it is done.
import {
  confirm,
  describeObservation,
  ENVIRONMENTS,
  type EnvironmentName,
  imageReference,
  inspectImage,
  isHealthy,
  loadProject,
  log,
  logPhases,
  newestRelease,
  type Observation,
  observationData,
  observe,
  type Project,
  planSetup,
  resultOfOtherTask,
  runOtherTask,
  runTask,
  seconds,
  TaskError,
  variable,
} from './lib/mod.ts';

await runTask({
  name: 'up',
  summary: 'Set up this machine and start dev and prod. Safe to repeat.',
  flags: {},
  examples: ['npm run up -- --yes'],
  run: async ({ flags }) => {
    const began = performance.now();
    const project = await loadProject();
    log.plan('Set up this machine, make the first release if there is none, start dev and prod.');
    await confirm('Continue?');
    await runOtherTask(project, 'setup');
    if (flags['dry-run'] && (await needsSetup(project))) return unforeseeable('setup');

    if (!(await newestRelease(project))) {
      await runOtherTask(project, 'release', 'auto');
      if (flags['dry-run']) return unforeseeable('the release');
    }
    await ensureImages(await loadProject());
    // What it answers is what runs, which is this task's own answer, too.
    await resultOfOtherTask(project, 'switch-env', 'both');

    const ready = await loadProject();
    const observed = await observe(ready);
    logPhases({ up: seconds(began) });
    const down = ENVIRONMENTS.filter((name) => !isHealthy(observed.environments[name]));
    if (down.length > 0 && !flags['dry-run']) throw notUp(ready, observed, down);
    return {
      data: { ...observationData(ready, observed), seconds: seconds(began) },
      text: describeObservation(ready, observed),
    };
  },
});

function notUp(project: Project, observed: Observation, down: readonly EnvironmentName[]) {
  const logs = down.map((name) => `docker logs --tail 50 ${observed.environments[name].containerName}`);
  return new TaskError(`${down.join(' and ')} did not stay up:\n${describeObservation(project, observed)}`, {
    code: 'not-up',
    hint: `see why: ${logs.join('; ')}`,
  });
}

async function needsSetup(project: Project): Promise<boolean> {
  return (await planSetup(project)).length > 0;
}

function unforeseeable(step: string) {
  log.info(`The rest depends on the result of ${step}; a dry run stops here.`);
  return {};
}

/** Prod's image comes from its git tag, dev's from the working tree. */
async function ensureImages(project: Project): Promise<void> {
  const prodTag = variable(project, 'PROD_TAG') ?? (await newestRelease(project));
  for (const tag of [prodTag, 'latest']) {
    if (tag && !(await inspectImage(imageReference(project, tag))))
      await runOtherTask(project, 'build-push', tag, '--no-push');
  }
}
