// The base image where it is another machine's: the whole way of the stand-in, for the processor of a Raspberry Pi.

import assert from 'node:assert/strict';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { read } from '../../tasks/lib/command.ts';
import { assembleNodeImage } from '../../tasks/lib/setup/base-image.ts';

const AARCH64 = 0xb7;

test('the base image is made for a Raspberry Pi by the same code', async (t) => {
  const scratch = await mkdtemp(join(tmpdir(), 'base-image-'));
  t.after(() => rm(scratch, { recursive: true, force: true }));
  const reference = `engine-test-node-${process.pid}:24`;
  await assembleNodeImage(reference, 'arm64');
  t.after(() => read(['docker', 'image', 'rm', reference]));
  const container = await read(['docker', 'create', '--platform', 'linux/arm64', reference]);
  try {
    const architecture = await read([
      'docker',
      'image',
      'inspect',
      '--format',
      '{{.Architecture}}',
      reference,
    ]);
    assert.equal(architecture, 'arm64');
    for (const path of ['/usr/local/bin/node', '/usr/bin/busybox', '/lib/ld-linux-aarch64.so.1']) {
      const copy = join(scratch, 'elf');
      await read(['docker', 'cp', '--follow-link', `${container}:${path}`, copy]);
      assert.equal(await elfMachine(copy), AARCH64, path);
    }
  } finally {
    await read(['docker', 'rm', container]);
  }
});

/** The processor that an ELF file is for (`e_machine`). */
async function elfMachine(path: string): Promise<number> {
  const file = await open(path);
  try {
    const { buffer } = await file.read(Buffer.alloc(20), 0, 20, 0);
    return buffer.readUInt16LE(18);
  } finally {
    await file.close();
  }
}
