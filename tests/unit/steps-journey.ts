// A journey whose steps are files, for tests of the step engine in this process and in one that is killed.
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import type { Journey, Step } from '../../tasks/lib/steps.ts';

export const NAMES = ['one', 'two', 'commit', 'three'];
export const WELL = { fails: '', sticks: '' };

/** The step that fails when it is applied, and the one that cannot be undone, until there is a file `mended`. */
type Data = typeof WELL;

export function journeyIn(root: string): Journey<Data> {
  const isMended = () => existsSync(join(root, 'mended'));
  const step = (name: string): Step<Data> => ({
    name,
    title: `do ${name}`,
    apply: async ({ fails }) => {
      writeFileSync(join(root, name), '');
      if (fails === name && !isMended()) throw new Error(`${name} failed`);
    },
    undo: async ({ sticks }) => {
      if (sticks === name && !isMended()) throw new Error(`${name} sticks`);
      if (name !== 'three') rmSync(join(root, name), { force: true });
    },
    ...(name === 'commit' ? { commits: true } : {}),
  });
  return {
    root,
    task: 'sail',
    command: 'npm run sail',
    schema: z.strictObject({ fails: z.string(), sticks: z.string() }),
    steps: () => NAMES.map(step),
    history: () => ({ from: 'here', to: 'there' }),
  };
}
