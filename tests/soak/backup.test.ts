// The tests of backups with larger counts: 40 backups in a row under writers, and the whole kill matrix.

process.env.SOAK = '1';
await import('../tasks/backup-live.test.ts');
await import('../tasks/backup-accidents.test.ts');
