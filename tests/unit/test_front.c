/* Who asks, as trusted proxies say it; and the places of clients: who idles for
 * longest makes way, the operator has his own. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

static struct conf test_conf;

/* ---- Forwarded. RFC 7239 4 ---- */

/* clang-format off */
static const struct {
	struct slice list;
	const char *want; /* who|proto|host of each element; NULL: malformed */
	const char *why;
} lists[] = {
	{ T("for=1.2.3.4"), "1.2.3.4||", "one" },
	{ T("for=1.2.3.4;proto=https;host=a.example"), "1.2.3.4|https|a.example", "all three" },
	{ T("For=1.2.3.4;PROTO=http;hOsT=a"), "1.2.3.4|http|a", "names in any case" },
	{ T("proto=https"), "|https|", "nobody is named" },
	{ T("for=1, for=2,for=3"), "1||,2||,3||", "a list" },
	{ T("for=1;by=9;for2=7;x=y"), "1||", "unknown names" },
	{ T("for=1 ; proto=http , for=2"), "1|http|,2||", "blanks around" },
	{ T("\tfor=1\t"), "1||", "tabs around" },
	{ T(";;for=1;;proto=a;"), "1|a|", "empty pairs" },
	{ T(",for=1,,for=2,"), "||,1||,||,2||", "empty elements" },
	{ T("for=\"[2001:db8::1]:4711\""), "[2001:db8::1]:4711||", "quoted" },
	{ T("for=[2001:db8::1]:4711"), "[2001:db8::1]:4711||", "as many write it" },
	{ T("for=1.2.3.4:80"), "1.2.3.4:80||", "so too" },
	{ T("for=\"a,b;c=d\";proto=x"), "a,b;c=d|x|", "signs in quotes" },
	{ T("for=\"a\\\"b\";proto=x"), "a\\\"b|x|", "a quote in quotes" },
	{ T("for=\"\""), "||", "empty quotes" },
	{ T("x=\"\\\\\";for=1"), "1||", "an escaped backslash ends nothing" },
	{ T("for=_hidden, for=unknown"), "_hidden||,unknown||", "who hides" },
	{ T("for=1;for=2"), "2||", "twice" },
	{ T("host=a:8080"), "||a:8080", "a port" },
	{ T("host=\"[::1]:8080\""), "||[::1]:8080", "an address" },
	{ T("for"), NULL, "no value" },
	{ T("for="), NULL, "an empty one" },
	{ T("=1"), NULL, "no name" },
	{ T("for =1"), NULL, "a blank behind the name" },
	{ T("for= 1"), NULL, "a blank before the value" },
	{ T("for=1 2"), NULL, "a blank between" },
	{ T("for=1 proto=x"), NULL, "nothing between two" },
	{ T("for=\"1"), NULL, "open quotes" },
	{ T("for=\"1\\\""), NULL, "open, escaped" },
	{ T("for=\"1\\"), NULL, "open, nothing to escape" },
	{ T("for=\"1\"2"), NULL, "more behind the quotes" },
	{ T("for=1, for"), NULL, "the second is malformed" },
	{ T("for=1/2"), NULL, "no token" },
	{ T("proto=\"a b\""), NULL, "no token in quotes" },
	{ T("host=\"a b\""), NULL, "no host" },
	{ T("host=\"a/b\""), NULL, "no host either" },
	{ T("for=\x80"), NULL, "no ASCII" },
};

