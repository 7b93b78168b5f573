// A fixed set to measure search by: the notes of a software project, and questions whose answer is in one of them.
// "worded" asks with the words of the text, "paraphrased" as somebody asks who has not read it. Written before the
// engine was run on it; change the engine, never the questions.

export const DOCUMENTS: Record<string, string> = {
  'architecture.md':
    'Harbour is a booking system for small ferry companies. The web front end talks to the API gateway, which routes to three services: inventory, bookings and payments. Each service owns its tables; nobody reads the tables of another service. Events travel over NATS subjects named after the aggregate.',
  'adr-001-postgres.md':
    'Decision: we use PostgreSQL 16 for all services. MySQL was considered, but we need partial indexes and exclusion constraints to prevent double booking of a cabin. Consequence: every developer runs the same major version through Docker Compose.',
  'adr-002-nats.md':
    'Decision: NATS JetStream carries domain events. Kafka would have needed three brokers for our traffic of forty messages a second. Messages are kept for seven days, after which the bookings archive is the only source.',
  'adr-003-no-orm.md':
    'Decision: no object-relational mapper. Queries are written in SQL files and compiled to typed functions with sqlc. New joiners learn SQL in the first week; the review checklist asks for an EXPLAIN plan for each new query.',
  'deploy.md':
    'Deployment goes through the script release.sh. It builds the container images, pushes them to registry.harbour.example, and updates the staging cluster first. After the smoke tests pass, somebody with the role operator approves the rollout to production. A rollout takes about six minutes.',
  'rollback.md':
    'To roll back a release, run harbourctl rollback with the previous tag. Database migrations are written so that the previous version keeps working with the new schema, therefore a rollback never touches the database. Announce it in the channel ops.',
  'migrations.md':
    'Schema changes are plain SQL files numbered by date. A migration must be expand-only: add columns and tables, never rename. The contract step that drops old columns ships at the earliest two releases later. Long backfills run as a job, in batches of a thousand rows.',
  'backup.md':
    'Backups: pgBackRest takes a full backup each Sunday at 02:00 and incremental ones every night. Archives are kept for thirty days in the bucket harbour-backups in another region. A restore is rehearsed on the first Monday of the month; the last one took forty-one minutes.',
  'oncall.md':
    'The on-call engineer carries the pager for one week, from Wednesday to Wednesday. Acknowledge within ten minutes. If the payments service is down, call the duty manager, because passengers cannot board without a ticket. Write the incident report within two working days.',
  'incident-2024-03.md':
    'Incident of 14 March: the bookings service ran out of database connections. The pool was limited to ten per pod, and a slow report query held eight of them. We moved reports to a read replica and added an alert on waiting connections.',
  'incident-2024-07.md':
    'Incident of 2 July: certificates of the gateway expired at midnight. Renewal by cert-manager had failed for three weeks since the DNS token was rotated. Nobody was paged as the alert rule referred to a metric that had been renamed.',
  'incident-2024-11.md':
    'Incident of 9 November: passengers were charged twice. The payment provider timed out, our client retried without an idempotency key. All 214 double charges were refunded. Since then every call carries a key made of booking id and attempt.',
  'payments.md':
    'Payments are handled by Stripe. The webhook endpoint verifies the signature and stores the raw event before it acts on it. Refunds need two people: one requests, another approves. Amounts are integers in the smallest unit of the currency.',
  'pricing.md':
    'Fares depend on season, vehicle length and age. Children below four travel for free, up to fifteen at half price. A surcharge applies to vehicles higher than 2.40 metres. The tariff table is edited by the companies themselves in the back office.',
  'cabins.md':
    'A cabin is reserved by an exclusion constraint over cabin number and date range, so two bookings can never overlap. Unpaid reservations are released after twenty minutes by the worker expire-holds.',
  'auth.md':
    'Staff sign in through Keycloak with a hardware key as the second factor. Access tokens live for fifteen minutes, refresh tokens for eight hours. Service accounts use client credentials and may only call the endpoints listed in their scope.',
  'permissions.md':
    'Roles: viewer, agent, supervisor, operator. An agent may change a booking until departure; only a supervisor may issue a refund above two hundred euros. Permissions are checked in the gateway and again in the service.',
  'testing.md':
    'The test pyramid: unit tests run in two minutes, contract tests between services with Pact, and a dozen end-to-end journeys in Playwright. Flaky tests are quarantined for at most a week, then fixed or deleted. Coverage is not a goal.',
  'code-style.md':
    'Go code is formatted by gofumpt and linted by golangci-lint with the configuration in the repository. Errors are wrapped with the operation that failed. Comments explain why. Package names are short and singular. TypeScript uses strict mode and no default exports.',
  'review.md':
    'Every change is reviewed by one colleague, changes to payments by two. Keep pull requests below four hundred lines. Reviewers answer within one working day. Prefix optional remarks with nit.',
  'observability.md':
    'Metrics are scraped by Prometheus, traces go to Tempo, logs to Loki. Each request has a trace id which the front end shows on error pages. Dashboards live in the folder Harbour in Grafana. The error budget is 0.1 % of requests a month.',
  'load-test.md':
    'Load test of May: the bookings service handled 220 requests a second on two pods before latency exceeded 300 milliseconds at the 95th percentile. The bottleneck was JSON encoding of sailings; caching the timetable for a minute doubled the throughput.',
  'offline-tickets.md':
    'Ticket scanners at the pier work without network. They download the passenger list an hour before departure and verify the QR code by a public key. Scans are uploaded when the connection returns; a ticket that was scanned twice is flagged.',
  'localisation.md':
    'Texts are translated into English, Norwegian, German and Danish. Keys live in the catalogues under locales; missing translations fall back to English. Dates follow the locale of the passenger, times are always those of the port of departure.',
  'accessibility.md':
    'The booking pages meet WCAG 2.2 level AA. Colour contrast is checked in the pipeline by axe. All controls can be reached by keyboard, and the seat map has a list as its alternative. Screen readers are tried before each major release.',
  'gdpr.md':
    'Personal data is erased eighteen months after the journey, except invoices, which the law makes us keep for ten years. A passenger may ask for an export; the command harbourctl subject-export writes a ZIP file. Logs contain booking ids but no names.',
  'mail.md':
    'Confirmation mails are sent by Postmark from noreply@harbour.example. Templates are MJML files in the folder mail. If a message bounces, the booking gets a red mark and the agent calls the passenger. Cancellations of a sailing go out by text message as well.',
  'local-setup.md':
    'To set up a laptop: install Docker, Go 1.23 and Node 22, then run make up. This starts PostgreSQL, NATS and the three services with seed data. The front end is at port 5173. Windows users work in WSL.',
  'feature-flags.md':
    'Feature flags are rows of the table flags, cached for thirty seconds. A flag has an owner and an expiry date; the build warns about flags past their date. Experiments are not run on the payment page.',
  'glossary.md':
    'Sailing: one departure of a vessel on a route. Hold: a reservation that is not paid yet. Manifest: the list of everybody on board, which the coast guard may demand. No-show: a passenger with a ticket who did not board. Foot passenger: somebody without a vehicle.',
};

