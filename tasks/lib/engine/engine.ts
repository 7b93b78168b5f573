// Is there a Docker engine, and if not, bring one up. A running engine is always reused, never replaced.
import { seconds } from '../duration.ts';
import { log } from '../log.ts';
import { session } from '../session.ts';
import { together } from '../together.ts';
import { startDaemon, startService, stopDaemon, stopService } from './daemon.ts';
import { configureEngine, installEngine, unpackEngine } from './install.ts';
import { observeEngine } from './observe.ts';
import type { EngineObserved } from './observed.ts';
import { describeEngineStep, type EngineStep, planEngine } from './plan.ts';

async function applyStep(step: EngineStep, { distribution, systemd }: EngineObserved): Promise<void> {
  switch (step.act) {
    case 'configure':
      return configureEngine();
    case 'install':
      return installEngine(step.packages);
    case 'unpack':
      return unpackEngine({ codename: distribution.codename, suite: step.suite }, step.packages, systemd);
    case 'start':
      return step.by === 'systemd' ? startService() : startDaemon();
  }
}

/** What is installed and what is unpacked come from two suites, and neither waits for the other. Pure. */
function inGroups(steps: readonly EngineStep[]): EngineStep[][] {
  const bringsPrograms = ({ act }: EngineStep) => act === 'install' || act === 'unpack';
  const programs = steps.filter(bringsPrograms);
  return steps.flatMap((step) => {
    if (!bringsPrograms(step)) return [[step]];
    return step === programs[0] ? [programs] : [];
  });
}

async function apply(step: EngineStep, observed: EngineObserved): Promise<void> {
  const began = performance.now();
  log.step(describeEngineStep(step));
  await applyStep(step, observed);
  log.detail(`  ${describeEngineStep(step)}: ${seconds(began)} s`);
}

/**
 * Carries a plan out, one log line per act, and proves the result.
 * @throws TaskError, CommandError; what was installed until then stays and is not installed again
 */
export async function applyEngine(steps: readonly EngineStep[], observed: EngineObserved): Promise<void> {
  for (const group of inGroups(steps)) await together(...group.map((step) => apply(step, observed)));
  if (steps.length === 0 || session.dryRun) return;
  // Also refuses an engine that was installed before us and, now that it runs, turns out to be too old.
  planEngine(await observeEngine());
}

export interface EngineReport {
  /** True if this call started the daemon: then its caller may stop it again by `stopEngine`. */
  started: boolean;
  /** What was done, one line each; empty if a usable engine was there. */
  steps: string[];
  seconds: number;
}

/**
 * Makes sure that a usable engine answers; `confirm` gets the plan's lines before any change and throws
 * to refuse it.
 * @throws TaskError where an engine cannot be had, saying what to do
 */
export async function ensureEngine(confirm: (plan: string[]) => Promise<void>): Promise<EngineReport> {
  const began = performance.now();
  const observed = await observeEngine();
  const plan = planEngine(observed);
  const steps = plan.map(describeEngineStep);
  if (plan.length > 0) await confirm(steps);
  await applyEngine(plan, observed);
  return { started: plan.some(({ act }) => act === 'start'), steps, seconds: seconds(began) };
}

/** Stops the engine in its standard place, and with it every container: for who started it. */
export async function stopEngine(): Promise<void> {
  const { systemd } = await observeEngine();
  await (systemd ? stopService() : stopDaemon());
}
