// Is everything there that was there? Asked of the data itself, and of both environments.

import { askHealth } from '../docker/health.ts';
import { TaskError } from '../errors.ts';
import { ENVIRONMENTS } from '../project.ts';
import { session } from '../session.ts';
import { compareInventories } from './compare.ts';
import { verifyReadable } from './readable.ts';
import type { Step } from './step.ts';
import { readInventory, stoppedAt, takeInventory } from './steps-backup.ts';

export const verify: Step = {
  name: 'verify',
  apply: async (context) => {
    const { project, description, recorder } = context;
    if (session.dryRun) return {};
    const { id, plan } = recorder.record;
    for (const name of ENVIRONMENTS) {
      const url = `http://127.0.0.1:${plan.ports[name]}${project.environments[name].health}`;
      const { status, error } = await askHealth(url);
      if (status !== 200)
        throw new TaskError(`${name} does not answer at ${url}: ${error ?? status}`, { code: 'unhealthy' });
    }
    const before = await readInventory(project.root, id);
    const after = await takeInventory(project, plan.data.to, { since: stoppedAt(context), known: before });
    const { problems, ...compared } = compareInventories(before, after!, description.pruned);
    if (problems.length > 0) {
      throw new TaskError(`The data is not what it was:\n${problems.map((one) => `  - ${one}`).join('\n')}`, {
        code: 'data-differs',
      });
    }
    const { readable } = description;
    const read = readable ? await verifyReadable(project, readable, plan.data.to, plan.ports) : 0;
    return { ...compared, readThroughBoth: read };
  },
  undo: async () => {},
};
