/* The configuration: every kind of error with its place, everything that is
 * refused for now, presets, the environment, and what is printed. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include <setjmp.h>

#include <cmocka.h>

/* Appended to rows that are about another section. */
#define UP "[upstreams.app]\nhost = \"127.0.0.1\"\nport = 3000\n"
#define ROUTE_TO_APP UP "[[routes]]\nupstream = \"app\"\n"
#define FILES "[[routes]]\nstatic_dir = \"/tmp\"\n"

static char dir[] = "/tmp/warp-conf-XXXXXX";
static char file[sizeof dir + 16];

static void
file_write(const char *name, const char *text)
{
	char path[sizeof dir + 32];
	FILE *f;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
	chmod(path, 0600);
}

static struct conf *
load(const char *text)
{
	file_write("warp.toml", text);
	return conf_load(file);
}

/* What the operator would read; to be freed. */
static char *
complaints(const struct conf *c)
{
	char *text = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n);

	assert_non_null(f);
	diags_print(&c->diags, f);
	fclose(f);
	return text;
}

/* One of the complaints has that text, and that is an error or not. */
static void
expect(const struct conf *c, const char *toml, const char *want, bool error)
{
	char *said = complaints(c);

	if (!strstr(said, want) || (c->diags.errors > 0) != error) {
		print_error("--- configuration:\n%s\n--- wanted (%s): %s\n--- said:\n%s\n", toml,
		    error ? "error" : "no error", want, said);
		fail();
	}
	free(said);
}

static struct conf *
load_good(const char *text)
{
	struct conf *c = load(text);

	expect(c, text, "", false);
	return c;
}

struct row {
	const char *toml, *want;
};

static void
rows_run(const struct row *rows, size_t n, bool error)
{
	for (size_t i = 0; i < n; i++) {
		struct conf *c = load(rows[i].toml);
		expect(c, rows[i].toml, rows[i].want, error);
		conf_free(c);
	}
}

/* ---- errors ---- */

