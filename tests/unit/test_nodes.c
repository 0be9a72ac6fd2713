/* What FastRouters route by: addresses, ways of mapping, algorithms, death marks and the
 * sweep, signatures; and that neither a worker nor the clerk that is killed at work leaves
 * anything behind. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

static struct router_conf rc;
static struct conf cf;
static struct ip from;
static struct addr server = { .text = "127.0.0.1:4040" };

static void
opened(void)
{
	static bool once;

	if (!once)
		board_open();
	once = true;
	memset(NODES, 0, sizeof *NODES);
	memset(node_rests, 0, sizeof node_rests);
	node_hand = 0;
	log_level = LOG_LVL_ERROR;
	rc = (struct router_conf){ .grace_ms = 30000, .tolerance_ms = 17000, .code_modifier = -1,
		.sign_tolerance_s = 86400 };
	rc.subscription_server = (struct addrs){ &server, 1 };
	cf = (struct conf){ .routers = &rc, .n_routers = 1, .n_servers = 1 };
	clock_turn();
	nodes_attach(&cf);
	nodes_join(0);
	nodes_open();
	assert_true(ip_parse(S("127.0.0.1"), &from));
}

static struct announcement
said(const char *key, const char *address, uint32_t weight)
{
	return (struct announcement){ .key = slice_of(key), .address = slice_of(address),
		.weight = weight };
}

static enum node_news
announce(const char *key, const char *address, uint32_t weight)
{
	struct announcement a = said(key, address, weight);

	return nodes_announce(&rc, &a, NULL);
}

/* The address that a first attempt picks; "": none. It stays in flight if kept. */
static const char *
picked(const char *key, struct node_pick *keep)
{
	static struct node_pick p;
	struct node_pick *to = keep ? keep : &p;

	*to = (struct node_pick){ .nth = 0 };
	if (nodes_pick(&rc, slice_of(key), &from, 0, to) != PICKED)
		return "";
	if (!keep)
		nodes_done(to, 0, 0);
	return to->address;
}

/* ---- addresses ---- */

static const struct {
	struct slice in;
	int family; /* 0: refused */
	socklen_t n;
	int modifier;
	const char *why;
} addresses[] = {
	{ T("127.0.0.1:3031"), AF_INET, 16, 0, "number" },
	{ T(":3031"), AF_INET, 16, 0, "no host: this one" },
	{ T("localhost:3031"), AF_INET, 16, 0, "this one by name" },
	{ T("127.0.0.1:3031,5"), AF_INET, 16, 5, "modifier" },
	{ T("127.0.0.1:3031,256"), 0, 0, 0, "no modifier, so no port" },
	{ T("[::1]:80"), AF_INET6, 28, 0, "IPv6" },
	{ T("::1:80"), 0, 0, 0, "IPv6 without brackets" },
	{ T("127.0.0.1:0"), 0, 0, 0, "port 0" },
	{ T("127.0.0.1:65536"), 0, 0, 0, "no port" },
	{ T("some.where:80"), 0, 0, 0, "a name: nobody resolves it" },
	{ T("/tmp/x"), AF_UNIX, 2 + 6 + 1, 0, "path" },
	{ T("/tmp/x,7"), AF_UNIX, 2 + 6 + 1, 7, "path, modifier" },
	{ T("/tmp/a,b"), AF_UNIX, 2 + 8 + 1, 0, "a comma of the path" },
	{ T("/d/example.com:8000"), AF_UNIX, 2 + 19 + 1, 0, "what starts with / is a path" },
	{ T("sock"), AF_UNIX, 2 + 4 + 1, 0, "no colon: a path" },
	{ T("@name"), AF_UNIX, 2 + 1 + 4, 0, "abstract" },
	{ T("@name:1"), AF_UNIX, 2 + 1 + 6, 0, "abstract with a colon" },
	{ T("\\0name"), AF_UNIX, 2 + 1 + 4, 0, "abstract, spelled" },
	{ T("\\0name\\0"), AF_UNIX, 2 + 1 + 4, 0, "abstract, spelled in full" },
	{ T("\0name"), AF_UNIX, 2 + 1 + 4, 0, "abstract, as it is" },
	{ T("/a\0b"), 0, 0, 0, "NUL" },
	{ T(""), 0, 0, 0, "nothing" },
	{ T(",5"), 0, 0, 0, "only a modifier" },
	{ T("@"), 0, 0, 0, "no name" },
	{ T("\\0\\0"), 0, 0, 0, "no name, spelled" },
	{ T("/1234567890123456789012345678901234567890123456789012345678901234567890123456789012345678"
	    "901234567890123456"), AF_UNIX, 2 + 107 + 1, 0, "the longest" },
	{ T("/1234567890123456789012345678901234567890123456789012345678901234567890123456789012345678"
	    "9012345678901234567"), 0, 0, 0, "too long" },
};

