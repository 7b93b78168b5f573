/// <reference path="../../node_modules/types-node-24/sqlite.d.ts" />
// What SQLite says of a copied database, against what the manifest says it was at the cut.
import { DatabaseSync } from 'node:sqlite';
import { checkIntegrity, countRows } from './look.ts';
import type { Manifest } from './schema.ts';

export interface Finding {
  integrity: string;
  rows: Record<string, number>;
}

const HEADER = Buffer.from('SQLite format 3\0');

export function startsLikeDatabase(chunk: Buffer): boolean {
  return chunk.subarray(0, HEADER.length).equals(HEADER);
}

/** Looks at a database that nobody else has open; its file stays as it is. */
export function inspectDatabase(file: string): Finding {
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(file, { readOnly: true });
    const integrity = checkIntegrity(database);
    return { integrity, rows: integrity === 'ok' ? countRows(database) : {} };
  } catch (error) {
    return { integrity: (error as Error).message, rows: {} };
  } finally {
    database?.close();
  }
}

/** Everything in which the databases that were read back differ from those at the cut. Pure. */
export function databaseProblems(manifest: Manifest, findings: ReadonlyMap<string, Finding>): string[] {
  return manifest.databases.flatMap(({ path, pages, rows, integrity }) => {
    if (pages === 0) return [];
    const finding = findings.get(path);
    if (!finding) return [`database: ${path} was not found to be one`];
    if (finding.integrity !== 'ok') {
      const origin = integrity === 'ok' ? '' : ' (it was damaged before the backup)';
      return [`database: ${path}: ${finding.integrity}${origin}`];
    }
    const tables = new Set([...Object.keys(rows), ...Object.keys(finding.rows)]);
    return [...tables]
      .filter((table) => rows[table] !== finding.rows[table])
      .map(
        (table) => `database: ${path}: ${table} has ${finding.rows[table]} rows, at the cut ${rows[table]}`,
      );
  });
}
