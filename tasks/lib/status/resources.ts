// What a container uses, from the engine's one-shot statistics: `docker stats` takes two seconds for the same.
import { readIfPresent } from '../files.ts';

export interface Usage {
  /** Bytes in use, without page cache that can be dropped at once: what `docker stats` shows. */
  memory: number;
  /** Bytes that the kernel enforces; the machine's memory where there is no limit. */
  limit: number;
  /** Highest bytes ever, page cache included, where the engine or the kernel tells. */
  peak: number | undefined;
  /** Nanoseconds of CPU time: of the container, and of the whole machine. */
  cpu: number;
  system: number;
  cpus: number;
}

/** The answer to `/containers/ID/stats`; undefined when the container does not run, or memory is not counted. */
export async function parseUsage(stats: unknown): Promise<Usage | undefined> {
  const { z } = await import('#zod');
  const schema = z.object({
    memory_stats: z.object({
      usage: z.number(),
      limit: z.number(),
      max_usage: z.number().optional(),
      stats: z.record(z.string(), z.number()).default({}),
    }),
    cpu_stats: z.object({
      cpu_usage: z.object({ total_usage: z.number() }),
      system_cpu_usage: z.number().default(0),
      online_cpus: z.number().default(1),
    }),
  });
  const parsed = schema.safeParse(stats);
  if (!parsed.success) return undefined;
  const { memory_stats: memory, cpu_stats: cpu } = parsed.data;
  // cgroup v1 names it for the whole hierarchy, v2 has one name only.
  const cache = memory.stats.total_inactive_file ?? memory.stats.inactive_file ?? 0;
  return {
    memory: Math.max(0, memory.usage - cache),
    limit: memory.limit,
    peak: memory.max_usage,
    cpu: cpu.cpu_usage.total_usage,
    system: cpu.system_cpu_usage,
    cpus: cpu.online_cpus,
  };
}

/** Per cent of one CPU between two readings, as `docker stats` counts; undefined if no time passed. */
export function cpuPercent(first: Usage | undefined, second: Usage | undefined): number | undefined {
  if (!first || !second || second.system <= first.system || second.cpu < first.cpu) return undefined;
  return Math.round(((second.cpu - first.cpu) / (second.system - first.system)) * second.cpus * 1000) / 10;
}

/** The kernel's high-water mark on cgroup v2, which the engine does not tell; only of containers on this machine. */
export async function kernelPeak(id: string): Promise<number | undefined> {
  const folders = [`system.slice/docker-${id}.scope`, `docker/${id}`];
  const texts = await Promise.all(
    folders.map((folder) => readIfPresent(`/sys/fs/cgroup/${folder}/memory.peak`).catch(() => undefined)),
  );
  const text = texts.find((found) => found !== undefined);
  return text === undefined ? undefined : Number(text);
}
