// All releases at once, by one call of git: what status and doctor compare images with. Apart from releases.ts,
// which asks for a single tag.
import { read } from '../command.ts';
import { parseTag } from '../version/version-tags.ts';
import { parseReleaseTag, type ReleaseRecord } from './record.ts';

export interface ReleaseTag {
  name: string;
  /** Without prefix. */
  version: string;
  /** The commit that the tag names. */
  commit: string;
  /** What its message records; undefined for a tag that is no release of this flow. */
  record: ReleaseRecord | undefined;
}

/** Every tag that is a version, as it is in the repository; none outside of one. */
export async function releaseTags(root: string, prefix: string): Promise<ReleaseTag[]> {
  // %01 cannot be in a tag's message.
  const format = '%(refname:strip=2)%00%(objecttype)%00%(objectname)%00%(*objectname)%00%(contents)%01';
  const output = await read(['git', '-C', root, 'for-each-ref', `--format=${format}`, 'refs/tags'], {
    okExitCodes: [128],
  });
  return output.split('\u0001').flatMap((entry) => {
    const [name = '', type, oid = '', peeled = '', message = ''] = entry.replace(/^\n/, '').split('\0');
    const version = parseTag(prefix, name);
    if (version === undefined) return [];
    const record = type === 'tag' ? parseReleaseTag(message) : undefined;
    return [{ name, version, commit: peeled || oid, record }];
  });
}
