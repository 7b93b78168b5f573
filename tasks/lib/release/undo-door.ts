// What tasks/release.ts needs of this room to take a release back; see `rooms` in mod.ts.
export { describeUndo } from './describe.ts';
export { planUndo } from './undo.ts';
export { takeBack } from './undo-environments.ts';
