// Every rule about the next version is a row here: what is merged, what exists elsewhere, what was asked for.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TaskError } from '../../tasks/lib/errors.ts';
import {
  changesBase,
  parseTag,
  planVersion,
  type VersionRequest,
  type VersionTag,
  versionChoices,
  versionTags,
} from '../../tasks/lib/release/version.ts';

/** Tags by name, highest first; the commit is made of the name, so that messages can be checked for the right one. */
function tags(names: string, where?: 'remote'): VersionTag[] {
  const commit = (name: string) => Buffer.from(name.padEnd(20, '.')).toString('hex');
  const all = names.split(' ').flatMap((name) => (name ? [{ name, commit: commit(name), where }] : []));
  return versionTags(all, 'v');
}

function shortCommit(name: string): string {
  return tags(name)[0]!.commit.slice(0, 7);
}

function request(merged: string, elsewhere: string, more: Partial<VersionRequest>): VersionRequest {
  const everywhere = versionTags([...tags(merged), ...tags(elsewhere, 'remote')], 'v');
  const rules = { bump: 'minor', allowBackport: true, tagPrefix: 'v' } as const;
  return { merged: tags(merged), everywhere, requested: 'auto', ...rules, ...more };
}

function refusal(merged: string, elsewhere: string, more: Partial<VersionRequest>): TaskError {
  try {
    const plan = planVersion(request(merged, elsewhere, more));
    assert.fail(`accepted as ${plan.next}`);
  } catch (error) {
    assert.ok(error instanceof TaskError, String(error));
    return error;
  }
}

test('tags that are not versions do not confuse the version', () => {
  const cases: [prefix: string, name: string, version: string | undefined][] = [
    ['v', 'v1.2.3', '1.2.3'],
    ['v', 'v1.2.3-rc.1', '1.2.3-rc.1'],
    ['v', 'v1.2.3+build.7', '1.2.3'],
    ['', '1.2.3', '1.2.3'],
    ['synapse-v', 'synapse-v1.2.3', '1.2.3'],
    ['v', '1.2.3', undefined],
    ['v', 'vv1.2.3', undefined],
    ['v', 'v=1.2.3', undefined],
    ['v', 'v 1.2.3', undefined],
    ['v', 'latest', undefined],
    ['v', 'v1.2', undefined],
    ['v', 'v1.2.3.4', undefined],
    ['v', 'v01.2.3', undefined],
    ['v', 'v1.2.3-', undefined],
    ['v', 'version-1.2.3', undefined],
    ['', 'v1.2.3', undefined],
    ['v', 'v99999999999999999999.0.0', undefined],
  ];
  for (const [prefix, name, version] of cases)
    assert.equal(parseTag(prefix, name), version, `${prefix} ${name}`);
  const order = tags('v1.9.0 latest v1.10.0 v1.10.0-rc.2 v2 v1.10.0-rc.10 nightly/v3.0.0');
  assert.deepEqual(
    order.map(({ name }) => name),
    ['v1.10.0', 'v1.10.0-rc.10', 'v1.10.0-rc.2', 'v1.9.0'],
  );
});

