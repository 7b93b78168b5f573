// The proof has to fail for every kind of damage; one that is overlooked is a backup that is not one.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { chmodSync, copyFileSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import zlib from 'node:zlib';
import { extract, type Header, pack } from 'tar-stream';
import { BackupError } from '../../tasks/lib/backup/program/report.ts';
import { proveArchive, unpackArchive, verifyFile } from '../../tasks/lib/backup/program/restore.ts';
import { create, dataDirectory, type Places, PROJECT, program, unpack, verify } from './backup-support.ts';

// biome-ignore lint/suspicious/noExplicitAny: a manifest that is about to be broken
type Loose = Record<string, any>;

interface Part {
  header: Header;
  content: Buffer;
}

const { zstdCompressSync, zstdDecompressSync } = zlib as unknown as Record<string, (bytes: Buffer) => Buffer>;

async function readParts(file: string): Promise<Part[]> {
  const parts: Part[] = [];
  const tar = extract();
  Readable.from([zstdDecompressSync!(readFileSync(file))]).pipe(tar as unknown as NodeJS.WritableStream);
  for await (const source of tar) {
    const chunks: Buffer[] = [];
    for await (const chunk of source as AsyncIterable<Buffer>) chunks.push(chunk);
    parts.push({ header: source.header, content: Buffer.concat(chunks) });
  }
  return parts;
}

async function writeParts(file: string, parts: readonly Part[]): Promise<void> {
  const tar = pack();
  for (const { header, content } of parts) {
    const { pax: _pax, ...rest } = header;
    tar.entry({ ...rest, size: content.length }, content);
  }
  tar.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of tar as AsyncIterable<Buffer>) chunks.push(chunk);
  writeFileSync(
    file,
    Buffer.concat([
      zstdCompressSync!(Buffer.concat(chunks)),
      Buffer.from('28b52ffd240001000099e9d851', 'hex'),
    ]),
  );
}

const named = (parts: Part[], name: string) => parts.find(({ header }) => header.name === `data/${name}`)!;
const text = 'deep/ünï code 😀.txt';
const flip = (buffer: Buffer, at: number) => {
  const copy = Buffer.from(buffer);
  copy[at]! ^= 1;
  return copy;
};
const edited = (parts: Part[], edit: (manifest: Loose) => void): Part[] => {
  const last = parts.at(-1)!;
  const manifest = JSON.parse(last.content.toString());
  edit(manifest);
  return [...parts.slice(0, -1), { ...last, content: Buffer.from(JSON.stringify(manifest)) }];
};
const without = (name: string) => (parts: Part[]) =>
  parts.filter(({ header }) => header.name !== `data/${name}`);
const replaced = (parts: Part[], name: string, change: (part: Part) => Part) =>
  parts.map((part) => (part.header.name === `data/${name}` ? change(part) : part));
const withHeader = (name: string, header: Loose) => (parts: Part[]) =>
  replaced(parts, name, (part) => ({ ...part, header: { ...part.header, ...header } as Header }));
const withContent = (name: string, change: (content: Buffer) => Buffer) => (parts: Part[]) =>
  replaced(parts, name, (part) => ({ ...part, content: change(part.content) }));
const withManifest = (changes: Loose) => (parts: Part[]) =>
  edited(parts, (manifest) => Object.assign(manifest, changes));
const listed = (manifest: Loose, name: string) =>
  manifest.entries.find(({ path }: Loose) => path === `data/${name}`);
/** Changes an entry in the archive and in the manifest alike. */
const claimed = (parts: Part[], name: string, change: Loose): Part[] =>
  edited(withHeader(name, change)(parts), (manifest) => Object.assign(listed(manifest, name), change));
const more = (parts: Part[], header: Loose): Part[] => [
  ...parts.slice(0, -1),
  { header: { ...named(parts, text).header, ...header } as Header, content: Buffer.alloc(0) },
  parts.at(-1)!,
];

function withDamagedDatabase(parts: Part[]): Part[] {
  const content = Buffer.from(named(parts, 'memory.db').content).fill(0xff, 4096, 4096 + 512);
  return edited(withContent('memory.db', () => content)(parts), (manifest) => {
    listed(manifest, 'memory.db').sha256 = createHash('sha256').update(content).digest('hex');
  });
}