static const struct row errors[] = {
	/* the file as a whole */
	{ "", "error: nothing to do: no [[routes]] and no [upstreams.NAME]" },
	{ UP "[upstreams.b]\nsocket=\"/b\"\n", "error: nothing to do: several upstreams" },
	{ "x = = 1\n", "1:5: error: " },
	{ "sever = 1\n" UP, "1:1: error: unknown key 'sever', did you mean 'server'?" },
	{ "[sevrer]\n" UP, "1:2: error: unknown section 'sevrer', did you mean 'server'?" },
	{ "[[route]]\n" UP, "1:3: error: unknown section 'route', did you mean 'routes'?" },
	{ "[zzzzzzzz]\n" UP, "1:2: error: unknown section 'zzzzzzzz'\n" },
	{ "server = 1\n" UP, "1:1: error: expected a section [server]" },
	{ "[[server]]\n" UP, "1:3: error: expected one [server], got a list" },
	{ "upstreams = 1\n", "1:1: error: " },
	{ "[routes]\nupstream=\"app\"\n" UP, "1:2: error: routes: expected [[routes]], got a table" },
	{ "routes = [1]\n" UP, "1:11: error: routes: expected [[routes]], got 1" },

	/* kinds of values */
	{ "[server]\nhttp_port = \"10\"\n" UP,
	    "2:13: error: server.http_port: expected a number from 1 to 65535, got the text \"10\"" },
	{ "[server]\nhttp_port = 0\n" UP, "expected a number from 1 to 65535, got 0" },
	{ "[server]\nhttp_port = 65536\n" UP, "from 1 to 65535, got 65536" },
	{ "[server]\nhttp_port = 80.0\n" UP, "got 80" },
	{ "[server]\nhttp_port = [80]\n" UP, "got a list" },
	{ "[server]\nhttp_port = {}\n" UP, "got a table" },
	{ "[server]\nhttp_port = 1979-05-27\n" UP, "got the date or time 1979-05-27" },
	{ "[server]\nheader_timeout_secs = \"10s\"\n" UP,
	    "2:23: error: server.header_timeout_secs: expected a number of seconds from 0.001 to 86400, "
	    "got the text \"10s\"" },
	{ "[server]\nheader_timeout_secs = 0\n" UP, "from 0.001 to 86400, got 0" },
	{ "[server]\nheader_timeout_secs = -1.5\n" UP, "got -1.5" },
	{ "[server]\nheader_timeout_secs = nan\n" UP, "got nan" },
	{ "[server]\nheader_timeout_secs = inf\n" UP, "got inf" },
	{ "[server]\nmax_body_bytes = 1.5\n" UP, "2:18: error: server.max_body_bytes: expected a number of bytes, got 1.5" },
	{ "[server]\nmax_body_bytes = -1\n" UP, "a number of bytes, got -1" },
	{ "[server]\nmax_header_bytes = 10\n" UP, "a number of bytes from 1024 to 65536, got 10" },
	{ "[server]\nproxy_protocol = 1\n" UP, "2:18: error: server.proxy_protocol: expected true or false, got 1" },
	{ "[server]\nuser = 1\n" UP, "2:8: error: server.user: expected a text, got 1" },
	{ "[server]\nuser = \"a\\u0000b\"\n" UP, "a text cannot hold a NUL here" },
	{ "[server]\nerror_dir = \"\"\n" UP, "server.error_dir: must not be empty" },
	{ "[server]\nsocket_mode = 660\n" UP, "2:15: error: server.socket_mode: expected a file mode such as 0o660, got 660" },
	{ "[server]\nsocket_mode = \"0999\"\n" UP, "server.socket_mode: expected a file mode" },
	{ "[server]\nsocket_mode = true\n" UP, "server.socket_mode: expected a file mode" },
	{ "[server]\ntrusted_proxies = [\"10.0.0.0/8\", \"10.0.0.0/33\"]\n" UP,
	    "2:34: error: server.trusted_proxies: expected a network such as 10.0.0.0/8 or an address, got \"10.0.0.0/33\"" },
	{ "[server]\ntrusted_proxies = [\"unix:\", \"private\"]\nclient_ip_header = \"X Real\"\n" UP,
	    "3:20: error: server.client_ip_header: 'X Real' is no name of a header field" },
	{ "[server]\ntrusted_proxies = \"::1\"\n" UP, "2:19: error: server.trusted_proxies: expected a list of networks, got the text \"::1\"" },
	{ "[server]\ntrusted_proxies = [1]\n" UP, "2:20: error: server.trusted_proxies: expected a list of networks, got 1" },
	{ "[server]\nlisten = [\"nowhere\"]\n" UP, "2:11: error: server.listen: nowhere: " },
	{ "[server]\nlisten = [8080]\n" UP, "2:11: error: server.listen: expected a list of addresses, got 8080" },
	{ "[server]\nlisten = \"off\"\n" UP, "2:10: error: server.listen: off: " },
	{ "[server]\nadmin_token = \"\"\n" UP, "2:15: error: server.admin_token: must not be empty" },
	{ "[admin]\ntoken = \"\"\n" UP, "2:9: error: admin.token: must not be empty" },
	{ "[server]\nno_route_status = 200\n" UP, "expected a number from 400 to 599, got 200" },
	{ "[server]\nworker_threads = 0\n" UP, "2:18: error: server.worker_threads: expected a number from 1 to" },
	{ "[server]\nheader_timeout_sec = 1\n" UP,
	    "2:1: error: unknown key 'header_timeout_sec' in server, did you mean 'header_timeout_secs'?" },
	{ "[server]\nhttp_prot = 1\n" UP, "did you mean 'http_port'?" },
	{ "[server]\npath_prefix = \"/\"\n" UP, "unknown key 'path_prefix' in server, it belongs to [routes]" },
	{ "[server]\nqqqqqq = 1\n" UP, "2:1: error: unknown key 'qqqqqq' in server\n" },
	{ "[admin]\nlisten = [\"off\", \":1\"]\n" UP, "2:11: error: admin.listen: off: " },

	/* env: and file: */
	{ "[server]\nadmin_token = \"env:WARP_TEST_NONE\"\n" UP,
	    "2:15: error: server.admin_token: the environment has no WARP_TEST_NONE" },
	{ "[server]\nadmin_token = \"file:none\"\n" UP, "2:15: error: server.admin_token: cannot read /tmp/warp-conf-" },
	{ "[server]\nadmin_token = \"file:empty\"\n" UP, "server.admin_token: must not be empty" },

	/* [log] */
	{ "[log]\nlevel = \"inof\"\n" UP,
	    "2:9: error: log.level: expected one of error warn info debug, got the text \"inof\", did you mean 'info'?" },
	{ "[log]\nlevel = true\n" UP, "log.level: expected one of error warn info debug, got true" },
	{ "[log]\naccess = \"\"\n" UP, "2:10: error: log.access: expected stdout, stderr, syslog, off or a file" },
	{ "[log]\naccess = false\n" UP, "2:10: error: log.access: expected stdout" },
	{ "[log]\nformat = \"comon\"\n" UP, "2:10: error: log.format: expected common, combined, json or a pattern with $variables, did you mean 'common'?" },
	{ "[log]\nformat = \"$client $metod\"\n" UP, "2:10: error: log.format: unknown variable '$metod', did you mean 'method'?" },
	{ "[log]\nformat = \"{clinet}\"\n" UP, "2:10: error: log.format: unknown variable '{clinet}', did you mean 'client'?" },
	{ "[log]\nformat = \"$client $\"\n" UP, "log.format: unknown variable '$'" },

	/* upstreams */
	{ "[upstreams.a]\n", "1:12: error: upstreams.a: expected host and port, socket, url, instances, or subscription" },
	{ "[upstreams.a]\nhost = \"x\"\n", "2:1: error: upstreams.a: host needs port" },
	{ "[upstreams.a]\nport = 1\n", "2:1: error: upstreams.a: port needs host" },
	{ "[upstreams.a]\nsocket = \"/x\"\nurl = \"http://x:1\"\n", "3:1: error: upstreams.a: socket and url exclude each other" },
	{ "[upstreams.a]\nsocket = \"/x\"\n[[upstreams.a.instances]]\nsocket = \"/y\"\n", "instances and socket exclude each other" },
	{ "[upstreams.a]\ninstances = []\n", "upstreams.a.instances: expected at least one of them" },
	{ "[upstreams.a]\ninstances = [1]\n", "2:14: error: upstreams.a.instances: expected a list of tables, got 1" },
	{ "[[upstreams.a.instances]]\nhost = \"x\"\n", "2:1: error: upstreams.a: host needs port" },
	{ "[[upstreams.a.instances]]\nhost = \"x\"\nport = 1\nwait = 1\n",
	    "4:1: error: unknown key 'wait' in upstreams.a.instances" },
	{ "[[upstreams.a.instances]]\nhost = \"x\"\nport = 1\nmax_fails = 1\n",
	    "4:1: error: unknown key 'max_fails' in upstreams.a.instances, it belongs to [upstreams.NAME]" },
	{ "[[upstreams.a.instances]]\nhost = \"x\"\nport = 1\nweight = 0\n", "upstreams.a.instances.weight: expected a number from 1 to 65535, got 0" },
	{ "[upstreams.a]\nhost = \"\"\nport = 1\n", "upstreams.a: '' is no host" },
	{ "[upstreams.a]\nhost = \"http://x\"\nport = 1\n", "upstreams.a: 'http://x' is no host" },
	{ "[upstreams.a]\nurl = \"fd://3\"\n", "2:1: error: upstreams.a: " },
	{ "[upstreams.a]\nsocket = \"\"\n", "a socket needs a path" },
	{ "[upstreams.a]\nsocket = \"unix:\"\n", "2:1: error: upstreams.a: " },
	{ "[upstreams.\"a b\"]\nsocket = \"/x\"\n", "1:12: error: upstreams.a b: a name cannot be empty or hold blanks" },
	{ "[upstreams]\na = 1\n", "2:1: error: upstreams.a: expected a table, got 1" },
	{ UP "strategy = \"round_robbin\"\n", "4:12: error: upstreams.app.strategy: expected one of round_robin weighted least_conn random random_two ip_hash uri_hash header_hash cookie least_time first, got 'round_robbin', did you mean 'round_robin'?" },
	{ UP "strategy = \"header_hash\"\n", "4:12: error: upstreams.app.hash_header: strategy header_hash needs it: the name of a header field" },
	{ UP "strategy = \"header_hash\"\nhash_header = \"X Y\"\n", "5:15: error: upstreams.app.hash_header: expected the name of a header field, got 'X Y'" },
	{ UP "strategy = \"header_hash\"\nhash_header = \"\"\n", "5:15: error: upstreams.app.hash_header: expected the name of a header field, got ''" },
	{ UP "strategy = \"header_hash\"\nhash_header = 1\n", "5:15: error: upstreams.app.hash_header: expected a text, got 1" },
	{ UP "hash_header = \"X\"\n", "4:15: error: upstreams.app.hash_header: only strategy header_hash uses it, this one is round_robin" },
	{ UP "strategy = \"least_connections\"\nsticky_cookie = \"c\"\n", "5:17: error: upstreams.app.sticky_cookie: only strategy cookie uses it, this one is least_conn" },
	{ UP "strategy = \"cookie\"\nsticky_cookie = \"a;b\"\n", "5:17: error: upstreams.app.sticky_cookie: expected the name of a cookie, got 'a;b'" },
	{ "[[upstreams.a.instances]]\nurl = \"x:1\"\nbackup = true\n[[upstreams.a.instances]]\nurl = \"x:2\"\nbackup = true\n",
	    "1:15: error: upstreams.a: every instance is a backup: at least one must not be" },
	{ UP "params = { A = \"b\" }\n", "upstreams.app.params: only protocol uwsgi or fastcgi uses them" },
	{ UP "modifier1 = 256\n", "upstreams.app.modifier1: expected a number from 0 to 255" },
	{ UP "protocol = \"fastcgi\"\n", "upstreams.app.root: protocol fastcgi needs it" },
	{ UP "protocol = \"uwsgi\"\nroot = \"/x\"\n", "upstreams.app.root: only protocol fastcgi uses it" },
	{ UP "protocol = \"fastcgi\"\nroot = \"/x\"\nindex = \"a/b\"\n", "upstreams.app.index: 'a/b' is no name of a file" },
	{ "[upstreams.a]\n[[upstreams.a.instances]]\nurl = \"uwsgi://x:1\"\n[[upstreams.a.instances]]\nurl = \"http://x:1\"\n", "upstreams.a: the url of x:1 says another one" },
	{ "[upstreams.a]\nurl = \"uwsgi://x:1\"\nprotocol = \"http\"\n", "upstreams.a.protocol: the url of x:1 says another one" },
	{ UP "protocol = \"htp\"\n", "upstreams.app.protocol: expected one of http https uwsgi fastcgi, got the text \"htp\", did you mean 'http'?" },
	{ UP "proxy_protocol = \"v3\"\n", "expected one of off v1 v2, got the text \"v3\"" },
	{ UP "host_header = \"a b\"\n", "4:15: error: upstreams.app.host_header: 'a b' is no host" },
	{ UP "conect_timeout_secs = 1\n", "4:1: error: unknown key 'conect_timeout_secs' in upstreams.app, did you mean 'connect_timeout_secs'?" },

	/* routes: conditions */
	{ ROUTE_TO_APP "path_prefix = \"api\"\n", "6:15: error: routes.path_prefix: a path starts with '/', got the text \"api\"" },
	{ ROUTE_TO_APP "path_exact = \"\"\n", "a path starts with '/'" },
	{ ROUTE_TO_APP "path_exact = \"/a?b=c\"\n", "a path holds no '?' or '#'; see query" },
	{ ROUTE_TO_APP "path_prefix = \"/../a\"\n", "is no path a request can have" },
	{ ROUTE_TO_APP "path_prefix = \"/%zz\"\n", "is no path a request can have" },
	{ ROUTE_TO_APP "path_prefix = \"/a\"\npath_exact = \"/a\"\n", "7:1: error: routes: path_prefix and path_exact exclude each other" },
	{ ROUTE_TO_APP "path_regex = \"(\"\n", "6:14: error: routes.path_regex: not a POSIX extended regular expression: '(' without ')', at byte 1\n" },
	{ ROUTE_TO_APP "host = \"*.*.com\"\n", "6:8: error: routes.host: expected a host such as example.com, *.example.com, www.* or ~regex, got" },
	{ ROUTE_TO_APP "host = \"*.a.*\"\n", "6:8: error: routes.host: expected a host such as" },
	{ ROUTE_TO_APP "host = \"www.*.com\"\n", "6:8: error: routes.host: expected a host such as" },
	{ ROUTE_TO_APP "host = \".*\"\n", "6:8: error: routes.host: expected a host such as" },
	{ ROUTE_TO_APP "host = \"www*\"\n", "6:8: error: routes.host: expected a host such as" },
	{ ROUTE_TO_APP "host = \"~^(a\"\n", "6:8: error: routes.host: not a POSIX extended regular expression: '(' without ')', at byte 2\n" },
	{ ROUTE_TO_APP "host = \"\"\n", "routes.host: expected a host" },
	{ ROUTE_TO_APP "host = \"a/b\"\n", "routes.host: expected a host" },
	{ ROUTE_TO_APP "methods = [\"GE T\"]\n", "6:11: error: routes.methods: 'GE T' is no method" },
	{ ROUTE_TO_APP "methods = []\n", "routes.methods: expected at least one method" },
	{ ROUTE_TO_APP "methods = \"GET\"\n", "6:11: error: routes.methods: expected a list of texts, got the text \"GET\"" },
	{ ROUTE_TO_APP "add_headers = { name = \"A\", value = \"b\" }\n", "6:15: error: routes.add_headers: expected a list of { name, value }, got a table" },
	{ ROUTE_TO_APP "methods = [1]\n", "6:12: error: routes.methods: expected a list of texts, got 1" },
	{ ROUTE_TO_APP "header = { name = \"X\" }\n", "6:10: error: routes.header: value is missing" },
	{ ROUTE_TO_APP "header = { name = \"X Y\", value = \"\" }\n", "routes.header: 'X Y' is no name of a header field" },
	{ ROUTE_TO_APP "header = { name = \"X\", valeu = \"\" }\n", "routes.header: expected name and value, got 'valeu'" },
	{ ROUTE_TO_APP "header = \"X\"\n", "6:10: error: routes.header: expected { name, value } or a list of them, got the text \"X\"" },
	{ ROUTE_TO_APP "query = [1]\n", "6:10: error: routes.query: expected { name, value } or a list of them, got 1" },
	{ ROUTE_TO_APP "client = [\"x\"]\n", "routes.client: expected a network" },
	{ ROUTE_TO_APP "path_perfix = \"/\"\n", "6:1: error: unknown key 'path_perfix' in routes, did you mean 'path_prefix'?" },

	/* routes: actions */
	{ UP "[[routes]]\npath_prefix = \"/\"\n", "4:3: error: routes: expected an action: upstream, static_dir, redirect or respond" },
	{ ROUTE_TO_APP "redirect = \"/\"\n", "6:1: error: routes: upstream and redirect exclude each other" },
	{ UP "[[routes]]\nupstream = \"ap\"\n", "5:12: error: routes.upstream: there is no [upstreams.ap], did you mean 'app'?" },
	{ UP "[[routes]]\nupstream = \"backend\"\n", "5:12: error: routes.upstream: there is no [upstreams.backend]\n" },
	{ "[[routes]]\nredirect = \"/\"\nstatus = 304\n", "3:10: error: routes.status: expected 301, 302, 303, 307 or 308" },
	{ "[[routes]]\nredirect = \"/\"\nstatus = 200\n", "expected a number from 301 to 308, got 200" },
	{ ROUTE_TO_APP "status = 302\n", "6:1: error: routes: status belongs to redirect" },
	{ "[[routes]]\nredirect = \"\"\n", "routes.redirect: expected a URL without blanks" },
	{ "[[routes]]\nredirect = \"/a\\nb\"\n", "routes.redirect: expected a URL without blanks" },
	{ "[[routes]]\nrespond = { status = 99 }\n", "2:22: error: routes.respond.status: expected a number from 200 to 599, got 99" },
	{ "[[routes]]\nrespond = { status = 204, body = \"x\" }\n", "routes.respond: an answer with status 204 has no body" },
	{ "[[routes]]\nrespond = { bdoy = \"x\" }\n", "2:13: error: unknown key 'bdoy' in routes.respond, did you mean 'body'?" },
	{ "[[routes]]\nrespond = 200\n", "2:11: error: routes.respond: expected a table, got 200" },
	{ "[[routes]]\nrespond = { content_type = \"a\\nb\" }\n", "content_type cannot hold control characters" },

	/* routes: on the way */
	{ ROUTE_TO_APP "strip_prefix = true\n", "6:1: error: routes: strip_prefix needs path_prefix" },
	{ ROUTE_TO_APP "path_prefix = \"/a\"\nstrip_prefix = true\nrewrite = \"/b\"\n", "8:1: error: routes: strip_prefix and rewrite exclude each other" },
	{ ROUTE_TO_APP "path_prefix = \"/a\"\nrewrite = \"/b?x\"\n", "routes.rewrite: expected a path, without query" },
	{ ROUTE_TO_APP "path_prefix = \"/a\"\nrewrite = \"/x{uri}\"\n", "routes.rewrite: expected a path, without query" },
	{ ROUTE_TO_APP "path_prefix = \"/a\"\nrewrite = \"/$1\"\n", "7:11: error: routes.rewrite: $1 needs path_regex" },
	{ ROUTE_TO_APP "path_regex = \"^/(a)\"\nrewrite = \"/$1$2\"\n", "7:11: error: routes.rewrite: $2: path_regex has 1 group\n" },
	{ ROUTE_TO_APP "add_headers = [{ name = \"A B\", value = \"\" }]\n", "6:25: error: routes.add_headers: 'A B' is no name of a header field" },
	{ ROUTE_TO_APP "add_headers = [{ name = \"A\", value = \"x\\ry\" }]\n", "routes.add_headers: a header field cannot hold control characters" },
	{ ROUTE_TO_APP "add_headers = [{ name = \"content-length\", value = \"1\" }]\n", "routes.add_headers: content-length is warp's own to write" },
	{ ROUTE_TO_APP "add_response_headers = [{ name = \"Transfer-Encoding\", value = \"x\" }]\n", "Transfer-Encoding is warp's own to write" },
	{ ROUTE_TO_APP "remove_headers = [\"Connection\"]\n", "6:19: error: routes.remove_headers: Connection is warp's own to write" },
	{ ROUTE_TO_APP "remove_headers = [\"host\"]\n", "a request without Host is none" },
	{ ROUTE_TO_APP "read_timeout_secs = 0\n", "routes.read_timeout_secs: expected a number of seconds from 0.001 to 86400, got 0" },
	{ ROUTE_TO_APP "basic_auth = { }\n", "routes.basic_auth: expected at least one user" },
	{ ROUTE_TO_APP "basic_auth = { \"a:b\" = \"x\" }\n", "a user's name cannot hold a colon" },
	{ ROUTE_TO_APP "basic_auth = { a = \"\" }\n", "routes.basic_auth: an empty password" },
	{ ROUTE_TO_APP "basic_auth = { a = \"$apr1$x$y\" }\n", "this kind of hash is not known" },
	{ ROUTE_TO_APP "forward_auth = { upstream = \"app\", path = \"verify\" }\n", "path: expected a path that starts with /" },
	{ ROUTE_TO_APP "forward_auth = { upstream = \"app\", copy_headers = [\"Content-Length\"] }\n", "Content-Length is warp's own to write" },
	{ ROUTE_TO_APP "forward_auth = { upstream = \"app\", cache_sec = 1 }\n", "did you mean 'cache_secs'?" },
	{ ROUTE_TO_APP "rate_limit = { per_secs = 1 }\n", "6:1: error: routes: rate_limit needs requests" },
	{ ROUTE_TO_APP "rate_limit = { requests = 0 }\n", "6:27: error: routes.rate_limit.requests: expected a number from 1 to" },
	{ "[server]\nmemory_bytes = 1\n" UP, "2:16: error: server.memory_bytes: expected at least" },
	{ ROUTE_TO_APP "forward_auth = { path = \"/\" }\n", "routes.forward_auth: needs upstream, who decides" },
	{ ROUTE_TO_APP "forward_auth = { upstream = \"apx\" }\n", "there is no [upstreams.apx], did you mean 'app'?" },
	{ ROUTE_TO_APP "rate_limit = { requests = 1, key = \"user\" }\n", "routes.rate_limit.key: expected ip, all, header:NAME or cookie:NAME, got 'user'" },
	{ ROUTE_TO_APP "rate_limit = { requests = 1, key = \"header\" }\n", "routes.rate_limit.key: expected ip, all, header:NAME or cookie:NAME, got 'header'" },
	{ ROUTE_TO_APP "rate_limit = { requests = 1, key = \"header:\" }\n", "routes.rate_limit.key: expected ip, all, header:NAME or cookie:NAME, got 'header:'" },
	{ ROUTE_TO_APP "rate_limit = { requests = 1, key = \"header:a b\" }\n", "routes.rate_limit.key: expected ip, all, header:NAME or cookie:NAME, got 'header:a b'" },
	{ ROUTE_TO_APP "rate_limit = { requests = 1, key = \"cookie\" }\n", "routes.rate_limit.key: expected ip, all, header:NAME or cookie:NAME, got 'cookie'" },
	{ ROUTE_TO_APP "rate_limit = { requests = 1, key = \"cookie:a=\" }\n", "routes.rate_limit.key: expected ip, all, header:NAME or cookie:NAME, got 'cookie:a='" },
	{ ROUTE_TO_APP "rate_limit = { requests = 1, key = \"ip:1\" }\n", "routes.rate_limit.key: expected ip, all, header:NAME or cookie:NAME, got 'ip:1'" },
	{ ROUTE_TO_APP "rate_limit = { requests = 1, key = \"all:\" }\n", "routes.rate_limit.key: expected ip, all, header:NAME or cookie:NAME, got 'all:'" },
	{ ROUTE_TO_APP "rate_limit = { requests = 1, key = \"\" }\n", "routes.rate_limit.key: expected ip, all, header:NAME or cookie:NAME, got ''" },
	{ ROUTE_TO_APP "buffer_request = \"1k\"\n", "routes.buffer_request: expected a number of bytes, got the text \"1k\"" },
	{ ROUTE_TO_APP "max_body_bytes = -1\n", "routes.max_body_bytes: expected a number of bytes, got -1" },

	/* routes: files */
	{ ROUTE_TO_APP "static_dir = \"/\"\n", "6:1: error: routes: upstream and static_dir exclude each other" },
	{ ROUTE_TO_APP "index = \"x\"\n", "6:1: error: routes: index belongs to static_dir" },
	{ ROUTE_TO_APP "fallback = \"/x\"\n", "routes: fallback belongs to static_dir" },
	{ ROUTE_TO_APP "listing = true\n", "routes: listing belongs to static_dir" },
	{ ROUTE_TO_APP "dot_files = true\n", "routes: dot_files belongs to static_dir" },
	{ ROUTE_TO_APP "cache_control = \"x\"\n", "routes: cache_control belongs to static_dir" },
	{ "[[routes]]\nstatic_dir = \"\"\n", "2:14: error: routes.static_dir: must not be empty" },
	{ FILES "fallback = \"/\"\n", "3:12: error: routes.fallback: expected a file of static_dir" },
	{ FILES "fallback = \"/a/../b\"\n", "3:12: error: routes.fallback: expected a file of static_dir" },
	{ FILES "cache_control = \"a\\nb\"\n", "3:17: error: routes.cache_control: a header field cannot hold control characters" },
	{ FILES "status = 301\n", "3:1: error: routes: status belongs to redirect" },

	/* cache and middleware */
	{ UP "[cache]\nmax_object_bytes = 0\n", "5:20: error: cache.max_object_bytes: expected a number of bytes from 1" },
	{ UP "[cache]\nredis_timeout_ms = 1001\n", "cache.redis_timeout_ms: expected a number from 1 to 1000, got 1001" },
	{ UP "[cache]\nredis_url = \"redis://me@x\"\n", "5:13: error: cache.redis_url: expected user:password@" },
	{ UP "[cache]\nredis_url = \"rediss://127.0.0.1\"\n", "cache.redis_url: rediss needs the name of a host" },
	{ UP "[cache]\nredis_url = \"\"\n", "cache.redis_url: must not be empty" },
	{ UP "[middleware]\ngzip_level = 10\n", "5:14: error: middleware.gzip_level: expected a number from 1 to 9, got 10" },
	{ UP "[middleware]\ngzip_min_bytes = -1\n", "middleware.gzip_min_bytes: expected a number of bytes, got -1" },
	{ UP "[middleware]\ngzip_types = \"text/html\"\n", "middleware.gzip_types: expected a list of texts" },
};

