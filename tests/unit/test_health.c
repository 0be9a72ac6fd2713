/* Health: what the configuration may say, the arithmetic of when, and what the
 * state of a process makes of a probe: real sockets, a real loop, and a board
 * that the test writes as the master would. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

/* ---- the section ---- */

#define UP "[upstreams.app]\nhost = \"127.0.0.1\"\nport = 3000\n[upstreams.app.health]\n"
#define UNIX "[upstreams.app]\nsocket = \"/s\"\n[upstreams.app.health]\n"

static char dir[] = "/tmp/warp-health-XXXXXX";
static char file[sizeof dir + 16];

static struct conf *
load(const char *text)
{
	return conf_from(file, text);
}

static const struct {
	const char *toml, *want;
} errors[] = {
	{ UP "path = \"up\"\n", "5:8: error: upstreams.app.health.path: expected a path that starts with /" },
	{ UP "path = \"\"\n", "expected a path that starts with /" },
	{ UP "path = \"http://a/up\"\n", "expected a path that starts with /" },
	{ UP "path = \"/a b\"\n", "and holds no blanks" },
	{ UP "path = \"/a\\tb\"\n", "and holds no blanks" },
	{ UP "path = \"/a\\r\\nX: y\"\n", "and holds no blanks" },
	{ UP "path = \"/a#b\"\n", "upstreams.app.health.path: expected" },
	{ UP "path = 1\n", "5:8: error: upstreams.app.health.path: expected a text, got 1" },
	{ UP "path = \"/\"\nhost = \"\"\n", "6:8: error: upstreams.app.health.host: '' is no host" },
	{ UP "path = \"/\"\nhost = \"a b\"\n", "'a b' is no host" },
	{ UP "path = \"/\"\nhost = \"a\\r\\nX: y\"\n", "is no host" },
	{ UP "path = \"/\"\nhost = \"a:99999\"\n", "'a:99999' is no host" },
	{ UP "path = \"/\"\nmethod = \"\"\n", "6:10: error: upstreams.app.health.method: '' is no method" },
	{ UP "path = \"/\"\nmethod = \"G T\"\n", "'G T' is no method" },
	{ UP "path = \"/\"\nmethod = \"CONNECT\"\n", "'CONNECT' is no method" },
	{ UP "method = \"GET\"\n", "5:10: error: upstreams.app.health.method: needs path; without one a probe only connects" },
	{ UP "host = \"a\"\n", "upstreams.app.health.host: needs path" },
	{ UP "expect_status = 204\n", "upstreams.app.health.expect_status: needs path" },
	{ UP "path = \"/\"\nexpect_status = 99\n", "6:17: error: upstreams.app.health.expect_status: "
	    "expected a status from 100 to 599, a range such as \"200-399\", or a list of these, got 99" },
	{ UP "path = \"/\"\nexpect_status = 600\n", "got 600" },
	{ UP "path = \"/\"\nexpect_status = -200\n", "got -200" },
	{ UP "path = \"/\"\nexpect_status = 200.0\n", "got 200" },
	{ UP "path = \"/\"\nexpect_status = true\n", "got true" },
	{ UP "path = \"/\"\nexpect_status = {}\n", "got a table" },
	{ UP "path = \"/\"\nexpect_status = \"\"\n", "got the text \"\"" },
	{ UP "path = \"/\"\nexpect_status = \"2xx\"\n", "got the text \"2xx\"" },
	{ UP "path = \"/\"\nexpect_status = \"-\"\n", "got the text \"-\"" },
	{ UP "path = \"/\"\nexpect_status = \"200-\"\n", "got the text \"200-\"" },
	{ UP "path = \"/\"\nexpect_status = \"-399\"\n", "got the text \"-399\"" },
	{ UP "path = \"/\"\nexpect_status = \"399-200\"\n", "got the text \"399-200\"" },
	{ UP "path = \"/\"\nexpect_status = \"200-600\"\n", "got the text \"200-600\"" },
	{ UP "path = \"/\"\nexpect_status = \"200-299-399\"\n", "got the text" },
	{ UP "path = \"/\"\nexpect_status = \"200,204\"\n", "got the text" },
	{ UP "path = \"/\"\nexpect_status = \"4294967496\"\n", "got the text" },
	{ UP "path = \"/\"\nexpect_status = []\n", "expect_status: an empty list: no answer would pass" },
	{ UP "path = \"/\"\nexpect_status = [200, \"x\"]\n", "6:23: error: upstreams.app.health.expect_status: expected a status" },
	{ UP "path = \"/\"\nexpect_status = [[200]]\n", "got a list" },
	{ UP "interval_secs = 0\n", "upstreams.app.health.interval_secs: expected a number of seconds" },
	{ UP "timeout_secs = -1\n", "upstreams.app.health.timeout_secs: expected a number of seconds" },
	{ UP "unhealthy_threshold = 0\n", "upstreams.app.health.unhealthy_threshold: expected a number from 1 to 2147483647, got 0" },
	{ UP "healthy_threshold = 1.5\n", "upstreams.app.health.healthy_threshold: expected a number" },
	{ UP "port = 65536\n", "upstreams.app.health.port: expected a number from 1 to 65535" },
	{ UP "jitter = 1\n", "upstreams.app.health.jitter: expected true or false" },
	{ UP "intervall_secs = 1\n", "unknown key 'intervall_secs' in upstreams.app.health, did you mean 'interval_secs'?" },
	{ UNIX "port = 80\n", "upstreams.app.health.port: unix:/s is a unix socket, it has no port" },
	{ "[upstreams.app]\nsocket = \"/s\"\nhealth = true\n", "upstreams.app.health: expected a table, got true" },
};

