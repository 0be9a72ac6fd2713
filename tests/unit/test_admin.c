/* The admin endpoints about processes, whose states the test writes on the board
 * itself; addresses that warp chose; what /proc says. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

static struct conf *cf;
static struct process web = { .name = "web" }, mail = { .name = "mail" };
static struct process *both[] = { &web, &mail };
static struct admin_reply reply;

static void
proc_fake(size_t i, const char *name, enum proc_state state, int pid)
{
	struct board_proc *p = &board->procs[i];

	snprintf(p->name, sizeof p->name, "%s", name);
	p->state = state;
	p->pid = pid;
	wide_set(&p->since_ms, now_ms - 5 * SECOND_MS);
	wide_set(&p->started_ms, pid ? now_ms - 5 * SECOND_MS : 0);
}

static int
setup(void **state)
{
	(void)state;
	clock_turn();
	board_open();
	usage_note(0, getpid());
	cf = conf_simple(":1", "127.0.0.1:2", NULL);
	cf->processes = both;
	cf->n_processes = LEN(both);
	web.up = &cf->upstreams[0];
	proc_fake(0, "web.0", PROC_UP, getpid());
	proc_fake(1, "web.1", PROC_BACKOFF, 0);
	proc_fake(2, "mail", PROC_OFF, 0);
	board_text_set(&board->procs[1].why, S("exited with status 1"));
	for (int i = 0; i < PROC_LINES + 2; i++) {
		char b[16];
		snprintf(b, sizeof b, "line \"%d\"", i);
		board_text_set(&board->procs[1].lines[i % PROC_LINES], slice_of(b));
		board->procs[1].n_lines++;
	}
	return cf->diags.errors + board_attach(cf);
}

static int
teardown(void **state)
{
	(void)state;
	free(reply.body);
	reply.body = NULL;
	conf_free(cf);
	munmap(board, sizeof *board);
	return 0;
}

static const char *
ask(enum method method, const char *path)
{
	struct admin_request rq = { .method = method, .path = slice_of(path), .is_unix = true };

	free(reply.body);
	admin_answer(&rq, cf, &reply);
	return reply.body ? reply.body : "";
}

static void
has(const char *text, const char *want)
{
	if (!strstr(text, want))
		row_bad("missing", slice_of(text), "%s", want);
}

static void
test_status(void **state)
{
	const char *s = ask(M_GET, "/status");
	size_t n = 0;

	(void)state;
	for (const char *p = s; *p; p++) /* a run of blanks is one */
		if (!isspace((unsigned char)*p) || n == 0 || reply.body[n - 1] != ' ')
			reply.body[n++] = isspace((unsigned char)*p) ? ' ' : *p;
	reply.body[n] = '\0';
	has(s, "\"name\": \"web.0\", \"process\": \"web\", \"upstream\": \"target\", \"state\": \"up\"");
	has(s, "\"since_secs\": 5.000, \"uptime_secs\": 5.000, \"cpu_secs\": 0.");
	has(s, "\"state\": \"backoff\", \"why\": \"exited with status 1\", \"pid\": 0");
	has(s, "\"uptime_secs\": 0.000, \"cpu_secs\": null, \"rss_bytes\": null, \"lines\": "
	    "[\"line \\\"2\\\"\", \"line \\\"3\\\"\"");
	has(s, "\"line \\\"9\\\"\"]");
	has(s, "\"name\": \"mail\", \"process\": \"mail\", \"upstream\": null, \"state\": \"off\"");
	rows_end();
}

/* A router's clock is set years after warp was started. */
static void
test_uptime(void **state)
{
	const time_t was_s = now_s;
	const int64_t was_ms = now_ms;

	(void)state;
	now_ms += 7 * SECOND_MS;
	now_s += 56 * 365 * DAY_S;
	has(ask(M_GET, "/status"), "\"uptime_secs\": 7,");
	now_s = was_s - DAY_S;
	has(ask(M_GET, "/status"), "\"uptime_secs\": 7,");
	now_s = was_s;
	now_ms = was_ms;
	rows_end();
}

static void
test_metrics(void **state)
{
	const char *s = ask(M_GET, "/metrics");

	(void)state;
	has(s, "warp_process_up{process=\"web.0\"} 1\nwarp_process_up{process=\"web.1\"} 0\n");
	has(s, "warp_process_restarts_total{process=\"mail\"} 0\n");
	has(s, "warp_process_cpu_seconds_total{process=\"web.0\"} ");
	has(s, "warp_process_resident_memory_bytes{process=\"web.0\"} ");
	assert_null(strstr(s, "memory_bytes{process=\"mail\""));
	rows_end();
}