static void
test_errors(void **state)
{
	(void)state;
	rows_run(errors, LEN(errors), true);
}

static void
test_all_errors_at_once_by_line(void **state)
{
	static const char text[] = "[[routes]]\nupstream = \"x\"\npath_prefix = 1\n"
	                           "[server]\nhttp_port = 0\nnope = 1\n";
	static const char *const places[] = { ":2:12: error", ":3:15: error", ":5:13: error",
		":6:1: error" };
	struct conf *c = load(text);
	char *said = complaints(c), *at = said;

	(void)state;
	assert_int_equal(c->diags.errors, 4);
	for (size_t i = 0; i < LEN(places); i++) {
		at = strstr(at, places[i]);
		assert_non_null(at);
	}
	assert_non_null(strstr(said, "    http_port = 0\n                ^\n"));
	free(said);
	conf_free(c);
}

static void
test_file_cannot_be_read(void **state)
{
	struct conf *c = conf_load("/tmp/warp-conf-none/warp.toml");

	(void)state;
	expect(c, "(none)", "/tmp/warp-conf-none/warp.toml: error: cannot read it: No such file", true);
	conf_free(c);
	c = conf_load(dir);
	expect(c, "(a directory)", "error: cannot read it: ", true);
	conf_free(c);
}

/* ---- dialects ---- */

#define WEB_ON "[webserver]\n"
#define POOL_ON "[[sites.proxy.upstreams]]\nname = \"p\"\nurl = \"http://h:1\"\n"
#define SITE_ON "[[sites]]\nhostname = \"a\"\nport = 80\n"

