// Telling others how a backup went: the commands of [backup.hooks], and a dead-man's switch that notices when
// nobody pings it any more. Neither can make a good backup bad.
import { run } from '../command.ts';
import { errorSummary } from '../errors.ts';
import { log, registerSecret } from '../log.ts';
import { type Project, variable } from '../project.ts';
import { session } from '../session.ts';

const PING_TIMEOUT_MS = 10_000;
const PING_ATTEMPTS = 3;

/** @throws CommandError of the first one that fails */
export async function runBeforeHooks(project: Project): Promise<void> {
  for (const [program = '', ...argv] of project.backup.hooks.before)
    await run([program, ...argv], { cwd: project.root });
}

export interface Outcome {
  ok: boolean;
  /** Path of the archive on the engine's machine; '' if there is none. */
  archive: string;
}

/** Every one runs, whatever the others do. */
export async function runAfterHooks(project: Project, { ok, archive }: Outcome): Promise<void> {
  const env = { BACKUP_OUTCOME: ok ? 'done' : 'failed', BACKUP_ARCHIVE: archive };
  for (const [program = '', ...argv] of project.backup.hooks.after) {
    await run([program, ...argv], { cwd: project.root, env }).catch((error: unknown) =>
      log.warn(`hook failed: ${errorSummary(error)}`),
    );
  }
}

/** Where to say how it went, undefined if nowhere. Pure but for .env. */
export function pingUrl(project: Project, ok: boolean): string | undefined {
  const { success, failure } = project.backup.ping;
  const good = variable(project, 'BACKUP_PING_URL') ?? success;
  if (ok) return good;
  return failure ?? (good ? `${good.replace(/\/$/, '')}/fail` : undefined);
}

export async function ping(project: Project, ok: boolean): Promise<void> {
  const url = pingUrl(project, ok);
  if (!url) return;
  // Whoever knows the address can silence the alarm.
  registerSecret(url);
  if (session.dryRun) return log.would(`ask: ${url}`);
  for (let attempt = 1; ; attempt += 1) {
    const problem = await ask(url);
    if (problem === undefined) return;
    if (attempt === PING_ATTEMPTS) return log.warn(`the dead-man's switch was not reached: ${problem}`);
  }
}

/** What went wrong, or undefined. */
async function ask(url: string): Promise<string | undefined> {
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(PING_TIMEOUT_MS) });
    await answer.body?.cancel();
    return answer.ok ? undefined : `it answered ${answer.status}`;
  } catch (error) {
    return errorSummary((error as Error).cause ?? error);
  }
}