static void
test_addresses(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(addresses); i++) {
		struct node_pick p = { .modifier1 = 0 };
		struct slice in = exact(addresses[i].in);
		bool good = node_address_parse(in, &p);
		row_int(addresses[i].why, in, "good", good, addresses[i].family != 0);
		if (good && addresses[i].family) {
			row_int(addresses[i].why, in, "family", p.to.sa.sa_family, addresses[i].family);
			row_int(addresses[i].why, in, "length", p.to_n, addresses[i].n);
			row_int(addresses[i].why, in, "modifier", p.modifier1, addresses[i].modifier);
		}
		for (size_t n = 0; n < in.n; n++) { /* cut short */
			struct slice cut = exact((struct slice){ in.p, n });
			node_address_parse(cut, &p);
			exact_free(cut);
		}
		exact_free(in);
	}
	rows_end();
}

/* ---- ways ---- */

static const struct {
	const char *base, *pattern, *key, *address, *why;
} made[] = {
	{ "/tmp/s/", NULL, "example.com", "/tmp/s/example.com", "base" },
	{ "/tmp/s", NULL, "x", "/tmp/sx", "no slash is added" },
	{ "/tmp/s/", NULL, "example.com:8000", "/tmp/s/example.com:8000", "a port is part of it" },
	{ NULL, "/tmp/%s/uwsgi.sock", "a.b", "/tmp/a.b/uwsgi.sock", "pattern" },
	{ NULL, "/%%/%s-%s", "k", "/%/k-k", "percent, twice" },
	{ NULL, "/%d%", "k", "/%d%", "other percents stay" },
	{ NULL, "127.0.0.1:%s", "80", "127.0.0.1:80", "a pattern of ports" },
	{ "/tmp/s/", "/p/%s", "k", "/p/k", "pattern goes first" },
	{ "/tmp/s/", NULL, "..", "", "climbs" },
	{ "/tmp/s/", NULL, ".", "", "the directory" },
	{ "/tmp/s/", NULL, "../x", "", "climbs further" },
	{ "/tmp/s/", NULL, "a/b", "", "goes down" },
	{ "/tmp/s/", NULL, "", "", "empty" },
	{ NULL, "/p/%s", "..", "", "climbs by pattern" },
	{ "/tmp/s/", NULL, "a,9", "", "says a modifier" },
	{ NULL, "/p/%s", "a,9", "", "says one by pattern" },
	{ NULL, "/p/%s,5", "a", "/p/a", "the pattern may" },
};

static void
test_made(void **state)
{
	(void)state;
	opened();
	rc.subscription_server.n = 0;
	for (size_t i = 0; i < LEN(made); i++) {
		rc.use_base = made[i].base;
		rc.use_pattern = made[i].pattern;
		row_slice(made[i].why, slice_of(made[i].key), "address",
		    slice_of(picked(made[i].key, NULL)), slice_of(made[i].address));
	}
	assert_int_equal(nodes_pick(&rc, S("a\0b"), &from, 0, &(struct node_pick){ .nth = 0 }),
	    PICKED_NOTHING);
	rows_end();
}

static void
test_order(void **state)
{
	(void)state;
	opened();
	rc.use_base = "/b/";
	rc.code_file = "m.py";
	assert_string_equal(picked("k", NULL), ""); /* the server knows no k, and is the only way */
	announce("k", "/node", 1);
	assert_string_equal(picked("k", NULL), "/node");
	rc.use_pattern = "/p/%s";
	assert_string_equal(picked("k", NULL), "/p/k");
	rc.use_cache = true;
	assert_string_equal(picked("k", NULL), "");
	nodes_cache_set(rc.cache_scope, S("k"), S("/c"), 0, BY_CONF);
	assert_string_equal(picked("k", NULL), "/c");
	rc.use_cache = false;
	rc.use_pattern = NULL;
	rc.subscription_server.n = 0;
	assert_string_equal(picked("k", NULL), "/b/k");
	rc.use_base = NULL;
	assert_int_equal(nodes_pick(&rc, S("k"), &from, 0, &(struct node_pick){ .nth = 0 }), PICKED_ASK);
}

