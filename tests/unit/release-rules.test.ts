// The rules of releases that need no git and no engine, as tables.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { transientReason } from '../../tasks/lib/docker/registry.ts';
import type { Project } from '../../tasks/lib/project.ts';
import { isMaintenanceBranch, isReleaseBranch } from '../../tasks/lib/release/plan.ts';
import { copiedPaths, spaceNeeded, workTreeProblems } from '../../tasks/lib/release/preflight.ts';
import { movedTags } from '../../tasks/lib/release/publish.ts';
import { parseReleaseTag, type ReleaseRecord, releaseTagMessage } from '../../tasks/lib/release/record.ts';

const release = {
  branch: 'main',
  remote: 'origin',
  tag_prefix: 'v',
  notes: 'release-notes.md',
  maintenance: ['release/*', 'v*.x'],
  checks: [],
  hooks: { before: [], after: [] },
};
const project = { release } as unknown as Project;

describe('release branches', () => {
  const cases: [branch: string, released: boolean, maintenance: boolean][] = [
    ['main', true, false],
    ['release/1.x', true, true],
    ['v1.x', true, true],
    ['v1ax', false, false],
    ['my-release/1', false, false],
    ['topic', false, false],
  ];
  it('are the configured one, and those that a pattern of maintenance branches fits', () => {
    for (const [branch, released, maintenance] of cases) {
      assert.equal(isReleaseBranch(project, branch), released, branch);
      assert.equal(isMaintenanceBranch(project, branch), maintenance, branch);
    }
  });

  it('the work tree’s problems are all told', () => {
    const tree = { head: 'abc', branch: 'topic', changes: ['a', 'b', 'c', 'd', 'e', 'f', 'g'] };
    const found = workTreeProblems(project, tree);
    assert.deepEqual(
      found.map(({ code }) => code),
      ['wrong-branch', 'dirty-tree'],
    );
    assert.match(found[1]!.message, /a, b, c, d, e and 2 more/);
    assert.deepEqual(workTreeProblems(project, { head: 'abc', branch: 'v1.x', changes: [] }), []);
  });
});

describe('what a tag records', () => {
  const record: ReleaseRecord = {
    image: 'ghcr.io/me/app:v1.2.0',
    digest: 'sha256:index',
    platforms: { 'linux/amd64': 'sha256:amd', 'linux/arm64': 'sha256:arm' },
    baseImage: 'node:24@sha256:base',
  };

  it('is read back as it was written', () => {
    assert.deepEqual(parseReleaseTag(releaseTagMessage('v1.2.0', record)), record);
    assert.equal(parseReleaseTag('v1.2.0\n\nwritten by hand\n'), undefined);
    const older = parseReleaseTag('v1.0.0\n\nImage: a:v1\nImage-Digest: sha256:x\n');
    assert.deepEqual(older, { image: 'a:v1', digest: 'sha256:x', platforms: {}, baseImage: undefined });
  });
});

it('what passes by itself is tried again, and nothing else', () => {
  const cases: [message: string, again: boolean][] = [
    ['received unexpected HTTP status: 503 Service Unavailable', true],
    ['unexpected status from POST request to http://r/v2/: 500 Internal Server Error', true],
    ['toomanyrequests: You have reached your pull rate limit', true],
    ['429 Too Many Requests', true],
    ['dial tcp: lookup registry.example: no such host', true],
    ['dial tcp 127.0.0.1:5000: connect: connection refused', true],
    ['net/http: TLS handshake timeout', true],
    ['unauthorized: authentication required', false],
    ['denied: requested access to the resource is denied', false],
    ['401 Unauthorized (after 500 ms)', false],
    ['no space left on device', false],
    ['failed to push v1.500.0', false],
  ];
  for (const [message, again] of cases) assert.equal(transientReason(message) !== undefined, again, message);
});

it('a tag that names another commit on the remote is found, other tags are not', () => {
  const tags = [
    { name: 'v1.0.0', version: '1.0.0', commit: 'aaaaaaaaaa' },
    { name: 'v1.1.0', version: '1.1.0', commit: 'bbbbbbbbbb' },
    { name: 'v1.2.0', version: '1.2.0', commit: 'dddddddddd' },
  ];
  const remote = {
    branches: new Map<string, string>(),
    tags: new Map([
      ['v1.0.0', 'aaaaaaaaaa'],
      ['v1.1.0', '1111111111'],
    ]),
  };
  const [found, ...others] = movedTags(project, tags, remote);
  assert.match(found!.message, /v1\.1\.0 is at bbbbbbb here and at 1111111 on origin/);
  assert.deepEqual(others, []);
});

it('disk space: half as much again as the last image, never less than 64 MB', () => {
  assert.equal(spaceNeeded(0), 64e6);
  assert.equal(spaceNeeded(200e6), 300e6);
});

it('what a Dockerfile copies from the commit is found in every form, and nothing else', () => {
  const rows: [instruction: string, paths: string[]][] = [
    ['COPY a b/c ./', ['a', 'b/c']],
    ['ADD --chown=node:node a /x', ['a']],
    ['copy ["with space", "x"]', ['with space']],
    ['COPY a \\\n  b \\\n  /app/', ['a', 'b']],
    ['COPY --from=build /out /app', []],
    ['COPY *.json src/[a-z] $DIR/x /app/', []],
    ['ADD https://example.org/x.tar /x', []],
    ['COPY <<EOF /x', []],
    ['RUN echo COPY a b', []],
  ];
  for (const [instruction, paths] of rows)
    assert.deepEqual(copiedPaths(`FROM x\n${instruction}\n`), paths, instruction);
});