static void
test_table(void **state)
{
	struct admin_request rq = { .method = M_GET, .path = S("/status"), .query = S("format=text"),
		.is_unix = true };

	(void)state;
	free(reply.body);
	admin_answer(&rq, cf, &reply);
	has(reply.body, "\nPROCESS STATE        PID RESTARTS    SINCE  CPU_SECS     RSS_KB WHY\n");
	has(reply.body, "\nweb.1   backoff        0        0        5         -          - "
	    "exited_with_status_1\n");
	rows_end();
}

static void
test_verbs(void **state)
{
	static const struct {
		const char *path;
		int status;
		const char *want; /* what the master is told, or the client */
	} rows[] = {
		{ "/restart/web", 200, "restart web" },
		{ "/stop/m%61il", 200, "stop mail" },
		{ "/stop", 200, "stop" },
		{ "/start/wbe", 404, "no process 'wbe', did you mean 'web'?\n" },
		{ "/start/web.0", 404, "no process 'web.0', did you mean 'web'?\n" },
		{ "/drain/target/0", 200, "drain target/0" },
		{ "/drain/target/127.0.0.1:3", 404,
		  "upstream target: no instance '127.0.0.1:3', did you mean '127.0.0.1:2'?\n" },
	};

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		const char *got = ask(M_POST, rows[i].path);
		got = reply.verb ? reply.verb : got;
		if (reply.status != rows[i].status || strcmp(got, rows[i].want) != 0)
			row_bad(rows[i].path, slice_of(got), "status %d, wanted %d, %s",
			    reply.status, rows[i].status, rows[i].want);
	}
	rows_end();
}

/* What warp chose, as the board has it. */
static void
test_address(void **state)
{
	struct instance in = cf->upstreams[0].instances[0];
	union sock s = { .un = { .sun_family = AF_UNIX, .sun_path = "/run/w.sock" } };
	socklen_t n = offsetof(struct sockaddr_un, sun_path) + sizeof "/run/w.sock";
	struct ip ip;
	char b[ADDR_TEXT];

	(void)state;
	in.addr.kind = ADDR_NONE;
	in.replica = 0;
	in.board = &board->instances[7];
	assert_string_equal(instance_address(&in, b), "-");
	board_addrs_set(in.board, &s, &n, 1);
	assert_string_equal(instance_address(&in, b), "unix:/run/w.sock");
	memcpy(s.un.sun_path, "\0name", sizeof "\0name");
	n = offsetof(struct sockaddr_un, sun_path) + sizeof "\0name" - 1;
	board_addrs_set(in.board, &s, &n, 1);
	assert_string_equal(instance_address(&in, b), "@name");
	for (int i = 0; i < 2; i++) {
		assert_true(ip_parse(i ? S("::1") : S("127.0.0.1"), &ip));
		n = sock_of_ip(&s, &ip, 20001);
		board_addrs_set(in.board, &s, &n, 1);
		assert_string_equal(instance_address(&in, b), i ? "[::1]:20001" : "127.0.0.1:20001");
	}
}

static void
test_usage(void **state)
{
	static const char stat[] = "12 (a) b (c) S 1 1 1 0 -1 4194560 99 0 0 0 150 50 7 7 20 0 1 0 "
	    "99 1000000 321 18446744073709551615 1";
	struct board_usage *u = &board->usages[1];

	(void)state;
	assert_true(usage_read(slice_of(stat), u));
	u->pid = 12;
	assert_true(usage_of(12).known && usage_of(12).rss == 321 * (uint64_t)sysconf(_SC_PAGESIZE));
	assert_true((long)(usage_of(12).cpu_s * (double)sysconf(_SC_CLK_TCK) + 0.5) == 200);
	for (size_t n = 0; n < (size_t)(strstr(stat, "321") - stat); n++) {
		struct slice cut = exact((struct slice){ stat, n });
		assert_false(usage_read(cut, u));
		exact_free(cut);
	}
	usage_note(1, INT_MAX);
	assert_false(usage_of(12).known);
	assert_true(usage_of(getpid()).known && usage_of(getpid()).rss > 0);
	assert_false(usage_of(0).known || usage_of(INT_MAX).known);
}

/* A live token is known with its answer, whatever is beside it; what is cut short
 * or being written is not. */
