// One line on a terminal that is drawn over and over; nothing anywhere else.

const WIDTH = 24;

export function megabytes(bytes: number): string {
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)} kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}

/** `archive ████░░░░ 512.0 MB of 1.08 GB`; without a total only what is done. Pure. */
export function progressLine(phase: string, done: number, total: number): string {
  if (total <= 0) return `${phase} ${megabytes(done)}`;
  const filled = Math.min(WIDTH, Math.round((done / total) * WIDTH));
  const bar = '█'.repeat(filled) + '░'.repeat(WIDTH - filled);
  return `${phase} ${bar} ${megabytes(done)} of ${megabytes(total)}`;
}

const isShown = () => Boolean(process.stderr.isTTY) && process.env.TERM !== 'dumb';

export const progress = {
  show: (phase: string, done: number, total: number) => {
    if (isShown()) process.stderr.write(`\r\u001b[K${progressLine(phase, done, total)}`);
  },
  clear: () => {
    if (isShown()) process.stderr.write('\r\u001b[K');
  },
};
