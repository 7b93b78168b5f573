// What tasks/release.ts needs of this room to carry a release out; see `rooms` in mod.ts.
export { closeRelease, finishRelease } from './finish.ts';
export { performRelease } from './run.ts';
