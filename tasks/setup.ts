// Sets up this machine: a Docker engine (installed on Debian and Raspberry Pi OS, as root), the base image, the data
// directory, .env. Safe to repeat: a second run finds nothing to do.
import {
  applySetup,
  confirm,
  dataDirectory,
  describeSteps,
  loadProject,
  log,
  planSetup,
  runTask,
  seconds,
} from './lib/mod.ts';

await runTask({
  name: 'setup',
  summary: 'Set up this machine: Docker engine, base image, data directory, .env.',
  flags: {},
  examples: ['npm run setup', 'npm run setup -- --dry-run', 'npm run setup -- --yes'],
  run: async () => {
    const began = performance.now();
    const project = await loadProject();

    const steps = await planSetup(project);
    const plan = describeSteps(steps);
    if (steps.length > 0) {
      log.plan(['This will:', ...plan.map((line) => `  - ${line}`)].join('\n'));
      await confirm('Set up this machine?');
    }
    await applySetup(project, steps);

    const data = { changed: steps.length > 0, plan, dataDirectory: dataDirectory(project) };
    if (steps.length === 0) return { data, text: 'This machine is set up; nothing to do.' };
    const text = `Set up in ${seconds(began)} s: engine, base image, data directory, .env.`;
    return { data: { ...data, seconds: seconds(began) }, text };
  },
});
