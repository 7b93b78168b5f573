// Makes an environment the active one and chooses which release prod runs.
//
// check → plan → show → confirm → apply → report. What is wanted starts and proves healthy before the other one stops,
// and .env is written last: a failed switch rolls back.
import {
  type ActiveEnvironment,
  CONTEXT_FLAG,
  choose,
  composeSwitch,
  confirm,
  describeEnvironment,
  describeObservation,
  engineLockFolder,
  interruptedProblem,
  interruptedSwitch,
  loadProject,
  log,
  logReport,
  newestRelease,
  observationData,
  observe,
  observeSwarm,
  type Project,
  previousRelease,
  resumeSwarm,
  resumeSwitch,
  runTask,
  swarmSwitch,
  usageError,
  variable,
  withLock,
  withReach,
} from './lib/mod.ts';

const CHOICES = ['dev', 'prod', 'both', 'none'] as const;

await runTask({
  name: 'switch-env',
  summary: 'Choose the active environment, and which release prod runs.',
  arguments: `[${[...CHOICES, 'status'].join('|')}]`,
  maxArguments: 1,
  choices: [...CHOICES, 'status'],
  flags: {
    ...CONTEXT_FLAG,
    version: {
      type: 'string',
      value: 'vX.Y.Z',
      description: 'what prod runs: a release, previous, or latest-release',
    },
    engine: {
      type: 'string',
      value: 'compose|swarm',
      description: 'what runs the services: compose (default), or a Docker swarm',
    },
    wait: {
      type: 'string',
      value: 'SECONDS',
      description: 'how long an environment may take to become healthy',
    },
  },
  examples: ['npm run switch -- prod --version v1.2.0', 'npm run switch -- prod --version previous'],
  run: async ({ flags, positionals: [named] }) => {
    let project = await loadProject();
    const target = (named as ActiveEnvironment | 'status' | undefined) ?? (await chooseEnvironment(project));
    verifyFlags(flags, target);
    const isSwarm = flags.engine === 'swarm';
    if (target === 'status') return isSwarm ? observeSwarm(project) : status(project);
    const work = async () => {
      if (await (isSwarm ? resumeSwarm : resumeSwitch)(project)) project = await loadProject();
      return switchTo(project, target, flags);
    };
    return withLock(project.root, 'switch', () => withReach(work), await engineLockFolder(project));
  },
});

interface Flags {
  version: string | undefined;
  engine: string | undefined;
  wait: string | undefined;
}

function verifyFlags({ version, engine = 'compose', wait }: Flags, target: string): void {
  if (target === 'status' && (version ?? wait) !== undefined)
    throw usageError(
      `switch: ${version === undefined ? '--wait' : '--version'} is for a switch, not for status`,
    );
  if (version !== undefined && target !== 'prod' && target !== 'both')
    throw usageError(`switch: --version is for prod, not for ${target}`);
  if (wait !== undefined && !/^[1-9]\d*$/.test(wait))
    throw usageError(`switch: --wait is "${wait}", expected a number of seconds`);
  if (engine !== 'compose' && engine !== 'swarm')
    throw usageError(`switch: --engine is "${engine}", expected compose or swarm`);
}

/** What is so comes first: it is what Enter keeps. */
async function chooseEnvironment(project: Project): Promise<ActiveEnvironment> {
  const { active, environments } = await observe(project);
  const choices = [active, ...CHOICES.filter((value) => value !== active)].map((value) => {
    const state =
      value === 'dev' || value === 'prod' ? describeEnvironment(project, environments[value]) : '';
    const hint = [value === active ? 'active now' : '', state].filter(Boolean).join(', ');
    return { value, label: value, ...(hint ? { hint } : {}) };
  });
  const usage = `name it: npm run switch -- ${[...CHOICES, 'status'].join('|')}`;
  return choose('Which environment should be active?', choices, usage);
}

/** Only reads: an interrupted switch is reported, and resumed by the next switch. */
async function status(project: Project) {
  const [observed, interrupted] = await Promise.all([observe(project), interruptedSwitch(project)]);
  const { message, hint } = interrupted ? interruptedProblem(interrupted, new Date()) : {};
  return {
    data: { ...observationData(project, observed), interrupted: interrupted ?? null },
    text: `${describeObservation(project, observed)}${message ? `\n! ${message}; ${hint}` : ''}`,
  };
}

async function prodTagFor(project: Project, active: ActiveEnvironment, version: string | undefined) {
  const present = variable(project, 'PROD_TAG');
  if (active === 'dev' || active === 'none') return present;
  if (version === 'latest-release') return newestRelease(project);
  if (version === 'previous') return previousRelease(project, present);
  return version ?? present ?? newestRelease(project);
}

async function switchTo(project: Project, active: ActiveEnvironment, { version, engine, wait }: Flags) {
  const prodTag = await prodTagFor(project, active, version);
  const plan =
    engine === 'swarm'
      ? await swarmSwitch(project, active, prodTag)
      : await composeSwitch(project, active, prodTag, version !== undefined);
  if (plan.steps.length === 0) {
    const { data, text } = await plan.observe();
    return { data: { changed: false, ...data }, text: `Nothing to do:\n${text}` };
  }

  log.plan(['Switch', ...plan.steps.map((step) => `  ${step}`)].join('\n'));
  await confirm(`Switch to ${active}?`);

  const report = await plan.run(wait === undefined ? undefined : Number(wait));
  logReport(report, active);
  const { data, text } = await plan.observe();
  return { data: { changed: true, active, ...report, ...data }, text };
}
