/* The sections of a FastRouter and of shared sockets: errors with their places, warnings,
 * presets, and what becomes of each key. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

static char dir[] = "/tmp/warp-router-XXXXXX";
static char file[sizeof dir + 16];

static struct conf *
load(const char *text)
{
	return conf_from(file, text);
}

#define FR "[fastrouter]\nlisten = \":3017\"\n"
#define SHARED2 "[[shared_sockets]]\nlisten = \"127.0.0.1:3032\"\n"
#define SHARED "[[shared_sockets]]\nlisten = \"127.0.0.1:3031\"\n"

static const struct {
	const char *toml, *want;
	bool error;
} rows[] = {
	{ "[fastrouter]\nto = \":1\"\n", "1:2: error: fastrouter.listen: is missing: where do uwsgi packets", true },
	{ FR, "1:2: warning: fastrouter: routes nothing: say use_cache, use_pattern", false }, /* S1-24 */
	{ FR "too = \":1\"\n", "3:1: error: unknown key 'too' in fastrouter, did you mean 'to'?", true },
	{ FR "to = \"localhost:1\"\n", "3:6: error: fastrouter.to: localhost:1: give an IP address", true },
	{ FR "to = [\":1\", \":1,256\"]\n", "3:13: error: fastrouter.to: :1,256: expected a number from 0 to 255", true },
	{ FR "to = \"http://h:1\"\n", "error: fastrouter.to: http://h:1: this is spoken to by the uwsgi protocol", true },
	{ FR "to = \"1.2.3.4:0\"\n", "with a port from 1 to 65535", true },
	{ FR "to = \"=0\"\n", "expected an address to connect to", true },
	{ FR "to = \"\"\n", "expected an address", true },
	{ FR "to = 5\n", "3:6: error: fastrouter.to: expected an address or a list of addresses, got 5", true },
	{ FR "fallback = \"a,b\"\n", "3:12: error: fastrouter.fallback: a,b: expected a number", true },
	{ "[fastrouter]\nlisten = [\":1\", \":1\"]\nto = \"x\"\n", "2:10: error: fastrouter.listen: :1 is listened on by it twice", true },
	{ "[fastrouter]\nlisten = [\":1\", \"127.0.0.1:1\"]\nto = \"x\"\n", "127.0.0.1:1 is listened on by it twice", true },
	{ "[fastrouter]\nlisten = \"h:1\"\nto = \"x\"\n", "2:10: error: fastrouter.listen: h:1: give an IP address, not a name", true },
	{ "[fastrouter]\nlisten = \"https://1.2.3.4:1\"\nto = \"x\"\n", "1.2.3.4:1: what comes there is no http", true },
	{ "[server]\nhttp_port = 3017\n" FR "to = \"x\"\n", "4:10: error: fastrouter.listen: :3017 is listened on by [server] as well", true },
	{ "[admin]\nlisten = \"127.0.0.1:3017\"\ntoken = \"x\"\n" FR "to = \"x\"\n", ":3017 is listened on by [admin] as well", true },
	{ "[[fastrouter]]\nlisten = \"@a\"\nto = \"x\"\n[[fastrouter]]\nlisten = \"\\\\0a\"\nto = \"x\"\n",
	    "5:10: error: fastrouter.listen: @a is listened on by another [fastrouter] as well", true },
	{ "[[fastrouter]]\nlisten = \":1\"\n[[fastrouter]]\nlisten = \":2\"\n[[fastrouter]]\nlisten = \":3\"\n"
	  "[[fastrouter]]\nlisten = \":4\"\n[[fastrouter]]\nlisten = \":5\"\n[[fastrouter]]\nlisten = \":6\"\n"
	  "[[fastrouter]]\nlisten = \":7\"\n[[fastrouter]]\nlisten = \":8\"\n[[fastrouter]]\nlisten = \":9\"\n",
	    "17:3: error: fastrouter: more than 8 of them", true },
	{ "fastrouter = 5\n", "error: expected a section [fastrouter]", true },
	{ FR "use_base = \"\"\n", "3:12: error: fastrouter.use_base: must not be empty", true },
	{ FR "use_pattern = \"/x\"\n", "3:15: error: fastrouter.use_pattern: expected %s in it", true },
	{ FR "use_cache = 5\n", "3:13: error: fastrouter.use_cache: expected true or the map's name, got 5", true },
	{ FR "to = \"x\"\ncache_file = \"m\"\n", "4:14: warning: fastrouter.cache_file: does nothing without use_cache", false },
	{ FR "use_cache = true\ncache_items = 1\ncache = { a = \"x\", b = \"y\" }\n", "fastrouter.cache: 2 entries, cache_items is 1", true },
	{ FR "use_cache = true\n[fastrouter.cache]\na = \"x,1|y,z\"\n", "5:5: error: fastrouter.cache: a: y,z: expected a number", true },
	{ FR "use_cache = true\n[fastrouter.cache]\n\"\" = \"x\"\n", "a key has 1 to 255 bytes", true },
	{ FR "use_code_string = \"0:x\"\n", "3:19: error: fastrouter.use_code_string: expected MODIFIER1:FILE:FUNCTION", true },
	{ FR "use_code_string = \"0:x:\"\n", "expected MODIFIER1:FILE:FUNCTION", true },
	{ FR "use_code_string = \"0::get\"\n", "expected MODIFIER1:FILE:FUNCTION", true },
	{ FR "use_code_string = \"python:x:get\"\n", "expected MODIFIER1:FILE:FUNCTION", true },
	{ FR "use_code_string = \"5:x:get\"\n", "modifier1 5: expected 0, Python, or 6, Lua", true },
	{ FR "use_code_string = \"0:x:y\"\nuse_program = \"x\"\n", "4:15: error: fastrouter.use_program: excludes use_code_string", true },
	{ FR "use_program = \"'x\"\n", "3:15: error: fastrouter.use_program: the ' at character 1 of it is never closed", true },
	{ FR "use_program = \" \"\n", "names no program", true },
	{ FR "to = \"x\"\nfallback_on_no_key = true\n", "fallback_on_no_key: needs fallback", true },
	{ FR "to = \"x\"\ntimeout = 0\n", "4:11: error: fastrouter.timeout: expected a number of seconds from 0.001", true },
	{ FR "to = \"x\"\ncheap = true\n", "4:9: warning: fastrouter.cheap: without subscription_server nobody is ever accepted", false },
	{ FR "to = \"x\"\nsubscription_dotsplit = true\n", "warning: fastrouter.subscription_dotsplit: does nothing without subscription_server", false },
	{ FR "subscription_server = \":7\"\nsubscription_algo = \"wrrr\"\n", "expected one of wrr lrc wlrc iphash", true },
	{ FR "subscription_server = \"h:7\"\n", "3:23: error: fastrouter.subscription_server: h:7: give an IP address", true },
	{ FR "subscription_server = \":7\"\nsubscriptions_sign_check = \"SHA257:/x\"\n", "did you mean 'sha256'?", true },
	{ FR "subscription_server = \":7\"\nsubscriptions_sign_check = \"SHA256\"\n", "expected DIGEST:DIR", true },
	{ FR "subscription_server = \":7\"\nsubscriptions_sign_skip_uid = \"nobody-at-all\"\n", "this host has no user nobody-at-all", true },
	{ FR "subscription_server = \":7\"\nresubscribe = \"h:7\"\n", "resubscribe: h:7: give an IP address or a path", true },
	{ FR "subscription_server = \":7\"\nresubscribe_bind = [\":8\", \":9\"]\n", "resubscribe_bind: expected one address", true },
	{ FR "subscription_server = \":7\"\nsubscription_fallback_key = \"\"\n", "a key has 1 to 255 bytes", true },
	{ FR "to = \"x\"\nevents = 100\n", "4:10: warning: fastrouter.events: changes nothing in warp", false },
	{ FR "to = \"x\"\nchmod_socket = \"888\"\n", "chmod_socket: expected a file mode", true },
	{ "[[shared_sockets]]\n" FR, "1:3: error: shared_sockets.listen: expected one address", true },
	{ "[[shared_sockets]]\nlisten = [\":1\", \":2\"]\n" FR, "shared_sockets.listen: expected one address", true },
	{ "[[shared_sockets]]\nlisten = \"=0\"\n" FR, "shared_sockets.listen: expected one address", true },
	{ "[[shared_sockets]]\nlisten = \"h:1\"\n" FR, "2:10: error: shared_sockets.listen: h:1: give an IP address", true },
	{ SHARED "[[shared_sockets]]\nlisten = \":3031\"\n" FR, "127.0.0.1:3031 and :3031 cannot both be bound", true },
	{ SHARED "[fastrouter]\nlisten = \"=1\"\n", "4:10: error: fastrouter.listen: =1: there is only 1 of [[shared_sockets]], from =0 on", true },
	{ SHARED "[server]\nlisten = [\"=7\"]\n" FR, "4:10: error: server.listen: =7: there is only 1", true },
	{ SHARED "[processes.a]\ncommand = \"true\"\nshared_sockets = [0, 1]\n",
	    "5:18: error: processes.a.shared_sockets: 1: expected numbers of [[shared_sockets]], from 0 on", true },
	{ SHARED "[processes.a]\ncommand = \"true\"\nshared_sockets = \"x\"\n", "processes.a.shared_sockets: x: expected numbers", true },
	{ SHARED SHARED2 "[processes.a]\ncommand = \"true\"\nargs = [\"fd://{fd0}\", \"{fd1}\"]\nshared_sockets = 1\n",
	    "7:8: error: processes.a.args: {fd0}: shared_sockets does not name that number", true },
	{ "[processes.a]\ncommand = \"true {fd0}\"\n", "2:11: error: processes.a.command: {fd0}: shared_sockets does not", true },
	{ SHARED SHARED2 "[processes.a]\ncommand = \"true\"\nargs = [\"{fd}\", \"{fdx}\", \"{fd1}{fd0}\"]\nshared_sockets = [0, 1, 0]\n", "", false },
