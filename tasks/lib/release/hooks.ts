// A project's own commands around a release: checks, and hooks with what they need to know in their environment
// (SYNAPSE_RELEASE_TAG and so on, the prefix being the project's).
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

const KINDS = {
  check: { what: 'The check', key: 'release.checks', code: 'check-failed' },
  before: { what: 'The hook before a release', key: 'release.hooks.before', code: 'hook-failed' },
  after: { what: 'The hook after a release', key: 'release.hooks.after', code: 'hook-failed' },
};

/** @throws TaskError at the first command that fails, with the last lines of its output */
export async function runHooks(project: Project, kind: keyof typeof KINDS, context: HookContext) {
  const { checks, hooks } = project.release;
  const { what, key, code } = KINDS[kind];
  const variables = Object.entries(context).map(([name, value]) => [
    variableName(project, `RELEASE_${name.toUpperCase()}`),
    value,
  ]);
  const env: Record<string, string> = Object.fromEntries(variables);
  const outcome =
    kind === 'after'
      ? `${context.tag} is released; once this works: npm run release`
      : 'nothing was released';
  for (const [program = '', ...argv] of kind === 'check' ? checks : hooks[kind]) {
    const command: Command = [program, ...argv];
    log.step(`${kind}: ${describeCommand(command)}`);
    try {
      await run(command, { cwd: project.root, env });
    } catch (cause) {
      if (!(cause instanceof CommandError)) throw cause;
      // Test runners report on stdout, others on stderr.
      const said = lastLines(`${cause.stdout.trimEnd()}\n${cause.stderr}`.trim());
      const failed = `${what} \`${cause.command}\` failed with exit code ${cause.processExitCode}`;
      const hint = `${outcome}; it is in ${key} in ${PROJECT_FILE}`;
      throw new TaskError(said ? `${failed}:\n${said}` : failed, { code, hint, cause });
    }
  }
}