static void
test_cache(void **state)
{
	static const char *const turns[] = { "/a", "127.0.0.1:81", "/c", "/a" };
	struct node_pick p;

	(void)state;
	opened();
	rc.use_cache = true;
	assert_true(nodes_cache_set(rc.cache_scope, S("k"), S("/a|127.0.0.1:81,5|/c,9"), 0, BY_CONF));
	for (size_t i = 0; i < LEN(turns); i++) {
		assert_string_equal(picked("k", &p), turns[i]);
		assert_int_equal(p.modifier1, i == 1 ? 5 : i == 2 ? 9 : 0);
		nodes_done(&p, 0, 0);
	}
	assert_true(nodes_cache_set(rc.cache_scope, S("k"), S("/b"), (uint32_t)now_s + 5, BY_COMMAND));
	assert_string_equal(picked("k", NULL), "/b");
	assert_string_equal(picked("K", NULL), "/b"); /* which uWSGI does not try */
	now_s += 5;
	assert_string_equal(picked("k", NULL), ""); /* it has expired */
	assert_int_equal(nodes_cache_get(rc.cache_scope, S("k")), 0);
	nodes_sweep(&cf);
	assert_int_equal(node_key_find(rc.cache_scope, S("k")), 0);
	clock_turn();
	nodes_cache_set(rc.cache_scope, S("a"), S("/a"), 0, BY_FILE);
	nodes_cache_set(rc.cache_scope, S("b"), S("/b"), 0, BY_FILE);
	nodes_cache_set(rc.cache_scope, S("c"), S("/c"), 0, BY_COMMAND);
	nodes_cache_turn(rc.cache_scope, BY_FILE, BY_NOBODY); /* the file is read anew */
	assert_string_equal(picked("a", NULL), "");
	assert_string_equal(picked("b", NULL), "");
	assert_string_equal(picked("c", NULL), "/c");
	assert_true(nodes_cache_del(rc.cache_scope, S("c")));
	assert_false(nodes_cache_del(rc.cache_scope, S("c")));
	assert_string_equal(picked("c", NULL), "");
}

static void
test_static(void **state)
{
	struct node_conf to[3] = { { .modifier1 = 0 }, { .modifier1 = 7 }, { .modifier1 = 0 } };
	static const char *const texts[] = { "127.0.0.1:81", "unix:/b", "@c" };
	static const char *const in[] = { "127.0.0.1:81", "/b", "@c" };
	struct node_pick p, again;
	const char *why;

	(void)state;
	opened();
	for (int i = 0; i < 3; i++)
		assert_true(addr_parse(&cf.arena, slice_of(in[i]), &to[i].addr, &why));
	rc.subscription_server.n = 0;
	rc.to = (struct node_confs){ to, 3 };
	for (int i = 0; i < 6; i++)
		assert_string_equal(picked("any", NULL), texts[i % 3]);
	picked("any", &p);
	nodes_failed(&rc, &p);
	assert_string_equal(picked("any", NULL), "unix:/b");
	assert_string_equal(picked("any", &p), "@c");
	assert_int_equal(p.to_n, offsetof(struct sockaddr_un, sun_path) + 2); /* NUL c */
	nodes_done(&p, 0, 0);
	assert_string_equal(picked("any", NULL), "unix:/b"); /* in place of the first */
	now_ms += 29999;
	picked("any", NULL);
	assert_string_equal(picked("any", NULL), "@c");
	now_ms += 1;
	assert_string_equal(picked("any", NULL), "127.0.0.1:81"); /* the grace time is over */
	for (int i = 0; i < 3; i++) {
		picked("any", &again);
		nodes_failed(&rc, &again);
	}
	assert_string_equal(picked("any", NULL), ""); /* all rest */
	assert_int_equal(node_flights(rc.place), 0);
	arena_free(&cf.arena);
}