static void
test_challenges(void **state)
{
	char long_token[ACME_TOKEN_MAX + 1], out[ACME_TOKEN_MAX];
	struct slice tokens[] = { S("abc_-9"), S("other") };

	(void)state;
	assert_false(challenge_answer(S(""), S("abc_-9"), out));
	assert_true(challenge_set(0, "a.example", "abc_-9", "abc_-9.print"));
	assert_true(challenge_set(ACME_NAMES_MAX - 1, "b.example", "other", "other.print"));
	assert_true(challenge_set(1, "c.example", "", "only for tls-alpn-01"));
	for (size_t i = 0; i < LEN(tokens); i++) {
		struct slice t = tokens[i];
		assert_true(challenge_answer(S(""), t, out));
		assert_true(slice_starts(slice_of(out), t) && slice_ends(slice_of(out), S(".print")));
		for (size_t n = 0; n < t.n; n++)
			assert_false(challenge_answer(S(""), (struct slice){ t.p, n }, out));
	}
	assert_false(challenge_answer(S(""), S(""), out));
	assert_false(challenge_answer(S(""), S("abc_-9\0"), out));
	board->challenges[0].seq++; /* its writer has died at it */
	assert_false(challenge_answer(S(""), S("abc_-9"), out));
	assert_true(challenge_set(0, "a.example", "new", "new.print"));
	assert_true(challenge_answer(S(""), S("new"), out));
	assert_false(challenge_answer(S(""), S("abc_-9"), out));
	memset(long_token, 'a', sizeof long_token - 1);
	long_token[sizeof long_token - 1] = '\0';
	assert_false(challenge_set(0, "a.example", long_token, "x"));
	assert_false(challenge_answer(S(""), S("new"), out)); /* and nothing else is left there */
	assert_true(challenge_set(0, NULL, NULL, NULL));
	assert_true(challenge_answer(S(""), S("other"), out));
	assert_true(challenge_set(ACME_NAMES_MAX - 1, NULL, NULL, NULL));
	assert_false(challenge_answer(S(""), S("other"), out));
}

/* Certificates of every kind and age, and how ACME is doing. */
static void
test_certificates(void **state)
{
	struct slice names[] = { S("a.example"), S("*.a.example") }, odd[] = { S("a \"b\"") };
	struct cert certs[] = {
		{ .origin = CERT_ACME, .key_type = BR_KEYTYPE_EC, .key_bits = 256,
		    .names = { names, 2 }, .issuer = S("The CA"), .from_s = now_s - 100,
		    .until_s = now_s + 29 * DAY_S + 1 },
		{ .origin = CERT_FILE, .key_type = BR_KEYTYPE_RSA, .key_bits = 2048,
		    .names = { odd, 1 }, .issuer = S(""), .from_s = 1, .until_s = now_s - 1 },
		{ .origin = CERT_MADE, .key_type = BR_KEYTYPE_EC, .key_bits = 384,
		    .until_s = INT64_MAX },
	};
	struct cert_set set = { .v = certs, .n = LEN(certs) };
	struct admin_request rq = { .method = M_GET, .path = S("/status"), .query = S("format=text"),
		.is_unix = true };
	const char *s;

	(void)state;
	has(ask(M_GET, "/status"), "\"certificates\": [],\n  \"acme\": {");
	cf->tls.on = true;
	cf->tls.set = &set;
	board->acme.state = ACME_FAILED;
	board->acme.next_s = 1900000000;
	board_text_set(&board->acme.why, S("the CA says: no such \"name\""));
	s = ask(M_GET, "/status");
	has(s, "\"days_left\": 29");
	has(s, "\"days_left\": -1");
	has(s, "\"from\": \"1970-01-01T00:00:01Z\"");
	has(s, "\"origin\": \"self-signed\"");
	has(s, "\"state\": \"failed\",");
	has(s, "\"next\": \"2030-03-17T17:46:40Z\"");
	has(s, "no such \\\"name\\\"");
	s = ask(M_GET, "/metrics");
	has(s, "expiry_seconds{name=\"a.example\",key=\"EC 256\",origin=\"acme\"} ");
	has(s, "expiry_seconds{name=\"a \\\"b\\\"\",key=\"RSA 2048\",origin=\"file\"} ");
	free(reply.body);
	admin_answer(&rq, cf, &reply);
	has(reply.body, "\nCERTIFICATE ORIGIN      KEY      UNTIL                DAYS_LEFT OTHER_NAMES ISSUER\n");
	has(reply.body, " 29 *.a.example The_CA\n");
	has(reply.body, "\na_\"b\"       file        RSA-2048 ");
	has(reply.body, "\nfailed   2030-03-17T17:46:40Z the_CA_says:_no_such_\"name\"\n");
	cf->tls.on = false;
	cf->tls.set = NULL;
	rows_end();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_status, setup, teardown),
		cmocka_unit_test_setup_teardown(test_uptime, setup, teardown),
		cmocka_unit_test_setup_teardown(test_metrics, setup, teardown),
		cmocka_unit_test_setup_teardown(test_table, setup, teardown),
		cmocka_unit_test_setup_teardown(test_verbs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_challenges, setup, teardown),
		cmocka_unit_test_setup_teardown(test_certificates, setup, teardown),
		cmocka_unit_test_setup_teardown(test_address, setup, teardown),
		cmocka_unit_test_setup_teardown(test_usage, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
