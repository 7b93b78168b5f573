// Release notes at scale: 100,000 commits since the last of 2,000 tags. Measures, side by side in one run, the
// one `git log` that any tool needs, drained and thrown away, against the finished notes made from the same log.
// Run: npx tsx bench/notes.ts [commits]. Fails if ratio, memory or linearity miss their targets.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { collectChanges, commitLogArguments, parseCommitLog } from '../tasks/lib/release/commits.ts';
import { insertEntry, renderEntry } from '../tasks/lib/release/notes.ts';
import { median } from './figures.ts';

const TAGS = 2_000;
const ROUNDS = 5;
const TARGETS = { ratio: 2, megabytes: 250, linearity: 1.35 };
const TYPES = ['feat', 'fix', 'perf', 'docs', 'chore', 'refactor', 'test'];
const SCOPES = ['(api)', '(core)', '(store)', '(ui)', '', '', ''];

interface Measurement {
  milliseconds: number;
  megabytes: number;
  bytes: number;
  changes: number;
}

/** A message such as people write: a third with a body, some squashed, some with footers, few unconventional. */
function message(n: number): string {
  const header =
    n % 11 === 0
      ? `Update things the old way, part ${n}`
      : `${TYPES[n % 7]}${SCOPES[(n >> 3) % 7]}${n % 997 === 0 ? '!' : ''}: change number ${n} of the synthetic history`;
  if (n % 3 !== 0) return n % 2 === 0 ? `${header} (#${n % 5000})\n` : `${header}\n`;
  const prose =
    'Explains over a few lines why this was done and what it means for\nthose who come later.\n'.repeat(
      1 + (n % 4),
    );
  const squashed = n % 30 === 0 ? `\n* feat: part one of ${n}\n\n* fix: part two of ${n}\n` : '';
  const breaking = n % 1500 === 0 ? '\nBREAKING CHANGE: the old way is gone\n' : '';
  const footers = n % 6 === 0 ? `\nCloses #${n % 900}\nCo-authored-by: Jane Doe <jane@example.com>\n` : '';
  return `${header}\n\n${prose}${squashed}${breaking}${footers}`;
}

/** Feeds a linear history with a merge at every 20th commit to `git fast-import`. */
async function makeRepository(root: string, commits: number): Promise<void> {
  spawnSync('git', ['init', '--quiet', '--initial-branch=main', root]);
  const git = spawn('git', ['-C', root, 'fast-import', '--quiet'], { stdio: ['pipe', 'inherit', 'inherit'] });
  const total = TAGS + commits;
  for (let n = 1; n <= total; n += 1) {
    const text = message(n);
    const isMerge = n > 20 && n % 20 === 0;
    const lines = [
      'commit refs/heads/main',
      `mark :${n}`,
      `committer Ann Example <ann@example.com> ${1_500_000_000 + n * 60} +0000`,
      `data ${Buffer.byteLength(isMerge ? `Merge branch 'topic-${n}'\n` : text)}`,
      isMerge ? `Merge branch 'topic-${n}'\n` : text,
      ...(n > 1 ? [`from :${n - 1}`] : []),
      ...(isMerge ? [`merge :${n - 10}`] : []),
      '',
    ];
    if (n <= TAGS) lines.push(`reset refs/tags/v0.${n}.0`, `from :${n}`, '');
    if (!git.stdin.write(lines.join('\n'))) await once(git.stdin, 'drain');
  }
  git.stdin.end();
  await succeed(git);
}

async function succeed(child: ChildProcess): Promise<void> {
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`${child.spawnfile} ended with ${code}`);
}

function gitLog(root: string, range: string) {
  return spawn('git', ['-C', root, ...commitLogArguments(range)], { stdio: ['ignore', 'pipe', 'inherit'] });
}

async function drainLog(root: string, range: string): Promise<number> {
  const start = performance.now();
  const child = gitLog(root, range);
  child.stdout.resume();
  await succeed(child);
  return performance.now() - start;
}

/** What a release does: log → changes → entry → file, here with a file that already tells of 2,000 releases. */
async function makeNotes(root: string, range: string): Promise<Measurement> {
  const earlier = Array.from(
    { length: TAGS },
    (_, n) => `## [v0.${TAGS - n}.0] - 2020-01-01\n\n- Something\n`,
  );
  const existing = `# Release notes\n\n${earlier.join('\n')}`;
  const start = performance.now();
  const child = gitLog(root, range);
  const changes = await collectChanges(parseCommitLog(child.stdout));
  const tag = 'v1.0.0';
  const sections = { Added: ['feat'], Fixed: ['fix'] };
  const options = { tag, date: '2026-01-01', image: `synapse:${tag}`, changes: changes.changes, sections };
  const text = insertEntry(existing, renderEntry(options), tag);
  const milliseconds = performance.now() - start;
  const megabytes = process.resourceUsage().maxRSS / 1024;
  return { milliseconds, megabytes, bytes: text.length, changes: changes.changes.length };
}

/** Notes in a process of their own, so that its peak memory is theirs. */
async function measureNotes(root: string, range: string): Promise<Measurement> {
  const self = fileURLToPath(import.meta.url);
  const argv = [...process.execArgv, self, '--notes', root, range];
  const child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.on('data', (chunk) => {
    output += chunk;
  });
  await succeed(child);
  return JSON.parse(output) as Measurement;
}

async function compare(root: string, range: string, label: string) {
  const logs: number[] = [];
  const notes: Measurement[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    logs.push(await drainLog(root, range));
    notes.push(await measureNotes(root, range));
  }
  const log = median(logs);
  const made = median(notes.map(({ milliseconds }) => milliseconds));
  const megabytes = Math.max(...notes.map((one) => one.megabytes));
  const { changes, bytes } = notes[0]!;
  console.log(
    `${label}: git log ${log.toFixed(0)} ms, notes ${made.toFixed(0)} ms, ratio ${(made / log).toFixed(2)}, ` +
      `peak ${megabytes.toFixed(0)} MB, ${changes} entries, ${(bytes / 1e6).toFixed(1)} MB of notes`,
  );
  return { ratio: made / log, megabytes, made };
}

async function main(commits: number): Promise<void> {
  const root = mkdtempSync(join(tmpdir(), 'bench-notes-'));
  try {
    await makeRepository(root, commits);
    const base = `v0.${TAGS}.0`;
    await compare(root, `${base}..main~${Math.floor(commits * 0.75)}`, 'a quarter of the commits');
    const half = await compare(root, `${base}..main~${Math.floor(commits * 0.5)}`, 'half of the commits');
    const whole = await compare(root, `${base}..main`, `${commits} commits`);
    const linearity = whole.made / half.made / 2;
    console.log(`twice the commits take ${(linearity * 2).toFixed(2)} times as long`);
    const met =
      whole.ratio <= TARGETS.ratio && whole.megabytes <= TARGETS.megabytes && linearity <= TARGETS.linearity;
    console.log(met ? 'all targets met' : `missed a target: ${JSON.stringify(TARGETS)}`);
    process.exitCode = met ? 0 : 1;
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

const [mode, ...rest] = process.argv.slice(2);
if (mode === '--notes') console.log(JSON.stringify(await makeNotes(rest[0]!, rest[1]!)));
else await main(Number(mode ?? 100_000));
