// What the engine says of itself and its machine. By its own interface: `docker info` asks each plugin of the client
// for its description as well, which takes longer than all the rest.

import { engineDown } from './client.ts';
import { type AskEngine, withEngine } from './engine-api.ts';

export interface EngineInfo {
  version: string;
  /** Machine name as `uname -m` has it, e.g. `x86_64`, `aarch64`. */
  architecture: string;
  cpus: number;
  /** Bytes. */
  memory: number;
  /** `1` or `2`. */
  cgroup: string;
  /** What the kernel enforces of a container's limits. */
  limits: { memory: boolean; swap: boolean; cpu: boolean; pids: boolean };
  /** What it would print under `docker info`. */
  warnings: string[];
  /** Images live in containerd: digests are real manifest digests and several platforms fit in one image. */
  containerdStore: boolean;
  /** Where it keeps its images, on its own machine. */
  dataRoot: string;
}

/** @throws TaskError when no engine answers */
export function engineInfo(): Promise<EngineInfo> {
  return withEngine(readInfo);
}

/** @throws TaskError when no engine answers, or something else does */
export async function readInfo(ask: AskEngine): Promise<EngineInfo> {
  const { z } = await import('#zod');
  const flag = z.boolean().default(false);
  const schema = z.object({
    ServerVersion: z.string().min(1),
    Architecture: z.string(),
    NCPU: z.number(),
    MemTotal: z.number(),
    CgroupVersion: z.string().default('1'),
    MemoryLimit: flag,
    SwapLimit: flag,
    CpuCfsQuota: flag,
    PidsLimit: flag,
    Warnings: z.array(z.string()).nullish(),
    DriverStatus: z.array(z.array(z.string())).nullish(),
    DockerRootDir: z.string().default(''),
  });
  const answer = schema.safeParse(await ask('/info'));
  if (!answer.success) throw engineDown('what answers /info is none');
  const { MemoryLimit: memory, SwapLimit: swap, CpuCfsQuota: cpu, PidsLimit: pids, ...info } = answer.data;
  return {
    version: info.ServerVersion,
    architecture: info.Architecture,
    cpus: info.NCPU,
    memory: info.MemTotal,
    cgroup: info.CgroupVersion,
    limits: { memory, swap, cpu, pids },
    warnings: info.Warnings ?? [],
    containerdStore:
      info.DriverStatus?.some(([, value]) => value?.startsWith('io.containerd.snapshotter')) ?? false,
    dataRoot: info.DockerRootDir,
  };
}