static const struct {
	struct slice fields[2];
	const char *client, *proto; /* client NULL: nothing is believed */
	const char *why;
} chains[] = {
	{ { T("for=1.2.3.4;proto=https") }, "1.2.3.4", "https", "one" },
	{ { T("for=6.6.6.6;proto=x, for=1.2.3.4;proto=y") }, "1.2.3.4", "y", "the first is forged" },
	{ { T("for=1.2.3.4;proto=y, for=10.0.0.2;proto=z") }, "1.2.3.4", "y", "behind two proxies" },
	{ { T("for=6.6.6.6, for=1.2.3.4;proto=y, for=10.0.0.2, for=10.0.0.3") }, "1.2.3.4", "y", "behind three" },
	{ { T("for=10.0.0.9;proto=y, for=10.0.0.2") }, "10.0.0.9", "y", "a client from within" },
	{ { T("for=6.6.6.6"), T("for=1.2.3.4;proto=y, for=10.0.0.2") }, "1.2.3.4", "y", "two lines" },
	{ { T("for=6.6.6.6, for=_x;proto=y") }, "10.0.0.1", "y", "who hides is not the one before" },
	{ { T("for=6.6.6.6, for=unknown;proto=y, for=10.0.0.2") }, "10.0.0.2", "y", "but who saw him" },
	{ { T("for=unknown, for=10.0.0.2, for=10.0.0.3") }, "10.0.0.2", "", "not the next one" },
	{ { T("proto=https") }, "10.0.0.1", "https", "nobody is named" },
	{ { T("for=\"[2001:db8::1]:4711\"") }, "2001:db8::1", "", "v6" },
	{ { T("for=1.2.3.4;host=\"a b\"") }, NULL, NULL, "malformed" },
	{ { T("for=1.2.3.4, for=10.0.0.2;") }, "1.2.3.4", "", "a semicolon more" },
	{ { T("for=1.2.3.4"), T("") }, "1.2.3.4", "", "an empty line" },
	{ { T("") }, NULL, NULL, "nothing" },
	/* what a client says in front cannot make him the proxy */
	{ { T("for=\"x, for=1.2.3.4;proto=y") }, "1.2.3.4", "y", "a quote that a client left open" },
	{ { T("for=10.0.0.9;x=\"y, for=1.2.3.4;host=\"a.example\"") }, "1.2.3.4", "", "one that meets another" },
	{ { T("for=\"x, for=1.2.3.4;proto=y, for=10.0.0.2") }, "1.2.3.4", "y", "one before two proxies" },
	{ { T("for=1.2.3.4;proto=y, for=\"x") }, NULL, NULL, "the last one is malformed" },
	{ { T("for=1.2.3.4;proto=y"), T("%&/") }, NULL, NULL, "the last line is" },
	{ { T("%&/"), T("for=1.2.3.4;proto=y") }, "1.2.3.4", "y", "rubbish in a line of its own" },
};
/* clang-format on */

static void
test_lists(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(lists); i++) {
		struct slice in = exact(lists[i].list), rest = in;
		struct slice want = slice_of(lists[i].want ? lists[i].want : "malformed");
		struct forwarded f;
		char b[256];
		struct text t = { b, 0, sizeof b, false };
		bool good = true;

		for (int n = 0; n < 20 && rest.n > 0 && good; n++) {
			if (!(good = forwarded_next(&rest, &f)))
				t.n = 0;
			text_fmt(&t, good ? "%s%.*s|%.*s|%.*s" : "malformed", n > 0 ? "," : "",
			    (int)f.who.n, f.who.p, (int)f.proto.n, f.proto.p, (int)f.host.n, f.host.p);
		}
		row_slice(lists[i].why, in, "list", text_slice(&t), want);
		exact_free(in);
	}
	rows_end();
}

/* Any bytes: what comes out lies in what went in, and it ends. */
static void
test_any_bytes(void **state)
{
	static const char alphabet[] = "for=;,\"\\ \t1[]:abhostproto=\x80";

	(void)state;
	for (int round = 0; round < 50000; round++) {
		char b[24];
		struct slice in = { b, dice(sizeof b) }, rest, before;
		struct forwarded f;

		for (size_t i = 0; i < in.n; i++)
			b[i] = alphabet[dice(sizeof alphabet - 1)];
		in = exact(in);
		rest = in;
		while (rest.n > 0) {
			before = rest;
			if (!forwarded_next(&rest, &f))
				break;
			assert_true(rest.n < before.n);
			assert_true(f.who.n == 0 || (f.who.p >= before.p && f.who.p + f.who.n <= in.p + in.n));
		}
		exact_free(in);
	}
}

