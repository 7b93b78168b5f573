// Writes configs/schema/*.json from the zod schemas in the code; with --check only says whether they are
// up to date, for `npm run check`.
import { loadProject, outdatedSchemas, runTask, TaskError, writeSchemas } from './lib/mod.ts';

await runTask({
  name: 'schemas',
  summary: "Write the JSON Schemas by which editors complete this project's configuration files.",
  flags: { check: { type: 'boolean', description: 'write nothing; fail if a file is out of date' } },
  run: async ({ flags }) => {
    const { root } = await loadProject();
    const outdated = await outdatedSchemas(root);
    const paths = Object.keys(outdated);
    if (flags.check && paths.length > 0) {
      throw new TaskError(`Out of date: ${paths.join(', ')}`, {
        code: 'schemas-outdated',
        hint: 'npm run schemas, and commit the result',
      });
    }
    await writeSchemas(root, outdated);
    return {
      data: { written: paths },
      text: paths.length > 0 ? `Wrote ${paths.join(', ')}` : 'Schemas are up to date.',
    };
  },
});