static void
test_errors(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(errors); i++) {
		struct conf *c = load(errors[i].toml);
		char *said = complaints(c);
		if (!strstr(said, errors[i].want) || c->diags.errors == 0)
			row_bad(errors[i].want, slice_of(errors[i].toml), "said: %s", said);
		free(said);
		conf_free(c);
	}
	rows_end();
}

static void
test_presets(void **state)
{
	struct conf *c = load(UP);
	const struct health_conf *h = &c->upstreams[0].health;

	(void)state;
	assert_int_equal(c->diags.errors, 0);
	assert_true(h->on && h->jitter);
	assert_null(h->path);
	assert_null(h->host.p);
	assert_int_equal(h->interval_ms, 10000);
	assert_int_equal(h->timeout_ms, 2000);
	assert_int_equal(h->unhealthy, 3);
	assert_int_equal(h->healthy, 2);
	assert_int_equal(h->port, 0);
	assert_true(slice_eq(h->method, S("GET")));
	assert_int_equal(h->expect.n, 1);
	assert_true(statuses_have(&h->expect, 200) && statuses_have(&h->expect, 399));
	assert_false(statuses_have(&h->expect, 199) || statuses_have(&h->expect, 400));
	conf_free(c);

	c = load("[upstreams.app]\nhost = \"a\"\nport = 1\n");
	assert_false(c->upstreams[0].health.on);
	conf_free(c);
	c = load("[upstreams.app]\nhost = \"a\"\nport = 1\nhealth = {}\n");
	assert_true(c->upstreams[0].health.on);
	conf_free(c);
}

/* expect_status as text: its ranges, "from-to" with blanks between. */
static const struct {
	const char *toml, *want;
} ranges[] = {
	{ "204", "204-204" },
	{ "\"204\"", "204-204" },
	{ "\"200-399\"", "200-399" },
	{ "\" 200 - 399 \"", "200-399" },
	{ "\"100-599\"", "100-599" },
	{ "[\"200-299\", 401]", "200-299 401-401" },
	{ "[500, 200]", "500-500 200-200" },
};

static void
test_ranges(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(ranges); i++) {
		char b[256], got[256] = "";
		struct text t = { got, 0, sizeof got - 1, false };
		struct conf *c;

		snprintf(b, sizeof b, UP "path = \"/\"\nexpect_status = %s\n", ranges[i].toml);
		c = load(b);
		for (int k = 0; k < c->upstreams[0].health.expect.n; k++)
			text_fmt(&t, k ? " %u-%u" : "%u-%u", c->upstreams[0].health.expect.v[k].from,
			    c->upstreams[0].health.expect.v[k].to);
		row_slice("ranges", slice_of(ranges[i].toml), "lowered", text_slice(&t),
		    slice_of(ranges[i].want));
		row_int("no error", slice_of(ranges[i].toml), "errors", c->diags.errors, 0);
		conf_free(c);
	}
	rows_end();
}

