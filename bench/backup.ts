// Backups at scale, side by side in one run with `tar | zstd -3` and `restic backup` of the same idle data: throughput,
// the proof's share, memory, cost by size; and how long a writer of 500 commits a second waits meanwhile.
// Run: npx tsx bench/backup.ts [GIGABYTES…]; default 0.1 1 4. Needs restic and zstd. Fails if a target is missed.

import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { bundledProgram } from '../tasks/lib/backup/program.ts';
import { median } from './figures.ts';

const execute = promisify(execFile);
const IMAGE = process.env.TEST_BASE_IMAGE ?? 'synapse-node:24';
const ROUNDS = 3;
/** As the task runs it. */
const SHARES = 256;
/** Ratios against `tar | zstd -3`, the creation, and a tenth of the size; megabytes; milliseconds. */
const TARGETS = { throughput: 0.8, proof: 1, megabytes: 200, stall: 50, linearity: 1.35 };
const ORIGIN = { project: 'bench', version: 'v1', image: '', imageDigest: '', revision: '' };

class Bench {
  readonly root = mkdtempSync(join(tmpdir(), 'bench-backup-'));
  readonly data = join(this.root, 'data');
  readonly backups = join(this.root, 'backups');

  constructor() {
    for (const path of [this.data, this.backups, join(this.root, 'app')]) mkdirSync(path, { mode: 0o777 });
    cpSync(fileURLToPath(new URL('backup-data.mjs', import.meta.url)), join(this.root, 'app/data.mjs'));
  }

  /** The program, and the two others with their libraries: all three run in containers of one kind. */
  async prepare(): Promise<void> {
    const app = join(this.root, 'app');
    writeFileSync(join(app, 'backup.mjs'), await bundledProgram());
    for (const name of ['zstd', 'restic']) {
      const path = (await execute('which', [name])).stdout.trim();
      cpSync(path, join(app, name), { dereference: true });
      const { stdout } = await execute('ldd', [path]).catch(() => ({ stdout: '' }));
      for (const [, library = ''] of stdout.matchAll(/=> (\/\S*\/lib(?:z|lzma|lz4|zstd)\.so\S*)/g))
        cpSync(library, join(app, basename(library)), { dereference: true });
    }
  }

  /** `shares` of the CPU against others: a backup of live data runs beside its writers, not in front of them. */
  private argv(program: string[], shares = 1024): string[] {
    const mounts = ['data', 'backups', 'app'].flatMap((name) => [
      '--volume',
      `${join(this.root, name)}:/${name}`,
    ]);
    const env = ['--env=LD_LIBRARY_PATH=/app', '--env=RESTIC_PASSWORD=bench', '--env=HOME=/tmp'];
    return [
      'run',
      '--rm',
      '--interactive',
      '--network=none',
      `--cpu-shares=${shares}`,
      ...mounts,
      ...env,
      '--entrypoint',
      'node',
      IMAGE,
      ...program,
    ];
  }

  async make(megabytes: number): Promise<void> {
    await execute('docker', this.argv(['/app/data.mjs', 'make', '/data', String(megabytes)]));
  }

  /** A command of the program; its result. */
  async program(command: string, options: object, shares?: number): Promise<Record<string, number>> {
    const places = { source: '/', places: ['data'], backups: '/backups', project: 'bench' };
    const request = JSON.stringify({ command, options: { ...places, ...options } });
    const running = execute('docker', this.argv(['/app/backup.mjs'], shares), { maxBuffer: 64 << 20 });
    running.child.stdin?.write(`${request}\n`);
    return JSON.parse((await running).stdout).result;
  }

  create(shares?: number) {
    const options = { origin: ORIGIN, exclude: [], prove: true, lockTimeoutMs: 30_000, maxBlockMs: 5000 };
    return this.program('create', options, shares);
  }

  /** Seconds that a line of shell takes in a container like the program's, without the container's start. */
  private async shell(line: string): Promise<number> {
    const script = `const began = performance.now();
      require('node:child_process').execFileSync('sh', ['-c', process.argv[1]], { cwd: '/data' });
      console.log((performance.now() - began) / 1000);`;
    const { stdout } = await execute('docker', this.argv(['-e', script, line]));
    return Number(stdout);
  }

  /** Seconds, as one would do it by hand; the archive is on the disk afterwards, here and there. */
  tar(): Promise<number> {
    return this.shell('tar -c . | /app/zstd -3 -q -c > /backups/by-hand; sync /backups/by-hand');
  }

  /** Seconds of the first backup into a new repository. */
  restic(): Promise<number> {
    const restic = '/app/restic -r /backups/restic --quiet';
    return this.shell(`rm -rf /backups/restic; ${restic} init; ${restic} backup --no-cache .`);
  }

