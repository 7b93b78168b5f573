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
  effectiveConfig,
  examine,
  LIVE_CHECKS,
  loadProject,
  MACHINE_CHECKS,
  PROJECT_CHECKS,
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
    const findings = await examine([
      ...MACHINE_CHECKS,
      ...PROJECT_CHECKS,
      ...(flags.live ? LIVE_CHECKS : []),
    ]);
    const counts = countVerdicts(findings);
    const data = { counts, checks: findings };
    return { data, text: describeFindings(findings), exitCode: counts.failed > 0 ? 1 : 0 };
  },
});

async function showConfig(asked: string) {
  const name = ENVIRONMENTS.find((one) => one === asked);
  if (!name) throw usageError(`doctor: --config is "${asked}", expected ${ENVIRONMENTS.join(' or ')}`);
  const config = await effectiveConfig(await loadProject(), name);
  return { data: { ...config }, text: describeEffectiveConfig(config) };
}