static void
test_chains(void **state)
{
	struct cidr within;

	(void)state;
	assert_true(cidr_parse(S("10.0.0.0/8"), &within));
	conf = &test_conf;
	test_conf.server.trusted = (struct cidrs){ &within, 1 };
	for (size_t i = 0; i < LEN(chains); i++) {
		static struct head h;
		char head[512], b[64];
		struct text t = { head, 0, sizeof head, false }, ip_t = { b, 0, sizeof b, false };
		const char *want = chains[i].client ? chains[i].client : "10.0.0.1";
		struct forwarded f = { .who = { NULL, 0 } };
		struct ip client;
		bool found;

		text_str(&t, "GET / HTTP/1.1\r\nHost: a\r\n");
		for (size_t k = 0; k < 2; k++)
			if (chains[i].fields[k].p)
				text_fmt(&t, "Forwarded: %.*s\r\n", (int)chains[i].fields[k].n, chains[i].fields[k].p);
		text_str(&t, "\r\n");
		assert_true(request_parse(&h, text_slice(&t)) > 0);
		assert_true(ip_parse(S("10.0.0.1"), &client));
		found = forwarded_find(&h, &f, &client);
		row_int(chains[i].why, chains[i].fields[0], "found", found, chains[i].client != NULL);
		ip_text(&ip_t, &client);
		row_slice(chains[i].why, chains[i].fields[0], "client", text_slice(&ip_t), slice_of(want));
		if (found && chains[i].proto)
			row_slice(chains[i].why, chains[i].fields[0], "proto", f.proto, slice_of(chains[i].proto));
	}
	test_conf.server.trusted = (struct cidrs){ NULL, 0 };
	rows_end();
}

/* ---- places ---- */

enum { PLACES = 4 };

static struct listener doors[LISTENER_KINDS];
static struct sockaddr_un names[LISTENER_KINDS];
static socklen_t name_lens[LISTENER_KINDS];

/* A worker with two listeners and nothing behind them. */
static int
front_setup(void **state)
{
	(void)state;
	if (board)
		return 0;
	board_open();
	conf = &test_conf;
	test_conf.server.keepalive_ms = test_conf.server.header_ms = 600000;
	test_conf.server.max_header_bytes = 4096;
	clock_turn();
	me = &board->workers[0];
	blocks_open(4096);
	scratch = block_take(BLOCK_LARGE);
	loop_open(3 * PLACES + ADMIN_PLACES + LISTENER_KINDS + WATCHES_SPARE);
	for (int i = 0; i < LISTENER_KINDS; i++) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

		names[i].sun_family = AF_UNIX; /* of no name: an abstract one is chosen */
		assert_int_equal(bind(fd, (struct sockaddr *)&names[i], sizeof names[i].sun_family), 0);
		name_lens[i] = sizeof names[i];
		assert_int_equal(getsockname(fd, (struct sockaddr *)&names[i], &name_lens[i]), 0);
		assert_int_equal(listen(fd, 100), 0);
		doors[i] = (struct listener){ .kind = (enum listener_kind)i, .fd = fd };
	}
	front_open(doors, LISTENER_KINDS, PLACES);
	return 0;
}

/* All that has happened is seen to. */
static void
turns(void)
{
	for (int i = 0; i < 3; i++)
		loop_turn(0);
}

static int
come(enum listener_kind kind)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&names[kind], name_lens[kind]), 0);
	turns();
	return fd;
}

/* He was sent away. */
static bool
is_out(int fd)
{
	char b;

	return recv(fd, &b, 1, MSG_DONTWAIT) == 0;
}

static void
leave(int *v, int n)
{
	for (int i = 0; i < n; i++)
		close(v[i]);
	turns();
	assert_int_equal(n_conns, 0);
	for (int i = 0; i < LISTENER_KINDS; i++) {
		assert_int_equal(seats[i].n, 0);
		assert_null(link_first(&seats[i].idle));
		assert_int_equal(seats[i].accepting, seats[i].max > 0); /* no routers: none for them */
	}
}

static void
test_longest_makes_way(void **state)
{
	int v[2 * PLACES];

	(void)state;
	for (int i = 0; i < 2 * PLACES; i++) {
		v[i] = come(LISTEN_HTTP);
		assert_int_equal(seats[LISTEN_HTTP].n, MIN(i + 1, PLACES));
		for (int k = 0; k <= i; k++)
			assert_int_equal(is_out(v[k]), i - k >= PLACES);
	}
	leave(v, 2 * PLACES);
}

/* Part of a head makes one busy, and who has just spoken does not go. */
static void
test_who_speaks_stays(void **state)
{
	int v[PLACES + 3], n = 0;

	(void)state;
	while (n < PLACES)
		v[n] = come(LISTEN_HTTP), n++;
	assert_int_equal(send(v[0], "GET", 3, 0), 3);
	turns();
	v[n++] = come(LISTEN_HTTP);
	assert_false(is_out(v[0]));
	assert_true(is_out(v[1]));
	assert_int_equal(send(v[2], "GET", 3, 0), 3); /* not yet read */
	assert_true(conn_evict(LISTEN_HTTP));
	assert_false(is_out(v[2]));
	assert_true(is_out(v[3]));
	turns();
	leave(v, n);
}

