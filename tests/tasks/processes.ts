// Programs that the tests run, and what becomes of them.
import { execFile, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

export const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url));

export const execute = promisify(execFile);

/** A folder of the test's own, removed after it. */
export function temporaryFolder(t: { after: (work: () => void) => void }): string {
  const folder = mkdtempSync(join(tmpdir(), 'release-flow-test-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
  /** stdout as JSON; throws where it is not. */
  json: () => Record<string, unknown>;
}

export interface RunOptions {
  env?: Record<string, string | undefined>;
  /** Gets the process, to kill it. */
  onStart?: (pid: number) => void;
}

/** Runs a program to its end; never throws. */
export function runProcess(
  program: string,
  argv: readonly string[],
  options: RunOptions & { cwd?: string } = {},
) {
  return new Promise<Outcome>((resolve) => {
    const env = { ...process.env, NODE_TEST_CONTEXT: undefined, ...options.env };
    const child = spawn(program, argv, { cwd: options.cwd, env, stdio: ['ignore', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk: Buffer) => {
      stdout += chunk;
    });
    child.stderr.on('data', (chunk: Buffer) => {
      stderr += chunk;
    });
    child.on('close', (code, signal) =>
      resolve({ code: code ?? (signal ? 137 : 1), stdout, stderr, json: () => JSON.parse(stdout) }),
    );
    if (child.pid) options.onStart?.(child.pid);
  });
}

/** Runs a module's text by node, as if it lay in the repository; `process.argv.slice(1)` is `argv`. */
export function runScript(script: string, argv: readonly string[] = [], options: RunOptions = {}) {
  const node = ['--import', 'tsx/esm', '--input-type=module', '--eval', script, '--'];
  return runProcess(process.execPath, [...node, ...argv], { cwd: REPOSITORY, ...options });
}

/** Output of `docker …`; throws when it fails. */
export async function docker(...argv: string[]): Promise<string> {
  const { stdout } = await execute('docker', argv, { maxBuffer: 64 << 20 });
  return stdout.trim();
}

/**
 * Waits until no process has this assignment in its environment any more. A task that is killed leaves the command
 * behind that it was waiting for, and what that one asked of the engine is still being done.
 */
export async function processesGone(assignment: string): Promise<void> {
  const has = async (pid: string) => {
    const environment = await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '');
    return environment.split('\0').includes(assignment);
  };
  for (;;) {
    const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
    const found = await Promise.all(pids.map(has));
    if (!found.includes(true)) return;
    await sleep(50);
  }
}
