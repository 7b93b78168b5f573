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

const TARGETS = ['dev', 'prod', 'both', 'none', 'status'] as const;
type Target = (typeof TARGETS)[number];

interface Options {
  version: string | undefined;
  waitSeconds: number | undefined;
  swarm: boolean;
}

await runTask({
  name: 'switch-env',
  summary: 'Choose the active environment, and which release prod runs.',
  arguments: `[${TARGETS.join('|')}]`,
  maxArguments: 1,
  choices: TARGETS,
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
  run: async ({ flags, positionals }) => {
    const options = {
      version: flags.version,
      waitSeconds: seconds(flags.wait),
      swarm: isSwarm(flags.engine),
    };
    if (positionals[0] === 'status') verifyNoChoice(flags);
    let project = await loadProject();
    const target = (positionals[0] as Target | undefined) ?? (await chooseTarget(project));
    if (target === 'status') return options.swarm ? observeSwarm(project) : status(project);
    if (options.version && target !== 'prod' && target !== 'both') {
      throw usageError(`switch-env: --version is for prod, not for ${target}`);
    }
    const work = async () => {
      const resume = options.swarm ? resumeSwarm : resumeSwitch;
      if (await resume(project)) project = await loadProject();
      return switchTo(project, target, options);
    };
    return withLock(project.root, 'switch-env', () => withReach(work), await engineLockFolder(project));
  },
});

function verifyNoChoice({ version, wait }: { version: string | undefined; wait: string | undefined }): void {
  const name = version !== undefined ? '--version' : '--wait';
  if (version !== undefined || wait !== undefined)
    throw usageError(`switch-env: ${name} is for a switch, not for status`);
}

function seconds(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (/^[1-9]\d*$/.test(text)) return Number(text);
  throw usageError(`switch-env: --wait is "${text}", expected a number of seconds`);
}

function isSwarm(engine: string | undefined): boolean {
  if (engine === undefined || engine === 'compose' || engine === 'swarm') return engine === 'swarm';
  throw usageError(`switch-env: --engine is "${engine}", expected compose or swarm`);
}

async function chooseTarget(project: Project): Promise<Target> {
  const observed = await observe(project);
  const choices = TARGETS.map((value) => {
    const state = value === 'dev' || value === 'prod' ? observed.environments[value] : undefined;
    const mark = observed.active === value ? 'active now' : '';
    const hint = [mark, state ? describeEnvironment(project, state) : ''].filter(Boolean).join(', ');
    return { value, label: value, ...(hint ? { hint } : {}) };
  });
  return choose(
    'Which environment should be active?',
    choices,
    'name it: switch-env.ts dev|prod|both|none|status',
  );
}

/** Only reads: an interrupted switch is reported, and resumed by the next switch. */
async function status(project: Project) {
  const [observed, interrupted] = await Promise.all([observe(project), interruptedSwitch(project)]);
  const { message, hint } = interrupted ? interruptedProblem(interrupted, new Date()) : {};
  const text = [describeObservation(project, observed), ...(message ? [`! ${message}; ${hint}`] : [])];
  return {
    data: { ...observationData(project, observed), interrupted: interrupted ?? null },
    text: text.join('\n'),
  };
}

async function prodTagFor(project: Project, active: ActiveEnvironment, version: string | undefined) {
  const present = variable(project, 'PROD_TAG');
  if (active === 'dev' || active === 'none') return present;
  if (version === 'latest-release') return newestRelease(project);
  if (version === 'previous') return previousRelease(project, present);
  return version ?? present ?? newestRelease(project);
}

async function switchTo(project: Project, active: ActiveEnvironment, options: Options) {
  const prodTag = await prodTagFor(project, active, options.version);
  const plan = options.swarm
    ? await swarmSwitch(project, active, prodTag)
    : await composeSwitch(project, active, prodTag, options.version !== undefined);
  if (plan.steps.length === 0) {
    const { data, text } = await plan.observe();
    return { data: { changed: false, ...data }, text: `Nothing to do:\n${text}` };
  }

  log.plan(['Switch', ...plan.steps.map((step) => `  ${step}`)].join('\n'));
  await confirm(`Switch to ${active}?`);

  const report = await plan.run(options.waitSeconds);
  logReport(report, active);
  const { data, text } = await plan.observe();
  return { data: { changed: true, active, ...report, ...data }, text };
}