test('the next version follows from the highest merged tag; auto does as much as the changes ask for', () => {
  const cases: [merged: string, requested: string, next: string, bump?: 'major' | 'minor' | 'patch'][] = [
    ['', 'major', '1.0.0'],
    ['latest v1', 'auto', '1.0.0'],
    ['', 'prerelease', '1.0.0-rc.0'],
    ['', '0.3.0', '0.3.0'],
    ['v1.2.3', 'minor', '1.3.0'],
    ['v1.2.3', 'major', '2.0.0'],
    ['v1.2.3', 'auto', '1.3.0'],
    ['v1.2.3', 'auto', '1.2.4', 'patch'],
    ['v1.2.3', 'auto', '2.0.0', 'major'],
    ['v1.10.0 v1.9.0', 'patch', '1.10.1'],
    ['v1.2.3', 'prerelease', '1.2.4-rc.0'],
    ['v1.2.4-rc.0 v1.2.3', 'prerelease', '1.2.4-rc.1'],
    ['v1.1.0-rc.9 v1.1.0-rc.10', 'prerelease', '1.1.0-rc.11'],
    ['v1.1.0-rc.1 v1.0.0', 'patch', '1.1.0'],
    ['v1.1.0-rc.1 v1.0.0', 'minor', '1.1.0'],
    ['v1.1.0-rc.1 v1.0.0', 'major', '2.0.0'],
    ['v1.1.1-rc.1 v1.1.0', 'minor', '1.2.0'],
    ['v1.1.0-rc.1 v1.0.0', 'v1.1.0', '1.1.0'],
    ['v1.2.3', '2.0.0-beta.1', '2.0.0-beta.1'],
    ['v1.0.0 v1.1.0-rc.1', 'auto', '1.1.0', 'patch'],
    ['v1.0.0 v1.1.0-rc.1', 'auto', '2.0.0', 'major'],
    ['v1.0.0 v1.0.1-rc.0', 'auto', '1.1.0'],
    ['v1.0.0 v2.0.0-beta.3', 'auto', '2.0.0'],
    ['v1.0.0-rc.1', 'auto', '1.0.0', 'major'],
  ];
  for (const [merged, requested, next, bump = 'minor'] of cases) {
    const plan = planVersion(request(merged, '', { requested, bump }));
    assert.deepEqual([plan.next, plan.tag], [next, `v${next}`], `${merged} + ${requested}, ${bump}`);
    assert.equal(plan.isHighestStable, !next.includes('-'), `${merged} + ${requested}`);
  }
});

test('another preid begins anew, but never below what was released', () => {
  const beta = planVersion(request('v1.0.0 v1.1.0-alpha.4', '', { requested: 'prerelease', preid: 'beta' }));
  assert.equal(beta.next, '1.1.0-beta.0');
  const lower = refusal('v1.0.0 v1.1.0-rc.1', '', { requested: 'prerelease', preid: 'beta' });
  assert.equal(lower.code, 'version-not-higher');
  assert.match(lower.message, /v1\.1\.0-beta\.0: .*v1\.1\.0-rc\.1/);
  for (const preid of ['', '1', 'a.b', 'a+b', 'ü', '-x']) {
    assert.equal(refusal('v1.0.0', '', { requested: 'prerelease', preid }).exitCode, 2, preid);
  }
});

test('a version not higher than every stable release anywhere is refused with that tag and its commit', () => {
  const cases: [merged: string, elsewhere: string, requested: string, tag: string, code: string][] = [
    ['v1.2.3', '', '1.2.3', 'v1.2.3', 'tag-exists'],
    ['v1.2.3', 'v1.2.4', 'patch', 'v1.2.4', 'tag-exists'],
    ['v1.2.3', 'v1.3.0', 'patch', 'v1.3.0', 'version-not-higher'],
    ['v1.2.3', 'v1.3.0 v2.0.0', 'minor', 'v1.3.0', 'tag-exists'],
    ['v1.2.3', 'v1.4.0', 'minor', 'v1.4.0', 'version-not-higher'],
    ['v1.2.3', 'v2.0.1', 'major', 'v2.0.1', 'version-not-higher'],
    ['v1.2.3', 'v1.3.0', 'prerelease', 'v1.3.0', 'version-not-higher'],
    ['v1.2.3', 'v1.2.4-rc.0', 'prerelease', 'v1.2.4-rc.0', 'tag-exists'],
    ['v1.3.0 v1.2.3', '', '1.2.4', 'v1.3.0', 'version-not-higher'],
    ['', 'v1.2.3', 'auto', 'v1.2.3', 'version-not-higher'],
    ['', 'v1.2.3', '1.1.0', 'v1.2.3', 'version-not-higher'],
    ['', 'v1.0.0', 'minor', 'v1.0.0', 'tag-exists'],
    ['v1.3.0-rc.2 v1.2.0', '', '1.3.0-rc.1', 'v1.3.0-rc.2', 'version-not-higher'],
    ['v1.3.0', '', '1.3.0-rc.1', 'v1.3.0', 'version-not-higher'],
  ];
  for (const [merged, elsewhere, requested, tag, code] of cases) {
    const error = refusal(merged, elsewhere, { requested });
    const row = `${merged} | ${elsewhere} + ${requested}: ${error.message}`;
    assert.equal(error.code, code, row);
    assert.equal(error.exitCode, 1, row);
    assert.ok(error.message.includes(shortCommit(tag)), row);
    assert.ok(code === 'tag-exists' || error.message.includes(tag), row);
    assert.ok(error.hint, row);
  }
});

