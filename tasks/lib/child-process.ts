// A process as node knows it: begun without a shell, looked after until it has ended, or made to end. What a task
// starts goes through command.ts.
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import type { Command } from './command-text.ts';
import { redact } from './log.ts';

/** Starts it. Its input may fail in silence: one that ends before it has read it has an exit code that says why. */
export function launch(command: Command, options: SpawnOptions): ChildProcess {
  const child = spawn(command[0], command.slice(1), { ...options, shell: false });
  // Unheard, EPIPE would end this task where it stands, with nothing undone.
  child.stdin?.on('error', () => {});
  return child;
}

/** Settles when it has ended; never rejects. `stderr`: its last 4 KB, redacted. */
export function ended(child: ChildProcess): Promise<{ exitCode: number; stderr: string }> {
  let stderr = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    stderr = (stderr + chunk.toString()).slice(-4096);
  });
  return new Promise((resolve) => {
    const settle = (exitCode: number) => resolve({ exitCode, stderr: redact(stderr) });
    child.once('error', (error) => {
      stderr ||= whyNotStarted([child.spawnfile], error);
      settle(127);
    });
    child.once('close', (code) => settle(code ?? 1));
  });
}

/** In words, for what a shell would have said. */
export function whyNotStarted([program]: Command, { code, message }: NodeJS.ErrnoException): string {
  return `${program}: ${code === 'ENOENT' ? 'not found' : message}`;
}

/** Signals a process, or by a negative id the whole group that it leads. */
export function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has just ended by itself.
  }
}