/* ---- when ---- */

static void
test_interval(void **state)
{
	enum { MS = 1000, N = 20000 };
	struct health_conf h = { .interval_ms = MS, .jitter = true };
	uint64_t sum = 0, first = 0, low = 0, high = 0;

	(void)state;
	for (int i = 0; i < N; i++) {
		uint32_t ms = interval_ms(&h, false);
		assert_in_range(ms, MS - MS / 10, MS + MS / 10);
		sum += ms;
		low += ms < MS - MS / 20;
		high += ms > MS + MS / 20;
		ms = interval_ms(&h, true);
		assert_in_range(ms, 1, MS);
		first += ms;
	}
	assert_in_range(sum / N, MS - 5, MS + 5); /* the mean's own spread is 0.4 */
	assert_in_range(first / N, MS / 2 - 15, MS / 2 + 15);
	assert_in_range(low, N / 5, N / 3); /* a quarter on each side */
	assert_in_range(high, N / 5, N / 3);
	h.jitter = false;
	assert_int_equal(interval_ms(&h, false), MS);
	assert_int_equal(interval_ms(&h, true), MS);
	h = (struct health_conf){ .interval_ms = 1, .jitter = true };
	assert_int_equal(interval_ms(&h, false), 1);
	assert_int_equal(interval_ms(&h, true), 1);
}

/* The waits before a moment that far away: never beyond it by more than a
 * tick, in few steps, of few lengths. */
static void
test_tick(void **state)
{
	(void)state;
	for (int64_t left = -5; left < 3 * TICK_MAX_MS; left += 7) {
		int64_t at = left;
		int steps = 0;

		for (; at > 0; steps++) {
			uint32_t ms = tick_ms(at);
			assert_int_equal(ms & (ms - 1), 0);
			assert_in_range(ms, TICK_MS, TICK_MAX_MS);
			at -= ms;
		}
		assert_true(at > -TICK_MS || left <= 0);
		assert_true(steps <= 3 + 11);
	}
	assert_int_equal(tick_ms(INT64_MAX / 2), TICK_MAX_MS);
	assert_int_equal(tick_ms(-1000), TICK_MS);
}

/* ---- a checker at work ---- */

enum { SOON = 60, PATIENCE_MS = 5000 };

static struct instance ins[3];
static struct upstream app, other;
static struct conf cf;
static int master = -1; /* its end of the socketpair */

/* A port on loopback that accepts, or (accepts false) refuses. */
static int
port_open(bool accepts, uint16_t *port)
{
	union sock s = { .in = { .sin_family = AF_INET } };
	socklen_t n = sizeof s.in;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	s.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_true(fd >= 0 && bind(fd, &s.sa, n) == 0 && getsockname(fd, &s.sa, &n) == 0);
	*port = ntohs(s.in.sin_port);
	assert_true(!accepts || listen(fd, 128) == 0);
	return fd;
}

static void
address_set(struct instance *in, const uint16_t *ports, unsigned n)
{
	union sock s[INSTANCE_ADDRS] = { 0 };
	socklen_t len[INSTANCE_ADDRS];

	for (unsigned i = 0; i < n; i++) {
		s[i].in.sin_family = AF_INET;
		s[i].in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		s[i].in.sin_port = htons(ports[i]);
		len[i] = sizeof s[i].in;
	}
	board_addrs_set(in->board, s, len, n);
}