#define TELLS(what) "[upstreams.a]\n[upstreams.a.process]\ncommand = \"true\"\nsubscribe_to = [\"" what "\"]\n"
#define LONE(what) SHARED "[processes.a]\ncommand = \"true\"\nsubscribe_to = \"" what "\"\n"
	{ TELLS("127.0.0.1:7000:example.com"), "", false }, /* S1-32 */
	{ TELLS("127.0.0.1:7000:example.com:8000,5"), "", false }, /* S1-33 */
	{ TELLS("[::1]:7000:k"), "", false },
	{ TELLS("/run/s:k=v"), "", false },
	{ TELLS("127.0.0.1:7000:@mappings.txt"), "", false },
	{ TELLS("127.0.0.1:7000:k=v"), "", false },
	{ TELLS("192.168.0.5:80=127.0.0.1:7000:k"), "", false },
	{ TELLS("127.0.0.1:7000"), "4:16: error: upstreams.a.process.subscribe_to: 127.0.0.1:7000: expected IP:PORT:KEY", true },
	{ TELLS("127.0.0.1:7000:"), "expected IP:PORT:KEY", true },
	{ TELLS("127.0.0.1:7000:,5"), "expected IP:PORT:KEY", true },
	{ TELLS("127.0.0.1:7000:k,256"), "expected IP:PORT:KEY", true },
	{ TELLS("127.0.0.1:7000:k,"), "expected IP:PORT:KEY", true },
	{ TELLS("127.0.0.1:0:k"), "expected IP:PORT:KEY", true },
	{ TELLS(":7000:k"), "expected IP:PORT:KEY", true },
	{ TELLS("host:7000:k"), "expected IP:PORT:KEY", true },
	{ TELLS("127.0.0.1:7000:@"), "", false }, /* a key */
	{ TELLS("="), "expected IP:PORT:KEY", true },
	{ TELLS(""), "expected IP:PORT:KEY", true },
	{ LONE("127.0.0.1:7000:k"), "5:16: error: processes.a.subscribe_to: 127.0.0.1:7000:k: which address?", true },
	{ LONE("127.0.0.1:80=127.0.0.1:7000:k"), "", false },
	{ LONE("=0=127.0.0.1:7000:k"), "", false },
	{ LONE("=1=127.0.0.1:7000:k"), "expected IP:PORT:KEY", true },
	{ SHARED "[server]\nlisten = [\"=0\"]\n[fastrouter]\nlisten = \"=0\"\n", "127.0.0.1:3031 is listened on by [server] as well", true },
};

