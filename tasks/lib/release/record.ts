// What an annotated version tag says about its image. The tag is the only place that cannot be edited later
// without everybody noticing, so it is what images are compared with.
import type { Image } from '../docker/images.ts';
import { tagMessage } from '../git.ts';

/** What a release tag's message records about its image. */
export interface ReleaseRecord {
  image: string;
  /** `Image.id` of the image that was health-checked; of a multi-platform image the index's digest. */
  digest: string;
  /**
   * `linux/amd64` → manifest digest: what the same commit gives again wherever it is built, while an index
   * with provenance is another one each time.
   */
  platforms: Record<string, string>;
  /** Base image reference and id, to explain why a rebuild differs. */
  baseImage?: string;
}

/** The tag's message: a title and one `Key: value` line each, like a commit's trailers. */
export function releaseTagMessage(tag: string, record: ReleaseRecord): string {
  const base = record.baseImage ? [`Base-Image: ${record.baseImage}`] : [];
  const platforms = Object.entries(record.platforms).map(
    ([platform, digest]) => `Platform-Digest: ${platform} ${digest}`,
  );
  const lines = [`Image: ${record.image}`, `Image-Digest: ${record.digest}`, ...platforms, ...base];
  return [tag, '', ...lines, ''].join('\n');
}

export function parseReleaseTag(message: string): ReleaseRecord | undefined {
  const value = (key: string) => new RegExp(`^${key}: (.+)$`, 'm').exec(message)?.[1];
  const image = value('Image');
  const digest = value('Image-Digest');
  const baseImage = value('Base-Image');
  const platforms = [...message.matchAll(/^Platform-Digest: (\S+) (\S+)$/gm)].map(([, platform, id]) => [
    platform,
    id,
  ]);
  if (!image || !digest) return undefined;
  return { image, digest, platforms: Object.fromEntries(platforms), ...(baseImage ? { baseImage } : {}) };
}

/** What was released under a tag, or undefined if the tag is missing or not a release of this flow. */
export async function readRelease(root: string, tag: string): Promise<ReleaseRecord | undefined> {
  const message = await tagMessage(root, tag);
  return message ? parseReleaseTag(message) : undefined;
}

/** Every digest under which an engine may know the released image. */
export function releasedDigests({ digest, platforms }: Pick<ReleaseRecord, 'digest' | 'platforms'>) {
  return [digest, ...Object.values(platforms)];
}

interface Built extends Pick<Image, 'id'> {
  platforms: Record<string, string>;
}

/**
 * Is a rebuilt image the released one? Either it is the very image, or every platform of it has the manifest
 * that was released for that platform. Pure.
 */
export function isReleasedImage(release: Pick<ReleaseRecord, 'digest' | 'platforms'>, built: Built): boolean {
  if (releasedDigests(release).includes(built.id)) return true;
  const platforms = Object.entries(built.platforms);
  return platforms.length > 0 && platforms.every(([name, digest]) => release.platforms[name] === digest);
}