/* One upstream of two instances, and one that is not checked. */
static int
checker_setup(void **state)
{
	int pair[2];

	(void)state;
	clock_turn();
	memset(board, 0, sizeof *board);
	app = (struct upstream){ .name = "app", .instances = ins, .n_instances = 2,
		.health = { .on = true, .interval_ms = SOON, .timeout_ms = 2000,
		    .unhealthy = 3, .healthy = 2 } };
	other = (struct upstream){ .name = "other", .instances = ins + 2, .n_instances = 1 };
	cf = (struct conf){ .n_upstreams = 2 };
	cf.upstreams = calloc(2, sizeof *cf.upstreams);
	for (int i = 0; i < 3; i++)
		ins[i] = (struct instance){ .up = i < 2 ? &app : &other,
			.addr = { .kind = ADDR_INET, .text = "127.0.0.1:1", .host = "127.0.0.1" },
			.board = &board->instances[i] };
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
	master = pair[0];
	ctl_fd = pair[1];
	draining = false;
	return 0;
}

static int
checker_teardown(void **state)
{
	(void)state;
	health_stop();
	free(probes);
	probes = NULL;
	free(cf.upstreams);
	close(master);
	close(ctl_fd);
	return 0;
}

static void
look(void)
{
	cf.upstreams[0] = app;
	cf.upstreams[1] = other;
	health_look(&cf);
}

/* Turns of the loop until *n is at least that; false: it is not, for ever. */
static bool
turns_until(const atomic_uint *n, unsigned want)
{
	int64_t end = now_ms + PATIENCE_MS;

	while (*n < want && now_ms < end)
		loop_turn(20);
	return *n >= want;
}

static bool
turns_until_health(const struct board_instance *b, enum health want)
{
	int64_t end = now_ms + PATIENCE_MS;

	while (b->health != (int)want && now_ms < end)
		loop_turn(20);
	return b->health == (int)want;
}

static void
turns_for(int64_t ms)
{
	for (int64_t end = now_ms + ms; now_ms < end; )
		loop_turn(10);
}

/* How often the master was told. */
static int
news(void)
{
	char b[8];
	int n = 0;

	while (recv(master, b, sizeof b, MSG_DONTWAIT) == 1)
		n += b[0] == CTL_HEALTH;
	return n;
}

static const char *
why(struct board_instance *b)
{
	static char out[WHY_MAX];

	return board_text_get(&b->check_why, out);
}

/* Without a process: usable until proven down. */
static void
test_verdicts(void **state)
{
	struct board_instance *a = ins[0].board, *b = ins[1].board;
	uint16_t good, bad;
	int g = port_open(true, &good), d = port_open(false, &bad);
	unsigned epoch = board->epoch;

	(void)state;
	address_set(&ins[0], &good, 1);
	address_set(&ins[1], &bad, 1);
	look();
	assert_true(turns_until_health(a, HEALTH_UP));
	assert_true(turns_until_health(b, HEALTH_DOWN));
	assert_true(a->check_passes >= 2 && a->check_fails == 0 && a->checked_ms > 0);
	assert_true(b->check_fails >= 3 && b->check_passes == 0);
	assert_string_equal(why(a), "");
	assert_string_equal(why(b), "connect refused");
	assert_int_equal(news(), 2);
	assert_int_equal(board->epoch, epoch + 2);
	assert_int_equal(a->up_since_ms, 0); /* it never was away */
	assert_int_equal(listen(d, 128), 0);
	assert_true(turns_until_health(b, HEALTH_UP));
	assert_true(b->up_since_ms > 0);
	assert_string_equal(why(b), "");
	assert_int_equal(ins[2].board->checked_ms, 0); /* nobody asked for it */
	close(g);
	close(d);
}

/* The next address of a name when the first refuses. */
static void
test_addresses(void **state)
{
	struct board_instance *a = ins[0].board;
	uint16_t ports[2];
	int d = port_open(false, &ports[0]), g = port_open(true, &ports[1]);

	(void)state;
	app.n_instances = 1;
	address_set(&ins[0], ports, 2);
	look();
	assert_true(turns_until(&a->check_passes, 3));
	assert_int_equal(a->check_fails, 0);
	close(g);
	assert_true(turns_until_health(a, HEALTH_DOWN));
	assert_string_equal(why(a), "connect refused");
	close(d);
}

/* A process that starts is looked at at once and often, goes up by its checks
 * alone, and does not go down before. */