static void
test_rows(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		struct conf *c = load(rows[i].toml);
		char *said = complaints(c);
		if (!strstr(said, rows[i].want) || (c->diags.errors > 0) != rows[i].error)
			row_bad(rows[i].want, slice_of(rows[i].toml), "said: %s", said);
		free(said);
		conf_free(c);
	}
	rows_end();
}

static struct conf *
load_good(const char *text)
{
	struct conf *c = load(text);
	char *said = complaints(c);

	if (c->diags.errors > 0)
		print_error("%s\n", said);
	assert_int_equal(c->diags.errors, 0);
	free(said);
	return c;
}

static void
test_presets(void **state)
{
	struct conf *c = load_good(FR);
	const struct router_conf *rc = &c->routers[0];

	(void)state;
	assert_int_equal(c->n_routers, 1);
	assert_int_equal(c->server.n_listens, 0); /* no preset port beside a FastRouter */
	assert_int_equal(rc->listen.n, 1);
	assert_true(!rc->use_base && !rc->use_pattern && !rc->use_cache && !rc->program && !rc->code_file);
	assert_int_equal(rc->code_modifier, -1);
	assert_int_equal(rc->chmod_socket, -1);
	assert_int_equal(rc->grace_ms, 30000);
	assert_int_equal(rc->timeout_ms, 60000);
	assert_int_equal(rc->tolerance_ms, 17000);
	assert_int_equal(rc->sign_tolerance_s, 86400);
	assert_int_equal(rc->algo, NODE_WRR);
	assert_true(rc->fd_passing && !rc->cheap && !rc->quiet && rc->post_buffering == 0);
	assert_string_equal(rc->cache_name, "default");
	conf_free(c);
}