export const WORDED: readonly [question: string, answer: string][] = [
  ['Why was PostgreSQL chosen, with exclusion constraints to prevent double booking?', 'adr-001-postgres.md'],
  ['How long are messages kept in NATS JetStream?', 'adr-002-nats.md'],
  ['Which script does the deployment use to build and push container images?', 'deploy.md'],
  ['When does pgBackRest take a full backup?', 'backup.md'],
  ['Why did the certificates of the gateway expire?', 'incident-2024-07.md'],
  ['How do ticket scanners verify the QR code without network?', 'offline-tickets.md'],
  ['How long do access tokens and refresh tokens live?', 'auth.md'],
  ['Which surcharge applies to higher vehicles?', 'pricing.md'],
  ['How many requests a second did the load test reach?', 'load-test.md'],
  ['When are unpaid reservations released?', 'cabins.md'],
];

export const PARAPHRASED: readonly [question: string, answer: string][] = [
  ['How do I undo a bad version in production?', 'rollback.md'],
  ['Customers paid two times for the same trip, what went wrong?', 'incident-2024-11.md'],
  ['How do I get the project running on a new computer?', 'local-setup.md'],
  ['Who has to look at my code before it is merged?', 'review.md'],
  ['How long may we store information about people?', 'gdpr.md'],
  ['What can blind visitors do on our site?', 'accessibility.md'],
  ['Which languages does the website support?', 'localisation.md'],
  ['What happens when an email cannot be delivered?', 'mail.md'],
  ['Can I rename a column of a table?', 'migrations.md'],
  ['Where do I look at graphs when the system is slow?', 'observability.md'],
];