static void
test_fallback(void **state)
{
	struct node_conf back[2] = { { .modifier1 = 0 }, { .modifier1 = 9 } };
	struct node_pick p = { .nth = 0 };
	const char *why;

	(void)state;
	opened();
	assert_true(addr_parse(&cf.arena, S("/f1"), &back[0].addr, &why));
	assert_true(addr_parse(&cf.arena, S("/f2"), &back[1].addr, &why));
	rc.fallback = (struct node_confs){ back, 2 };
	assert_string_equal(picked("k", NULL), ""); /* not for a key without a node */
	announce("k", "/n1", 1);
	announce("k", "/n2", 1);
	node_at(node_key_at(node_key_find(rc.scope, S("k")))->nodes)->modifiers = 5 << 8 | 6;
	assert_int_equal(nodes_pick(&rc, S("k"), &from, 0, &p), PICKED);
	assert_string_equal(p.address, "/n2");
	nodes_failed(&rc, &p);
	assert_int_equal(nodes_pick(&rc, S("k"), &from, 1, &p), PICKED);
	assert_string_equal(p.address, "/n1"); /* first the other nodes */
	nodes_failed(&rc, &p);
	assert_int_equal(nodes_pick(&rc, S("k"), &from, 2, &p), PICKED);
	assert_string_equal(p.address, "unix:/f1");
	nodes_failed(&rc, &p);
	assert_int_equal(nodes_pick(&rc, S("k"), &from, 3, &p), PICKED);
	assert_string_equal(p.address, "unix:/f2");
	assert_int_equal(p.modifier1, 9);
	nodes_failed(&rc, &p);
	assert_int_equal(nodes_pick(&rc, S("k"), &from, 4, &p), PICKED_NOTHING);
	rc.fallback_on_no_key = true;
	assert_string_equal(picked("other", NULL), "unix:/f1");
	assert_int_equal(node_flights(rc.place), 0);
	rc.fallback = (struct node_confs){ NULL, 0 };
	arena_free(&cf.arena);
}

/* ---- subscriptions ---- */

static const struct {
	const char *known, *key, *why;
	bool dots, found;
} keys[] = {
	{ "example.com", "example.com", "exact", false, true },
	{ "example.com", "example.com:80", "the port is part of it", false, false },
	{ "example.com", "Example.COM", "lower case, which uWSGI does not try", false, true },
	{ "Example.com", "example.com", "never upper case", false, false },
	{ ".unbit.it", "www.unbit.it", "without dotsplit", false, false },
	{ ".unbit.it", "www.unbit.it", "the part with its dot", true, true },
	{ ".it", "www.unbit.it", "the next part", true, true },
	{ "unbit.it", "www.unbit.it", "never without the dot", true, false },
	{ ".e", "a.b.c.d.e", "the fifth try", true, true },
	{ ".f", "a.b.c.d.e.f", "a sixth one", true, false },
	{ ".", ".", "only a dot", true, true },
	{ ".b", "a..b", "two dots", true, true },
};

static void
test_keys(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(keys); i++) {
		opened();
		rc.dotsplit = keys[i].dots;
		announce(keys[i].known, "/n", 1);
		row_int(keys[i].why, slice_of(keys[i].key), "found", *picked(keys[i].key, NULL) != 0,
		    keys[i].found);
	}
	rows_end();
	opened();
	rc.fallback_key = "last";
	announce("last", "/last", 1);
	assert_string_equal(picked("a.b", NULL), "/last");
}

/* Picks one after another; `-` lets go of them before the next. */
static const struct {
	enum node_algo algo;
	const char *weights; /* of nodes a, b, c…; 0: backup level 1; x: dead */
	bool busy;           /* each request stays */
	const char *picks, *why;
} algos[] = {
	{ NODE_WRR, "11", false, "babababa", "in turn" },
	{ NODE_WRR, "13", false, "babbbabb", "1 : 3, exactly in each four" },
	{ NODE_WRR, "246", false, "cabbcccabbcc", "2 : 4 : 6" },
	{ NODE_WRR, "1x1", false, "cacaca", "not the dead" },
	{ NODE_WRR, "x", false, "------", "only a dead one" },
	{ NODE_WRR, "10", false, "aaaa", "not a backup" },
	{ NODE_WRR, "x0", false, "bbbb", "a backup" },
	{ NODE_LRC, "111", true, "abcabcabc", "the fewest" },
	{ NODE_LRC, "111", false, "abcabcabc", "ties in turn" },
	{ NODE_LRC, "1x1", true, "acacac", "not the dead" },
	{ NODE_WLRC, "13", true, "abbbabbb", "for their weight" },
	{ NODE_WLRC, "11", false, "abab", "ties in turn" },
	{ NODE_IPHASH, "111", false, "cccc", "127.0.0.1 modulo 3" },
	{ NODE_IPHASH, "1x1", false, "cccc", "modulo those that live" },
};

