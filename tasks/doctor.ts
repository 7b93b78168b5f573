// The validation checklist as a command: is this machine, and this project, fit to run it? Only reads, and says for each
// problem what to do. With --live it also tries what runs: written through dev, read through prod.
//
// Exit code 0: nothing failed; 1: something did.
import {
  CONTEXT_FLAG,
  countVerdicts,
  describeEffectiveConfig,
  describeFindings,
  ENVIRONMENTS,
  type EnvironmentName,
  effectiveConfig,
  examine,
  loadProject,
  runTask,
  usageError,
} from './lib/mod.ts';

await runTask({
  name: 'doctor',
  summary: 'Check this machine and project; every problem with its remedy. Changes nothing.',
  flags: {
    live: { type: 'boolean', description: 'also try what runs: write through dev, read through prod' },
    config: {
      type: 'string',
      value: ENVIRONMENTS.join('|'),
      description: 'print the effective configuration of an environment, and where each value comes from',
    },
    ...CONTEXT_FLAG,
  },
  examples: ['npm run doctor', 'npm run doctor -- --live', 'npm run doctor -- --config dev'],
  run: async ({ flags }) => {
    if (flags.config !== undefined) return showConfig(flags.config);
    const findings = await examine({ live: flags.live });
    const counts = countVerdicts(findings);
    return {
      data: { counts, checks: findings },
      text: describeFindings(findings),
      exitCode: counts.failed > 0 ? 1 : 0,
    };
  },
});

async function showConfig(name: string) {
  if (!ENVIRONMENTS.includes(name as EnvironmentName)) {
    throw usageError(`doctor: --config is "${name}", expected ${ENVIRONMENTS.join(' or ')}`);
  }
  const config = await effectiveConfig(await loadProject(), name as EnvironmentName);
  return { data: { ...config }, text: describeEffectiveConfig(config) };
}
