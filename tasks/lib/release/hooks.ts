// A project's own commands around a release: checks, and hooks with what they need to know in their
// environment (SYNAPSE_RELEASE_TAG and so on, the prefix being the project's).
import { type Command, describeCommand, run } from '../command.ts';
import { CommandError, lastLines, TaskError } from '../errors.ts';
import { log } from '../log.ts';
import { PROJECT_FILE, type Project, variableName } from '../project.ts';

interface HookContext {
  tag: string;
  version: string;
  branch: string;
  image: string;
  /** Tag of the release before; '' for the first. */
  previous: string;
  /** The release commit; '' before there is one. */
  commit: string;
  digest: string;
}

/** The commands that must pass before a release. @throws TaskError at the first that fails */
export async function runChecks(project: Project): Promise<void> {
  for (const check of project.release.checks) {
    await runOwn(project, check, {
      step: 'check',
      code: 'check-failed',
      hint: `nothing was released; what must pass is release.checks in ${PROJECT_FILE}`,
    });
  }
}

/** @throws TaskError at the first hook that fails */
export async function runHooks(
  project: Project,
  when: 'before' | 'after',
  context: HookContext,
): Promise<void> {
  const env = Object.fromEntries(
    Object.entries(context).map(([name, value]) => [
      variableName(project, `RELEASE_${name.toUpperCase()}`),
      value,
    ]),
  );
  const outcome =
    when === 'before'
      ? 'nothing was released'
      : `${context.tag} is released; once repaired, npm run release finishes what follows`;
  for (const hook of project.release.hooks[when]) {
    await runOwn(project, hook, {
      step: when,
      code: 'hook-failed',
      hint: `${outcome}; the hook is release.hooks.${when} in ${PROJECT_FILE}`,
      env,
    });
  }
}

interface OwnCommand {
  /** What it is, in one word. */
  step: 'check' | 'before' | 'after';
  code: string;
  hint: string;
  env?: Record<string, string>;
}

/** Test runners report on stdout, others on stderr: a failure shows the end of both. */
async function runOwn(project: Project, argv: readonly string[], { step, code, hint, env }: OwnCommand) {
  const command: Command = [argv[0] ?? '', ...argv.slice(1)];
  log.step(`${step}: ${describeCommand(command)}`);
  try {
    await run(command, { cwd: project.root, ...(env ? { env } : {}) });
  } catch (cause) {
    if (!(cause instanceof CommandError)) throw cause;
    const said = lastLines(`${cause.stdout.trimEnd()}\n${cause.stderr}`.trim());
    const what = step === 'check' ? 'The check' : `The hook that runs ${step} a release,`;
    throw new TaskError(
      `${what} \`${cause.command}\` failed with exit code ${cause.processExitCode}${said ? `:\n${said}` : ''}`,
      { code, hint, cause },
    );
  }
}