static const struct row dialect_errors[] = {
	{ WEB_ON, "1:2: error: Webserver must have either 'upstream' or 'routes' configured" },
	{ WEB_ON "statics = { \"/s/*\" = \"s\" }\n", ": error: Webserver must have either 'upstream' or 'routes' configured" },
	{ WEB_ON "upstream = \"h:1\"\n[[webserver.routes]]\npath = \"/\"\nupstream = \"h:2\"\n",
	    "1:2: error: Webserver cannot have both 'upstream' and 'routes' configured" },
	{ "[[webserver]]\nupstream = \"h:1\"\n", "1:3: error: webserver: expected one [webserver], got a list" },
	{ WEB_ON "upstream = 1\n", "2:12: error: webserver.upstream: expected a text, got 1" },
	{ WEB_ON "upstream = \"h\"\n", "2:1: error: upstreams.h: h: expected host:port" },
	{ WEB_ON "upsteam = \"h:1\"\n", "2:1: error: unknown key 'upsteam' in webserver, did you mean 'upstream'?" },
	{ WEB_ON "upstream = \"h:1\"\nstatics = { \"s\" = \"s\" }\n", "3:13: error: webserver: statics: a path starts with '/', got \"s\"" },
	{ WEB_ON "upstream = \"h:1\"\nstatics = { \"/s\" = 1 }\n", "3:20: error: webserver.statics: expected a directory, got 1" },
	{ WEB_ON "[[webserver.routes]]\nupstream = \"h:1\"\n", "2:13: error: webserver.routes 1: path is missing" },
	{ WEB_ON "[[webserver.routes]]\npath = \"/\"\n", "2:13: error: webserver.routes 1: upstream is missing" },
	{ WEB_ON "[[webserver.routes]]\npath = \"api\"\nupstream = \"h:1\"\n",
	    "3:8: error: webserver.routes 1.path: a path starts with '/', got the text \"api\"" },
	{ WEB_ON "[[webserver.routes]]\npath = \"/\"\nupstream = \"\"\n", "4:12: error: webserver.routes 1.upstream: expected an address" },
	{ WEB_ON "[[webserver.routes]]\npath = \"/\"\nupstream = \"h:1\"\nstrip_pth = true\n",
	    "unknown key 'strip_pth' in webserver.routes 1, did you mean 'strip_path'?" },
	{ WEB_ON "[[webserver.routes]]\npath = \"/\"\nupstream = \"h:1\"\nstrip_path = 1\n",
	    "5:14: error: webserver.routes 1.strip_path: expected true or false, got 1" },
	{ WEB_ON "upstream = \"h:1\"\n[hosts]\nuser = \"x\"\n", "3:2: error: hosts: expected [[hosts]], got a table" },
	{ WEB_ON "upstream = \"h:1\"\n[[hosts]]\ndomain = \"x\"\n", "unknown key 'domain' in hosts" },
	{ WEB_ON "upstream = \"h:1\"\n[[hosts]]\nuser = \"x\"\n[[hosts]]\nuser = \"y\"\n",
	    "6:8: error: hosts.user: line 4 says \"x\": the processes run once" },
	{ "sites = 1\n", "1:1: error: expected [[sites]], got 1" },
	{ "[[sites]]\nhostnam = \"a\"\n", "2:1: error: unknown key 'hostnam' in sites, did you mean 'hostname'?" },
	{ "[[sites]]\nport = 0\n", "2:8: error: sites.port: expected a number from 1 to 65535, got 0" },
	{ SITE_ON SITE_ON, "4:3: error: sites: the site at line 1 has that port and hostname" },
	{ SITE_ON "[[sites]]\nport = 80\n", "4:3: error: sites: the site at line 1 has that port: hostname is missing" },
	{ SITE_ON "[[sites]]\nhostname = \"b\"\n", "4:3: error: sites: port is missing: another site has one" },
	{ SITE_ON "[sites.proxy]\nenable = true\n", "unknown key 'enable' in sites.proxy, did you mean 'enabled'?" },
	{ SITE_ON "[[sites.proxy.upstreams]]\nname = \"p\"\n", "4:15: error: sites.proxy.upstreams: url is missing" },
	{ SITE_ON "[[sites.proxy.upstreams]]\nurl = \"http://h:1\"\n", "4:15: error: sites.proxy.upstreams: name is missing" },
	{ SITE_ON "[[sites.proxy.upstreams]]\nname = \"p\"\nurl = \"http://h:1/x\"\n",
	    "6:1: error: upstreams.p: http://h:1/x: an upstream's URL ends after the port" },
	{ SITE_ON POOL_ON "weight = 0\n", "7:10: error: sites.proxy.upstreams.weight: expected a number from 1" },
	{ SITE_ON POOL_ON "[[sites.proxy.routes]]\nupstream = \"p\"\n", "7:15: error: sites.proxy.routes: path is missing" },
	{ SITE_ON POOL_ON "[[sites.proxy.routes]]\npath = \"/\"\n", "7:15: error: sites.proxy.routes: upstream is missing" },
	{ SITE_ON POOL_ON "[[sites.proxy.routes]]\npath = \"x\"\nupstream = \"p\"\n",
	    "8:8: error: sites.proxy.routes.path: a path starts with '/', got the text \"x\"" },
	{ SITE_ON POOL_ON "[[sites.proxy.routes]]\npath = \"/\"\nupstream = \"pool\"\n" UP,
	    "9:12: error: sites.proxy.routes.upstream: the site has no upstream \"pool\"" },
	{ SITE_ON POOL_ON "[sites.proxy.load_balancing]\nmethod = \"round-robin\"\n",
	    "8:10: error: sites.proxy.load_balancing.method: expected one of round_robin weighted least_connections "
	    "least_conn, got the text \"round-robin\", did you mean 'round_robin'?" },
	{ SITE_ON POOL_ON "[sites.proxy.timeout]\nread = \"1s\"\n", "8:8: error: sites.proxy.timeout.read: expected a number of seconds" },
	{ SITE_ON POOL_ON "[sites.proxy.headers]\nadd = [\"x\"]\n[[sites.proxy.routes]]\npath = \"/\"\nupstream = \"p\"\n",
	    "8:7: error: sites.proxy.headers.add: expected a table of header fields" },
	{ SITE_ON POOL_ON "[sites.proxy.headers.add]\nHost = \"\"\n[[sites.proxy.routes]]\npath = \"/\"\nupstream = \"p\"\n",
	    "8:8: error: sites.proxy.routes.add_headers: this is no host" },
	{ SITE_ON POOL_ON "[sites.proxy.headers.remove]\nX-A = \"x\"\n[[sites.proxy.routes]]\npath = \"/\"\nupstream = \"p\"\n",
	    "8:7: error: sites.proxy.headers.remove: expected true or false, got the text \"x\"" },
	{ SITE_ON POOL_ON "[sites.proxy.health_check]\ninterval_seconds = 0\n",
	    "8:20: error: sites.proxy.health_check.interval_seconds: expected a number of seconds" },
};

static const struct row dialect_warnings[] = {
	{ "app = \"x\"\npython_version = \"3\"\n" UP, "1:1: warning: keys of another program's, such as app, are ignored" },
	{ UP "[[routes]]\nport = 81\nupstream = \"app\"\n", "this route is never reached: nothing listens on port 81" },
};

/* ---- TLS; what is wrong with certificates is in test_certs and the system tests ---- */

#define TLS_ON "[server]\nhttps_port = 443\n[tls]\nenabled = true\n"

static const struct row tls_errors[] = {
	{ "[tls]\nenabled = true\ndomains = [\"a.example\"]\n" UP,
	    "2:11: error: tls.enabled: there is no address to serve TLS at: set server.https_port" },
	{ TLS_ON "cert = \"none.pem\"\n" UP, "5:8: error: tls: cannot read /tmp/" },
	{ "[tls]\nkey = \"k\"\n" UP, "2:7: error: tls.key: needs tls.cert" },
	{ "[[tls.certs]]\nkey = \"k\"\n" UP, "error: tls.certs: expected cert, the certificate" },
	{ "[[tls.certs]]\ncart = \"k\"\n" UP, "unknown key 'cart' in tls.certs, did you mean 'cert'?" },
	{ "[tls]\ncerts = 1\n" UP, "2:9: error: tls.certs: expected a list of tables, got 1" },
	{ "[tls]\ndomains = [\"*.example.com\"]\n" UP, "2:11: error: tls.domains: *.example.com: a wildcard is proved by DNS" },
	{ "[tls]\ndomains = [\"a..b\"]\n" UP, "2:11: error: tls.domains: 'a..b' is no name of a host" },
	{ "[tls]\ndomains = [\"1.2.3.4\"]\n" UP, "tls.domains: '1.2.3.4' is no name of a host" },
	{ "[tls]\ndomains = [\"-a.example\"]\n" UP, "is no name of a host" },
	{ "[tls]\ndomains = [\"a b\"]\n" UP, "'a b' is no name of a host" },
	{ "[tls]\nacme_url = \"http://x\"\n" UP, "2:12: error: tls.acme_url: expected the https:// URL of an ACME directory" },
	{ "[tls]\nacme_email = \"me\"\n" UP, "2:14: error: tls.acme_email: 'me' is no mail address" },
	{ "[tls]\nacme_eab = { kid = \"x\" }\n" UP, "2:12: error: tls.acme_eab: hmac is missing" },
	{ "[tls]\nacme_eab = { hmac = \"x\" }\n" UP, "error: tls.acme_eab: kid is missing" },
	{ "[tls]\nacme_eab = { kid = \"x\", hmac = \"+/\" }\n" UP, "hmac is no base64url text" },
	{ "[tls]\nsession_cache = 16385\n" UP, "2:17: error: tls.session_cache: expected a number from 0 to 16384, got 16385" },
	{ "[tls]\nclient_verify = \"optional\"\n" UP, "2:17: error: tls.client_verify: needs client_ca_file" },
	{ "[tls]\nclient_verify = \"maybe\"\n" UP, "expected one of require optional" },
	{ TLS_ON "domains = [\"a.example\"]\nclient_ca_file = \"none.pem\"\n" UP, "6:18: error: tls.client_ca_file: cannot read /tmp/" },
	{ TLS_ON "domains = [\"a.example\"]\nacme_ca_file = \"/dev/null\"\n" UP, "6:16: error: tls.acme_ca_file: cannot read /dev/null: it is not a regular file" },
	{ "[server]\nlisten = [\":443\"]\nhttps_listen = [\":443\"]\n[tls]\nenabled = true\ndomains = [\"a.example\"]\n" UP,
	    "3:16: error: server.https_listen: :443 cannot be for http and https" },
	{ "[server]\nhttps_listen = [\"http://a:443\"]\n" UP, "2:16: error: server.https_listen: a:443 is not said to be https" },
	{ "[admin]\nlisten = \"https://a:443\"\ntoken = \"x\"\n" UP, "2:10: error: admin.listen: a:443: the admin interface is served without TLS" },
	{ UP "protocol = \"https\"\nurl = \"x:1\"\n", "exclude each other" },
	{ "[upstreams.a]\nurl = \"http://x:1\"\nprotocol = \"https\"\n", "3:12: error: upstreams.a.protocol: the url of x:1 says another one" },
	{ "[upstreams.a]\nurl = \"wss://x:1\"\nprotocol = \"http\"\n", "3:12: error: upstreams.a.protocol: the url of x:1 says another one" },
	{ "[upstreams.a]\nurl = \"https://:1\"\n", "a URL names its host" },
	{ "[upstreams.a]\nsocket = \"/x\"\nprotocol = \"https\"\n", "unix:/x has no name that its certificate can be checked for: set tls.server_name" },
	{ "[upstreams.a]\nurl = \"https://x\"\ntls = { ca_file = \"/dev/null\" }\n", "3:19: error: upstreams.a.tls.ca_file: cannot read /dev/null: it is not a regular file" },
	{ "[upstreams.a]\nurl = \"https://x\"\ntls = { server_name = \"a/b\" }\n", "3:23: error: upstreams.a.tls.server_name: 'a/b' is no name of a host" },
	{ "[upstreams.a]\nurl = \"https://x\"\ntls = { key = \"k\" }\n", "3:15: error: upstreams.a.tls.key: needs cert" },
	{ "[upstreams.a]\nurl = \"https://x\"\ntls = { cert = \"/none\" }\n", "3:16: error: upstreams.a.tls.cert: cannot read /none: No such file" },
	{ "[upstreams.a]\nurl = \"https://x\"\ntls = true\n", "upstreams.a.tls: expected a table, got true" },
};

/* What is no error, and what is not said. */
static const struct row tls_warnings[] = {
	{ "[server]\nhttps_port = 443\n[tls]\nenabled = true\n" UP, "2:14: warning: server.https_port: not bound, as [tls] has neither cert nor domains" },
	{ "[server]\nhttps_listen = [\":443\"]\n" UP, "2:16: warning: server.https_listen: :443: not bound, as TLS is not enabled" },
	{ "[server]\nlisten = [\"https://0.0.0.0:443\"]\n" UP, "2:10: warning: server.listen: 0.0.0.0:443: not bound" },
	{ UP "tls = { verify = false }\n", "4:1: warning: upstreams.app.tls: not used, as no instance is spoken to by https" },
	{ UP "protocol = \"https\"\ntls = { verify = false }\n", "5:18: warning: upstreams.app.tls.verify: anybody on the way can pose" },
	{ UP "protocol = \"https\"\n", "1:12: warning: upstreams.app: 127.0.0.1:3000 is an address, but only names are looked for" },
	{ UP "protocol = \"https\"\ntls = { server_name = \"a.example\" }\n", "" },
	{ "[upstreams.a]\nurl = \"wss://x\"\n", "" },
	{ TLS_ON "domains = [\"A.example\", \"a.example\"]\n" UP, "" },
};

