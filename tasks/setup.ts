// Makes this machine fit to build and run the project: a Docker engine (installed on Debian and Raspberry
// Pi OS, where root), the base image, the data directory, .env. Safe to repeat: a second run finds nothing
// to do and says so. Usage: npx tsx tasks/setup.ts [--yes] [--dry-run]
import {
  applySetup,
  confirm,
  dataDirectory,
  describeSetup,
  loadProject,
  log,
  planSetup,
  runTask,
  seconds,
} from './lib/mod.ts';

await runTask({
  name: 'setup',
  summary: 'Make this machine fit: Docker engine, base image, data directory, .env.',
  flags: {},
  examples: ['npx tsx tasks/setup.ts', 'npx tsx tasks/setup.ts --dry-run', 'npx tsx tasks/setup.ts --yes'],
  run: async () => {
    const began = performance.now();
    const project = await loadProject();

    const plan = await planSetup(project);
    const steps = describeSetup(project, plan);
    const facts = { changed: steps.length > 0, plan: steps, dataDirectory: dataDirectory(project) };
    if (steps.length === 0) {
      return { data: facts, text: 'This machine is set up: nothing to do.' };
    }

    log.info(['This will:', ...steps.map((step) => `  - ${step}`)].join('\n'));
    await confirm('Set this machine up?');

    await applySetup(project, plan);

    const text = `Done in ${seconds(began)} s: engine, base image, data directory and .env are in place.`;
    return { data: { ...facts, seconds: seconds(began) }, text };
  },
});