static void
algo_row(size_t i)
{
	struct node_pick p[32];
	char got[32] = "", address[] = "/a";
	size_t n = strlen(algos[i].picks);

	opened();
	rc.algo = algos[i].algo;
	for (const char *w = algos[i].weights; *w; w++) {
		struct announcement a;
		address[1] = (char)('a' + (w - algos[i].weights));
		a = said("k", address, *w == 'x' ? 1 : (uint32_t)(*w - '0'));
		a.backup = *w == '0';
		nodes_announce(&rc, &a, NULL);
		if (*w == 'x')
			nodes_withdraw(&rc, &a);
	}
	for (size_t k = 0; k < n; k++) {
		const char *to = picked("k", &p[k]);
		got[k] = *to ? to[1] : '-';
		if (!algos[i].busy)
			nodes_done(&p[k], 0, 0);
	}
	row_slice(algos[i].why, slice_of(algos[i].weights), "picks", slice_of(got),
	    slice_of(algos[i].picks));
	for (size_t k = 0; k < n && algos[i].busy; k++)
		nodes_done(&p[k], 0, 0);
	assert_int_equal(node_flights(rc.place), 0);
}

static void
test_algos(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(algos); i++)
		algo_row(i);
	rows_end();
}

/* A key may bring its own algorithm. */
static void
test_algo_of_key(void **state)
{
	struct announcement a = said("k", "/a", 1);

	(void)state;
	opened();
	a.algo = S("lrc");
	nodes_announce(&rc, &a, NULL);
	announce("k", "/b", 1);
	assert_string_equal(picked("k", NULL), "/a"); /* wrr would take the last */
}

static void
test_life(void **state)
{
	struct announcement a = said("k", "/a", 1), b = said("k", "/b", 1);
	struct node_pick p;

	(void)state;
	opened();
	assert_false(nodes_awake(&rc));
	assert_int_equal(nodes_announce(&rc, &a, NULL), NODE_NEW);
	assert_int_equal(nodes_announce(&rc, &a, NULL), NODE_KNOWN);
	assert_int_equal(nodes_announce(&rc, &b, NULL), NODE_NEW);
	assert_int_equal(announce("k", "no.address:http", 1), NODE_BAD);
	assert_true(nodes_awake(&rc));
	assert_int_equal(NODES->scopes[rc.place].live, 2);
	/* a leaves: no new requests; what is in flight finishes */
	assert_string_equal(picked("k", NULL), "/b");
	assert_string_equal(picked("k", &p), "/a");
	assert_true(nodes_withdraw(&rc, &a));
	assert_false(nodes_withdraw(&rc, &a));
	for (int i = 0; i < 5; i++)
		assert_string_equal(picked("k", NULL), "/b");
	assert_true(nodes_sweep(&cf));
	assert_int_equal(NODES->scopes[rc.place].live, 1);
	assert_int_not_equal(node_find(node_key_at(node_key_find(rc.scope, S("k"))), S("/a")), 0);
	nodes_done(&p, 10, 20);
	nodes_sweep(&cf);
	assert_int_equal(node_find(node_key_at(node_key_find(rc.scope, S("k"))), S("/a")), 0);
	/* b fails, and comes back with its next announcement */
	picked("k", &p);
	nodes_failed(&rc, &p);
	assert_false(nodes_awake(&rc));
	assert_string_equal(picked("k", NULL), "");
	assert_int_equal(nodes_announce(&rc, &b, NULL), NODE_KNOWN);
	assert_true(nodes_awake(&rc));
	assert_string_equal(picked("k", NULL), "/b");
	/* silence: usable at 17 s, gone by 18 s */
	for (int s = 1; s <= 18; s++) {
		now_ms += 1000;
		now_s += 1;
		nodes_sweep(&cf);
		assert_string_equal(picked("k", NULL), s <= 17 ? "/b" : "");
	}
	assert_int_equal(node_key_find(rc.scope, S("k")), 0);
	assert_false(nodes_sweep(&cf));
	clock_turn();
}

