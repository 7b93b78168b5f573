// What tasks/release.ts needs of this room to plan a release; see `rooms` in mod.ts.
export { BUMPS } from '../version/next-version.ts';
export { interruptedRelease, resumeUndo } from './begun.ts';
export { describeReleasePlan } from './describe.ts';
export { editEntry } from './edit.ts';
export { planRelease } from './plan.ts';
export { readRepository, verifyReleasable } from './preflight.ts';
export { existingRelease } from './reopen.ts';
