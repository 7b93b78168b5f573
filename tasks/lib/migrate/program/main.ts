// What the migration does inside a container (see ../container.ts): reading SQLite needs the image's node, and
// volumes are reachable only there. Needs nothing but node itself: node main.ts COMMAND, options on stdin.
import fs from 'node:fs';
import { inventory, sample } from './inventory.ts';
import { copy, measure, snapshot } from './volume.ts';

const commands: Record<string, (options: never) => unknown> = { inventory, sample, copy, measure, snapshot };
const command = commands[process.argv[2] ?? ''];
if (!command) throw new Error(`unknown command ${process.argv[2]}`);
process.stdout.write(JSON.stringify(await command(JSON.parse(fs.readFileSync(0, 'utf8')) as never)));