/* No clerk has listened for a while: that is not the nodes' silence. */
static void
test_gap(void **state)
{
	(void)state;
	opened();
	announce("k", "/a", 1);
	nodes_sweep(&cf);
	now_ms += 3600000;
	nodes_sweep(&cf);
	assert_string_equal(picked("k", NULL), "/a");
	for (int s = 0; s < 20; s++) {
		now_ms += 1000;
		nodes_sweep(&cf);
	}
	assert_string_equal(picked("k", NULL), "");
	clock_turn();
}

/* A router that is no more takes its nodes along; a new one starts without. */
static void
test_routers(void **state)
{
	struct addr other = { .text = "127.0.0.1:5050" };
	uint32_t was;

	(void)state;
	opened();
	announce("k", "/a", 1);
	was = rc.scope;
	nodes_attach(&cf);
	assert_int_equal(rc.scope, was); /* as after a reload */
	rc.subscription_server.v = &other;
	nodes_attach(&cf);
	assert_int_not_equal(rc.scope, was);
	assert_string_equal(picked("k", NULL), "");
	nodes_sweep(&cf);
	nodes_sweep(&cf);
	assert_int_equal(node_key_find(was, S("k")), 0);
}

/* ---- memory ---- */

static unsigned
units_free(void)
{
	unsigned n = NODE_UNITS - NODES->fresh;

	for (uint32_t i = NODE_SCOPES; i < NODES->fresh; i++)
		n += !bit_get(node_used, i);
	return n;
}

static void
test_full(void **state)
{
	char key[32];
	unsigned n = 0, room;

	(void)state;
	opened();
	room = units_free();
	do
		snprintf(key, sizeof key, "key%u", n++);
	while (announce(key, "127.0.0.1:80", 1) != NODE_NO_ROOM);
	assert_in_range(n, 8000, NODE_UNITS);
	assert_string_equal(picked("key0", NULL), "127.0.0.1:80");
	assert_int_equal(announce("key0", "127.0.0.1:80", 1), NODE_KNOWN);
	now_ms += 17001;
	NODES->swept_ms = clock_low(now_ms);
	for (int i = 0; i < 4; i++)
		nodes_sweep(&cf);
	assert_int_equal(units_free(), room);
	assert_int_equal(announce("new", "127.0.0.1:80", 1), NODE_NEW);
	clock_turn();
}

/* One key does not fill the table. */
static void
test_share(void **state)
{
	char address[32];
	int n = 0;

	(void)state;
	opened();
	do
		snprintf(address, sizeof address, "127.0.%d.%d:80", n / 200, n % 200 + 1);
	while (n++ < 20000 && announce("greedy", address, 1) == NODE_NEW);
	assert_int_equal(n, NODES_OF_KEY + 1);
	assert_int_equal(announce("greedy", "127.0.0.1:80", 1), NODE_KNOWN);
	assert_int_equal(announce("other", address, 1), NODE_NEW);
}

/* What a worker reads does not become another's. */
static void
test_rest(void **state)
{
	uint32_t i;

	(void)state;
	opened();
	announce("k", "/a", 1);
	i = node_key_find(rc.scope, S("k"));
	NODES->reading[0] = NODES->epoch; /* it sleeps while it reads */
	now_ms += 17001;
	NODES->swept_ms = clock_low(now_ms);
	for (int n = 0; n < 5; n++)
		nodes_sweep(&cf);
	assert_true(bit_get(node_used, i));
	nodes_worker_gone(0); /* killed */
	for (int n = 0; n < 2; n++)
		nodes_sweep(&cf);
	assert_false(bit_get(node_used, i));
	clock_turn();
}

/* ---- signatures ---- */

static const struct {
	const char *steps; /* s, u with an offset to the first unix; + accepted, - refused */
	const char *why;
} stamps[] = {
	{ "s0+s0-", "the same again" },
	{ "s0+s1+s0-", "an older one" },
	{ "s0+u1+u1-", "an unsubscription again" },
	{ "s5+u6+s5-s6+", "restarted within the second" },
	{ "s5+u6+s4-", "sniffed before it left" },
	{ "u5+s3-s4+", "u - 1 is good" },
	{ "s5+u5-u6+", "an unsubscription must be newer" },
	{ "s5+u4-", "or it is an older one" },
};