static void
test_process_starts(void **state)
{
	struct board_instance *a = ins[0].board;
	uint16_t port;
	int fd = port_open(false, &port);

	(void)state;
	app.n_instances = 1;
	app.health.interval_ms = 60000;
	a->run = RUN_OFF;
	look();
	turns_for(150);
	assert_int_equal(a->checked_ms, 0); /* not asked while it does not run */

	address_set(&ins[0], &port, 1);
	a->run = RUN_STARTING;
	look(); /* the master's word */
	turns_for(PROBE_AGAIN_MS / 4);
	assert_int_equal(a->check_fails, 1); /* at once */
	assert_true(turns_until(&a->check_fails, 4)); /* every PROBE_AGAIN_MS */
	assert_int_equal(a->health, HEALTH_UNKNOWN);
	assert_int_equal(news(), 0);
	a->run = RUN_UP; /* by another rule than its checks */
	assert_false(probes[0].said);
	assert_true(turns_until(&a->check_fails, 6));
	assert_int_equal(a->health, HEALTH_UNKNOWN);
	assert_true(probes[0].said); /* in the log, once */
	assert_int_equal(listen(fd, 128), 0);
	assert_true(turns_until_health(a, HEALTH_UP));
	assert_int_equal(a->check_passes, 2);
	assert_true(a->up_since_ms > 0);
	assert_int_equal(news(), 1);
	turns_for(PROBE_AGAIN_MS + 200); /* in peace from now on */
	assert_int_equal(a->check_passes, 2);
	close(fd);
}

/* What is known of a process ends with it; one that drains is left alone. */
static void
test_process_stops(void **state)
{
	struct board_instance *a = ins[0].board;
	uint16_t port;
	int fd = port_open(true, &port);
	unsigned seen;

	(void)state;
	app.n_instances = 1;
	address_set(&ins[0], &port, 1);
	a->run = RUN_UP;
	look();
	assert_true(turns_until_health(a, HEALTH_UP));
	a->run = RUN_DRAINING;
	turns_for(SOON); /* what was under way */
	seen = a->check_passes;
	close(fd);
	turns_for(4 * SOON);
	assert_int_equal(a->check_passes, seen);
	assert_int_equal(a->check_fails, 0);
	assert_int_equal(a->health, HEALTH_UP);
	a->run = RUN_OFF;
	assert_true(turns_until_health(a, HEALTH_UNKNOWN));
	assert_int_equal(a->check_passes, 0);
	turns_for(4 * SOON);
	assert_int_equal(a->check_fails, 0);
}

/* A probe of the process before is dropped when the master says look. */
static void
test_look_drops_the_old(void **state)
{
	struct board_instance *a = ins[0].board;
	uint16_t hangs, good;
	int h = port_open(true, &hangs), g = port_open(true, &good);

	(void)state;
	app.n_instances = 1;
	app.health.path = "/"; /* nobody reads it there */
	app.health.method = S("GET");
	head_out.cap = 4096;
	head_out.p = calloc(1, head_out.cap);
	address_set(&ins[0], &hangs, 1);
	a->run = RUN_STARTING;
	look();
	turns_for(50);
	assert_int_equal(probes[0].state, PROBE_ANSWER);
	address_set(&ins[0], &good, 1);
	look();
	turns_for(50);
	assert_int_equal(probes[0].state, PROBE_ANSWER);
	assert_int_equal(accept4(g, NULL, NULL, SOCK_NONBLOCK) >= 0, 1); /* it has moved */
	assert_int_equal(a->check_fails, 0);
	free(head_out.p);
	head_out.p = NULL;
	close(h);
	close(g);
}

/* A new checker goes on with the counts, and when the next one is due. */
static void
test_taken_over(void **state)
{
	struct board_instance *a = ins[0].board, *b = ins[1].board, *c = ins[2].board;
	uint16_t good, bad;
	int g = port_open(true, &good), d = port_open(false, &bad);

	(void)state;
	app.health.interval_ms = 400;
	address_set(&ins[0], &good, 1);
	address_set(&ins[1], &bad, 1);
	a->health = HEALTH_DOWN;
	a->check_passes = 1;
	b->health = HEALTH_UP;
	b->check_fails = 2;
	a->checked_ms = b->checked_ms = now_ms - 100;
	c->health = HEALTH_DOWN; /* no longer checked */
	look();
	assert_int_equal(c->health, HEALTH_UNKNOWN);
	turns_for(200);
	assert_int_equal(a->check_passes, 1); /* not yet */
	assert_int_equal(b->check_fails, 2);
	assert_true(turns_until_health(a, HEALTH_UP));
	assert_true(turns_until_health(b, HEALTH_DOWN));
	assert_int_equal(a->check_passes, 2);
	assert_int_equal(b->check_fails, 3);
	close(g);
	close(d);
}

