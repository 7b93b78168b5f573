// Preloaded into a task (node --import): writes down when it started which process and when that ended, to
// BENCH_TRACE, without a word about it in the task's own code.
import childProcess from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { isMainThread } from 'node:worker_threads';

if (isMainThread && process.env.BENCH_TRACE) {
  const path = process.env.BENCH_TRACE;
  delete process.env.BENCH_TRACE;
  const processes = [];
  const { spawn } = childProcess;
  childProcess.spawn = (program, argv, options) => {
    const entry = { program, argv: Array.isArray(argv) ? argv : [], from: Date.now(), to: null };
    processes.push(entry);
    const child = spawn(program, argv, options);
    child.once('close', () => {
      entry.to = Date.now();
    });
    return child;
  };
  syncBuiltinESMExports();
  process.on('exit', () => writeFileSync(path, JSON.stringify(processes)));
}
