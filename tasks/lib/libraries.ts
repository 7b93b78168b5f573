// Libraries that nearly every task loads, by require: imported, each of their files would pass through the loader of ES
// modules as well. Their types come by `import type`; zod, which the service shares, is `#zod`.
import { createRequire } from 'node:module';
import type * as Levenshtein from 'fastest-levenshtein';
import type Semver from 'semver';
import type * as Zx from 'zx/core';

export type { ProcessOutput } from 'zx/core';

const require = createRequire(import.meta.url);

export const semver = require('semver') as typeof Semver;
export const { $ } = require('zx/core') as typeof Zx;
export const { closest, distance } = require('fastest-levenshtein') as typeof Levenshtein;
