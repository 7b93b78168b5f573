// `.env` is edited by people and by us: every line that is not ours stays byte for byte.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseEnv } from 'node:util';
import { editDotenv } from '../../tasks/lib/dotenv.ts';

test('one value changes, everything around it stays', () => {
  const rows: [before: string, after: string][] = [
    ['', 'TAG=v2\n'],
    ['TAG=v1\n', 'TAG=v2\n'],
    ['TAG=v1', 'TAG=v2'],
    ['TAG=\n', 'TAG=v2\n'],
    ['OTHER=1', 'OTHER=1\nTAG=v2\n'],
    ['# TAG=v1\nTAGS=a\nMY_TAG=b\n', '# TAG=v1\nTAGS=a\nMY_TAG=b\nTAG=v2\n'],
    ['export TAG=v1 # keep\nOTHER="a b"\n', 'export TAG=v2 # keep\nOTHER="a b"\n'],
    ['  TAG = "v1"\n', '  TAG = "v2"\n'],
    ["TAG='v1' # why\n", "TAG='v2' # why\n"],
    ['TAG=v0\nOTHER=1\nTAG=v1\n', 'TAG=v0\nOTHER=1\nTAG=v2\n'],
    ['A=1\r\nTAG=v1\r\nB=2\r\n', 'A=1\r\nTAG=v2\r\nB=2\r\n'],
    ['A=1\r\n', 'A=1\r\nTAG=v2\r\n'],
  ];
  for (const [before, after] of rows) {
    const edited = editDotenv(before, { TAG: 'v2' });
    assert.equal(edited, after, JSON.stringify(before));
    assert.equal(parseEnv(edited).TAG, 'v2', 'and node reads it so');
  }
});

test('a variable that is removed takes its line and nothing else', () => {
  assert.equal(editDotenv('# mine\nTAG=v1\nA=1\n', { TAG: undefined }), '# mine\nA=1\n');
  assert.equal(editDotenv('A=1\n', { TAG: undefined }), 'A=1\n');
});

test('a value with spaces is quoted and read back as it was', () => {
  const text = editDotenv('', { DIR: '/srv/my data' });
  assert.equal(text, 'DIR="/srv/my data"\n');
  assert.equal(parseEnv(text).DIR, '/srv/my data');
});