static void
test_stamps(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(stamps); i++) {
		opened();
		for (const char *p = stamps[i].steps; *p; p += 3) {
			struct announcement a = said("k", "/a", 1);
			a.leaves = p[0] == 'u';
			a.unix = (uint32_t)now_s - 10 + (uint32_t)(p[1] - '0');
			row_int(stamps[i].why, slice_of(p), "accepted", nodes_stamp(&rc, &a, true),
			    p[2] == '+');
		}
	}
	rows_end();
}

static void
test_stamps_old(void **state)
{
	struct announcement a = said("k", "/a", 1);

	(void)state;
	opened();
	a.unix = (uint32_t)now_s - 86401;
	assert_false(nodes_stamp(&rc, &a, true));
	a.unix = (uint32_t)now_s - 86400;
	assert_true(nodes_stamp(&rc, &a, false)); /* only asked */
	assert_true(nodes_stamp(&rc, &a, true));
	assert_false(nodes_stamp(&rc, &a, true));
}

/* More nodes than stamps: what made way is not taken again. */
static void
test_stamps_full(void **state)
{
	char address[32];
	struct announcement a = said("k", address, 1);
	uint32_t first = (uint32_t)time(NULL) - 80000, taken = 0;

	(void)state;
	opened();
	for (uint32_t n = 0; n < 2 * NODE_STAMPS; n++) {
		a.address.n = (size_t)snprintf(address, sizeof address, "/%u", n);
		a.unix = first + n;
		taken += nodes_stamp(&rc, &a, true);
	}
	assert_int_equal(taken, 2 * NODE_STAMPS);
	for (uint32_t n = 0; n < 2 * NODE_STAMPS; n++) {
		a.address.n = (size_t)snprintf(address, sizeof address, "/%u", n);
		a.unix = first + n;
		assert_false(nodes_stamp(&rc, &a, true));
	}
}

/* ---- processes that are killed ---- */

enum { STRESS_KEYS = 50, STRESS_NODES = 4, STRESS_KILLS = 150 };

static void
stress_name(char key[32], char address[32], unsigned k, unsigned n)
{
	snprintf(key, 32, "key%u%s", k, k % 7 == 0 ? ".example.com:8000" : "");
	snprintf(address, 32, "127.0.%u.%u:80", k, n + 1);
}

/* Announces, withdraws and sweeps for ever. */
_Noreturn static void
stress_clerk(unsigned seed)
{
	char key[32], address[32];

	unit_seed = seed;
	memset(node_rests, 0, sizeof node_rests);
	nodes_open();
	for (;;) {
		struct announcement a;
		unsigned k = dice(STRESS_KEYS), n = dice(STRESS_NODES), what = dice(20);
		clock_turn();
		stress_name(key, address, k, n);
		a = said(key, address, 1 + dice(3));
		if (what < 10)
			nodes_announce(&rc, &a, NULL);
		else if (what < 18)
			nodes_withdraw(&rc, &a);
		else
			nodes_sweep(&cf);
		if (what == 19)
			nodes_cache_set(rc.cache_scope, slice_of(key), slice_of(address), 0, BY_COMMAND);
		else if (what == 18)
			nodes_cache_del(rc.cache_scope, slice_of(key));
	}
}

/* Picks for ever; a node of another key is the end. */
_Noreturn static void
stress_worker(unsigned slot, unsigned seed)
{
	char key[32], address[32];
	struct node_pick p[4] = { { .nth = 0 } };

	unit_seed = seed;
	nodes_join(slot);
	for (unsigned i = 0;; i = (i + 1) % LEN(p)) {
		unsigned k = dice(STRESS_KEYS), c, n;
		if (p[i].address[0])
			dice(3) ? nodes_done(&p[i], 1, 2) : nodes_failed(&rc, &p[i]);
		p[i] = (struct node_pick){ .nth = 0 };
		stress_name(key, address, k, 0);
		rc.algo = (enum node_algo)dice(NODE_ALGOS);
		rc.use_cache = dice(5) == 0;
		if (nodes_pick(&rc, slice_of(key), &from, 0, &p[i]) != PICKED)
			p[i].address[0] = '\0';
		else if (sscanf(p[i].address, "127.0.%u.%u:80", &c, &n) != 2 || c != k || n < 1 ||
		    n > STRESS_NODES)
			_exit(EXIT_OTHER);
	}
}

