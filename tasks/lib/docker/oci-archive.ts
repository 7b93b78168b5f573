// What an image archive holds, read from the archive itself: no engine tells the manifests of the platforms
// that are not its own.
import { read } from '../command.ts';

interface Descriptor {
  digest: string;
  platform?: { os: string; architecture: string; variant?: string };
}

/** `linux/arm64` → manifest digest, from an archive in the OCI image layout; attestations are left out. */
export async function archivePlatforms(archive: string): Promise<Record<string, string>> {
  const { z } = await import('#zod');
  const platform = z.object({
    os: z.string(),
    architecture: z.string(),
    variant: z.string().optional(),
  });
  const schema = z.object({
    manifests: z.array(z.object({ digest: z.string(), platform: platform.optional() })),
  });
  const open = async (name: string) =>
    schema.parse(JSON.parse(await read(['tar', '--extract', '--to-stdout', '--file', archive, name])));
  const [root] = (await open('index.json')).manifests;
  if (!root) return {};
  const { manifests } = await open(`blobs/${root.digest.replace(':', '/')}`);
  return Object.fromEntries(manifests.flatMap((manifest) => platformEntry(manifest as Descriptor)));
}

function platformEntry({ digest, platform }: Descriptor): [string, string][] {
  if (!platform || platform.os === 'unknown') return [];
  const { os, architecture, variant } = platform;
  return [[[os, architecture, variant].filter(Boolean).join('/'), digest]];
}