test('what was released elsewhere stops no release from main; a backport must be named, and is never the highest', () => {
  const fromMain = planVersion(request('v1.3.0', 'v2.0.0-rc.1 v1.2.9', { requested: 'minor' }));
  assert.deepEqual([fromMain.next, fromMain.isHighestStable], ['1.4.0', true]);
  const plan = planVersion(request('v1.2.3', 'v1.3.0 v1.4.0', { requested: 'v1.2.4' }));
  assert.deepEqual([plan.next, plan.isHighestStable], ['1.2.4', false]);
  const rows: [more: Partial<VersionRequest>, words: RegExp][] = [
    [{ requested: 'patch' }, /name the version: 1\.2\.4/],
    [{ requested: '1.2.4', allowBackport: false }, /does not contain/],
    [{ requested: '1.2.2' }, /not higher than v1\.4\.0/],
    [{ requested: '1.3.1' }, /v1\.3\.1: v1\.3\.0 .* lies between/],
  ];
  for (const [more, words] of rows) {
    const { code, message, hint } = refusal('v1.2.3', 'v1.3.0 v1.4.0', more);
    assert.equal(code, 'version-not-higher');
    assert.match(`${message} ${hint}`, words);
  }
});

test('text that is no version is a usage error that names what was probably meant', () => {
  const cases: [requested: string, hint: RegExp][] = [
    ['mnor', /minor/],
    ['prelease', /prerelease/],
    ['1.2', /three numbers/],
    ['', /patch, minor/],
    ['--help', /patch, minor/],
    ['1.2.3+build', /1\.2\.3/],
    ['1.02.3', /three numbers/],
  ];
  for (const [requested, hint] of cases) {
    const error = refusal('v1.0.0', '', { requested });
    assert.equal(error.exitCode, 2, requested);
    assert.match(error.hint ?? '', hint, requested);
  }
});

test('the choice shows each possible version once, the recommended one first', () => {
  const list = (merged: string, elsewhere: string, bump: 'major' | 'minor' | 'patch') =>
    versionChoices(request(merged, elsewhere, { bump })).map(({ label, hint }) => label + (hint ? '*' : ''));
  const all = ['minor → 1.3.0*', 'patch → 1.2.4', 'major → 2.0.0', 'prerelease → 1.2.4-rc.0'];
  assert.deepEqual(list('v1.2.3', '', 'minor'), all);
  assert.deepEqual(list('', '', 'minor'), ['first → 1.0.0*', 'prerelease → 1.0.0-rc.0']);
  assert.deepEqual(list('v1.2.3', 'v1.4.0', 'patch'), ['major → 2.0.0']);
  assert.throws(() => list('v1.2.3', 'v9.0.0', 'patch'), { code: 'version-not-higher' });
});

test('notes of a stable release begin at the last stable one, those of a prerelease at the version before', () => {
  const merged = tags('v1.0.0 v1.1.0-rc.0 v1.1.0-rc.1 latest');
  const cases: [requested: string, base: string | undefined][] = [
    ['auto', 'v1.0.0'],
    ['minor', 'v1.0.0'],
    ['prerelease', 'v1.1.0-rc.1'],
    ['1.1.0', 'v1.0.0'],
    ['v1.1.0-rc.2', 'v1.1.0-rc.1'],
    ['1.1.0-rc.1', 'v1.1.0-rc.0'],
    ['0.9.0', undefined],
  ];
  for (const [requested, base] of cases) assert.equal(changesBase(merged, requested)?.name, base, requested);
  assert.equal(changesBase([], 'auto'), undefined);
});
