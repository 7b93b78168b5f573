// What tasks/doctor.ts needs of this room; see `rooms` in mod.ts.
export { countVerdicts, describeEffectiveConfig, describeFindings } from './describe.ts';
export { effectiveConfig } from './effective-config.ts';
export { examine } from './examine.ts';
