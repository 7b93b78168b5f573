// The tests of switches with every step, every command, every kind of failure and a hundred random moments.

process.env.SOAK = '1';
await import('../tasks/switch-kill.test.ts');
await import('../tasks/switch-swarm.test.ts');
await import('../tasks/switch-remote.test.ts');