static void
test_tls(void **state)
{
	struct conf *c;

	(void)state;
	rows_run(tls_errors, LEN(tls_errors), true);
	rows_run(tls_warnings, LEN(tls_warnings), false);
	c = load_good(TLS_ON "domains = [\"A.example\", \"a.example\", \"b.example\"]\nhsts_secs = 5\n" UP);
	assert_true(c->tls.on && c->tls.redirect && c->tls.redirect_port == 443);
	assert_int_equal(c->tls.domains.n, 2);
	assert_string_equal(c->tls.domains.v[0].p, "a.example");
	assert_string_equal(c->tls.acme_dir, ACME_DIR);
	assert_int_equal(c->tls.sessions, 2048);
	assert_int_equal(c->tls.hsts_secs, 5);
	assert_int_equal(c->tls.set->n, 1);
	assert_int_equal(c->tls.set->v[0].origin, CERT_MADE);
	assert_int_equal(c->server.n_listens, 1); /* 8080 only if nothing else listens */
	assert_int_equal(c->server.listens[0].scheme, SCHEME_HTTPS);
	conf_free(c);
	c = load_good("[server]\nhttps_port = 443\n" UP);
	assert_int_equal(c->server.n_listens, 1);
	assert_int_equal(c->server.listens[0].port, 8080);
	conf_free(c);
}

/* Asking for what is off anyway is no error. */
static const struct row off[] = {
	{ UP "[tls]\nenabled = false\ncert = \"a\"\n", "" },
	{ UP "[tls]\n", "" },
	{ UP "[cache]\nsize_bytes = 0\nredis_url = \"redis://x\"\n", "" },
	{ UP "hold_secs = 0\nslow_start_secs = 0.0\nmodifier1 = 0\nprotocol = \"http\"\n", "" },
	{ "[[upstreams.a.instances]]\nsocket = \"/x\"\nbackup = false\nmax_connections = 0\n", "" },
	{ ROUTE_TO_APP "gzip = false\ncache = false\n", "" },
	{ UP "[middleware]\ngzip_compression_enabled = false\nx_sendfile_enabled = false\n", "" },
	{ "[server]\nhttps_port = 443\n" UP, "2:14: warning: server.https_port: not bound, as TLS is not enabled" },
};

static void
test_off(void **state)
{
	(void)state;
	rows_run(off, LEN(off), false);
}

static void
test_dialects(void **state)
{
	(void)state;
	rows_run(dialect_errors, LEN(dialect_errors), true);
	rows_run(dialect_warnings, LEN(dialect_warnings), false);
}

/* No key of the tables is "unknown", wherever it may stand. */
static void
test_every_key_is_known(void **state)
{
	(void)state;
	for (enum section_id id = SEC_SERVER; id < SECTIONS; id++) {
		const char *name = sections[id].name;
		for (size_t i = 0; i < sections[id].n; i++) {
			char text[512], want[64];
			struct conf *c;
			char *said;
			bool list = id == SEC_ROUTE || id == SEC_INSTANCE || id == SEC_CERT;

			snprintf(text, sizeof text, "%s%s%s\n%s = \"?\"\n", list ? "[[" : "[", name,
			    list ? "]]" : "]", sections[id].keys[i].name);
			if (id == SEC_RESPOND || id == SEC_RATE)
				snprintf(text, sizeof text, "[[routes]]\n%s = { %s = \"?\" }\n",
				    strchr(name, '.') + 1, sections[id].keys[i].name);
			snprintf(want, sizeof want, "unknown key '%s'", sections[id].keys[i].name);
			c = load(text);
			said = complaints(c);
			if (strstr(said, want)) {
				print_error("%s\n%s\n", text, said);
				fail();
			}
			free(said);
			conf_free(c);
		}
	}
}

/* ---- warnings ---- */

static const struct row warnings[] = {
	{ "[server]\nclient_ip_header = \"X-Real-IP\"\n" UP,
	    "2:20: warning: server.client_ip_header: without trusted_proxies nobody is believed" },
	{ "[server]\ntrusted_proxies = [\"private\"]\nclient_ip_header = \"x-forwarded-for\"\n" UP,
	    "3:20: warning: server.client_ip_header: x-forwarded-for is read without it" },
	{ "[server]\ntrusted_proxies = [\"10.0.0.0/8\", \"0.0.0.0/0\"]\n" UP,
	    "2:19: warning: server.trusted_proxies: this is everybody: who claims another address has it" },
	{ "[server]\ntrusted_proxies = [\"::/0\"]\n" UP, "warning: server.trusted_proxies: this is everybody" },
	{ ROUTE_TO_APP "require_auth = true\n", "4:3: warning: require_auth without server.admin_token: every request gets 401" },
	{ ROUTE_TO_APP "[[routes]]\npath_prefix = \"/x\"\nupstream = \"app\"\n", "warning: this route is never reached: the one at line 4 takes all that it could" },
	{ "[[routes]]\nredirect = \"https://{hots}/\"\n", "2:12: warning: redirect: unknown variable '{hots}', did you mean '{host}'?: it goes out as it stands" },
	{ "[[routes]]\nredirect = \"https://a.example$request_uri\"\n", "unknown variable '$request_uri', did you mean '{uri}'?" },
	{ "[[routes]]\nredirect = \"https://${host}/\"\n", "unknown variable '${host}', did you mean '{host}'?" },
	{ "[[routes]]\nredirect = \"https://a.example/$1\"\n", "redirect: $1 needs path_regex: it goes out as it stands" },
	{ "[[routes]]\npath_regex = \"^/(a)\"\nredirect = \"/$2\"\n", "redirect: $2: path_regex has 1 group: it goes out as it stands" },
	{ "[[routes]]\nrespond = { body = \"{Clinet}\" }\n", "body: unknown variable '{Clinet}', did you mean '{client}'?" },
	{ "[[routes]]\nrespond = { body = \"{tls.foo}\" }\n", "body: unknown variable '{tls.foo}': it goes" },
	{ ROUTE_TO_APP "add_headers = [{ name = \"A\", value = \"$http_x_b\" }]\n", "add_headers: unknown variable '$http_x_b', did you mean '{header.NAME}'?" },
	{ ROUTE_TO_APP "header = { name = \"X-V\", value = \"~^v[12]$\" }\n", "6:34: warning: here is no expression, nor a wildcard" },
	{ ROUTE_TO_APP "cookie = { name = \"v\", value = \"beta*\" }\n", "6:32: warning: here is no expression, nor a wildcard" },
	{ "[cache]\nsize_bytes = 1000000\n" ROUTE_TO_APP "rewrite = \"/{cookie.a}\"\n", "warning: nothing is cached: rewrite or add_headers say more than the URL does" },
	{ UP "[[routes]]\nrespond = {}\n", "1:1: warning: no route uses upstream app" },
	{ ROUTE_TO_APP "path_prefix = \"/a/../b//c\"\n", "6:15: warning: paths are compared in normal form: taken as \"/b/c\"" },
	{ ROUTE_TO_APP "basic_auth = { joe = \"secret\" }\n", "6:22: warning: the password of joe is plain text" },
	{ "[server]\nuser = \"warp-no-such-user\"\n" UP, "2:8: warning: server.user: this host has no user warp-no-such-user" },
	{ "[server]\ngroup = \"warp-no-such-group\"\n" UP, "2:9: warning: server.group: this host has no group warp-no-such-group" },
	{ "[admin]\nlisten = \"127.0.0.1:99\"\n" UP, "2:10: warning: admin.listen: without admin.token nobody" },
};

static void
test_warnings(void **state)
{
	struct conf *c;
	char *said;

	(void)state;
	rows_run(warnings, LEN(warnings), false);
	c = load_good("[server]\nuser = \"nobody\"\nadmin_token = \"s3cret\"\n" UP);
	said = complaints(c);
	assert_string_equal(said, ""); /* mode 0600: nobody else reads it */
	free(said);
	conf_free(c);
	assert_int_equal(chmod(file, 0644), 0);
	c = conf_load(file);
	expect(c, "0644", "3:15: warning: this secret is readable by others", false);
	conf_free(c);
}

/* ---- presets and values ---- */

static void
test_presets(void **state)
{
	struct conf *c = load_good(UP);
	const struct server_conf *s = &c->server;
	const struct upstream *up = &c->upstreams[0];
	const struct route *r = &c->table.routes[0];

	(void)state;
	assert_int_equal(s->n_listens, 1);
	assert_true(s->listen_is_default);
	assert_int_equal(s->listens[0].port, 8080);
	assert_true(s->listens[0].any);
	assert_int_equal(s->workers, 1);
	assert_int_equal(s->max_connections, 1024);
	assert_int_equal(s->header_ms, 10000);
	assert_int_equal(s->body_ms, 60000);
	assert_int_equal(s->keepalive_ms, 75000);
	assert_int_equal(s->write_ms, 60000);
	assert_int_equal(s->tunnel_ms, 3600000);
	assert_int_equal(s->shutdown_ms, 30000);
	assert_int_equal(s->keepalive_requests, 10000);
	assert_int_equal(s->max_header_bytes, 16384);
	assert_int_equal(s->max_body_bytes, 0);
	assert_int_equal(s->no_route_status, 502);
	assert_int_equal(s->socket_mode, 0660);
	assert_true(s->request_id);
	assert_false(s->server_tokens || s->show_errors || s->proxy_protocol);
	assert_null(s->user);
	assert_null(s->error_dir);
	assert_true(c->middleware.forward_headers);
	assert_false(c->middleware.via || c->middleware.forwarded || c->middleware.log_requests);
	assert_int_equal(c->log.access.sink, SINK_OFF);
	assert_int_equal(c->log.error.sink, SINK_STDERR);
	assert_int_equal(c->log.level, LOG_LVL_INFO);
	assert_string_equal(c->log.format, "combined");
	assert_int_equal(c->admin.n_listens, 1);
	assert_int_equal(c->admin.listens[0].kind, ADDR_UNIX);
	assert_true(c->admin.is_default);
	assert_false(c->admin.off);
	assert_string_equal(up->name, "app");
	assert_string_equal(up->balance->name, "round_robin");
	assert_int_equal(up->n_instances, 1);
	assert_ptr_equal(up->instances[0].up, up);
	assert_int_equal(up->instances[0].weight, 1);
	assert_string_equal(up->instances[0].addr.text, "127.0.0.1:3000");
	assert_int_equal(up->connect_ms, 5000);
	assert_int_equal(up->read_ms, 60000);
	assert_int_equal(up->write_ms, 60000);
	assert_int_equal(up->keepalive, 32);
	assert_int_equal(up->keepalive_ms, 60000);
	assert_int_equal(up->retries, 2);
	assert_int_equal(up->max_fails, 3);
	assert_int_equal(up->fail_ms, 10000);
	assert_int_equal(up->host_header, HOST_PRESERVE);
	assert_int_equal(up->proxy_out, PROXY_OUT_NONE);
	assert_int_equal(c->table.n, 1); /* one upstream and no routes */
	assert_ptr_equal(r->upstream, up);
	assert_int_equal(r->buffer_request, -1);
	assert_true(r->websocket);
	assert_false(r->gzip || r->cache || r->forwarded);
	conf_free(c);
	c = load_good("[middleware]\ngzip_compression_enabled = true\nforwarded = true\n"
	    "[cache]\nsize_bytes = 10000000\n" UP); /* its route follows other sections */
	r = &c->table.routes[0];
	assert_true(r->gzip == WITH_GZIP && r->cache == WITH_CACHE && r->forwarded);
	conf_free(c);
}

