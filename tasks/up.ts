// Sets up this machine and starts both environments: setup, the first release if there is none, missing images, switch,
// status. Each step is a task of its own and finds nothing to do where it is done.
import {
  applySetup,
  confirm,
  describeObservation,
  describeSteps,
  ENVIRONMENTS,
  type EnvironmentName,
  ensureImages,
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
} from './lib/mod.ts';

await runTask({
  name: 'up',
  summary: 'Set up this machine and start dev and prod. Safe to repeat.',
  flags: {},
  examples: ['npm run up -- --yes'],
  run: async ({ flags }) => {
    const began = performance.now();
    const project = await loadProject();
    const setup = await planSetup(project);
    const hasRelease = (await newestRelease(project)) !== undefined;
    const plan = [
      ...describeSteps(setup),
      ...(hasRelease ? [] : ['make the first release']),
      'get the images that are missing',
      'start dev and prod',
    ];
    log.plan(['This will:', ...plan.map((line) => `  - ${line}`)].join('\n'));
    await confirm('Continue?');
    await applySetup(project, setup);
    if (flags['dry-run'] && setup.length > 0) return unforeseeable('setup');
    if (!hasRelease) {
      await runOtherTask(project, 'release', 'auto');
      if (flags['dry-run']) return unforeseeable('the release');
    }
    await ensureImages(await loadProject());
    await startBoth(project);

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

/** What the switch answers is what runs, which is this task's own answer, too. */
async function startBoth(project: Project): Promise<void> {
  try {
    await resultOfOtherTask(project, 'switch-env', 'both');
  } catch (error) {
    const release = await newestRelease(project);
    if (!(error instanceof TaskError) || error.code === 'interrupted' || !release) throw error;
    const advice = `if ${release} itself is broken: fix and commit it, then: npm run release -- patch && npm run up`;
    const { message, code, exitCode } = error;
    const hint = [error.hint, advice].filter(Boolean).join('\n');
    throw new TaskError(message, { code, exitCode, hint, cause: error });
  }
}

function unforeseeable(step: string) {
  log.info(`The rest depends on the result of ${step}; a dry run stops here.`);
  return {};
}
