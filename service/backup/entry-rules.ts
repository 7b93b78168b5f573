// What an archive may contain: paths below the data directory, files, directories, and links that stay inside.
// Checked before anything is written, because an archive may come from anywhere.

import type { Header } from 'tar-stream';
import { BackupError } from './report.ts';
import { whyNotKept } from './walk.ts';
import { DATA_PREFIX } from './write-archive.ts';

function hostile(name: string, why: string): BackupError {
  return new BackupError(
    'hostile-archive',
    `Refused: the archive has ${JSON.stringify(name)}, ${why}`,
    'it was not made by this program',
  );
}

/**
 * The path below the data directory; `links` collects those seen so far.
 * @throws BackupError for a name or type that a backup never has
 */
export function checkedPath(header: Header, links: Set<string>): string {
  const name = header.name.replace(/\/$/, '');
  const parts = name.split('/');
  if (name.includes('\0')) throw hostile(header.name, 'a name with a NUL');
  if (parts[0] !== DATA_PREFIX || parts.some((part) => part === '' || part === '.' || part === '..'))
    throw hostile(header.name, 'which is outside of the data');
  if (header.type !== 'file' && header.type !== 'directory' && header.type !== 'symlink')
    throw hostile(header.name, `which is a ${header.type}`);
  const path = parts.slice(1).join('/');
  for (let end = path.lastIndexOf('/'); end > 0; end = path.lastIndexOf('/', end - 1)) {
    if (links.has(path.slice(0, end))) throw hostile(header.name, 'which lies behind a link');
  }
  if (header.type === 'symlink') {
    const why = path === '' ? 'it takes the place of the directory' : whyNotKept(path, header.linkname ?? '');
    if (why) throw hostile(header.name, why);
    links.add(path);
  } else if (links.has(path)) throw hostile(header.name, 'which is a link as well');
  return path;
}
