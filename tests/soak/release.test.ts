// The accidents of releases in large numbers: the very tests of CI, with SOAK=1 set by tests/run.ts.
import '../tasks/release-faults.test.ts';
import '../tasks/release-kill.test.ts';
import '../tasks/release-undo.test.ts';
