// zod as `#zod`, for the tasks and for the service's configuration loader, which they share: by require, since as ES
// modules each of its hundred files would pass through the loader, which costs a task a tenth of a second. In the
// service's bundle `#zod` is zod itself, whose unused parts esbuild leaves out: see "imports" in package.json.
import { createRequire } from 'node:module';
import type * as Zod from 'zod';

export type { output, ZodType } from 'zod';

const require = createRequire(import.meta.url);

export const { z } = require('zod') as typeof Zod;

// A task parses a thing once: a parser compiled for it would cost more than it brings.
z.config({ jitless: true });

// One by one what service/config takes from it: `import * as z` is what esbuild sees through.
const { enum: choice } = z;

export { choice as enum };
export const { array, boolean, int, number, strictObject, string, unknown } = z;
export const { ZodArray, ZodBoolean, ZodDefault, ZodEnum, ZodNumber, ZodObject, ZodPrefault } = z;
