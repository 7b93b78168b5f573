// zod as `#zod`, for the tasks and for the service's configuration loader, which they share: by require, since as ES
// modules each of its hundred files would pass through the loader, which costs a task a tenth of a second. In the
// service's bundle `#zod` is zod itself, whose unused parts esbuild leaves out: see "imports" in package.json.
import { createRequire } from 'node:module';
import type * as Zod from 'zod';

export type { output, ZodType } from 'zod';

export const { z } = createRequire(import.meta.url)('zod') as typeof Zod;

// One by one what service/config takes from it: `import * as z` is what esbuild sees through.
const { enum: choice } = z;

export { choice as enum };
export const { array, boolean, int, number, strictObject, string, unknown } = z;
export const { ZodArray, ZodBoolean, ZodDefault, ZodEnum, ZodNumber, ZodObject, ZodPrefault } = z;
