// .env belongs to its user: a switch changes its own two values and not a byte besides.
import assert from 'node:assert/strict';
import { chmod, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import {
  dotenvFiles,
  dotenvPath,
  editDotenv,
  loadDotenv,
  parseDotenv,
  updateDotenv,
} from '../../tasks/lib/dotenv.ts';
import { session } from '../../tasks/lib/session.ts';
import { chosenSeed, randomFrom } from '../random.ts';
import { temporaryFolder } from '../tasks/processes.ts';

const set = { ACTIVE: 'prod' };

describe('editing .env', () => {
  const cases: [name: string, before: string, after: string][] = [
    ['an empty file', '', 'ACTIVE=prod\n'],
    ['a plain value', 'ACTIVE=dev\n', 'ACTIVE=prod\n'],
    ['no final newline', 'A=1\nACTIVE=dev', 'A=1\nACTIVE=prod'],
    ['a new line after a line without end', 'A=1', 'A=1\nACTIVE=prod\n'],
    ['Windows line ends', 'A=1\r\nACTIVE=dev\r\nB=2\r\n', 'A=1\r\nACTIVE=prod\r\nB=2\r\n'],
    ['a new line among Windows line ends', 'A=1\r\n', 'A=1\r\nACTIVE=prod\r\n'],
    ['double quotes', 'ACTIVE="dev"\n', 'ACTIVE="prod"\n'],
    ['single quotes and a comment', "ACTIVE='dev' # now\n", "ACTIVE='prod' # now\n"],
    ['a comment after a bare value', 'ACTIVE=dev   # now\n', 'ACTIVE=prod   # now\n'],
    ['an empty value', 'ACTIVE=\n', 'ACTIVE=prod\n'],
    ['export and spaces', '  export ACTIVE = dev\n', '  export ACTIVE = prod\n'],
    ['a commented line is not ours', '#ACTIVE=dev\n', '#ACTIVE=dev\nACTIVE=prod\n'],
    ['the last of several counts', 'ACTIVE=a\nACTIVE=b\n', 'ACTIVE=a\nACTIVE=prod\n'],
    ['a name that only begins like ours', 'ACTIVE_2=dev\n', 'ACTIVE_2=dev\nACTIVE=prod\n'],
    ['a value with a hash inside quotes', 'ACTIVE="d#v"\n', 'ACTIVE="prod"\n'],
    ['a foreign value over several lines', 'KEY="a\nACTIVE=no\nb"\n', 'KEY="a\nACTIVE=no\nb"\nACTIVE=prod\n'],
    ['a byte order mark', '\uFEFFA=1\n', '\uFEFFA=1\nACTIVE=prod\n'],
  ];
  for (const [name, before, after] of cases) {
    it(name, () => {
      assert.equal(editDotenv(before, set), after);
      assert.equal(parseDotenv(after).ACTIVE, 'prod', 'it reads back');
    });
  }

  it('takes a line out, and only that one', () => {
    assert.equal(editDotenv('A=1\nACTIVE=dev # x\nB=2\n', { ACTIVE: undefined }), 'A=1\nB=2\n');
  });

  it('quotes a value that needs it, so that it reads back', () => {
    for (const value of ['/path with blanks', 'a#b', 'a b', '$HOME', "it's"]) {
      assert.equal(parseDotenv(editDotenv('', { ACTIVE: value })).ACTIVE, value);
      for (const line of ["ACTIVE='x'\n", 'ACTIVE="x"\n', 'ACTIVE=x\n']) {
        assert.equal(parseDotenv(editDotenv(line, { ACTIVE: value })).ACTIVE, value, `${line} ← ${value}`);
      }
    }
  });

  it('whatever the file says, other lines stay byte for byte and the value reads back', () => {
    const seed = chosenSeed();
    const { below, pick } = randomFrom(seed);
    const piece = () =>
      pick(['A', 'ACTIVE', 'ACTIVE_X', 'export B', ' C ', '#ACTIVE', '']) +
      pick(['=', ' = ', '', '=="']) +
      pick(['1', '"x y"', "'z'", '"a # b" # c', 'v # w', '$X', 'ü', '""', "'", '`q`', '']);
    for (let round = 0; round < 3000; round += 1) {
      const end = pick(['\n', '\r\n']);
      const lines = Array.from({ length: below(7) }, piece);
      const before = lines.join(end) + pick(['', end]);
      if (isRefused(before)) continue;
      const after = editDotenv(before, set);
      const context = `SEED=${seed} round ${round}: ${JSON.stringify(before)} → ${JSON.stringify(after)}`;
      assert.equal(parseDotenv(after).ACTIVE, 'prod', context);
      const others = (text: string) => ({ ...parseDotenv(text), ACTIVE: '' });
      assert.deepEqual(others(after), others(before), context);
      assert.equal(withoutChange(before, after), true, context);
      assert.equal(editDotenv(after, set), after, `${context}: a second time changes nothing`);
    }
  });
});

function isRefused(text: string): boolean {
  try {
    parseDotenv(text);
    return false;
  } catch {
    return true;
  }
}

/** Is `after` the text before with one stretch replaced that begins behind an assignment of ours, or added at its end? */
function withoutChange(before: string, after: string): boolean {
  let start = 0;
  while (start < before.length && before[start] === after[start]) start += 1;
  let end = 0;
  while (
    end < before.length - start &&
    end < after.length - start &&
    before.at(-1 - end) === after.at(-1 - end)
  )
    end += 1;
  const replaced = before.slice(start, before.length - end);
  // Nothing was taken away, or only from a value: what was there begins behind `ACTIVE =`.
  const line = before.slice(before.lastIndexOf('\n', start - 1) + 1, start);
  return replaced === '' || /^\uFEFF?[ \t]*(export[ \t]+)?ACTIVE[ \t]*=/.test(line);
}

describe('the file', () => {
  it('becomes private when it is written, and is left alone when nothing changes', async (t) => {
    const root = temporaryFolder(t);
    const path = join(root, '.env');
    await writeFile(path, 'ACTIVE=dev\n');
    await chmod(path, 0o644);
    assert.equal(await updateDotenv(root, { ACTIVE: 'dev' }), false);
    assert.equal((await stat(path)).mode & 0o777, 0o644);
    assert.equal(await updateDotenv(root, set), true);
    assert.equal((await stat(path)).mode & 0o777, 0o600);
  });

  it('that cannot be read is reported by line and name, never by its text, which may be a secret', async (t) => {
    const root = temporaryFolder(t);
    const rows: [text: string, message: string][] = [
      ['A=1\nAPI_TOKEN="s3cret\nmore', '.env:2: the value of API_TOKEN has a quote that is never closed'],
      ['A=\u0024{B', '.env:1: the value of A has a \u0024{ that is never closed'],
      ['A=\u0024{B:?}', '.env:1: the value of A needs B, which is not set'],
      ['# fine\nA="x\ny"\nwhat is this\n', '.env:4: invalid line, expected NAME=value'],
      ['s3cret s3cret\n', '.env:1: invalid line, expected NAME=value'],
    ];
    for (const [text, message] of rows) {
      await writeFile(join(root, '.env'), text);
      await assert.rejects(loadDotenv(root), { exitCode: 2, message });
    }
  });

  it('of a megabyte is read in a moment, whatever it is made of', () => {
    const long = 'x'.repeat(1 << 20);
    for (const text of [
      `A="${long}`,
      `A='${long}`,
      `A=${'$'.repeat(1 << 20)}`,
      ' '.repeat(1 << 20),
      `${long}\n`.repeat(2),
    ])
      isRefused(text);
  });

  it('with the shell beating it in what it refers to, as for compose', () => {
    process.env.DOTENV_TEST = 'shell';
    assert.deepEqual(
      { ...parseDotenv('DOTENV_TEST=file\nA=$DOTENV_TEST\n') },
      { DOTENV_TEST: 'file', A: 'shell' },
    );
    delete process.env.DOTENV_TEST;
  });

  it('of another engine is one of its own: it inherits settings, not what runs', async (t) => {
    const root = temporaryFolder(t);
    await writeFile(join(root, '.env'), 'X_PORT=1\nX_DATA_DIR=/a\nX_ACTIVE_ENV=prod\nX_PROD_TAG=v9.0.0\n');
    session.context = 'pi';
    t.after(() => {
      session.context = undefined;
    });
    assert.deepEqual({ ...(await loadDotenv(root)) }, { X_PORT: '1', X_DATA_DIR: '/a' });
    await updateDotenv(root, { X_ACTIVE_ENV: 'dev', X_DATA_DIR: '/b' });
    assert.deepEqual({ ...(await loadDotenv(root)) }, { X_PORT: '1', X_DATA_DIR: '/b', X_ACTIVE_ENV: 'dev' });
    assert.match(await readFile(join(root, '.env'), 'utf8'), /X_ACTIVE_ENV=prod\nX_PROD_TAG=v9\.0\.0\n$/);
    assert.deepEqual(dotenvFiles(root), [join(root, '.env'), dotenvPath(root)]);
  });
});