/* Every key, in uWSGI's spellings of addresses. */
static void
test_all(void **state)
{
	struct conf *c = load_good(SHARED "[[shared_sockets]]\nlisten = \"/run/x.sock\"\n"
	    "[fastrouter]\nlisten = [\"=0\", \"@foo\", \"\\\\0bar\", \"rel.sock\", \"[::1]:5\"]\n"
	    "use_base = \"sockets/\"\nuse_pattern = \"127.0.0.1:%s\"\nuse_cache = \"m\"\n"
	    "cache_file = \"map\"\ncache_listen = \":6\"\nuse_code_string = \"0:a:b.py:get\"\n"
	    "to = [\"127.0.0.1:3031,5\", \":3032\", \"@x\", \"/a/b:80\"]\nfallback = \"f.sock,255\"\n"
	    "fallback_on_no_key = true\ngracetime = 2.5\ntimeout = 5\npost_buffering = 8192\n"
	    "post_buffering_dir = \"tmp\"\ncheap = true\nno_fd_passing = true\nquiet = true\n"
	    "subscription_server = [\":7\", \"/s\"]\nsubscription_fallback_key = \"d\"\n"
	    "subscription_tolerance = 3\nsubscription_algo = \"iphash\"\nsubscription_dotsplit = true\n"
	    "subscriptions_sign_check = \"SHA256:keys\"\nsubscriptions_sign_check_tolerance = 60\n"
	    "subscriptions_sign_skip_uid = [\"root\", 5]\nsubscriptions_use_credentials = true\n"
	    "subscriptions_credentials_check = [\"/c/\", \"d\"]\nresubscribe = \"1.2.3.4:7\"\n"
	    "resubscribe_bind = \":8\"\nstats = \":9\"\nstats_http = true\nbacklog = 7\n"
	    "chmod_socket = \"666\"\nprocesses = 3\nuid = 0\ngid = \"root\"\n"
	    "[fastrouter.cache]\n\"h:80\" = \"a|b,5\"\n");
	const struct router_conf *rc = &c->routers[0];
	const char *const listens[] = { "127.0.0.1:3031", "@foo", "\\0foo\\0", "@bar", "\\0bar\\0", NULL, "[::1]:5" };
	char path[64];

	(void)state;
	assert_int_equal(rc->listen.n, LEN(listens));
	for (size_t i = 0; i < LEN(listens); i++)
		if (listens[i])
			assert_string_equal(rc->listen.v[i].text, listens[i]);
	assert_int_equal(rc->listen.v[2].sock_n, rc->listen.v[1].sock_n + 1); /* a NUL behind it */
	snprintf(path, sizeof path, "unix:%s/rel.sock", dir);
	assert_string_equal(rc->listen.v[5].text, path);
	snprintf(path, sizeof path, "%s/sockets/", dir); /* the slash stays */
	assert_string_equal(rc->use_base, path);
	assert_string_equal(rc->use_pattern, "127.0.0.1:%s");
	assert_true(rc->use_cache && rc->cache.n == 1 && rc->cache_listen.n == 1);
	assert_string_equal(rc->cache_name, "m");
	assert_true(slice_eq(rc->cache.v[0].name, S("h:80")) && slice_eq(rc->cache.v[0].value, S("a|b,5")));
	assert_int_equal(rc->code_modifier, 0);
	snprintf(path, sizeof path, "%s/a:b.py", dir);
	assert_string_equal(rc->code_file, path);
	assert_string_equal(rc->code_function, "get");
	assert_int_equal(rc->to.n, 4);
	assert_int_equal(rc->to.v[0].modifier1, 5);
	assert_string_equal(rc->to.v[1].addr.text, "127.0.0.1:3032");
	assert_string_equal(rc->to.v[2].addr.text, "@x");
	assert_string_equal(rc->to.v[3].addr.text, "unix:/a/b:80"); /* a path, whatever is in it */
	assert_int_equal(rc->fallback.v[0].modifier1, 255);
	assert_true(rc->grace_ms == 2500 && rc->timeout_ms == 5000 && rc->tolerance_ms == 3000);
	assert_true(rc->cheap && rc->quiet && !rc->fd_passing && rc->fallback_on_no_key);
	assert_true(rc->post_buffering == 8192 && rc->dotsplit && rc->use_credentials && rc->stats_http);
	assert_true(rc->subscription_server.n == 2 && rc->algo == NODE_IPHASH && rc->sign_tolerance_s == 60);
	assert_string_equal(rc->sign_digest, "sha256");
	snprintf(path, sizeof path, "%s/keys", dir);
	assert_string_equal(rc->sign_dir, path);
	assert_true(rc->sign_skip.n == 2 && rc->sign_skip.v[0] == 0 && rc->sign_skip.v[1] == 5);
	assert_true(rc->credentials_dirs.n == 2 && slice_eq(rc->credentials_dirs.v[0], S("/c/")));
	assert_true(rc->resubscribe.n == 1 && rc->resubscribe_bind.n == 1 && rc->stats.n == 1);
	assert_true(rc->backlog == 7 && rc->chmod_socket == 0666);
	assert_true(c->server.workers == 3 && strcmp(c->server.user, "0") == 0);
	assert_int_equal(c->n_shared, 2);
	conf_free(c);
}

