// How long nobody answers during a migration, beside a backup of the same data by itself, on one machine in one
// run. Promised: for 1 GB no more than the backup's time and 15 seconds.
// Usage: npx tsx bench/migrate.ts [MEGABYTES]
import type { TestContext } from 'node:test';
import { bringUpEngine } from '../tests/engine.ts';
import { legacySetup } from '../tests/tasks/legacy.ts';
import { synapseProject } from '../tests/tasks/project.ts';

const megabytes = Number(process.argv[2] ?? 1000);
const after: (() => Promise<unknown>)[] = [];
const context = { after: (work: () => Promise<unknown>) => after.unshift(work) } as unknown as TestContext;
const engine = await bringUpEngine();

interface Result {
  downtimeSeconds: number;
  phases: Record<string, number>;
}

try {
  const project = await synapseProject(context);
  await project.edit('.env', (text) => `${text}SYNAPSE_BACKUP_DIR=${project.directory}/backups\n`);
  await legacySetup(context, project, { dataMegabytes: megabytes });
  const migrated = await project.task('migrate', ['--yes', '--json']);
  if (migrated.code !== 0) throw new Error(migrated.stderr);
  const { downtimeSeconds, phases } = migrated.json() as unknown as Result;

  const began = performance.now();
  const backup = await project.task('backup', ['create', '--yes', '--json']);
  if (backup.code !== 0) throw new Error(backup.stderr);
  const alone = (performance.now() - began) / 1000;

  const parts = Object.entries(phases).map(([name, seconds]) => `${name} ${seconds.toFixed(1)}`);
  console.log(`${megabytes} MB of data`);
  console.log(`migration, seconds by step: ${parts.join(', ')}`);
  console.log(`nobody answered for ${downtimeSeconds.toFixed(1)} s`);
  console.log(`a backup of the same data by itself: ${alone.toFixed(1)} s`);
  console.log(`beyond the backup: ${(downtimeSeconds - alone).toFixed(1)} s (promised: at most 15)`);
  process.exitCode = downtimeSeconds - alone <= 15 ? 0 : 1;
} finally {
  for (const work of after) await work();
  await engine.stop();
}
