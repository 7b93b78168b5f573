// What tasks/build-push.ts needs; see `rooms` in mod.ts.
export { engineInfo } from '../docker/engine-info.ts';
export { pushImage } from '../docker/registry.ts';
export { buildLatest, buildRelease } from './image-build.ts';
export { versionOfTag } from './releases.ts';