type Row = [name: string, mutate: (parts: Part[]) => Part[], expected: RegExp];

/** Changes inside an archive that is whole again afterwards: only the manifest can tell. */
const MUTATIONS: Row[] = [
  ['a missing file', without('format.json'), /missing: data\/format\.json/],
  ['a missing database', without('memory.db'), /missing: data\/memory\.db/],
  ['a missing directory', without('empty'), /missing: data\/empty/],
  ['an extra file', (parts) => more(parts, { name: 'data/more' }), /extra: data\/more/],
  [
    'a file that was appended to',
    withContent(text, (content) => Buffer.concat([content, Buffer.from('!')])),
    /appended: data\/deep/,
  ],
  ['a truncated file', withContent(text, (content) => content.subarray(1)), /truncated: data\/deep/],
  [
    'a change of the same size',
    withContent(text, (content) => flip(content, 2)),
    /changed: data\/deep.* has another content/,
  ],
  [
    'a flipped bit in a database page',
    withContent('memory.db', (content) => flip(content, 5000)),
    /changed: data\/memory\.db has another content/,
  ],
  [
    'a database that is damaged although every hash is right',
    withDamagedDatabase,
    /database: data\/memory\.db: /,
  ],
  ['a link that leads elsewhere', withHeader('deep/link', { linkname: '../old.db' }), /deep\/link leads to/],
  ['another mode', withHeader('format.json', { mode: 0o4777 }), /changed: data\/format\.json has mode/],
  ['another owner', withHeader('format.json', { uid: 7 }), /format\.json has uid 7, expected 0/],
  ['another type', withHeader('empty', { type: 'file' }), /empty is a file, expected a directory/],
  ['no manifest', (parts) => parts.slice(0, -1), /has no manifest/],
  [
    'a manifest that is no JSON',
    (parts) => [...parts.slice(0, -1), { ...parts.at(-1)!, content: Buffer.from('{') }],
    /manifest is not valid/,
  ],
  ['a manifest of another form', withManifest({ entries: 1 }), /manifest is not valid/],
  ['a manifest of a newer form', withManifest({ format: 3 }), /manifest is not valid/],
  ['something after the manifest', (parts) => [...parts, named(parts, text)], /after the manifest/],
  ['a file outside', withHeader(text, { name: 'data/../../evil' }), /Refused/],
];

/** Archives that agree with their manifest, made by somebody who wants more than to have data restored. */
const HOSTILE: Row[] = [
  [
    'a damaged database that the manifest does not list',
    (parts) => withManifest({ databases: [] })(withDamagedDatabase(parts)),
    /database: data\/memory\.db: /,
  ],
  [
    'a file that is there twice',
    (parts) =>
      edited([...parts.slice(0, -1), named(parts, 'format.json'), parts.at(-1)!], (manifest) => {
        manifest.entries.push(listed(manifest, 'format.json'));
      }),
    /Refused/,
  ],
  ['a file behind a link', (parts) => more(parts, { name: 'data/deep/link/x', linkname: '' }), /Refused/],
];

/** What is cut off from an archive, or put behind it, seen without a record. */
const ENDS: [name: string, change: (bytes: Buffer) => Buffer, expected: RegExp][] = [
  ['without its last frame', (bytes) => bytes.subarray(0, -13), /truncated/],
  ['without its last byte', (bytes) => bytes.subarray(0, -1), /truncated|damaged/],
  ['a second archive behind it', (bytes) => Buffer.concat([bytes, bytes]), /appended|extra|damaged/],
  ['a byte more', (bytes) => Buffer.concat([bytes, Buffer.from([0])]), /truncated|appended|damaged/],
];

async function problemsOf(places: Places, file: string): Promise<string> {
  return (await verifyFile(file, join(places.root, 'scratch'))).problems.join('\n');
}