static void
test_server_values(void **state)
{
	struct conf *c = load_good(
	    "[server]\nhttp_port = 80\nlisten = [\":80\", \"127.0.0.1:81\", \"unix:/tmp/w.sock\"]\n"
	    "header_timeout_secs = 0.25\nmax_body_bytes = 9007199254740992\nsocket_mode = 0o600\n"
	    "trusted_proxies = [\"10.0.0.0/8\", \"::1\"]\nerror_dir = \"pages\"\n"
	    "[log]\naccess = \"logs/access.log\"\nerror = \"syslog\"\nlevel = \"debug\"\n"
	    "format = \"$client $http_X_Foo $status\"\n"
	    "[admin]\nlisten = \"off\"\n[middleware]\nlog_requests = true\nvia = true\n" UP);
	char path[sizeof dir + 32];

	(void)state;
	assert_int_equal(c->server.n_listens, 3); /* :80 once */
	assert_false(c->server.listen_is_default);
	assert_int_equal(c->server.listens[2].kind, ADDR_UNIX);
	assert_int_equal(c->server.header_ms, 250);
	assert_true(c->server.max_body_bytes == 9007199254740992u);
	assert_int_equal(c->server.socket_mode, 0600);
	assert_int_equal(c->server.trusted.n, 2);
	snprintf(path, sizeof path, "%s/pages", dir);
	assert_string_equal(c->server.error_dir, path);
	snprintf(path, sizeof path, "%s/logs/access.log", dir);
	assert_int_equal(c->log.access.sink, SINK_FILE); /* wins over log_requests */
	assert_string_equal(c->log.access.path, path);
	assert_int_equal(c->log.error.sink, SINK_SYSLOG);
	assert_int_equal(c->log.level, LOG_LVL_DEBUG);
	assert_true(c->admin.off);
	assert_false(c->admin.is_default);
	assert_true(c->middleware.via);
	assert_string_equal(c->dir, dir);
	conf_free(c);
	c = load_good("[middleware]\nlog_requests = true\n" UP);
	assert_int_equal(c->log.access.sink, SINK_STDOUT);
	conf_free(c);
	c = load_good("[middleware]\nlog_requests = true\n[log]\naccess = \"off\"\n" UP);
	assert_int_equal(c->log.access.sink, SINK_OFF);
	conf_free(c);
}

/* reason, what the upstream says, address as printed */
static const struct { const char *toml, *text; } places[] = {
	{ "host = \"localhost\"\nport = 1\n", "localhost:1" },
	{ "host = \"::1\"\nport = 1\n", "[::1]:1" },
	{ "host = \"[::1]\"\nport = 1\n", "[::1]:1" },
	{ "socket = \"/tmp/x.sock\"\n", "unix:/tmp/x.sock" },
	{ "socket = \"unix:/tmp/x.sock\"\n", "unix:/tmp/x.sock" },
	{ "socket = \"@x\"\n", "@x" },
	{ "url = \"http://127.0.0.1:1\"\n", "127.0.0.1:1" },
	{ "url = \"ws://127.0.0.1:1\"\n", "127.0.0.1:1" },
	{ "url = \":1\"\n", "127.0.0.1:1" },
	{ "instances = [{ host = \"127.0.0.1\", port = 1, weight = 5 }]\n", "127.0.0.1:1" },
};

static void
test_places(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(places); i++) {
		char text[256];
		struct conf *c;

		snprintf(text, sizeof text, "[upstreams.a]\n%s", places[i].toml);
		c = load_good(text);
		assert_int_equal(c->upstreams[0].n_instances, 1);
		assert_string_equal(c->upstreams[0].instances[0].addr.text, places[i].text);
		conf_free(c);
	}
}

static void
test_upstream_values(void **state)
{
	struct conf *c = load_good(
	    "[upstreams.a]\nkeepalive = 0\nread_timeout_secs = 1.5\nproxy_protocol = true\n"
	    "host_header = \"example.com:81\"\nstrategy = \"round_robin\"\nmax_fails = 0\n"
	    "[[upstreams.a.instances]]\nsocket = \"run/a.sock\"\nweight = 3\n"
	    "[[upstreams.a.instances]]\nhost = \"localhost\"\nport = 1\n"
	    "[upstreams.b]\nsocket = \"/b\"\nproxy_protocol = \"v2\"\nhost_header = \"upstream\"\n"
	    "[[routes]]\npath_prefix = \"/b\"\nupstream = \"b\"\n[[routes]]\nupstream = \"a\"\n");
	const struct upstream *a = &c->upstreams[0], *b = &c->upstreams[1];
	char text[sizeof dir + 32];

	(void)state;
	assert_int_equal(a->n_instances, 2);
	snprintf(text, sizeof text, "unix:%s/run/a.sock", dir);
	assert_string_equal(a->instances[0].addr.text, text);
	assert_int_equal(a->instances[0].weight, 3);
	assert_int_equal(a->instances[1].addr.kind, ADDR_NAME);
	assert_int_equal(a->keepalive, 0);
	assert_int_equal(a->read_ms, 1500);
	assert_int_equal(a->proxy_out, PROXY_OUT_V1);
	assert_int_equal(a->host_header, HOST_TEXT);
	assert_int_equal(a->host_text.n, 14);
	assert_int_equal(b->proxy_out, PROXY_OUT_V2);
	assert_int_equal(b->host_header, HOST_UPSTREAM);
	assert_int_equal(b->index, 1);
	assert_int_equal(b->line, 14);
	conf_free(c);
}

/* Every strategy by all its names, and what belongs to it; what instances say. */
static void
test_strategies(void **state)
{
	struct conf *c = load_good("[upstreams.a]\nstrategy = \"cookie\"\n"
	    "[[upstreams.a.instances]]\nurl = \"x:1\"\nweight = 2\nmax_connections = 7\n"
	    "[[upstreams.a.instances]]\nurl = \"x:2\"\nbackup = true\n"
	    "[upstreams.b]\nurl = \"x:1\"\nstrategy = \"header_hash\"\nhash_header = \"X-User\"\n"
	    "[[routes]]\npath_prefix = \"/b\"\nupstream = \"b\"\n[[routes]]\nupstream = \"a\"\n");
	const struct upstream *a = &c->upstreams[0], *b = &c->upstreams[1];
	char text[256];

	(void)state;
	assert_string_equal(a->balance->name, "cookie");
	assert_string_equal(a->sticky_cookie.text.p, "warp_instance");
	assert_int_equal(a->instances[0].weight, 2);
	assert_int_equal(a->instances[0].max_connections, 7);
	assert_false(a->instances[0].backup);
	assert_true(a->instances[1].backup);
	assert_int_equal(a->instances[1].max_connections, 0);
	assert_int_equal(a->instances[1].replica, -1);
	assert_string_equal(b->hash_header.p, "X-User");
	conf_free(c);
	for (size_t i = 0; i < 2 * LEN(balances); i++) {
		const struct balance *s = &balances[i / 2];
		const char *name = i % 2 ? s->alias : s->name;

		if (!name)
			continue;
		snprintf(text, sizeof text, "[upstreams.a]\nurl = \"x:1\"\nstrategy = \"%s\"\n%s",
		    name, s->by == BY_HEADER ? "hash_header = \"X\"\n" : "");
		c = load_good(text);
		assert_ptr_equal(c->upstreams[0].balance, s);
		conf_free(c);
	}
}

static bool
is(struct slice s, const char *text)
{
	return slice_eq(s, slice_of(text));
}

static void
test_route_values(void **state)
{
	struct conf *c = load_good(
	    UP "[[routes]]\nhost = \"Api.Example.COM:8080\"\npath_prefix = \"/ws*\"\n"
	    "methods = [\"get\", \"PURGE\"]\nheader = { name = \"X-A\", value = \"*\" }\n"
	    "query = [{ name = \"a\", value = \"1\" }, { name = \"b\", value = \"*\" }]\n"
	    "client = [\"10.0.0.0/8\"]\nupstream = \"app\"\nrewrite = \"/new\"\n"
	    "add_headers = [{ name = \"Host\", value = \"x\" }, { name = \"X-B\", value = \"2\" }]\n"
	    "remove_headers = [\"Cookie\"]\nread_timeout_secs = 120\nmax_body_bytes = 0\n"
	    "rate_limit = { requests = 5, per_secs = 60 }\nbuffer_request = 0\nwebsocket = false\n"
	    "basic_auth = { joe = \"$6$xx$GhEbRMGVNcvk3vSDbjrIw1upgIcwmLWidWlieRpGqcEbFuJTCvLQSRiaU6xw9DqKK8qycU003RDhrlvWcTv/L/\" }\ndescription = \"d\"\n"
	    "[[routes]]\nhost = \"*.example.com\"\nredirect = \"https://{host}{uri}\"\nstatus = 301\n"
	    "[[routes]]\npath_regex = \"^/u/([0-9]+)$\"\nupstream = \"app\"\nrewrite = \"/v/$1\"\n"
	    "[[routes]]\npath_exact = \"/x\"\nrespond = { status = 418, body = \"pot\" }\n"
	    "[[routes]]\nhost = \"*\"\nrespond = { }\n");
	const struct route *r = c->table.routes;

	(void)state;
	assert_int_equal(c->table.n, 5);
	assert_int_equal(r->line, 4);
	assert_int_equal(r->host_kind, HOST_EXACT);
	assert_true(is(r->host, "api.example.com"));
	assert_int_equal(r->path_kind, PATH_PREFIX);
	assert_true(is(r->path, "/ws"));
	assert_int_equal(r->methods, 1u << M_GET | 1u << M_HEAD);
	assert_int_equal(r->methods_other.n, 1);
	assert_true(is(r->headers.v[0].value, "*"));
	assert_int_equal(r->queries.n, 2);
	assert_int_equal(r->clients.n, 1);
	assert_true(r->has_rewrite && is(r->rewrite.text, "/new"));
	assert_int_equal(r->add_headers.n, 2);
	assert_true(is(r->remove_headers.v[0], "Cookie"));
	assert_int_equal(r->read_ms, 120000);
	assert_int_equal(r->connect_ms, 0);
	assert_true(r->has_max_body && r->max_body_bytes == 0);
	assert_int_equal(r->rate.requests, 5);
	assert_int_equal(r->rate.per_ms, 60000);
	assert_int_equal(r->rate.burst, 5);
	assert_int_equal(r->buffer_request, 0);
	assert_false(r->websocket);
	assert_true(is(r->basic_auth->v[0].name, "joe") && is(r->basic_auth->v[0].value, "$6$xx$GhEbRMGVNcvk3vSDbjrIw1upgIcwmLWidWlieRpGqcEbFuJTCvLQSRiaU6xw9DqKK8qycU003RDhrlvWcTv/L/"));
	assert_int_equal(r[1].host_kind, HOST_WILD);
	assert_true(is(r[1].host, ".example.com"));
	assert_int_equal(r[1].action, ACT_REDIRECT);
	assert_int_equal(r[1].status, 301);
	assert_false(r[1].has_max_body);
	assert_int_equal(r[2].path_kind, PATH_REGEX);
	assert_true(regex_matches(&r[2].regex, S("/u/12")));
	assert_int_equal(r[3].action, ACT_RESPOND);
	assert_int_equal(r[3].status, 418);
	assert_true(is(r[3].body.text, "pot") && is(r[3].content_type, "text/plain; charset=utf-8"));
	assert_int_equal(r[4].host_kind, HOST_ANY);
	assert_int_equal(r[4].status, 200);
	assert_int_equal(c->table.n_runs > 0, 1);
	conf_free(c);
}