/* A worker that drains neither goes on nor begins. */
static void
test_drained(void **state)
{
	struct board_instance *a = ins[0].board;
	uint16_t port;
	int fd = port_open(true, &port);
	unsigned seen;

	(void)state;
	app.n_instances = 1;
	address_set(&ins[0], &port, 1);
	look();
	assert_true(turns_until(&a->check_passes, 2));
	draining = true;
	health_stop();
	seen = a->check_passes;
	look();
	turns_for(3 * SOON);
	assert_int_equal(a->check_passes, seen);
	close(fd);
}

/* The master does not listen now: it is told later. */
static void
test_told_later(void **state)
{
	struct board_instance *a = ins[0].board;
	uint16_t port;
	int fd = port_open(true, &port), told;

	(void)state;
	app.n_instances = 1;
	address_set(&ins[0], &port, 1);
	while (send(ctl_fd, "x", 1, MSG_DONTWAIT) == 1)
		; /* until it is full */
	look();
	assert_true(turns_until_health(a, HEALTH_UP));
	assert_int_equal(news(), 0);
	for (int64_t end = now_ms + PATIENCE_MS; (told = news()) == 0 && now_ms < end; )
		loop_turn(20);
	assert_int_equal(told, 1);
	close(fd);
}

/* Warp has no descriptor left: nobody is blamed. */
static void
test_no_descriptor(void **state)
{
	struct board_instance *a = ins[0].board;
	uint16_t port;
	int fd = port_open(true, &port);
	struct rlimit r, none = { 0, 0 };

	(void)state;
	app.n_instances = 1;
	address_set(&ins[0], &port, 1);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &r), 0);
	none.rlim_max = r.rlim_max;
	none.rlim_cur = (rlim_t)fd; /* lower ones are taken */
	for (int low; (low = dup(0)) >= 0; )
		if (low > fd) {
			close(low);
			break;
		}
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	look();
	turns_for(3 * SOON);
	assert_int_equal(a->check_fails, 0);
	assert_int_equal(a->checked_ms, 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &r), 0);
	assert_true(turns_until(&a->check_passes, 1));
	close(fd);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_presets),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_interval),
		cmocka_unit_test(test_tick),
		cmocka_unit_test_setup_teardown(test_verdicts, checker_setup, checker_teardown),
		cmocka_unit_test_setup_teardown(test_addresses, checker_setup, checker_teardown),
		cmocka_unit_test_setup_teardown(test_process_starts, checker_setup, checker_teardown),
		cmocka_unit_test_setup_teardown(test_process_stops, checker_setup, checker_teardown),
		cmocka_unit_test_setup_teardown(test_look_drops_the_old, checker_setup, checker_teardown),
		cmocka_unit_test_setup_teardown(test_taken_over, checker_setup, checker_teardown),
		cmocka_unit_test_setup_teardown(test_drained, checker_setup, checker_teardown),
		cmocka_unit_test_setup_teardown(test_told_later, checker_setup, checker_teardown),
		cmocka_unit_test_setup_teardown(test_no_descriptor, checker_setup, checker_teardown),
	};
	int bad;

	assert_non_null(mkdtemp(dir));
	snprintf(file, sizeof file, "%s/warp.toml", dir);
	clock_turn();
	random_state[0] = 7;
	random_state[1] = 1;
	board_open();
	blocks_open(16384);
	scratch = block_take(BLOCK_LARGE);
	loop_open(16);
	bad = cmocka_run_group_tests(tests, NULL, NULL);
	block_give(scratch);
	unlink(file);
	rmdir(dir);
	return bad;
}