static pid_t
stress_start(unsigned slot)
{
	static unsigned seed;
	pid_t pid = fork();

	seed++;
	if (pid == 0) {
		log_level = LOG_LVL_ERROR;
		if (slot == 0)
			stress_clerk(seed);
		stress_worker(slot, seed);
	}
	assert_true(pid > 0);
	return pid;
}

static void
test_kills(void **state)
{
	pid_t pids[4];
	int status;

	(void)state;
	opened();
	for (unsigned i = 0; i < LEN(pids); i++)
		pids[i] = stress_start(i);
	for (int n = 0; n < STRESS_KILLS; n++) {
		unsigned i = dice(LEN(pids));
		usleep(1000 + dice(8000));
		kill(pids[i], SIGKILL);
		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL); /* no wrong node */
		if (i > 0)
			nodes_worker_gone(i);
		pids[i] = stress_start(i);
	}
	for (unsigned i = 0; i < LEN(pids); i++) {
		kill(pids[i], SIGKILL);
		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		if (i > 0)
			nodes_worker_gone(i);
	}
	/* nothing is left behind: all goes, and all memory comes back */
	memset(node_rests, 0, sizeof node_rests);
	nodes_open();
	for (uint32_t i = 0; i < NODES->fresh; i++)
		assert_int_equal(node_flights(i), 0);
	nodes_cache_turn(rc.cache_scope, BY_COMMAND, BY_NOBODY);
	nodes_cache_turn(rc.cache_scope, BY_CONF, BY_NOBODY);
	cf.n_routers = cf.n_servers = 0;
	for (int i = 0; i < 5; i++)
		nodes_sweep(&cf);
	assert_false(nodes_sweep(&cf));
	assert_int_equal(units_free(), NODE_UNITS - NODE_SCOPES);
}

/* ---- figures ---- */

static void
test_json(void **state)
{
	struct arena a = { NULL };
	struct announcement said_a = said("a\"b\x01", "/n\"", 3);
	struct node_pick p;
	const struct json *v, *k, *n;
	size_t size;
	char *text;
	FILE *to = open_memstream(&text, &size);

	(void)state;
	opened();
	said_a.modifier1 = 5;
	nodes_announce(&rc, &said_a, NULL);
	assert_string_equal(picked("a\"b\x01", &p), "/n\"");
	nodes_json(to, &rc);
	fclose(to);
	v = json_parse(&a, (struct slice){ text, size });
	assert_non_null(v);
	assert_string_equal(json_get(v, "active_sessions")->text.p, "1");
	k = json_get(v, "subscriptions")->first;
	assert_string_equal(json_text(k, "key").p, "a\"b\x01");
	n = json_get(k, "nodes")->first;
	assert_string_equal(json_text(n, "name").p, "/n\"");
	assert_string_equal(json_get(n, "modifier1")->text.p, "5");
	assert_string_equal(json_get(n, "weight")->text.p, "3");
	assert_string_equal(json_get(n, "ref")->text.p, "1");
	assert_string_equal(json_get(n, "requests")->text.p, "1");
	nodes_done(&p, 1, 1);
	free(text);
	arena_free(&a);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addresses), cmocka_unit_test(test_made),
		cmocka_unit_test(test_order), cmocka_unit_test(test_cache),
		cmocka_unit_test(test_static), cmocka_unit_test(test_fallback),
		cmocka_unit_test(test_keys), cmocka_unit_test(test_algos),
		cmocka_unit_test(test_algo_of_key), cmocka_unit_test(test_life),
		cmocka_unit_test(test_gap), cmocka_unit_test(test_routers),
		cmocka_unit_test(test_full), cmocka_unit_test(test_share), cmocka_unit_test(test_rest),
		cmocka_unit_test(test_stamps), cmocka_unit_test(test_stamps_old),
		cmocka_unit_test(test_stamps_full), cmocka_unit_test(test_kills),
		cmocka_unit_test(test_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
