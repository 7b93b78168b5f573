// The program inside the image that backs data up and brings it back: the same kernel and user as the writers
// open the databases, wherever the engine is. Run by tasks/backup.ts: node backup.mjs COMMAND OPTIONS_AS_JSON.
import { isMainThread } from 'node:worker_threads';
import { runCommand } from './run.ts';
import { settleInThread } from './settle.ts';

if (isMainThread) await runCommand(process.argv.slice(2));
else settleInThread();
