// zstd as node:zlib of Node 24 has it; the types of this project are those of Node 20, which the tasks need.
import type { Transform } from 'node:stream';
import zlib from 'node:zlib';

interface Zstd {
  createZstdCompress(options: object): Transform;
  createZstdDecompress(options: object): Transform & { bytesWritten: number };
  constants: Record<string, number>;
}
const zstd = zlib as unknown as Zstd;

const CHUNK = 1024 * 1024;
/** Bytes that wait on either side, so that the compressing thread never waits for the others. */
export const QUEUE = 4 * 1024 * 1024;
/** A quarter faster than 3, for a few per cent of size: a backup runs beside the service. */
const LEVEL = 2;

/** With a checksum, so that a flipped bit is found even where no hash is at hand. */
export function compressor(): Transform {
  const { ZSTD_c_compressionLevel = 100, ZSTD_c_checksumFlag = 201 } = zstd.constants;
  return zstd.createZstdCompress({
    chunkSize: CHUNK,
    highWaterMark: QUEUE,
    params: { [ZSTD_c_compressionLevel]: LEVEL, [ZSTD_c_checksumFlag]: 1 },
  });
}

/** `bytesWritten` counts what it consumed: it stops after the first frame. */
export function decompressor(): Transform & { bytesWritten: number } {
  return zstd.createZstdDecompress({ chunkSize: CHUNK, highWaterMark: QUEUE });
}
