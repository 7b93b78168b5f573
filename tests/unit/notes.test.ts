// Release notes from whole histories: golden files for the rules, random histories and random files for the
// promises (no commit lost, no earlier text altered, the same step twice changes nothing).
// Golden files: UPDATE_GOLDEN=1 rewrites tests/unit/golden/*.md. Random tests: SEED=n repeats a run.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { stream } from '../../tasks/lib/command.ts';
import {
  type Changes,
  type Commit,
  collectChanges,
  commitLogArguments,
  parseCommitLog,
} from '../../tasks/lib/release/commits.ts';
import {
  escapeLine,
  findEntry,
  insertEntry,
  removeEntry,
  renderEntry,
  withdrawEntry,
  withdrawnVersions,
} from '../../tasks/lib/release/notes.ts';
import { type Choice, chosenSeed, randomFrom } from '../random.ts';

const GOLDEN = new URL('./golden/', import.meta.url);
const SEED = chosenSeed();
console.log(`# seed ${SEED} (SEED=${SEED} repeats this run)`);

/** Runs a random test often; a failure names the seed of its round. */
async function randomly(rounds: number, body: (random: Choice) => Promise<void> | void) {
  for (let round = 0; round < rounds; round += 1) {
    try {
      await body(randomFrom(SEED + round));
    } catch (error) {
      throw new Error(`round ${round}, repeat with SEED=${SEED + round}: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }
}

function fullHash(short: string): string {
  return short.trim().padEnd(40, '0');
}

/** `commit <hash> <- <parents>  <author>`, then the message, indented by four spaces. */
function readHistory(text: string): { commit: Omit<Commit, 'header' | 'body'>; message: string }[] {
  return text
    .split(/^commit (?=\w+ <- )/m)
    .slice(1)
    .map((part) => {
      const [first = '', ...lines] = part.trimEnd().split('\n');
      const [, hash = '', parents = '', author = ''] = /^(\w+) <- (.*?) {2}(.*)$/.exec(first) ?? [];
      const message = lines.map((line) => line.slice(4)).join('\n');
      return { commit: { hash: fullHash(hash), parents: parents.split(',').map(fullHash), author }, message };
    });
}

/** What `git log -z` writes for these commits. */
function asLog(history: ReturnType<typeof readHistory>): Buffer {
  const records = history.map(({ commit, message }) =>
    [commit.hash, commit.parents.join(' '), commit.author, `${message}\n`, ''].join('\0'),
  );
  return Buffer.from(records.join(''));
}

async function* inChunks(bytes: Buffer, size: () => number): AsyncGenerator<Buffer> {
  for (let start = 0; start < bytes.length; ) {
    const end = start + size();
    yield bytes.subarray(start, end);
    start = end;
  }
}

function changesOf(text: string | ReturnType<typeof readHistory>, size = () => 4096): Promise<Changes> {
  const log = asLog(typeof text === 'string' ? readHistory(text) : text);
  return collectChanges(parseCommitLog(inChunks(log, size)));
}

const SECTIONS = { Added: ['feat', 'feature'], Changed: ['perf'], Fixed: ['fix', 'bugfix', 'hotfix'] };

function entryFor(tag: string, changes: Pick<Changes, 'changes'>): string {
  return renderEntry({
    tag,
    date: '2026-11-24',
    changes: changes.changes,
    sections: SECTIONS,
    image: `synapse:${tag}`,
    rollback: 'v1.1.0',
  });
}

for (const file of readdirSync(GOLDEN).filter((name) => name.endsWith('.history'))) {
  test(`golden: ${file}`, async () => {
    const changes = await changesOf(readFileSync(new URL(file, GOLDEN), 'utf8'));
    const actual = `<!-- bump: ${changes.bump}, commits: ${changes.commits} -->\n\n${entryFor('v1.2.0', changes)}`;
    const golden = new URL(file.replace('.history', '.md'), GOLDEN);
    if (process.env.UPDATE_GOLDEN) writeFileSync(golden, actual);
    assert.equal(actual, readFileSync(golden, 'utf8'));
  });
}

test('a git log is read the same however its output is cut into pieces; one that ends inside a commit is an error', async () => {
  const text = readFileSync(new URL('everyday.history', GOLDEN), 'utf8');
  const whole = await changesOf(text, () => 1e6);
  assert.deepEqual(await changesOf(text, () => 1), whole, 'inside a character, too');
  await randomly(20, async ({ below }) => {
    assert.deepEqual(await changesOf(text, () => 1 + below(300)), whole);
  });
  const cut = parseCommitLog(inChunks(asLog(readHistory(text)).subarray(0, -1), () => 100));
  await assert.rejects(collectChanges(cut), { code: 'truncated-log' });
  assert.equal((await changesOf('')).commits, 0);
});

// The limit is one of a release that hangs: what grows by the square of the length takes many minutes here.
test('a hostile message of hundreds of kilobytes cannot stop a release', { timeout: 120_000 }, async () => {
  const long = 100_000;
  const texts = ['a.', '#1 ', '` ', '* ', 'ab/', ...'a#()`<- \t/\\[!'];
  for (const text of texts) {
    const run = text.repeat(long);
    for (const message of [
      run,
      `feat(${run}): x`,
      `feat: x${run} (#1)`,
      `fix: x\n\nBREAKING CHANGE: ${run}\n${run}`,
      `Revert "${run}"\n\nCloses${run} #1\nRefs: ${run}\nThis reverts commit ${run}\nCo-authored-by: ${run}\n* feat: ${run}`,
    ]) {
      const changes = await changesOf(
        [{ commit: { hash: fullHash('abc1234'), parents: [], author: '' }, message }],
        () => 65_536,
      );
      const entry = entryFor('v1.0.0', changes);
      assert.ok(entry.includes('abc1234'), `${JSON.stringify(text)} in ${message.slice(0, 30)}`);
    }
  }
});

interface Model {
  history: ReturnType<typeof readHistory>;
  visible: Set<string>;
}

/** A random history and the commits that must be told of. Newest first; each commit is reverted at most once. */
function randomHistory({ below, pick }: Choice): Model {
  const history: Model['history'] = [];
  /** What no revert has touched so far, with what its own revert would bring back. */
  const alive = new Map<string, string | undefined>();
  const visible = new Set<string>();
  const headers = ['feat: add', 'fix(core): mend', 'docs: tell', 'perf!: hurry', 'Just do it', ''];
  const ends = [' it', ' `code`', ' <tag>', ' (#12)', '\n\nBody\n\nBREAKING CHANGE: all', '\n\nCloses #3'];
  const count = 1 + below(40);
  let tip = fullHash('root000');
  for (let n = 0; n < count; n += 1) {
    const hash = fullHash(`e${(below(2 ** 20) + n * 2 ** 20).toString(16).padStart(8, '0')}`.slice(0, 9));
    const kind = below(10);
    let message = `${pick(headers)}${pick(ends)}`;
    const parents = [tip];
    if (kind === 0 && alive.size > 0) {
      const target = pick([...alive.keys()]);
      const back = alive.get(target);
      alive.delete(target);
      if (back) visible.add(back);
      else alive.set(hash, target);
      visible.delete(target);
      message = `Revert "something"\n\nThis reverts commit ${target}.`;
    } else if (kind === 1) {
      message = 'Revert "something older"\n\nThis reverts commit 0123456789012345678901234567890123456789.';
      visible.add(hash);
    } else if (kind === 2) {
      message = `chore(release): v1.${n}.0`;
    } else if (kind === 3) {
      parents.push(fullHash('side000'));
      message = "Merge branch 'side'\n\nwith words";
    } else {
      alive.set(hash, undefined);
      visible.add(hash);
    }
    history.unshift({ commit: { hash, parents, author: 'Ann' }, message });
    tip = hash;
  }
  return { history, visible };
}

test('no commit is lost: each one that must be told of is in the notes exactly once, and no other', async () => {
  await randomly(300, async (random) => {
    const { history, visible } = randomHistory(random);
    const entry = entryFor('v1.2.0', await changesOf(history, () => 1 + random.below(200)));
    for (const { commit } of history) {
      const times = entry.split(commit.hash.slice(0, 7)).length - 1;
      assert.equal(times, visible.has(commit.hash) ? 1 : 0, `${commit.hash}\n${entry}`);
    }
  });
});

/** Pieces of files that people have; joined at random they make files that nobody should have. */
const PIECES = [
  '# Changelog¦# v1.0.0 notes¦## [Unreleased]¦## Unreleased¦- Something new¦```¦````md¦## [1.0.0] - 2020-01-01',
  '## v1.1.0¦## v1.1.0¦### Fixed¦* old¦1. numbered¦~~~¦---¦  ```sh¦- ```¦<!--¦-->¦<!-- ## [0.1.0] -->¦+++¦<pre>',
  '</pre>¦> quote¦¦¦   ¦[1.0.0]: https://example.com/1.0.0¦[Unreleased]: https://example.com¦# 1.0.0¦## ¦##',
  '#### 0.5.0¦text\ttext¦\u00e9\u{1f600}¦| a | b |\n|---|---|¦    ## indented¦\\# escaped¦## v1.2.0-rc.1',
  'v1.0.0\n------¦<div>¦</div>¦- a\n  ## v1.0.0',
].flatMap((line) => line.split('¦'));

function randomFile({ below, pick }: Choice): string {
  const lineEnd = pick(['\n', '\n', '\r\n']);
  const start = pick(['', '', '', '\uFEFF', `---${lineEnd}title: x${lineEnd}---${lineEnd}`]);
  const lines = Array.from({ length: below(14) }, () => pick(PIECES));
  const end = pick(['', lineEnd, lineEnd + lineEnd]);
  return start + lines.join(lineEnd) + end;
}

/** True if `after` is `before` with one piece inserted. */
function isInsertion(before: string, after: string): boolean {
  let same = 0;
  while (same < before.length && before[same] === after[same]) same += 1;
  const rest = before.length - same;
  return after.length > before.length && before.slice(same) === after.slice(after.length - rest);
}

/** A file that ends inside a block is refused; nothing else is. */
function insertUnlessRefused(before: string, entry: string): string | undefined {
  try {
    return insertEntry(before, entry, 'v1.2.0');
  } catch (error) {
    assert.match((error as Error).message, /they end inside a/);
    assert.match(before, /```|~~~|<!--|<pre>/);
    return undefined;
  }
}

test('earlier text is never altered, the entry is found again, and the same step twice changes nothing', async () => {
  const changes = await changesOf(readFileSync(new URL('hostile.history', GOLDEN), 'utf8'));
  await randomly(process.env.SOAK ? 10_000 : 1_000, (random) => {
    const before = randomFile(random);
    const entry = entryFor('v1.2.0', changes);
    const after = insertUnlessRefused(before, entry);
    if (after === undefined) return;
    const context = `${JSON.stringify(before)} → ${JSON.stringify(after.replace(entry, 'ENTRY'))}`;
    assert.ok(isInsertion(before, after), context);
    assert.ok(findEntry(after, 'v1.2.0')?.text.startsWith(entry.trimEnd()), context);
    assert.equal(insertEntry(after, entry, 'v1.2.0'), after, context);
    assert.equal(findEntry(removeEntry(after, 'v1.2.0'), 'v1.2.0'), undefined, context);
    const later = insertEntry(after, entryFor('v1.3.0', { changes: [] }), 'v1.3.0');
    assert.ok(isInsertion(after, later), context);
    assert.ok(
      findEntry(later, 'v1.3.0')!.start < findEntry(later, 'v1.2.0')!.start,
      `newest first: ${context}`,
    );
    const withdrawn = withdrawEntry(later, 'v1.2.0', 'lost\n data “twice”');
    assert.ok(isInsertion(later, withdrawn), context);
    assert.equal(findEntry(withdrawn, 'v1.2.0')?.isWithdrawn, true, context);
    assert.equal(findEntry(withdrawn, 'v1.3.0')?.isWithdrawn, false, context);
    assert.equal(withdrawEntry(withdrawn, 'v1.2.0', 'again'), withdrawn, context);
  });
});

test('the entry stands where a reader looks for the newest release', () => {
  const entry = '## [v1.2.0] - 2026-11-24\n\n- New\n';
  const E = '## [v1.2.0] - 2026-11-24\n\n- New\n';
  const cases: [name: string, before: string, after: string][] = [
    ['empty', '', `# Release notes\n\n${E}`],
    ['only a byte order mark', '\uFEFF', `\uFEFF# Release notes\n\n${E}`],
    ['only a title', '# Notes\n', `# Notes\n\n${E}`],
    ['no line end at the end', '# Notes', `# Notes\n\n${E}`],
    ['title and introduction', '# Notes\n\nAll of it.\n', `# Notes\n\nAll of it.\n\n${E}`],
    ['an older release', '# Notes\n\n## v1.1.0\n\n- Old', `# Notes\n\n${E}\n## v1.1.0\n\n- Old`],
    ['no blank line before it', '# Notes\n## v1.1.0\n', `# Notes\n\n${E}\n## v1.1.0\n`],
    ['no title', '## 1.1.0\n\n- Old\n', `${E}\n## 1.1.0\n\n- Old\n`],
    ['plain text', 'Old words\n', `Old words\n\n${E}`],
    ['other sections', '# Notes\n\n## How\n\nSo.\n', `# Notes\n\n## How\n\nSo.\n\n${E}`],
    ['underlined headings', 'Notes\n=====\n\nv1.1.0\n------\n', `Notes\n=====\n\n${E}\nv1.1.0\n------\n`],
    [
      'Unreleased above',
      '# Notes\n\n## [Unreleased]\n\n- Soon\n\n## [1.1.0]\n',
      `# Notes\n\n## [Unreleased]\n\n- Soon\n\n${E}\n## [1.1.0]\n`,
    ],
    ['only Unreleased', '# Notes\n\n## Unreleased\n\n- Soon\n', `# Notes\n\n## Unreleased\n\n- Soon\n\n${E}`],
    [
      'links at the end',
      '# Notes\n\n## [Unreleased]\n\n[Unreleased]: https://example.com\n',
      `# Notes\n\n## [Unreleased]\n\n${E}\n[Unreleased]: https://example.com\n`,
    ],
    [
      'a heading in a fence',
      '# Notes\n\n```md\n## v0.0.1\n```\n\n## v1.1.0\n',
      `# Notes\n\n\`\`\`md\n## v0.0.1\n\`\`\`\n\n${E}\n## v1.1.0\n`,
    ],
    [
      'a comment',
      '# Notes\n<!--\n## v1.0.0\n-->\n## v1.1.0\n',
      `# Notes\n<!--\n## v1.0.0\n-->\n\n${E}\n## v1.1.0\n`,
    ],
    ['front matter', '---\ntitle: v1\n---\n## v1.1.0\n', `---\ntitle: v1\n---\n\n${E}\n## v1.1.0\n`],
    ['releases as titles', '# 1.1.0 (2020-01-01)\n\n## Fixes\n', `${E}\n# 1.1.0 (2020-01-01)\n\n## Fixes\n`],
    ['a prerelease of it', '# Notes\n\n## v1.2.0-rc.1\n', `# Notes\n\n${E}\n## v1.2.0-rc.1\n`],
  ];
  for (const [name, before, after] of cases) {
    assert.equal(insertEntry(before, entry, 'v1.2.0'), after, name);
    const windows = (text: string) => text.replaceAll('\n', '\r\n');
    if (before.includes('\n'))
      assert.equal(insertEntry(windows(before), entry, 'v1.2.0'), windows(after), `${name}, CRLF`);
  }
});

test('an entry is known by its version in whatever form the heading has', () => {
  const headings = '## v1.2.0|## [1.2.0] - 2026-01-01|# 1.2.0 (2026-01-01)|### [v1.2.0](https://x) (date)';
  for (const heading of [
    ...headings.split('|'),
    '## Version 1.2.0',
    '## 1.2.0 ##',
    '## Release v1.2.0: big',
  ]) {
    const text = `# Notes\n\n${heading}\n\n- It\n\n## 1.1.0\n`;
    assert.equal(findEntry(text, 'v1.2.0')?.text, `${heading}\n\n- It`, heading);
    assert.equal(insertEntry(text, '## [v1.2.0] - x\n', 'v1.2.0'), text, heading);
  }
  const others = '## v1.2.0-rc.1|## v1.2.01|## 11.2.0|## since 1.2.0|    ## v1.2.0|## v1.2.0.1';
  for (const heading of others.split('|'))
    assert.equal(findEntry(`# Notes\n\n${heading}\n`, 'v1.2.0'), undefined, heading);
});

test('a withdrawn release says so under its heading; one that is not there is an error', () => {
  const text = '# Notes\r\n\r\n## v1.2.0\r\n\r\n- It\r\n\r\n## v1.1.0\r\n';
  const expected =
    '# Notes\r\n\r\n## v1.2.0\r\n\r\n> **Withdrawn:** it lost data\r\n\r\n- It\r\n\r\n## v1.1.0\r\n';
  assert.equal(withdrawEntry(text, 'v1.2.0', 'it lost data'), expected);
  assert.deepEqual([...withdrawnVersions(expected)], ['1.2.0']);
  assert.equal(withdrawnVersions(text).size, 0);
  assert.throws(() => withdrawEntry(text, 'v3.0.0', 'x'), { code: 'no-entry' });
});

test('a form of the notes in which a heading could be overlooked is refused in one line', () => {
  const entry = '## [v1.2.0] - x\n';
  const rows: [name: string, text: string, message: RegExp][] = [
    ['UTF-16', Buffer.from('\uFEFF# Notes\n', 'utf16le').toString('utf8'), /not UTF-8$/],
    ['Latin-1', Buffer.from('# Notes\n\n- f\u00fcr\n', 'latin1').toString('utf8'), /not UTF-8$/],
    ['an open fence', '# Notes\n\n```\nopen\n', /inside a code block/],
    ['an open comment', '# Notes\n\n<!--\nopen\n', /an HTML block$/],
  ];
  for (const [name, text, message] of rows)
    assert.throws(() => insertEntry(text, entry, 'v1.2.0'), { code: 'notes-form', message }, name);
});

test('an entry that is taken out leaves the file as it was, and what others added since', () => {
  const entry = entryFor('v1.1.0', { changes: [] });
  const files = [
    '# Notes\n',
    '# Notes\n\nIntro.\n\n## [v1.0.0]\n\n- one\n',
    '# Notes\r\n\r\n## v1.0.0\r\n\r\n- one\r\n',
  ];
  for (const file of files) {
    const added = insertEntry(file, entry, 'v1.1.0');
    assert.equal(removeEntry(added, 'v1.1.0'), file);
    assert.equal(removeEntry(file, 'v1.1.0'), file, 'a person took it out already');
    const edit = (text: string) => text.replace('Notes', 'All notes').replace('- one', '- one, explained');
    assert.equal(removeEntry(edit(added), 'v1.1.0'), edit(file));
  }
});

// In a process of its own: only that one can be stopped if it hangs.
test('two hundred thousand blank lines do not stop a release', () => {
  const notes = new URL('../../tasks/lib/release/notes.ts', import.meta.url);
  const program = `import { findEntry, insertEntry, removeEntry } from '${notes}';
    for (const lineEnd of ['\\n', '\\r\\n', ' \\n']) {
      const text = '# Notes\\n\\n## v1.1.0\\n' + lineEnd.repeat(200_000) + 'x\\n';
      const added = insertEntry(text, '## [v1.2.0] - x\\n', 'v1.2.0');
      const isWhole = findEntry(added, 'v1.1.0')?.text.endsWith('x') && findEntry(added, 'v1.2.0');
      if (!isWhole || removeEntry(added, 'v1.2.0').length < 200_000) process.exit(1);
    }`;
  const argv = ['--import', 'tsx/esm', '--input-type=module', '--eval', program];
  execFileSync(process.execPath, argv, { stdio: 'pipe', timeout: 120_000 });
});

test('what people write keeps its meaning and cannot become HTML, a heading or a list', () => {
  const cases: [text: string, line: string][] = [
    ['add `<b>` tags', 'add `<b>` tags'],
    ['`open <b>', '\\`open \\<b>'],
    ['`a``<b>` <i>', '`a``<b>` \\<i>'],
    ['\\`<b>`', '\\\\`<b>`'],
    ['- item', '\\- item'],
    ['-v is a flag', '-v is a flag'],
    ['12) item', '12\\) item'],
    ['1.5 is a number', '1.5 is a number'],
    ['a &lt; b & c', 'a \\&lt; b & c'],
    ['a\u0000b\u001b[31mc\nd', 'a b [31mc d'],
    ['#12 again', '#12 again'],
    ['| cell', '\\| cell'],
    ['', ''],
  ];
  for (const [text, line] of cases) assert.equal(escapeLine(text), line);
});

test('real git: merges and reverts, whatever the user configured', async () => {
  const root = mkdtempSync(join(tmpdir(), 'notes-'));
  const git = (...argv: string[]) => {
    const identity = ['-c', 'user.name=Ann Example', '-c', 'user.email=ann@example.com'];
    const result = spawnSync('git', ['-C', root, ...identity, ...argv], { encoding: 'utf8' });
    assert.equal(result.status, 0, `git ${argv.join(' ')}: ${result.stderr}`);
    return result.stdout.trim();
  };
  const commit = (message: string) => {
    writeFileSync(join(root, `${git('rev-list', '--all', '--count')}.txt`), message);
    git('add', '.');
    git('commit', '--quiet', '--cleanup=verbatim', '-m', message);
    return git('rev-parse', 'HEAD');
  };
  try {
    git('init', '--quiet', '--initial-branch=main');
    const settings = 'log.showSignature=true color.ui=always log.decorate=full i18n.logOutputEncoding=latin1';
    for (const one of `${settings} format.pretty=oneline log.follow=true diff.renames=copies`.split(' '))
      git('config', ...(one.split('=') as [string, string]));
    const first = commit('feat: first');
    commit('feat: zażółć gęślą jaźń 🦊');
    git('checkout', '--quiet', '-b', 'topic');
    commit('feat!: on the topic');
    git('checkout', '--quiet', 'main');
    commit('fix: on main, café');
    git('merge', '--quiet', '--no-ff', 'topic', '-m', "Merge branch 'topic'");
    const wanted = commit('perf: wanted');
    git('revert', '--no-edit', wanted);
    git('revert', '--no-edit', 'HEAD');
    git('revert', '--no-edit', first);
    const read = async (range: string) => {
      const log = stream(['git', '-C', root, ...commitLogArguments(range)]);
      const changes = await collectChanges(parseCommitLog(log));
      return { bump: changes.bump, subjects: changes.changes.map(({ subject }) => subject) };
    };
    assert.deepEqual(await read('HEAD'), {
      bump: 'major',
      subjects: ['wanted', 'on the topic', 'on main, café', 'zażółć gęślą jaźń 🦊'],
    });
    const since = await read(`${first}..HEAD`);
    assert.deepEqual(since.subjects.slice(0, 3), ['Revert "feat: first"', 'wanted', 'on the topic']);
    assert.deepEqual(await read('HEAD..HEAD'), { bump: 'patch', subjects: [] });

    // A merge that is reverted is told as that, beside what it brought.
    const before = git('rev-parse', 'HEAD');
    git('checkout', '--quiet', '-b', 'other');
    commit('feat: on the other');
    git('checkout', '--quiet', 'main');
    git('merge', '--quiet', '--no-ff', 'other', '-m', "Merge branch 'other'");
    git('revert', '--no-edit', '-m', '1', 'HEAD');
    const told = ['Revert "Merge branch \'other\'"', 'on the other'];
    assert.deepEqual((await read(`${before}..HEAD`)).subjects, told);
    git('revert', '--no-edit', 'HEAD');
    assert.deepEqual((await read(`${before}..HEAD`)).subjects, ['on the other']);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
});