/* ---- the environment, and texts that point elsewhere ---- */

static void
test_environment(void **state)
{
	static const char *const names[] = { "WARPDRIVE_HTTP_PORT", "WARPDRIVE_LOG_LEVEL",
		"WARPDRIVE_LISTEN", "WARPDRIVE_MIDDLEWARE_VIA", "WARPDRIVE_ADMIN_TOKEN",
		"WARPDRIVE_HEADER_TIMEOUT_SECS", "WARPDRIVE_SOCKET_MODE", "WARPDRIVE_TLS_ENABLED" };
	static const char *const values[] = { "81", "debug", ":82, 127.0.0.1:83", "true", "tok", "1.5",
		"0600", "false" };
	static const struct { const char *name, *value, *want; bool error; } rows[] = {
		{ "WARPDRIVE_HTTP_PORT", "x", "error: WARPDRIVE_HTTP_PORT: expected a number from 1 to 65535, got the text \"x\"", true },
		{ "WARPDRIVE_HTTP_PORT", "", "error: WARPDRIVE_HTTP_PORT: expected a number", true },
		{ "WARPDRIVE_LOG_LEVEL", "x", "error: WARPDRIVE_LOG_LEVEL: expected one of", true },
		{ "WARPDRIVE_LOG_FORMAT", "$x", "error: WARPDRIVE_LOG_FORMAT: unknown variable '$x'", true },
		{ "WARPDRIVE_SHOW_ERRORS", "1", "error: WARPDRIVE_SHOW_ERRORS: expected true or false, got 1", true },
		{ "WARPDRIVE_LISTEN", ":1,nowhere", "error: WARPDRIVE_LISTEN: nowhere: ", true },
		{ "WARPDRIVE_ADMIN_TOKEN", "", "error: WARPDRIVE_ADMIN_TOKEN: must not be empty", true },
		{ "WARPDRIVE_TLS_ACME_DIRECTORY", "/x", "", false },
		{ "WARPDRIVE_TLS_DOMAINS", "a.example,*.b", "error: WARPDRIVE_TLS_DOMAINS: *.b: a wildcard is proved by DNS", true },
		{ "WARPDRIVE_TLS_SESSION_CACHE", "x", "error: WARPDRIVE_TLS_SESSION_CACHE: expected a number from 0 to 16384", true },
		{ "WARPDRIVE_CACHE_SIZE_BYTES", "x", "error: WARPDRIVE_CACHE_SIZE_BYTES: expected a number of bytes", true },
		{ "WARPDRIVE_HTPP_PORT", "5", "warning: unknown variable WARPDRIVE_HTPP_PORT, did you mean 'WARPDRIVE_HTTP_PORT'?", false },
		{ "WARPDRIVE_CONFIG", "5", "", false },
		{ "WARPDRIVE_TARGET_HOST", "5", "", false },
	};
	static const char text[] = "[server]\nhttp_port = 80\n[log]\nlevel = \"warn\"\n" UP;
	struct conf *c;

	(void)state;
	for (size_t i = 0; i < LEN(names); i++)
		setenv(names[i], values[i], 1);
	c = load_good(text);
	assert_int_equal(c->server.n_listens, 3);
	assert_int_equal(c->server.listens[0].port, 81);
	assert_int_equal(c->server.listens[2].port, 83);
	assert_int_equal(c->log.level, LOG_LVL_DEBUG);
	assert_int_equal(c->server.header_ms, 1500);
	assert_int_equal(c->server.socket_mode, 0600);
	assert_true(c->middleware.via);
	assert_true(is(c->server.admin_token, "tok"));
	conf_free(c);
	for (size_t i = 0; i < LEN(names); i++)
		unsetenv(names[i]);
	for (size_t i = 0; i < LEN(rows); i++) {
		setenv(rows[i].name, rows[i].value, 1);
		c = load(text);
		expect(c, rows[i].name, rows[i].want, rows[i].error);
		conf_free(c);
		unsetenv(rows[i].name);
	}
}

/* Two keys with one variable would both be set by it. */
static void
test_one_variable_sets_one_key(void **state)
{
	struct arena a = { NULL };
	const char *names[512];
	size_t n = 0;

	(void)state;
	for (enum section_id id = SEC_SERVER; id < SECTIONS; id++)
		for (size_t i = 0; i < sections[id].n; i++) {
			const char *name = env_name(&a, id, &sections[id].keys[i]);
			for (size_t k = 0; name && k < n; k++)
				if (strcmp(names[k], name) == 0) {
					print_error("%s is of two keys, one is %s.%s\n", name,
					    sections[id].name, sections[id].keys[i].name);
					fail();
				}
			assert_true(n < LEN(names));
			if (name)
				names[n++] = name;
		}
	assert_true(n > 50);
	arena_free(&a);
}

static void
test_tokens_of_the_environment(void **state)
{
	static const struct { const char *name; bool server; } rows[] = {
		{ "WARPDRIVE_ADMIN_TOKEN", true }, { "WARPDRIVE_ADMIN_API_TOKEN", false },
	};

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		struct conf *c;
		setenv(rows[i].name, "tok", 1);
		c = load(UP);
		unsetenv(rows[i].name); /* also when this fails */
		expect(c, rows[i].name, "", false);
		assert_true(is(rows[i].server ? c->server.admin_token : c->admin.token, "tok"));
		assert_int_equal((rows[i].server ? c->admin.token : c->server.admin_token).n, 0);
		conf_free(c);
	}
}

/* Both modes without a file know all that the environment can say. */
static void
test_simple_exposes_admin(void **state)
{
	char *argv[] = { (char *)(uintptr_t) "true", NULL };

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct conf *good, *bad;
		setenv("WARPDRIVE_ADMIN_EXPOSE", "/warp", 1);
		setenv("WARPDRIVE_ADMIN_TOKEN", "tok", 1);
		good = i == 0 ? conf_simple(NULL, "127.0.0.1:1", NULL) : conf_simple(NULL, NULL, argv);
		unsetenv("WARPDRIVE_ADMIN_TOKEN");
		bad = i == 0 ? conf_simple(NULL, "127.0.0.1:1", NULL) : conf_simple(NULL, NULL, argv);
		unsetenv("WARPDRIVE_ADMIN_EXPOSE"); /* also when this fails */
		expect(good, "expose", "", false);
		assert_int_equal(good->table.n, 3);
		assert_int_equal(good->table.routes[1].action, ACT_ADMIN);
		conf_free(good);
		expect(bad, "expose without token", "WARPDRIVE_ADMIN_EXPOSE: needs server.admin_token", true);
		conf_free(bad);
	}
}

static void
test_env_and_file_texts(void **state)
{
	char path[sizeof dir + 32];
	struct conf *c;

	(void)state;
	file_write("token", "from a file\n");
	setenv("WARP_TEST_HOST", "localhost", 1);
	c = load_good("[server]\nadmin_token = \"file:token\"\n"
	              "[upstreams.a]\nhost = \"env:WARP_TEST_HOST\"\nport = 5\n");
	assert_true(is(c->server.admin_token, "from a file"));
	assert_int_equal(c->diags.warnings, geteuid() == 0); /* mode 0600 */
	assert_string_equal(c->upstreams[0].instances[0].addr.text, "localhost:5");
	conf_free(c);
	snprintf(path, sizeof path, "%s/token", dir);
	assert_int_equal(chmod(path, 0644), 0);
	c = conf_load(file);
	expect(c, "0644", "2:15: warning: /tmp/warp-conf-", false);
	expect(c, "0644", "/token is readable by others", false);
	conf_free(c);
	unsetenv("WARP_TEST_HOST");
}

static void
test_simple(void **state)
{
	struct conf *c = conf_simple(NULL, "localhost:3000", NULL);

	(void)state;
	expect(c, "simple", "", false);
	assert_int_equal(c->server.listens[0].port, 8080);
	assert_string_equal(c->upstreams[0].instances[0].addr.text, "localhost:3000");
	assert_int_equal(c->upstreams[0].connect_ms, 5000);
	assert_string_equal(c->upstreams[0].name, "target");
	assert_int_equal(c->table.n, 1);
	assert_null(c->file);
	conf_free(c);

	setenv("WARPDRIVE_HTTP_PORT", "81", 1);
	c = conf_simple(NULL, "unix:/x", NULL);
	assert_int_equal(c->server.listens[0].port, 81);
	conf_free(c);
	c = conf_simple("127.0.0.1:82", "unix:/x", NULL); /* -l wins */
	assert_int_equal(c->server.n_listens, 1);
	assert_int_equal(c->server.listens[0].port, 82);
	conf_free(c);
	unsetenv("WARPDRIVE_HTTP_PORT");

	c = conf_simple("nowhere", "localhost:1", NULL);
	expect(c, "-l nowhere", "warp: error: cannot listen on nowhere: ", true);
	conf_free(c);
	c = conf_simple(NULL, "nowhere", NULL);
	expect(c, "-u nowhere", "warp: error: target: nowhere: ", true);
	conf_free(c);
	c = conf_simple(NULL, "https://x:1", NULL);
	expect(c, "-u https", "", false);
	assert_int_equal(c->upstreams[0].instances[0].addr.scheme, SCHEME_HTTPS);
	assert_true(c->upstreams[0].tls.verify && c->upstreams[0].tls.trust->n > 0);
	conf_free(c);
	c = conf_simple("https://:1", "x:1", NULL);
	expect(c, "-l https", "not bound, as TLS is not enabled", false);
	conf_free(c);
}

/* ---- configurations that must load ---- */