/* All are busy: who comes waits outside, and nobody is asked in vain. */
static void
test_all_are_busy(void **state)
{
	int v[PLACES + 2], n = 0;

	(void)state;
	while (n < PLACES) {
		v[n] = come(LISTEN_HTTP);
		assert_int_equal(send(v[n++], "GET /", 5, 0), 5);
	}
	turns();
	assert_null(link_first(&seats[LISTEN_HTTP].idle));
	v[n++] = come(LISTEN_HTTP);
	assert_false(seats[LISTEN_HTTP].accepting);
	assert_int_equal(seats[LISTEN_HTTP].n, PLACES);
	for (int i = 0; i < n; i++)
		assert_false(is_out(v[i]));
	close(v[0]); /* a place is free */
	turns();
	v[0] = v[--n];
	assert_int_equal(seats[LISTEN_HTTP].n, PLACES);
	assert_false(is_out(v[0]));
	assert_true(seats[LISTEN_HTTP].accepting); /* v[0] idles */
	leave(v, n);
}

static void
test_operators_places(void **state)
{
	int v[PLACES + 1], ops[ADMIN_PLACES + 2];

	(void)state;
	for (int i = 0; i < PLACES; i++) {
		v[i] = come(LISTEN_HTTP);
		assert_int_equal(send(v[i], "GET /", 5, 0), 5);
	}
	v[PLACES] = come(LISTEN_HTTP); /* waits */
	for (int i = 0; i < ADMIN_PLACES + 2; i++)
		ops[i] = come(LISTEN_ADMIN);
	assert_int_equal(seats[LISTEN_ADMIN].n, ADMIN_PLACES);
	assert_true(is_out(ops[0]) && is_out(ops[1]) && !is_out(ops[2]));
	for (int i = 0; i <= PLACES; i++)
		assert_false(is_out(v[i])); /* no client makes way for an operator */
	for (int i = 0; i < ADMIN_PLACES + 2; i++)
		close(ops[i]);
	turns();
	leave(v, PLACES + 1);
}

/* The lists, against a simple model. */
static void
test_lists_of_conns(void **state)
{
	enum { N = 6 };
	static struct listener l = { .kind = LISTEN_HTTP };
	static struct conn c[N];
	struct conn *order[N]; /* idle ones, newest first */
	int n = 0;

	(void)state;
	for (int i = 0; i < N; i++) {
		c[i] = (struct conn){ .listener = &l };
	}
	for (int round = 0; round < 20000; round++) {
		struct link *ring = &seats[LISTEN_HTTP].idle, *last = ring;
		struct conn *p = &c[dice(N)];
		bool idles = dice(2), was = p->link.next;
		int k = 0;

		if (dice(8) == 0) { /* closed, and opened anew */
			link_drop(&p->link);
			conn_turns(p, idles);
			was = false;
			for (int i = 0; i < n; i++)
				if (order[i] != p)
					order[k++] = order[i];
			n = k;
		} else {
			conn_turns(p, idles);
		}
		if (idles && !was) {
			memmove(order + 1, order, sizeof *order * (size_t)n++);
			order[0] = p;
		} else if (!idles && was) {
			for (k = 0; order[k] != p; k++)
				;
			memmove(order + k, order + k + 1, sizeof *order * (size_t)(--n - k));
		}
		k = 0;
		for (struct link *q = ring->next; q && q != ring; last = q, q = q->next, k++)
			assert_true(k < n && &order[k]->link == q && q->prev == last);
		assert_int_equal(k, n);
		assert_true(n == 0 || ring->prev == last);
	}
	for (int i = 0; i < N; i++)
		link_drop(&c[i].link);
	assert_null(link_first(&seats[LISTEN_HTTP].idle));
}

/* ---- connections of one client ---- */

static atomic_uint *
seat_of(const char *address, bool want)
{
	atomic_uint *seat = NULL;
	struct ip ip;

	assert_true(ip_parse(slice_of(address), &ip));
	assert_int_equal(crowd_admits(&ip, &seat), want);
	return seat;
}

