// Is the place of the data private, owned by the containers' user, on a file system that SQLite can trust, and
// not full?
import { stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { backupDirectory } from '../backup/places.ts';
import {
  chooseOwner,
  describeDirectoryStep,
  observeDirectory,
  planDirectory,
} from '../engine/data-directory.ts';
import { dataDirectory, type Project, variable, variableName } from '../project.ts';
import { amount } from '../status/format.ts';
import { type Check, type Finding, failed, gather, ok, unchecked, warning } from './check.ts';
import type { Facts } from './facts.ts';

const ELSEWHERE = 'the data directory is on another machine: run doctor there';

async function directory(facts: Facts): Promise<Finding> {
  if (!(await facts.isLocal())) return unchecked(ELSEWHERE);
  const { project } = facts;
  const path = dataDirectory(project);
  const state = await observeDirectory(path);
  if (!state) return failed(`${path} does not exist`, 'npm run setup');
  // Docker Desktop maps owners itself.
  if (process.platform !== 'linux')
    return ok(`${path}, mode ${state.mode.toString(8)}; its owner does not matter here`);
  const self = { uid: process.getuid?.() ?? 1000, gid: process.getgid?.() ?? 1000 };
  const [uid, gid] = [variable(project, 'UID'), variable(project, 'GID')].map((text) =>
    text ? Number(text) : undefined,
  );
  const owner = chooseOwner(
    { ...(uid === undefined ? {} : { uid }), ...(gid === undefined ? {} : { gid }) },
    state,
    self,
  );
  const steps = planDirectory(path, state, owner, self);
  return gather(
    steps.map((step) =>
      failed(
        step.act === 'restrict'
          ? `${path} has mode 0${step.from.toString(8)}, expected 0700`
          : `${path} belongs to ${state.uid}:${state.gid}, the containers run as ${owner.uid}:${owner.gid}`,
        `npm run setup does it: ${describeDirectoryStep(step)}`,
      ),
    ),
    `${path}: 0700, owner ${owner.uid}:${owner.gid}`,
  );
}

type Fitness = 'network' | 'lost' | 'layer' | 'shared';
/** statfs(2) magic numbers of those on which SQLite's locks or its shared memory cannot be trusted. */
const UNFIT: Record<number, [name: string, why: Fitness]> = {
  26985: ['NFS', 'network'],
  4283649346: ['CIFS', 'network'],
  4266872130: ['SMB 2', 'network'],
  20859: ['SMB', 'network'],
  12805120: ['Ceph', 'network'],
  16914839: ['9p', 'shared'],
  1702057286: ['FUSE', 'shared'],
  16914836: ['tmpfs', 'lost'],
  2240043254: ['ramfs', 'lost'],
  2035054128: ['overlayfs', 'layer'],
};
const WHY: Record<Fitness, string> = {
  network: 'locks over a network are not reliable: two writers corrupt a database',
  shared: "a folder shared with another system does not have SQLite's shared memory",
  lost: 'it is in memory: everything is lost at the next start',
  layer: "it is a container's layer: it goes with the container",
};

/** What statfs(2) says of a file system, judged. Pure. */
export function judgeFileSystem(type: number, path: string, variableToSet: string): Finding {
  const unfit = UNFIT[type >>> 0];
  if (!unfit) return ok(`${path}: fit for SQLite (type 0x${(type >>> 0).toString(16)})`);
  const [name, why] = unfit;
  const remedy = `choose a directory on a local disk (ext4, xfs, btrfs, apfs): ${variableToSet}=… in .env, after moving the data`;
  const verdict = why === 'layer' ? warning : failed;
  return verdict(`${path} is on ${name}: ${WHY[why]}`, remedy);
}

/** The directory itself, or what it would be made in. */
async function nearest(path: string): Promise<string> {
  const found = await stat(path).then(
    () => true,
    () => false,
  );
  return found ? path : nearest(dirname(path));
}

async function fileSystem(facts: Facts): Promise<Finding> {
  if (!(await facts.isLocal())) return unchecked(ELSEWHERE);
  if (process.platform !== 'linux') return unchecked('only Linux tells the type of a file system');
  const path = await nearest(dataDirectory(facts.project));
  return judgeFileSystem((await statfs(path)).type, path, variableName(facts.project, 'DATA_DIR'));
}

const LEAST_FREE = 1024 ** 3;

function places(project: Project, engineRoot: string | undefined): string[] {
  return [
    dataDirectory(project),
    backupDirectory(project),
    project.root,
    ...(engineRoot ? [engineRoot] : []),
  ];
}

async function disk(facts: Facts): Promise<Finding> {
  if (!(await facts.isLocal())) return unchecked(ELSEWHERE);
  const root = process.platform === 'linux' ? (await facts.info()).dataRoot : undefined;
  const found = await Promise.all(
    places(facts.project, root).map(async (place) => {
      const there = await nearest(place);
      const [{ bavail, bsize }, { dev }] = await Promise.all([statfs(there), stat(there)]);
      return { place, free: bavail * bsize, disk: dev };
    }),
  );
  // Several places on one disk are one fact.
  const disks = found.filter((one, index) => found.findIndex(({ disk: id }) => id === one.disk) === index);
  return gather(
    disks
      .filter(({ free }) => free < LEAST_FREE)
      .map(({ place, free }) =>
        failed(
          `${amount(free)} free at ${place}, expected ${amount(LEAST_FREE)} or more`,
          'make room: docker image prune, docker builder prune, npm run backup -- prune',
        ),
      ),
    disks.map(({ place, free }) => `${amount(free)} free at ${place}`).join(', '),
  );
}

export const STORAGE_CHECKS: readonly Check[] = [
  { id: 'data-directory', title: 'data directory', run: directory },
  { id: 'file-system', title: 'file system', run: fileSystem },
  { id: 'disk', title: 'disk space', run: disk },
];