  /** The longest wait of a writer, in milliseconds, alone and during each of some backups with their proofs. */
  async stall(seconds: number): Promise<{ alone: number; during: number[]; perSecond: number }> {
    const write = async () => {
      const { stdout } = await execute(
        'docker',
        this.argv(['/app/data.mjs', 'write', '/data', String(seconds)]),
      );
      return JSON.parse(stdout) as { longest: number; perSecond: number };
    };
    const alone = await write();
    const during: number[] = [];
    let perSecond = alone.perSecond;
    for (let round = 0; round < ROUNDS; round += 1) {
      const writing = write();
      await new Promise((resolve) => setTimeout(resolve, 1500));
      await this.create(SHARES);
      const { longest, perSecond: rate } = await writing;
      during.push(longest);
      perSecond = Math.min(perSecond, rate);
    }
    return { alone: alone.longest, during, perSecond };
  }

  clear(): void {
    for (const path of [this.data, this.backups]) {
      rmSync(path, { recursive: true, force: true });
      mkdirSync(path, { mode: 0o777 });
    }
  }
}

interface Measured {
  gigabytes: number;
  seconds: number;
  throughput: number;
  proof: number;
  megabytes: number;
  restic: number;
}

async function measure(bench: Bench, gigabytes: number): Promise<Measured> {
  bench.clear();
  await bench.make(gigabytes * 1000);
  const rounds = gigabytes > 2 ? 1 : ROUNDS;
  const [tar, ours, proof, restic]: number[][] = [[], [], [], []];
  let megabytes = 0;
  for (let round = 0; round < rounds; round += 1) {
    tar!.push(await bench.tar());
    const made = await bench.create();
    ours!.push(made.seconds!);
    proof!.push(made.proofSeconds!);
    megabytes = Math.max(megabytes, made.peakMegabytes!);
    restic!.push(await bench.restic());
  }
  const bytes = statSync(join(bench.backups, 'by-hand')).size;
  const seconds = median(ours!);
  const result = {
    gigabytes,
    seconds,
    throughput: median(tar!) / seconds,
    proof: median(proof!) / seconds,
    megabytes,
    restic: median(restic!) / seconds,
  };
  console.log(
    `${gigabytes} GB (${(bytes / 1e6).toFixed(0)} MB compressed): create ${seconds.toFixed(1)} s, proof ${median(proof!).toFixed(1)} s, ` +
      `tar | zstd -3 ${median(tar!).toFixed(1)} s, restic ${median(restic!).toFixed(1)} s; throughput ${result.throughput.toFixed(2)} × tar | zstd -3, ` +
      `${result.restic.toFixed(2)} × restic; proof ${result.proof.toFixed(2)} × create; peak ${megabytes} MB`,
  );
  return result;
}

async function main(sizes: readonly number[]): Promise<void> {
  const bench = new Bench();
  try {
    await bench.prepare();
    const measured: Measured[] = [];
    let stall: Awaited<ReturnType<Bench['stall']>> | undefined;
    for (const size of sizes) {
      measured.push(await measure(bench, size));
      if (size >= 0.5 && !stall) stall = await bench.stall(Math.ceil(measured.at(-1)!.seconds * 2.5) + 3);
    }
    if (stall)
      console.log(
        `writer at ${stall.perSecond.toFixed(0)} commits/s: longest wait ${stall.during.map((ms) => ms.toFixed(1)).join(', ')} ms during a backup, ${stall.alone.toFixed(1)} ms alone`,
      );
    const perGigabyte = measured
      .filter(({ gigabytes }) => gigabytes >= 1)
      .map(({ seconds, gigabytes }) => seconds / gigabytes);
    const linearity = perGigabyte.length > 1 ? perGigabyte.at(-1)! / perGigabyte[0]! : undefined;
    console.log(
      `seconds per GB: ${measured.map(({ seconds, gigabytes }) => (seconds / gigabytes).toFixed(1)).join(', ')}`,
    );
    const big = measured.find(({ gigabytes }) => gigabytes >= 1) ?? measured.at(-1)!;
    const missed = [
      ...(big.throughput < TARGETS.throughput ? ['throughput'] : []),
      ...(big.proof > TARGETS.proof ? ['proof'] : []),
      ...(Math.max(...measured.map(({ megabytes }) => megabytes)) > TARGETS.megabytes ? ['memory'] : []),
      ...(stall && median(stall.during) > TARGETS.stall ? ['stall'] : []),
      ...(linearity && linearity > TARGETS.linearity ? ['linearity'] : []),
    ];
    const left = [...(stall ? [] : ['stall']), ...(linearity ? [] : ['linearity'])];
    if (left.length > 0) console.log(`not measured with these sizes: ${left.join(', ')}`);
    console.log(
      missed.length === 0
        ? 'all targets that were measured are met'
        : `missed: ${missed.join(', ')} of ${JSON.stringify(TARGETS)}`,
    );
    process.exitCode = missed.length === 0 ? 0 : 1;
  } finally {
    rmSync(bench.root, { recursive: true, force: true });
  }
}

const sizes = process.argv.slice(2).map(Number);
await main(sizes.length > 0 ? sizes : [0.1, 1, 4]);