test('without its record an archive still tells every change inside it, and restores none of them', async (t) => {
  const places = dataDirectory(t);
  const { archive } = await create(places);
  const parts = await readParts(join(places.backups, archive));
  const file = join(places.root, 'mutated.tar.zst');
  await writeParts(file, parts);
  assert.equal(await problemsOf(places, file), '', 'repacked without a change it is good');
  for (const [name, change, expected] of ENDS) {
    writeFileSync(file, change(readFileSync(join(places.backups, archive))));
    assert.match(await problemsOf(places, file), expected, name);
  }
  for (const [name, mutate, expected] of [...MUTATIONS, ...HOSTILE]) {
    await writeParts(file, mutate(parts));
    assert.match(await problemsOf(places, file), expected, name);
    await assert.rejects(unpackArchive(file, { data: join(places.root, 'never') }), BackupError, name);
    assert.throws(() => statSync(join(places.root, 'never')), /ENOENT/, `nothing is left of ${name}`);
  }
});

test('a restore gives no more rights than the data has: no setuid, not for everybody, no other owner', async (t) => {
  const places = dataDirectory(t);
  const { archive } = await create(places);
  const file = join(places.backups, archive);
  const hostile = { mode: 0o6777, uid: 4242, gid: 4242 };
  await writeParts(file, claimed(claimed(await readParts(file), 'format.json', hostile), 'empty', hostile));
  const restored = await unpack(places, archive);
  for (const name of ['format.json', 'empty']) {
    const { mode, uid, gid } = statSync(join(restored, name));
    assert.deepEqual([mode & 0o7777, uid, gid], [0o775, 0, 0], name);
  }
});

test('with its record not one flipped bit, nor a byte more or less, goes unseen', async (t) => {
  const places = dataDirectory(t, 10);
  const { archive } = await create(places);
  const file = join(places.backups, archive);
  const good = readFileSync(file);
  const seed = Number(process.env.SEED ?? Date.now() % 1e6);
  t.diagnostic(`SEED=${seed}`);
  const spread = Array.from({ length: 20 }, (_, index) => (seed * 7919 + index * 104_729) % good.length);
  const versions: [string, Buffer][] = [
    ...[0, 4, 5, good.length - 1, good.length - 14, ...spread].map((at): [string, Buffer] => [
      `bit at ${at}`,
      flip(good, at),
    ]),
    ['a byte more', Buffer.concat([good, Buffer.from([0])])],
    ['a second archive behind it', Buffer.concat([good, good])],
    ['a byte less', good.subarray(0, -1)],
    ['half of it', good.subarray(0, good.length / 2)],
    ['nothing of it', Buffer.alloc(0)],
  ];
  for (const [name, bytes] of versions) {
    writeFileSync(file, bytes);
    assert.equal((await proveArchive(places.backups, PROJECT, archive)).ok, false, name);
    assert.equal(JSON.parse(readFileSync(`${file}.json`, 'utf8')).proof, null, 'it no longer counts');
  }
  writeFileSync(file, good);
  assert.equal((await verify(places, [archive]))[0]?.ok, true, 'and it counts again when it is whole again');
});

test('an archive that cannot be read is not good', async (t) => {
  const places = dataDirectory(t);
  const { archive } = await create(places);
  // As a user who may not: root in a container may read everything.
  const { chownSync } = await import('node:fs');
  chownSync(places.data, 1000, 1000);
  chownSync(places.backups, 1000, 1000);
  chownSync(join(places.backups, `.${PROJECT}.lock`), 1000, 1000);
  chownSync(join(places.backups, `${archive}.json`), 1000, 1000);
  chmodSync(places.root, 0o755);
  chmodSync(join(places.backups, archive), 0o000);
  const [verdict] = await verify(places, [archive]);
  assert.equal(verdict?.ok, false);
  assert.match(verdict?.problems[0], /EACCES/);
});

test('an archive that was brought here is verified, adopted, and never pruned', async (t) => {
  const places = dataDirectory(t);
  const { archive } = await create(places);
  const other = 'synapse-20200101T000000Z-v0.1.0.tar.zst';
  copyFileSync(join(places.backups, archive), join(places.backups, other));
  assert.equal((await verify(places, [other]))[0]?.ok, true);
  assert.equal(JSON.parse(readFileSync(join(places.backups, `${other}.json`), 'utf8')).source, 'adopted');
  const { backups } = places;
  const { code, error } = await program('remove', { backups, project: PROJECT, archives: [other] });
  assert.deepEqual([code, error?.code], [1, 'foreign']);
  rmSync(join(places.backups, other));
  await unpack(places, archive);
});
