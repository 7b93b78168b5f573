// JSON log lines on standard output, one object a line, so that `docker logs` can be filtered by level
// and field. Standard output only: the engine rotates it.
import { LOG_LEVELS } from './config/schema.ts';

export type Level = (typeof LOG_LEVELS)[number];

export type Log = Record<Lowercase<Level>, (message: string, fields?: Record<string, unknown>) => void>;

/** A log that drops lines less severe than `threshold`. */
export function createLog(
  threshold: Level,
  base: Record<string, unknown> = {},
  write: (line: string) => void = (line) => process.stdout.write(line),
): Log {
  const at =
    (level: Level) =>
    (message: string, fields: Record<string, unknown> = {}) => {
      if (LOG_LEVELS.indexOf(level) < LOG_LEVELS.indexOf(threshold)) return;
      write(`${JSON.stringify({ time: new Date().toISOString(), level, message, ...base, ...fields })}\n`);
    };
  return { debug: at('DEBUG'), info: at('INFO'), warn: at('WARN'), error: at('ERROR') };
}