/* A program is split as a shell would, or given in words; [server] wins over a router. */
static void
test_more(void **state)
{
	struct conf *c = load_good("[server]\nworker_threads = 2\n[[fastrouter]]\nlisten = \":1\"\nworkers = 5\n"
	    "use_program = \"map 'a b'\"\n[[fastrouter]]\nlisten = \"abs\"\nabstract_socket = true\n"
	    "use_program = [\"map\", \"it's\"]\nuse_cache = false\n");

	(void)state;
	assert_int_equal(c->n_routers, 2);
	assert_int_equal(c->server.workers, 2);
	assert_string_equal(c->routers[0].program[1], "a b");
	assert_string_equal(c->routers[1].program[1], "it's");
	assert_null(c->routers[1].program[2]);
	assert_false(c->routers[1].use_cache);
	assert_int_equal(c->routers[1].listen.v[0].kind, ADDR_ABSTRACT);
	conf_free(c);
	c = load_good("[server]\nlisten = [\"=3\"]\n" FR); /* without shared sockets: a descriptor */
	assert_string_equal(c->server.listens[0].text, "fd://3");
	conf_free(c);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_presets),
		cmocka_unit_test(test_all),
		cmocka_unit_test(test_more),
	};
	int failed;

	if (!mkdtemp(dir))
		return 1;
	snprintf(file, sizeof file, "%s/warp.toml", dir);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(file);
	rmdir(dir);
	return failed;
}