/* Counts are each client's own, given back one by one, and a dead worker's at once. */
static void
test_crowd(void **state)
{
	atomic_uint *a, *b;
	struct ip ip;

	(void)state;
	test_conf.server.per_client = 3;
	a = seat_of("1.2.3.4", true);
	b = seat_of("1.2.3.5", true);
	assert_ptr_not_equal(a, b);
	assert_ptr_equal(seat_of("1.2.3.4", true), a);
	assert_ptr_equal(seat_of("1.2.3.4", true), a);
	assert_null(seat_of("1.2.3.4", false));
	assert_ptr_equal(seat_of("1.2.3.5", true), b);
	assert_int_equal(*a & CROWD_COUNT, 3);
	crowd_less(a, 1);
	crowd_own(a, -1);
	assert_ptr_equal(seat_of("1.2.3.4", true), a);
	assert_null(seat_of("1.2.3.4", false));
	me->connections = 0;
	board_worker_gone(0);
	assert_int_equal((*a & CROWD_COUNT) + (*b & CROWD_COUNT), 0);
	crowd_less(a, 1); /* never below nothing: the bits beside are its client's */
	assert_int_equal(*a & CROWD_COUNT, 0);
	assert_ptr_equal(seat_of("1.2.3.4", true), a);
	assert_ptr_equal(seat_of("2001:db8::1", true), seat_of("2001:db8:0:0:9::9", true));
	assert_ptr_not_equal(seat_of("2001:db8::1", true), seat_of("2001:db8:0:1::", true));
	ip = (struct ip){ { 0 } };
	for (int i = 0; i < 9; i++)
		assert_true(crowd_admits(&ip, &a));
	board_worker_gone(0);
}

/* More clients than a set of cells has: those without one are let in. */
static void
test_crowd_is_full(void **state)
{
	atomic_uint *cells = board->crowd, *first;
	unsigned is;

	(void)state;
	for (unsigned i = 1; i <= CROWD_WAYS; i++) {
		assert_ptr_equal(first = crowd_find(cells, i << 12, &is), &cells[i - 1]);
		*first = i << 12 | 1;
	}
	assert_null(crowd_find(cells, 99u << 12, &is));
	assert_ptr_equal(crowd_find(cells, 3u << 12, &is), &cells[2]);
	assert_int_equal(is, 3u << 12 | 1);
	crowd_less(&cells[4], 7);
	assert_ptr_equal(crowd_find(cells, 99u << 12, &is), &cells[4]);
	assert_ptr_equal(crowd_find(cells, 6u << 12, &is), &cells[5]); /* not the free one before */
	memset(board->crowd, 0, sizeof board->crowd);
}

/* ---- want of memory ---- */

/* A passage of which a side is not read for want of memory has not come too late. */
static void
test_passage_waits_in_vain(void **state)
{
	struct router_conf rc = { .timeout_ms = 1000 };
	struct passage p = { .rc = &rc, .state = PASSAGE_BYTES };
	struct watch *sides[] = { &p.node.ch.w, NULL };
	struct conn c = { .passage = &p };

	(void)state;
	p.c = &c;
	sides[1] = &c.s.ch.w;
	for (size_t i = 0; i < LEN(sides); i++) {
		sides[i]->slot = -1;
		loop_starve(sides[i], HUNGER_BEGUN);
		passage_due(&c.s.timer);
		assert_ptr_equal(c.passage, &p);
		assert_non_null(c.s.timer.list);
		timer_clear(&c.s.timer);
		loop_unwatch(sides[i]);
	}
}

/* With no memory left all wait but for those of whom nothing is kept. */
static void
test_draining_needs_none(void **state)
{
	struct side s = { .ch.w.slot = -1 };

	(void)state;
	ledger.held = 1; /* and spent is 0 */
	assert_true(side_starves(&s));
	loop_unwatch(&s.ch.w);
	s.drains = true;
	assert_false(side_starves(&s));
	ledger.held = 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_any_bytes),
		cmocka_unit_test(test_chains),
		cmocka_unit_test_setup(test_longest_makes_way, front_setup),
		cmocka_unit_test_setup(test_who_speaks_stays, front_setup),
		cmocka_unit_test_setup(test_all_are_busy, front_setup),
		cmocka_unit_test_setup(test_operators_places, front_setup),
		cmocka_unit_test_setup(test_lists_of_conns, front_setup),
		cmocka_unit_test_setup(test_crowd, front_setup),
		cmocka_unit_test_setup(test_crowd_is_full, front_setup),
		cmocka_unit_test_setup(test_passage_waits_in_vain, front_setup),
		cmocka_unit_test_setup(test_draining_needs_none, front_setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