static const char *const good[] = {
	/* seeds/002: simple things first, then routing */
	"[server]\nhttp_port = 8080\nhttps_port = 443\n"
	"[upstreams.rails]\nhost = \"127.0.0.1\"\nport = 3000\n"
	"[upstreams.cable]\nhost = \"127.0.0.1\"\nport = 3001\n"
	"[upstreams.sidekiq]\nhost = \"127.0.0.1\"\nport = 7080\n"
	"[[routes]]\npath_prefix = \"/cable\"\nupstream = \"cable\"\n"
	"[[routes]]\npath_prefix = \"/sidekiq\"\nupstream = \"sidekiq\"\nstrip_prefix = true # /sidekiq/jobs → /jobs\n"
	"[[routes]]\npath_prefix = \"/\"\nupstream = \"rails\"\n",
	"[upstreams.rails]\nstrategy = \"round_robin\" # or\n"
	"[[upstreams.rails.instances]]\nsocket = \"/tmp/puma.0.sock\"\n"
	"[[upstreams.rails.instances]]\nsocket = \"/tmp/puma.1.sock\"\n",
	UP "[[routes]]\npath_regex = \"^/users/[0-9]+/posts\"\nupstream = \"app\"\n"
	"[[routes]]\npath_prefix = \"/old-api\"\nupstream = \"app\"\nrewrite = \"/new-api\"\n"
	"[[routes]]\npath_prefix = \"/api\"\nupstream = \"app\"\nadd_headers = [\n"
	"{ name = \"X-Backend\", value = \"api-service\" },\n"
	"{ name = \"X-Forwarded-Prefix\", value = \"/api\" }\n]\n"
	"[[routes]]\nheader = { name = \"X-API-Version\", value = \"v2\" }\nupstream = \"app\"\n"
	"[[routes]]\npath_prefix = \"/slow\"\nupstream = \"app\"\nread_timeout_secs = 120\nconnect_timeout_secs = 5\n",
	/* bench/proxies/warp.py */
	"[server]\nlisten = [\"127.0.0.1:8080\"]\nworker_threads = 1\nmax_connections = 10500\n"
	"keepalive_timeout_secs = 300\nkeepalive_requests = 10000000\n[log]\naccess = \"off\"\n"
	"[admin]\nlisten = [\"unix:/tmp/admin.sock\"]\n[upstreams.app]\nkeepalive = 128\n"
	"max_fails = 1\nfail_timeout_secs = 1\n[[upstreams.app.instances]]\nhost = \"127.0.0.1\"\nport = 1\n"
	"[[upstreams.app.instances]]\nsocket = \"/tmp/x\"\n[[routes]]\npath_prefix = \"/a\"\nupstream = \"app\"\n",
};

static void
test_good(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(good); i++)
		conf_free(load_good(good[i]));
}

/* ---- what is printed ---- */

static void
all_keys(FILE *to)
{
	conf_print_keys(to, NULL);
}

static char *
printed(void (*print)(FILE *), void (*print_conf)(const struct conf *, FILE *),
    const struct conf *c)
{
	char *text = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n);

	assert_non_null(f);
	if (print)
		print(f);
	else
		print_conf(c, f);
	fclose(f);
	return text;
}

static void
expect_in(const char *text, const char *want)
{
	if (!strstr(text, want)) {
		print_error("--- wanted: %s\n--- in:\n%s\n", want, text);
		fail();
	}
}

static void
test_print_keys(void **state)
{
	char *keys = printed(all_keys, NULL, NULL), *man = printed(conf_print_man, NULL, NULL);

	(void)state;
	expect_in(keys, "server.http_port ");
	expect_in(keys, "WARPDRIVE_HTTP_PORT");
	expect_in(keys, "WARPDRIVE_LOG_LEVEL");
	for (enum section_id id = SEC_SERVER; id < SECTIONS; id++)
		for (size_t i = 0; i < sections[id].n; i++) {
			char want[96];
			snprintf(want, sizeof want, "%s.%s ", sections[id].name,
			    sections[id].keys[i].name);
			expect_in(keys, want);
			snprintf(want, sizeof want, "\n.TP\n.B %s\n", sections[id].keys[i].name);
			expect_in(man, want);
		}
	expect_in(man, ".SS \"[upstreams.NAME]\"\n");
	expect_in(man, "A number from 1 to 65535; default: none; WARPDRIVE_HTTP_PORT.");
	free(keys);
	free(man);
}

static const char showy[] =
    "[server]\nadmin_token = \"s3cret\"\nmax_connections = 10\nhttp_port = 81\n" UP
    "[[routes]]\nhost = \"*.example.com\"\npath_prefix = \"/a\"\nmethods = [\"GET\", \"PURGE\"]\nupstream = \"app\"\nstrip_prefix = true\n"
    "basic_auth = { joe = \"s3cret\" }\nadd_headers = [{ name = \"Authorization\", value = \"s3cret\" }, { name = \"X-Q\", value = \"a\\\"b\" }]\n"
    "[[routes]]\nredirect = \"/x\"\n";

static void
test_print_check(void **state)
{
	struct conf *c = load_good(showy);
	char *text = printed(NULL, conf_print_check, c);

	(void)state;
	expect_in(text, "listen :81\n");
	expect_in(text, "route 1 (line 8): host=*.example.com path_prefix=/a methods=GET,HEAD,PURGE -> upstream app, strip_prefix, basic_auth of 1\n");
	expect_in(text, "route 2 (line 16): everything -> 308 /x\n");
	expect_in(text, "upstream app: round_robin");
	expect_in(text, "127.0.0.1:3000");
	expect_in(text, "memory: at most ");
	assert_null(strstr(text, "s3cret"));
	free(text);
	conf_free(c);
}

static void
test_print_json(void **state)
{
	struct conf *c;
	char *text;

	(void)state;
	setenv("WARPDRIVE_LOG_LEVEL", "debug", 1);
	c = load_good(showy);
	unsetenv("WARPDRIVE_LOG_LEVEL");
	text = printed(NULL, conf_print_json, c);
	expect_in(text, "\"http_port\": { \"value\": 81, \"from\": \"file:4\" }");
	expect_in(text, "\"admin_token\": { \"value\": \"***\", \"from\": \"file:2\" }");
	expect_in(text, "\"worker_threads\": { \"value\": 1, \"from\": \"preset\" }");
	expect_in(text, "\"level\": { \"value\": \"debug\", \"from\": \"env:WARPDRIVE_LOG_LEVEL\" }");
	expect_in(text, "\"basic_auth\": { \"value\": {\"joe\": \"***\"}, \"from\": \"file:");
	expect_in(text, "{\"name\": \"Authorization\", \"value\": \"***\"}, {\"name\": \"X-Q\", \"value\": \"***\"}");
	expect_in(text, "\"app\": [\"127.0.0.1:3000\"]");
	assert_null(strstr(text, "s3cret"));
	free(text);
	conf_free(c);
	c = conf_simple(NULL, "localhost:1", NULL);
	text = printed(NULL, conf_print_json, c);
	expect_in(text, "\"file\": null");
	expect_in(text, "\"target\": [\"localhost:1\"]");
	free(text);
	conf_free(c);
}

static void
test_memory_bound(void **state)
{
	struct conf *few = load_good("[server]\nmemory_bytes = 8388608\nmax_connections = 10\n" UP);
	struct conf *one = load_good("[server]\nmemory_bytes = 8388608\nmax_connections = 1000\n" UP);
	struct conf *two = load_good("[server]\nmemory_bytes = 8388608\nmax_connections = 1000\nworker_threads = 2\n" UP);
	struct conf *preset = load_good(UP);
	struct memory bound = conf_memory(one);

	(void)state;
	assert_true(bound.all > bound.shared + bound.held && bound.held == 8388608);
	assert_true(conf_memory(few).held < bound.held);
	assert_true(conf_memory(two).all - bound.all == bound.worker + bound.held);
	assert_true(preset->server.memory_bytes >= MEMORY_MIN);
	conf_free(few);
	conf_free(one);
	conf_free(two);
	conf_free(preset);
}

static void
test_distance(void **state)
{
	static const struct { const char *a, *b; size_t d; } rows[] = {
		{ "", "", 0 }, { "a", "", 1 }, { "ab", "ba", 1 }, { "abc", "abd", 1 },
		{ "port", "prot", 1 }, { "kitten", "sitting", 3 }, { "ca", "abc", 3 },
	};

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		assert_int_equal(word_distance(slice_of(rows[i].a), slice_of(rows[i].b)), rows[i].d);
		assert_int_equal(word_distance(slice_of(rows[i].b), slice_of(rows[i].a)), rows[i].d);
	}
}

/* Every good row, cut short at every byte: an error or not, never a crash. */
static void
test_cut_short(void **state)
{
	char *text = strdup(showy);

	(void)state;
	for (size_t n = strlen(text); n-- > 0; ) {
		text[n] = '\0';
		conf_free(load(text));
	}
	free(text);
}

static int
setup(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	snprintf(file, sizeof file, "%s/warp.toml", dir);
	file_write("empty", "");
	return 0;
}

static int
teardown(void **state)
{
	static const char *const names[] = { "warp.toml", "empty", "token" };
	char path[sizeof dir + 32];

	(void)state;
	for (size_t i = 0; i < LEN(names); i++) {
		snprintf(path, sizeof path, "%s/%s", dir, names[i]);
		unlink(path);
	}
	return rmdir(dir);
}

/* The digits of pi take too long for a worker, whose other clients would wait. */
static void
test_conf_bcrypt(void **state)
{
	(void)state;
	memset(pi, 0, sizeof pi);
	conf_free(load(ROUTE_TO_APP "basic_auth = { ann = \"plain\" }\n"));
	assert_int_equal(pi[1], 0);
	conf_free(load(ROUTE_TO_APP "basic_auth = { ann = \"$2y$04$UMo.mGH.xMW2EtWiVNc2iOyEqZ.Q0vZASPD7gTDekOgexi4AobkCO\" }\n"));
	assert_int_equal(pi[1], 0x243f6a88);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_off),
		cmocka_unit_test(test_all_errors_at_once_by_line),
		cmocka_unit_test(test_file_cannot_be_read),
		cmocka_unit_test(test_dialects),
		cmocka_unit_test(test_tls),
		cmocka_unit_test(test_every_key_is_known),
		cmocka_unit_test(test_warnings),
		cmocka_unit_test(test_presets),
		cmocka_unit_test(test_server_values),
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_upstream_values),
		cmocka_unit_test(test_strategies),
		cmocka_unit_test(test_route_values),
		cmocka_unit_test(test_environment),
		cmocka_unit_test(test_one_variable_sets_one_key),
		cmocka_unit_test(test_tokens_of_the_environment),
		cmocka_unit_test(test_simple_exposes_admin),
		cmocka_unit_test(test_env_and_file_texts),
		cmocka_unit_test(test_simple),
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_print_keys),
		cmocka_unit_test(test_print_check),
		cmocka_unit_test(test_print_json),
		cmocka_unit_test(test_memory_bound),
		cmocka_unit_test(test_distance),
		cmocka_unit_test(test_cut_short),
		cmocka_unit_test(test_conf_bcrypt),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
