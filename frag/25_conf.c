/* ==== keys ===================================================================
 * Owns    nothing: tables of every section and key, the operator's vocabulary.
 * Offers  sections[], key_find.
 * Calls   base. Parsing, presets, ranges, the environment, `-D`, the manual's
 *         tables and /config come from these rows: a new setting is one row
 *         and one field of a struct. */

enum key_kind {
	K_BOOL,
	K_INT,
	K_BYTES,
	K_SECS,    /* kept as ms */
	K_MODE,    /* of a file */
	K_CHOICE,  /* one of key.words; kept as its place there */
	K_SINK,    /* where log lines go */
	K_TEXT,
	K_SECRET,  /* never shown; not empty */
	K_PATH,    /* from the file's directory */
	K_TEXTS,
	K_ADDRS,
	K_CIDRS,
	K_NAMES,   /* of header fields */
	K_FIELDS,  /* { name, value } of header fields to be set */
	K_MATCHES, /* { name, value } of header fields to look for */
	K_PAIRS,   /* { name, value } of anything */
	K_USERS,   /* { user = "hash" } */
	K_TABLE,   /* a section of its own */
	K_TABLES,  /* a list of them; its reader looks into it */
	K_ANY,     /* of a key that is not supported yet */
	KINDS
};

/* How the environment says a value of some kind. */
enum key_words { NO_WORDS, ONE_VALUE, ONE_TEXT, A_LIST };

static const struct kind {
	const char *name; /* what errors and the manual call it */
	enum key_words words;
} kinds[KINDS] = {
	[K_BOOL] = { "true or false", ONE_VALUE },
	[K_INT] = { "a number", ONE_VALUE },
	[K_BYTES] = { "a number of bytes", ONE_VALUE },
	[K_SECS] = { "a number of seconds", ONE_VALUE },
	[K_MODE] = { "a file mode such as 0o660", ONE_TEXT },
	[K_CHOICE] = { "one of", ONE_TEXT },
	[K_SINK] = { "stdout, stderr, syslog, off or a file", ONE_TEXT },
	[K_TEXT] = { "a text", ONE_TEXT },
	[K_SECRET] = { "a text", ONE_TEXT },
	[K_PATH] = { "a path", ONE_TEXT },
	[K_TEXTS] = { "a list of texts", A_LIST },
	[K_ADDRS] = { "a list of addresses", A_LIST },
	[K_CIDRS] = { "a list of networks", A_LIST },
	[K_NAMES] = { "a list of header names", A_LIST },
	[K_FIELDS] = { "a list of { name, value }", NO_WORDS },
	[K_MATCHES] = { "{ name, value } or a list of them", NO_WORDS },
	[K_PAIRS] = { "{ name, value } or a list of them", NO_WORDS },
	[K_USERS] = { "a table of users and passwords", NO_WORDS },
	[K_TABLE] = { "a table", NO_WORDS },
	[K_TABLES] = { "a list of tables", NO_WORDS },
	[K_ANY] = { "a value", NO_WORDS },
};

/* Not supported yet: refused, but LATER_OFF may be false or 0. */
enum key_when { NOW, LATER, LATER_OFF };

enum section_id {
	SEC_ROOT,
	SEC_SERVER,
	SEC_UPSTREAM,
	SEC_INSTANCE,
	SEC_UPSTREAM_TLS,
	SEC_HEALTH,
	SEC_UPSTREAM_PROCESS,
	SEC_PROCESS,
	SEC_LIMITS,
	SEC_ROUTE,
	SEC_RESPOND,
	SEC_RATE,
	SEC_TLS,
	SEC_CERT,
	SEC_EAB,
	SEC_CACHE,
	SEC_POSTGRES,
	SEC_MIDDLEWARE,
	SEC_LOG,
	SEC_ADMIN,
	SEC_WEBSERVER,
	SEC_HOSTS,
	SEC_SITES,
	SEC_FASTROUTER,
	SEC_SHARED_SOCKETS,
	SECTIONS
};

struct key {
	const char *name;
	enum key_kind kind;
	enum key_when when;
	size_t at, size;      /* where it goes in the section's struct */
	const char *preset;   /* as the environment would say it; NULL: unset */
	double min, max;      /* of numbers */
	const char *words;    /* a|b|c of K_CHOICE; the word K_ADDRS may be */
	enum section_id sub;  /* of K_TABLE, K_TABLES */
	const char *help;
};

#define AT(type, field) offsetof(type, field), sizeof(((type *)NULL)->field)
#define KEY(name, kind, at, preset, min, max, help) \
	{ name, kind, NOW, at, preset, min, max, NULL, SEC_ROOT, help }
#define PLAIN(name, kind, at, preset, help) \
	{ name, kind, NOW, at, preset, 0, 0, NULL, SEC_ROOT, help }
#define WORDS(name, kind, at, preset, words, help) \
	{ name, kind, NOW, at, preset, 0, 0, words, SEC_ROOT, help }
#define SUB(name, kind, when, sub, help) { name, kind, when, 0, 0, NULL, 0, 0, NULL, sub, help }
#define SOON(name, kind, when, preset, words, help) \
	{ name, kind, when, 0, 0, preset, 0, LIMIT_MAX, words, SEC_ROOT, help }

#define LIMIT_MAX       9007199254740992.0 /* 2^53: "no upper bound" */
#define SECS_MIN        0.001
#define SECS_MAX        DAY_S
#define TUNNEL_SECS_MAX (30.0 * DAY_S)
#define PORT_MAX        65535
#define MODE_MAX        0777
#define HEADER_BYTES_MIN 1024
#define HEADER_BYTES_MAX 65536 /* two of them fit in a large block */
#define CLIENTS_MAX     1000000
#define WEIGHT_MAX      65535
#define RETRIES_MAX     64     /* bits of exchange.tried */
#define PORT_PRESET     8080

struct addrs {
	struct addr *v;
	int n;
	bool word; /* it was key.words instead */
};

/* What a section says before it is lowered into the struct of warp.h. */
struct server_read {
	struct server_conf out;
	uint32_t http_port, https_port; /* 0: not said */
	struct addrs listen;
};

struct place {
	struct slice host, socket, url;
	uint32_t port, weight;
};

struct upstream_read {
	struct upstream out;
	struct place place;
	struct slice strategy, host_header;
	int protocol;
};

struct route_read {
	struct route out;
	struct slice host, path_prefix, path_exact, path_regex, upstream;
	struct slices methods;
	int respond_status, limit_key;
};

struct admin_read {
	struct addrs listen;
	struct slice token;
};

/* clang-format off */
static const struct key root_keys[] = {
	SOON("app", K_TEXT, LATER, NULL, NULL, "Fujin: name of the application."),
	SOON("app_name", K_TEXT, LATER, NULL, NULL, "Fujin: name of the application."),
	SOON("version", K_TEXT, LATER, NULL, NULL, "Fujin: version to deploy."),
	SOON("requirements", K_TEXT, LATER, NULL, NULL, "Fujin: the requirements file."),
	SOON("python_version", K_TEXT, LATER, NULL, NULL, "Fujin: version of Python."),
	SOON("build_command", K_TEXT, LATER, NULL, NULL, "Fujin: how to build it."),
	SOON("release_command", K_TEXT, LATER, NULL, NULL, "Fujin: run before a release."),
	SOON("distfile", K_TEXT, LATER, NULL, NULL, "Fujin: what is built."),
	SOON("installation_mode", K_TEXT, LATER, NULL, NULL, "Fujin: how it is installed."),
};

#define SERVER(field) AT(struct server_read, out.field)
static const struct key server_keys[] = {
	KEY("http_port", K_INT, AT(struct server_read, http_port), NULL, 1, PORT_MAX,
	    "Port to listen on, at every interface; 8080 if nothing else listens."),
	KEY("https_port", K_INT, AT(struct server_read, https_port), NULL, 1, PORT_MAX,
	    "Port for TLS; not bound unless [tls] is enabled."),
	PLAIN("listen", K_ADDRS, AT(struct server_read, listen), NULL,
	    "Addresses to listen on."),
	SOON("https_listen", K_ADDRS, LATER, NULL, NULL, "Addresses to listen on for TLS."),
	KEY("worker_threads", K_INT, SERVER(workers), "1", 1, WORKERS_MAX,
	    "Worker processes; one for each core is plenty."),
	PLAIN("user", K_TEXT, SERVER(user), NULL, "User that workers run as."),
	PLAIN("group", K_TEXT, SERVER(group), NULL,
	    "Group that workers run as; that of user if not said."),
	PLAIN("chroot", K_PATH, SERVER(chroot), NULL, "Directory that workers are locked into."),
	KEY("max_connections", K_INT, SERVER(max_connections), "1024", 1, CLIENTS_MAX,
	    "Clients at one time, all workers together; more wait in the backlog."),
	KEY("header_timeout_secs", K_SECS, SERVER(header_ms), "10", SECS_MIN, SECS_MAX,
	    "A request's head must be complete in this time."),
	KEY("body_timeout_secs", K_SECS, SERVER(body_ms), "60", SECS_MIN, SECS_MAX,
	    "Longest wait between two reads of a request's body."),
	KEY("keepalive_timeout_secs", K_SECS, SERVER(keepalive_ms), "75", SECS_MIN, SECS_MAX,
	    "A client connection is closed after being idle for this long."),
	KEY("keepalive_requests", K_INT, SERVER(keepalive_requests), "10000", 1, INT32_MAX,
	    "Requests on one client connection."),
	KEY("write_timeout_secs", K_SECS, SERVER(write_ms), "60", SECS_MIN, SECS_MAX,
	    "Longest wait between two writes to a client."),
	KEY("tunnel_timeout_secs", K_SECS, SERVER(tunnel_ms), "3600", SECS_MIN, TUNNEL_SECS_MAX,
	    "A WebSocket or other tunnel is closed after being idle for this long."),
	KEY("shutdown_timeout_secs", K_SECS, SERVER(shutdown_ms), "30", SECS_MIN, SECS_MAX,
	    "When draining, requests still running after this are cut."),
	KEY("max_header_bytes", K_BYTES, SERVER(max_header_bytes), "16384", HEADER_BYTES_MIN,
	    HEADER_BYTES_MAX, "Longest head of a request (431 beyond) or response (502 beyond)."),
	KEY("max_body_bytes", K_BYTES, SERVER(max_body_bytes), "0", 0, LIMIT_MAX,
	    "Longest request body (413 beyond); 0: no limit."),
	PLAIN("trusted_proxies", K_CIDRS, SERVER(trusted), NULL,
	    "Peers whose X-Forwarded-* and Forwarded are believed; others' are replaced."),
	PLAIN("proxy_protocol", K_BOOL, SERVER(proxy_protocol), "false",
	    "Clients start with a PROXY header, v1 or v2."),
	PLAIN("admin_token", K_SECRET, SERVER(admin_token), NULL,
	    "What X-Admin-Token must be on routes with require_auth."),
	KEY("no_route_status", K_INT, SERVER(no_route_status), "502", 400, 599,
	    "Answer to a request that no route takes."),
	PLAIN("request_id", K_BOOL, SERVER(request_id), "true",
	    "Send X-Request-Id upstream: a trusted proxy's own, else a new one."),
	KEY("socket_mode", K_MODE, SERVER(socket_mode), "0660", 0, MODE_MAX,
	    "Mode of unix sockets that are listened on."),
	PLAIN("show_errors", K_BOOL, SERVER(show_errors), "false",
	    "Say the cause in the pages of 502, 503 and 504."),
	PLAIN("error_dir", K_PATH, SERVER(error_dir), NULL,
	    "Directory of NNN.html and NNN.json, served for warp's own errors."),
	PLAIN("server_tokens", K_BOOL, SERVER(server_tokens), "false",
	    "Name warp and its version in answers of its own."),
};

#define PLACE_KEYS(type, in) \
	PLAIN("host", K_TEXT, AT(type, in host), NULL, "Name or address of the backend."), \
	KEY("port", K_INT, AT(type, in port), NULL, 1, PORT_MAX, "Its port."), \
	PLAIN("socket", K_TEXT, AT(type, in socket), NULL, "Its unix socket, instead."), \
	PLAIN("url", K_TEXT, AT(type, in url), NULL, "Its address as http:// or ws://, instead.")

#define UPSTREAM(field) AT(struct upstream_read, out.field)
static const struct key upstream_keys[] = {
	PLACE_KEYS(struct upstream_read, place.),
	SUB("instances", K_TABLES, NOW, SEC_INSTANCE, "Several backends, instead."),
	PLAIN("strategy", K_TEXT, AT(struct upstream_read, strategy), "round_robin",
	    "How an instance is picked: round_robin (smooth, weighted). Later: weighted, "
	    "least_conn, random, random_two, ip_hash, uri_hash, header_hash, cookie, "
	    "least_time, first."),
	SOON("hash_header", K_TEXT, LATER, NULL, NULL, "Header field of strategy header_hash."),
	SOON("sticky_cookie", K_TEXT, LATER, NULL, NULL, "Cookie of strategy cookie."),
	WORDS("protocol", K_CHOICE, AT(struct upstream_read, protocol), "http",
	    "http|https|uwsgi", "What is spoken to the backend. Later: https, uwsgi."),
	SOON("modifier1", K_INT, LATER_OFF, "0", NULL, "Of the uwsgi packet."),
	SOON("modifier2", K_INT, LATER_OFF, "0", NULL, "Of the uwsgi packet."),
	SOON("params", K_ANY, LATER, NULL, NULL, "Variables added to the uwsgi packet."),
	KEY("keepalive", K_INT, UPSTREAM(keepalive), "32", 0, CLIENTS_MAX,
	    "Idle connections kept for each instance, in each worker."),
	KEY("keepalive_timeout_secs", K_SECS, UPSTREAM(keepalive_ms), "60", SECS_MIN, SECS_MAX,
	    "An idle connection is closed after this long."),
	KEY("connect_timeout_secs", K_SECS, UPSTREAM(connect_ms), "5", SECS_MIN, SECS_MAX,
	    "Longest wait for a connection."),
	KEY("read_timeout_secs", K_SECS, UPSTREAM(read_ms), "60", SECS_MIN, SECS_MAX,
	    "Longest silence before the answer and inside it."),
	KEY("write_timeout_secs", K_SECS, UPSTREAM(write_ms), "60", SECS_MIN, SECS_MAX,
	    "Longest wait between two writes of the request."),
	KEY("retries", K_INT, UPSTREAM(retries), "2", 0, RETRIES_MAX,
	    "Further instances tried for one request."),
	SOON("hold_secs", K_SECS, LATER_OFF, "0", NULL,
	    "A request waits this long for an instance to come up."),
	KEY("max_fails", K_INT, UPSTREAM(max_fails), "3", 0, INT32_MAX,
	    "Failures within fail_timeout_secs that leave an instance out; 0: none do."),
	KEY("fail_timeout_secs", K_SECS, UPSTREAM(fail_ms), "10", SECS_MIN, SECS_MAX,
	    "How long it is left out; then one request is its trial."),
	WORDS("proxy_protocol", K_CHOICE, UPSTREAM(proxy_out), "off", "off|v1|v2",
	    "Start each connection with a PROXY header."),
	PLAIN("host_header", K_TEXT, AT(struct upstream_read, host_header), "preserve",
	    "Host sent upstream: preserve (the client's), upstream (the backend's), or a text."),
	SOON("slow_start_secs", K_SECS, LATER_OFF, "0", NULL,
	    "An instance that comes back gets its share over this time."),
	SOON("maintenance", K_PATH, LATER, NULL, NULL,
	    "A file: while it exists it is the answer, with 503."),
	SOON("subscription", K_TEXT, LATER, NULL, NULL,
	    "Subscription server whose nodes are the instances."),
	SUB("tls", K_TABLE, LATER, SEC_UPSTREAM_TLS, "TLS toward https backends."),
	SUB("health", K_TABLE, LATER, SEC_HEALTH, "Probes."),
	SUB("process", K_TABLE, LATER, SEC_UPSTREAM_PROCESS, "The program behind it, supervised."),
};

static const struct key instance_keys[] = {
	PLACE_KEYS(struct place, ),
	KEY("weight", K_INT, AT(struct place, weight), "1", 1, WEIGHT_MAX,
	    "Its share of the requests."),
	SOON("backup", K_BOOL, LATER_OFF, "false", NULL, "Used only when all others are down."),
	SOON("max_connections", K_INT, LATER_OFF, "0", NULL, "Requests at one time; 0: no limit."),
};

static const struct key upstream_tls_keys[] = {
	SOON("verify", K_BOOL, LATER, "true", NULL, "Check the backend's certificate."),
	SOON("ca_file", K_PATH, LATER, NULL, NULL, "Whom to trust for that."),
	SOON("server_name", K_TEXT, LATER, NULL, NULL, "Name to ask for and to check."),
	SOON("cert", K_PATH, LATER, NULL, NULL, "Client certificate."),
	SOON("key", K_PATH, LATER, NULL, NULL, "Its key."),
};

static const struct key health_keys[] = {
	SOON("path", K_TEXT, LATER, NULL, NULL, "What to ask for; none: only connect."),
	SOON("interval_secs", K_SECS, LATER, "10", NULL, "Time between probes."),
	SOON("timeout_secs", K_SECS, LATER, "2", NULL, "A probe fails after this."),
	SOON("unhealthy_threshold", K_INT, LATER, "3", NULL, "Failures in a row: down."),
	SOON("healthy_threshold", K_INT, LATER, "2", NULL, "Passes in a row: up."),
	SOON("expect_status", K_ANY, LATER, "200-399", NULL, "What passes."),
	SOON("host", K_TEXT, LATER, NULL, NULL, "Host of the probe."),
	SOON("method", K_TEXT, LATER, "GET", NULL, "Method of the probe."),
	SOON("port", K_INT, LATER, NULL, NULL, "Another port to probe."),
	SOON("jitter", K_BOOL, LATER, "true", NULL, "Spread probes in time."),
};

static const struct key process_keys[] = {
	SOON("command", K_TEXT, LATER, NULL, NULL, "Program; split into words without args."),
	SOON("args", K_TEXTS, LATER, NULL, NULL, "Its arguments."),
	SOON("env", K_ANY, LATER, NULL, NULL, "Added to the environment."),
	SOON("envfile", K_PATH, LATER, NULL, NULL, "File of such additions."),
	SOON("dir", K_PATH, LATER, NULL, NULL, "Directory to start in."),
	SOON("user", K_TEXT, LATER, NULL, NULL, "User to run as."),
	SOON("group", K_TEXT, LATER, NULL, NULL, "Group to run as."),
	SOON("replicas", K_INT, LATER, "1", NULL, "How many to run."),
	SOON("depends_on", K_TEXTS, LATER, NULL, NULL, "Started after these."),
	SOON("restart", K_CHOICE, LATER, "always", "always|on_failure|never", "When to restart."),
	SOON("backoff_secs", K_SECS, LATER, "0.5", NULL, "Wait before a restart, doubling."),
	SOON("backoff_max_secs", K_SECS, LATER, "30", NULL, "Up to this."),
	SOON("stop_signal", K_TEXT, LATER, "TERM", NULL, "How it is told to stop."),
	SOON("stop_timeout_secs", K_SECS, LATER, "10", NULL, "Then it is killed."),
	SOON("ready", K_CHOICE, LATER, "listen", "listen|health|exec", "When it counts as up."),
	SOON("ready_timeout_secs", K_SECS, LATER, "60", NULL, "It must be up within."),
	SOON("log", K_TEXT, LATER, "prefix", NULL, "Where its output goes."),
	SUB("limits", K_TABLE, LATER, SEC_LIMITS, "Resource limits."),
	SOON("oneshot", K_BOOL, LATER_OFF, "false", NULL, "Run to success, once."),
	SOON("start_on", K_CHOICE, LATER, "boot", "boot|request", "When it is started."),
	SOON("idle_stop_secs", K_SECS, LATER_OFF, "0", NULL, "Stopped after idling so long."),
	SOON("subscribe_to", K_TEXTS, LATER, NULL, NULL, "Subscription servers to announce to."),
	SOON("shared_sockets", K_ANY, LATER, NULL, NULL, "Numbers of [[shared_sockets]] it gets."),
};

static const struct key limits_keys[] = {
	SOON("nofile", K_INT, LATER, NULL, NULL, "Open files."),
	SOON("as_bytes", K_BYTES, LATER, NULL, NULL, "Address space."),
	SOON("core", K_BYTES, LATER, NULL, NULL, "Core file."),
};

#define ROUTE(field) AT(struct route_read, out.field)
static const struct key route_keys[] = {
	PLAIN("host", K_TEXT, AT(struct route_read, host), NULL,
	    "Condition: the host, without port; *.example.com: any below it."),
	PLAIN("path_prefix", K_TEXT, AT(struct route_read, path_prefix), NULL,
	    "Condition: the path starts with this text; a * at its end is ignored."),
	PLAIN("path_exact", K_TEXT, AT(struct route_read, path_exact), NULL,
	    "Condition: the path is this text."),
	PLAIN("path_regex", K_TEXT, AT(struct route_read, path_regex), NULL,
	    "Condition: a POSIX extended regular expression matches in the path."),
	PLAIN("methods", K_TEXTS, AT(struct route_read, methods), NULL,
	    "Condition: one of these methods; GET includes HEAD."),
	PLAIN("header", K_MATCHES, ROUTE(headers), NULL,
	    "Condition: a header field { name, value }, or all of a list; value \"*\": any."),
	PLAIN("query", K_PAIRS, ROUTE(queries), NULL,
	    "Condition: a query parameter { name, value }, or all of a list; value \"*\": any."),
	PLAIN("client", K_CIDRS, ROUTE(clients), NULL, "Condition: the client's address is here."),
	PLAIN("upstream", K_TEXT, AT(struct route_read, upstream), NULL,
	    "Action: this upstream answers."),
	PLAIN("redirect", K_TEXT, ROUTE(redirect), NULL,
	    "Action: redirect to this; {host}, {uri} and {path} are the request's."),
	KEY("status", K_INT, ROUTE(status), "308", 301, 308, "Of redirect: 301, 302, 303, 307 or 308."),
	SUB("respond", K_TABLE, NOW, SEC_RESPOND, "Action: answer with { status, body, content_type }."),
	SOON("static_dir", K_PATH, LATER, NULL, NULL, "Action: serve files from here."),
	SOON("index", K_TEXT, LATER, "index.html", NULL, "File served for a directory."),
	SOON("fallback", K_TEXT, LATER, NULL, NULL, "File served when there is none."),
	SOON("listing", K_BOOL, LATER_OFF, "false", NULL, "List directories."),
	SOON("cache_control", K_TEXT, LATER, NULL, NULL, "Cache-Control of files."),
	PLAIN("strip_prefix", K_BOOL, ROUTE(strip_prefix), "false",
	    "The upstream sees the path without what matched."),
	PLAIN("rewrite", K_TEXT, ROUTE(rewrite), NULL,
	    "This replaces what matched; $1 to $9 are groups of path_regex."),
	PLAIN("add_headers", K_FIELDS, ROUTE(add_headers), NULL,
	    "[{ name, value }] set on the request upstream."),
	PLAIN("remove_headers", K_NAMES, ROUTE(remove_headers), NULL,
	    "Names removed from the request upstream."),
	PLAIN("add_response_headers", K_FIELDS, ROUTE(add_response_headers), NULL,
	    "[{ name, value }] set on the response."),
	PLAIN("remove_response_headers", K_NAMES, ROUTE(remove_response_headers), NULL,
	    "Names removed from the response."),
	KEY("read_timeout_secs", K_SECS, ROUTE(read_ms), NULL, SECS_MIN, SECS_MAX,
	    "Instead of the upstream's."),
	KEY("connect_timeout_secs", K_SECS, ROUTE(connect_ms), NULL, SECS_MIN, SECS_MAX,
	    "Instead of the upstream's."),
	KEY("write_timeout_secs", K_SECS, ROUTE(write_ms), NULL, SECS_MIN, SECS_MAX,
	    "Instead of the upstream's."),
	PLAIN("require_auth", K_BOOL, ROUTE(require_auth), "false",
	    "401 unless X-Admin-Token is server.admin_token; it is not forwarded."),
	PLAIN("basic_auth", K_USERS, ROUTE(basic_auth), NULL,
	    "{ user = \"crypt(3) hash or text\" }: 401 for anybody else."),
	KEY("max_body_bytes", K_BYTES, ROUTE(max_body_bytes), NULL, 0, LIMIT_MAX,
	    "Instead of the server's; 0: no limit."),
	SUB("rate_limit", K_TABLE, NOW, SEC_RATE,
	    "{ requests, per_secs, burst, key }: 429 beyond."),
	KEY("buffer_request", K_BYTES, ROUTE(buffer_request), NULL, 0, LIMIT_MAX,
	    "The upstream sees a request when it is whole; bytes kept in memory, "
	    "the rest in a file."),
	PLAIN("websocket", K_BOOL, ROUTE(websocket), "true", "Let upgrades through; else 426."),
	SOON("cache", K_BOOL, LATER_OFF, NULL, NULL, "Cache answers; follows [cache]."),
	SOON("gzip", K_BOOL, LATER_OFF, NULL, NULL, "Compress answers; follows [middleware]."),
	PLAIN("description", K_TEXT, ROUTE(description), NULL, "For people and logs."),
};

static const struct key respond_keys[] = {
	KEY("status", K_INT, AT(struct route_read, respond_status), "200", 200, 599, "Its status."),
	PLAIN("body", K_TEXT, ROUTE(body), "", "Its body."),
	PLAIN("content_type", K_TEXT, ROUTE(content_type), "text/plain; charset=utf-8",
	    "Its Content-Type."),
};

static const struct key rate_keys[] = {
	KEY("requests", K_INT, ROUTE(rate.requests), NULL, 1, INT32_MAX, "So many requests"),
	KEY("per_secs", K_SECS, ROUTE(rate.per_ms), "1", SECS_MIN, SECS_MAX, "in this time."),
	KEY("burst", K_INT, ROUTE(rate.burst), NULL, 1, INT32_MAX,
	    "At once; as many as requests if not said."),
	WORDS("key", K_CHOICE, AT(struct route_read, limit_key), "ip", "ip",
	    "What is counted: each client address."),
};

static const struct key tls_keys[] = {
	SOON("enabled", K_BOOL, LATER_OFF, "false", NULL, "Serve TLS."),
	SOON("cert", K_PATH, LATER, NULL, NULL, "Certificate chain, PEM."),
	SOON("key", K_PATH, LATER, NULL, NULL, "Its key, PEM."),
	SUB("certs", K_TABLES, LATER, SEC_CERT, "Several, chosen by name."),
	SOON("domains", K_TEXTS, LATER, NULL, NULL, "Names to get certificates for."),
	SOON("acme_directory", K_PATH, LATER, NULL, NULL, "Where ACME state and keys live."),
	SOON("acme_url", K_TEXT, LATER, NULL, NULL, "The ACME server; Let's Encrypt."),
	SOON("acme_email", K_TEXT, LATER, NULL, NULL, "Contact of the account."),
	SOON("acme_ca_file", K_PATH, LATER, NULL, NULL, "Whom to trust as ACME server."),
	SUB("acme_eab", K_TABLE, LATER, SEC_EAB, "External account binding."),
	SOON("redirect", K_BOOL, LATER_OFF, "true", NULL, "Redirect http to https."),
	SOON("hsts_secs", K_INT, LATER_OFF, "0", NULL, "Strict-Transport-Security."),
	SOON("session_cache", K_INT, LATER_OFF, NULL, NULL, "Sessions remembered."),
	SOON("client_ca_file", K_PATH, LATER, NULL, NULL, "Who may sign client certificates."),
	SOON("client_verify", K_CHOICE, LATER, "require", "require|optional", "Ask for them."),
	SOON("strict_sni", K_BOOL, LATER_OFF, "false", NULL, "Refuse unknown names."),
	SOON("legacy", K_BOOL, LATER_OFF, "false", NULL, "Old protocol versions."),
};

static const struct key cert_keys[] = {
	SOON("cert", K_PATH, LATER, NULL, NULL, "Certificate chain, PEM."),
	SOON("key", K_PATH, LATER, NULL, NULL, "Its key, PEM."),
};

static const struct key eab_keys[] = {
	SOON("kid", K_TEXT, LATER, NULL, NULL, "Key identifier."),
	SOON("hmac", K_SECRET, LATER, NULL, NULL, "HMAC key."),
};

static const struct key cache_keys[] = {
	SOON("size_bytes", K_BYTES, LATER_OFF, "0", NULL, "Memory of the cache; 0: none."),
	SOON("max_object_bytes", K_BYTES, LATER, NULL, NULL, "Largest answer stored."),
	SOON("redis_url", K_SECRET, LATER, NULL, NULL, "A second level in Redis."),
	SOON("default_ttl_secs", K_SECS, LATER_OFF, "0", NULL, "For answers that say nothing."),
	SOON("stale_secs", K_SECS, LATER, NULL, NULL, "Served so long after their time."),
	SOON("redis_timeout_ms", K_INT, LATER, "50", NULL, "Longest wait for Redis."),
};

static const struct key postgres_keys[] = {
	SOON("url", K_SECRET, LATER, NULL, NULL, "Database to LISTEN at."),
	SOON("channel", K_TEXT, LATER, NULL, NULL, "Its channel; payloads are purged."),
	SOON("on_reconnect", K_CHOICE, LATER, "purge", "purge|keep", "Messages may be missed."),
};

#define MIDDLEWARE(field) AT(struct middleware_conf, field)
static const struct key middleware_keys[] = {
	PLAIN("forward_headers", K_BOOL, MIDDLEWARE(forward_headers), "true",
	    "Send X-Forwarded-For, -Proto, -Host, -Port and X-Real-IP upstream."),
	PLAIN("forwarded", K_BOOL, MIDDLEWARE(forwarded), "false",
	    "Send Forwarded (RFC 7239) upstream."),
	PLAIN("via", K_BOOL, MIDDLEWARE(via), "false", "Add Via in both directions."),
	SOON("x_sendfile_enabled", K_BOOL, LATER_OFF, "false", NULL, "Obey X-Sendfile."),
	SOON("x_sendfile_root", K_PATH, LATER, NULL, NULL, "Only below this directory."),
	SOON("gzip_compression_enabled", K_BOOL, LATER_OFF, "false", NULL, "Compress answers."),
	SOON("gzip_min_bytes", K_BYTES, LATER, "1024", NULL, "From this size."),
	SOON("gzip_types", K_TEXTS, LATER, NULL, NULL, "Of these types."),
	SOON("gzip_level", K_INT, LATER, NULL, NULL, "This hard."),
	PLAIN("log_requests", K_BOOL, MIDDLEWARE(log_requests), "false",
	    "An access log on standard output, unless log.access says where."),
};

static const struct key log_keys[] = {
	PLAIN("access", K_SINK, AT(struct log_conf, access), NULL,
	    "Where a line for each request goes: stdout, stderr, a file, syslog, off."),
	PLAIN("format", K_TEXT, AT(struct log_conf, format), "combined",
	    "common, combined, json, or a pattern with $variables."),
	PLAIN("error", K_SINK, AT(struct log_conf, error), "stderr",
	    "Where warp's own messages go: stderr, stdout, a file, syslog, off."),
	WORDS("level", K_CHOICE, AT(struct log_conf, level), "info", "error|warn|info|debug",
	    "How much it says."),
};

static const struct key admin_keys[] = {
	WORDS("listen", K_ADDRS, AT(struct admin_read, listen), ADMIN_SOCKET, "off",
	    "Addresses of the admin interface, or off."),
	PLAIN("token", K_SECRET, AT(struct admin_read, token), NULL,
	    "What X-Admin-Token or Bearer must be over TCP; unix sockets need none."),
	SOON("expose", K_TEXT, LATER, NULL, NULL, "Reachable through routes at this path."),
};

/* name is what the manual calls it; upstreams.NAME is read for each NAME.
 * off: a LATER section with this key off is as if it were not there. */
struct section {
	const char *name;
	const struct key *keys;
	size_t n;
	enum key_when when;
	const char *off;
	const char *help;
};

#define SECTION(name, keys, when, off, help) { name, keys, LEN(keys), when, off, help }
#define DIALECT(name, help) { name, NULL, 0, LATER, NULL, help }
static const struct section sections[SECTIONS] = {
	[SEC_ROOT] = SECTION("", root_keys, LATER, NULL, "Deployment keys of Fujin."),
	[SEC_SERVER] = SECTION("server", server_keys, NOW, NULL, "Listening, limits, time."),
	[SEC_UPSTREAM] = SECTION("upstreams.NAME", upstream_keys, NOW, NULL,
	    "Backends that routes name: host and port, socket, url, or instances."),
	[SEC_INSTANCE] = SECTION("upstreams.NAME.instances", instance_keys, NOW, NULL,
	    "One of several backends."),
	[SEC_UPSTREAM_TLS] = SECTION("upstreams.NAME.tls", upstream_tls_keys, LATER, NULL, ""),
	[SEC_HEALTH] = SECTION("upstreams.NAME.health", health_keys, LATER, NULL, ""),
	[SEC_UPSTREAM_PROCESS] = SECTION("upstreams.NAME.process", process_keys, LATER, NULL, ""),
	[SEC_PROCESS] = SECTION("processes.NAME", process_keys, LATER, NULL, ""),
	[SEC_LIMITS] = SECTION("processes.NAME.limits", limits_keys, LATER, NULL, ""),
	[SEC_ROUTE] = SECTION("routes", route_keys, NOW, NULL,
	    "In order: the first whose conditions all hold takes the request. "
	    "Each has exactly one action."),
	[SEC_RESPOND] = SECTION("routes.respond", respond_keys, NOW, NULL, "An answer of warp's own."),
	[SEC_RATE] = SECTION("routes.rate_limit", rate_keys, NOW, NULL, "Of all workers together."),
	[SEC_TLS] = SECTION("tls", tls_keys, LATER, "enabled", ""),
	[SEC_CERT] = SECTION("tls.certs", cert_keys, LATER, NULL, ""),
	[SEC_EAB] = SECTION("tls.acme_eab", eab_keys, LATER, NULL, ""),
	[SEC_CACHE] = SECTION("cache", cache_keys, LATER, "size_bytes", ""),
	[SEC_POSTGRES] = SECTION("postgres", postgres_keys, LATER, NULL, ""),
	[SEC_MIDDLEWARE] = SECTION("middleware", middleware_keys, NOW, NULL, "Switches for all routes."),
	[SEC_LOG] = SECTION("log", log_keys, NOW, NULL, "What is written where."),
	[SEC_ADMIN] = SECTION("admin", admin_keys, NOW, NULL, "Status, metrics, and `warp -s`."),
	[SEC_WEBSERVER] = DIALECT("webserver", "Fujin's routes."),
	[SEC_HOSTS] = DIALECT("hosts", "Fujin's hosts."),
	[SEC_SITES] = DIALECT("sites", "BWS's sites."),
	[SEC_FASTROUTER] = DIALECT("fastrouter", "uWSGI's FastRouter."),
	[SEC_SHARED_SOCKETS] = DIALECT("shared_sockets", "Sockets bound for others."),
};
/* clang-format on */

static const struct key *
key_find(enum section_id id, struct slice name)
{
	for (size_t i = 0; i < sections[id].n; i++)
		if (slice_eq(name, slice_of(sections[id].keys[i].name)))
			return &sections[id].keys[i];
	return NULL;
}

/* The word that starts a section in the file: upstreams of upstreams.NAME. */
static struct slice
section_word(enum section_id id)
{
	const char *name = sections[id].name;

	return (struct slice){ name, strcspn(name, ".") };
}

/* Sections that stand in the file by themselves, not inside another one. */
static bool
section_is_top(enum section_id id)
{
	const char *dot = strchr(sections[id].name, '.');

	return id != SEC_ROOT && (!dot || strcmp(dot, ".NAME") == 0);
}

/* Its scalar keys can be set by the environment: not lists, not NAMEs. */
static bool
section_has_env(enum section_id id)
{
	return section_is_top(id) && id != SEC_ROUTE && !strchr(sections[id].name, '.');
}

/* ==== hints ==================================================================
 * Owns    nothing.
 * Offers  near_offer, near_text: which known word was meant.
 * Calls   base, arena. */

#define NEAR_MAX 48 /* bytes of a word that is compared */

struct near {
	struct slice word, best;
	size_t distance; /* of best */
};

/* Insertions, deletions, changes and swaps of neighbours from a to b
 * (Damerau-Levenshtein, optimal string alignment). */
static size_t
word_distance(struct slice a, struct slice b)
{
	size_t rows[3][NEAR_MAX + 1], *old = rows[0], *last = rows[1], *now = rows[2], *t;

	if (a.n > NEAR_MAX || b.n > NEAR_MAX)
		return SIZE_MAX;
	for (size_t j = 0; j <= b.n; j++)
		old[j] = last[j] = j;
	for (size_t i = 1; i <= a.n; i++) {
		now[0] = i;
		for (size_t j = 1; j <= b.n; j++) {
			now[j] = MIN(MIN(last[j], now[j - 1]) + 1,
			    last[j - 1] + (a.p[i - 1] != b.p[j - 1]));
			if (i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1])
				now[j] = MIN(now[j], old[j - 2] + 1);
		}
		t = old;
		old = last;
		last = now;
		now = t;
	}
	return last[b.n];
}

static void
near_offer(struct near *near, struct slice candidate)
{
	size_t d = word_distance(near->word, candidate);
	size_t limit = MAX(near->word.n / 3, (size_t)2);

	if (d > limit || d >= near->word.n || (near->best.n > 0 && d >= near->distance))
		return;
	near->best = candidate;
	near->distance = d;
}

/* `, did you mean 'x'?`, or nothing. */
static const char *
near_text(struct arena *a, const struct near *near)
{
	return near->best.n == 0 ? "" : arena_fmt(a, ", did you mean '%.*s'?",
	    (int)near->best.n, near->best.p);
}

/* ==== values =================================================================
 * Owns    nothing: values go into the structs of the configuration being read.
 * Offers  kinds[], section_read.
 * Calls   base, arena, diag, toml, http, addr, hints, keys. */

#define SECRET_FILE_MAX 65536 /* bytes of what `file:` names */
#define GOT_MAX         40    /* bytes of a wrong text that are shown */
#define ENV_PREFIX      "WARPDRIVE_"

/* A configuration being read. */
struct reader {
	struct conf *conf;
	const char *where; /* section in hand, as errors call it */
	const char *env;   /* the variable whose text is in hand, NULL: the file's */
	const struct toml *secret; /* the first that stands in the file itself */
	bool access_said;  /* log.access is not the preset */
};

/* The whole of a file of at most max bytes, NUL behind it; NULL or why not. */
static const char *
file_read(struct arena *a, const char *path, size_t max, struct slice *out)
{
	FILE *f = fopen(path, "re");
	char *p = NULL;
	size_t n = 0, cap = 0;
	const char *why = NULL;

	if (!f)
		return strerror(errno);
	while (!feof(f) && !ferror(f) && n <= max) {
		if (n == cap) {
			cap = cap ? cap * 2 : 4096;
			if (!(p = realloc(p, cap)))
				die_memory();
		}
		n += fread(p + n, 1, cap - n, f);
	}
	if (ferror(f))
		why = strerror(errno);
	else if (n > max)
		why = "the file is too long";
	else
		*out = arena_dup(a, (struct slice){ p, n });
	free(p);
	fclose(f); /* only read from */
	return why;
}

/* path as it is if absolute, else below the configuration's directory. */
static const char *
conf_path(struct conf *c, struct slice path)
{
	if (path.n > 0 && path.p[0] == '/')
		return arena_dup(&c->arena, path).p;
	return arena_fmt(&c->arena, "%s/%.*s", strcmp(c->dir, "/") == 0 ? "" : c->dir,
	    (int)path.n, path.p);
}

/* What the operator wrote, in words. */
static const char *
value_text(struct arena *a, const struct toml *v)
{
	switch (v->kind) {
	case TOML_STRING:
		return arena_fmt(a, "the text \"%.*s%s\"", (int)MIN(v->text.n, (size_t)GOT_MAX),
		    v->text.p, v->text.n > GOT_MAX ? "..." : "");
	case TOML_INTEGER:
		return arena_fmt(a, "%lld", (long long)v->integer);
	case TOML_FLOAT:
		return arena_fmt(a, "%g", v->real);
	case TOML_BOOLEAN:
		return v->boolean ? "true" : "false";
	case TOML_ARRAY:
		return v->count == 0 ? "an empty list" : "a list";
	case TOML_TABLE:
		return "a table";
	default:
		return arena_fmt(a, "the date or time %.*s", (int)v->text.n, v->text.p);
	}
}

/* Notes an error in the value v of a key: at its place, or naming the
 * variable. Always false, so that a failing check is one line. */
__attribute__((format(printf, 4, 5))) static bool
value_error(struct reader *r, const char *key, const struct toml *v, const char *fmt, ...)
{
	struct conf *c = r->conf;
	const char *text;
	va_list ap;

	va_start(ap, fmt);
	text = arena_vfmt(&c->arena, fmt, ap);
	va_end(ap);
	if (r->env)
		diag_add(&c->diags, DIAG_ERROR, 0, 0, "%s: %s", r->env, text);
	else
		diag_add(&c->diags, DIAG_ERROR, v->vline, v->vcol, "%s%s%s: %s", r->where,
		    *r->where ? "." : "", key, text);
	return false;
}

/* Kind, range and choices of a key: "a number from 1 to 65535". */
static const char *
kind_text(struct arena *a, const struct key *k)
{
	const char *name = kinds[k->kind].name;
	bool number = k->kind == K_INT || k->kind == K_BYTES || k->kind == K_SECS;

	if (k->kind == K_CHOICE) {
		char *text = arena_fmt(a, "%s %s", name, k->words);
		for (char *bar = text; (bar = strchr(bar, '|')); )
			*bar = ' ';
		return text;
	}
	if (!number || (k->min <= 0 && k->max >= LIMIT_MAX))
		return name;
	if (k->max >= LIMIT_MAX)
		return arena_fmt(a, "%s of at least %.10g", name, k->min);
	return arena_fmt(a, "%s from %.10g to %.10g", name, k->min, k->max);
}

static bool
kind_error(struct reader *r, const struct key *k, const struct toml *v)
{
	struct arena *a = &r->conf->arena;

	return value_error(r, k->name, v, "expected %s, got %s", kind_text(a, k),
	    value_text(a, v));
}

/* What env:NAME or file:/path stands for; any other text is itself. */
static bool
text_follow(struct reader *r, const struct key *k, const struct toml *v, struct slice *out)
{
	const char *why, *path;

	*out = v->text;
	if (slice_starts(v->text, S("env:"))) {
		*out = slice_of(getenv(v->text.p + 4));
		if (!out->p)
			return value_error(r, k->name, v, "the environment has no %s", v->text.p + 4);
	} else if (slice_starts(v->text, S("file:"))) {
		path = conf_path(r->conf, slice_from(v->text, 5));
		if ((why = file_read(&r->conf->arena, path, SECRET_FILE_MAX, out)))
			return value_error(r, k->name, v, "cannot read %s: %s", path, why);
		if (out->n > 0 && out->p[out->n - 1] == '\n')
			out->n--;
		if (out->n > 0 && out->p[out->n - 1] == '\r')
			out->n--;
	} else if (!r->secret && !r->env && (k->kind == K_SECRET || k->kind == K_USERS))
		r->secret = v;
	*out = arena_dup(&r->conf->arena, *out); /* with a NUL behind it */
	return true;
}

/* The text of v, good as a C string as well. */
static bool
text_get(struct reader *r, const struct key *k, const struct toml *v, struct slice *out)
{
	if (v->kind != TOML_STRING)
		return kind_error(r, k, v);
	if (!text_follow(r, k, v, out))
		return false;
	if (out->n > 0 && memchr(out->p, '\0', out->n))
		return value_error(r, k->name, v, "a text cannot hold a NUL here");
	return true;
}

/* The members of a list; one value stands for a list of one. */
static const struct toml *
list_first(const struct toml *v, size_t *n)
{
	*n = v->kind == TOML_ARRAY ? v->count : 1;
	return v->kind == TOML_ARRAY ? v->first : v;
}

static void
store(void *to, size_t size, uint64_t n)
{
	uint32_t small = (uint32_t)n;

	if (size == sizeof small)
		memcpy(to, &small, sizeof small);
	else
		memcpy(to, &n, sizeof n);
}

/* ---- one setter for each kind ---- */

static bool
set_bool(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	if (v->kind != TOML_BOOLEAN)
		return kind_error(r, k, v);
	*(bool *)to = v->boolean;
	return true;
}

static bool
set_int(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	if (v->kind != TOML_INTEGER || (double)v->integer < k->min || (double)v->integer > k->max)
		return kind_error(r, k, v);
	store(to, k->size, (uint64_t)v->integer);
	return true;
}

static bool
set_secs(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	double secs = v->kind == TOML_INTEGER ? (double)v->integer : v->real;

	if (v->kind != TOML_INTEGER && v->kind != TOML_FLOAT)
		return kind_error(r, k, v);
	if (!(secs >= k->min && secs <= k->max)) /* nan as well */
		return kind_error(r, k, v);
	store(to, k->size, (uint64_t)(secs * SECOND_MS + 0.5));
	return true;
}

/* A TOML integer (0o660), or octal digits as a text. */
static bool
set_mode(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	int64_t mode = v->integer;
	char *end;

	if (v->kind == TOML_STRING) {
		mode = strtol(v->text.p, &end, 8);
		if (v->text.n == 0 || *end || !isdigit((unsigned char)*v->text.p))
			return kind_error(r, k, v);
	} else if (v->kind != TOML_INTEGER)
		return kind_error(r, k, v);
	if (mode < 0 || mode > MODE_MAX)
		return kind_error(r, k, v);
	store(to, k->size, (uint64_t)mode);
	return true;
}

/* One of k->words; where the first is off, false is that and true the next. */
static bool
set_choice(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	struct slice rest = slice_of(k->words), word;
	struct near near = { .word = v->kind == TOML_STRING ? v->text : S("") };

	if (v->kind == TOML_BOOLEAN && slice_starts(rest, S("off|"))) {
		store(to, k->size, v->boolean);
		return true;
	}
	for (uint64_t i = 0; v->kind == TOML_STRING && slice_cut(&rest, '|', &word); i++) {
		near_offer(&near, word);
		if (slice_eq(word, v->text)) {
			store(to, k->size, i);
			return true;
		}
	}
	return value_error(r, k->name, v, "expected %s, got %s%s",
	    kind_text(&r->conf->arena, k), value_text(&r->conf->arena, v),
	    near_text(&r->conf->arena, &near));
}

static bool
set_sink(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	static const struct { const char *name; enum log_sink sink; } sinks[] = {
		{ "off", SINK_OFF }, { "stdout", SINK_STDOUT }, { "stderr", SINK_STDERR },
		{ "syslog", SINK_SYSLOG },
	};
	struct log_target *out = to;
	struct slice s;

	if (!text_get(r, k, v, &s) || s.n == 0)
		return s.n == 0 && v->kind == TOML_STRING ? kind_error(r, k, v) : false;
	*out = (struct log_target){ .sink = SINK_FILE, .fd = -1 };
	for (size_t i = 0; i < LEN(sinks); i++)
		if (slice_eq(s, slice_of(sinks[i].name))) {
			out->sink = sinks[i].sink;
			return true;
		}
	out->path = conf_path(r->conf, s);
	return true;
}

/* Into a struct slice or a const char *, by size. */
static bool
set_text(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	struct slice s;

	if (!text_get(r, k, v, &s))
		return false;
	if (s.n == 0 && k->kind != K_TEXT)
		return value_error(r, k->name, v, "must not be empty");
	if (k->kind == K_PATH)
		s = slice_of(conf_path(r->conf, s));
	if (k->size == sizeof s)
		memcpy(to, &s, sizeof s);
	else
		memcpy(to, &s.p, sizeof s.p);
	return true;
}

static bool
set_texts(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	struct slices *out = to;
	size_t n;
	const struct toml *item = list_first(v, &n);
	bool ok = true;

	*out = (struct slices){ arena_alloc(&r->conf->arena, n * sizeof *out->v), 0 };
	for (; n-- > 0; item = item->next)
		if (text_get(r, k, item, &out->v[out->n]))
			out->n++;
		else
			ok = false;
	return ok;
}

static bool
set_addrs(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	struct arena *a = &r->conf->arena;
	struct addrs *out = to;
	size_t n;
	const struct toml *item = list_first(v, &n);
	const char *why;
	struct slice s;
	bool ok = true;

	*out = (struct addrs){ .v = arena_alloc(a, n * sizeof *out->v) };
	for (; n-- > 0; item = item->next) {
		if (!text_get(r, k, item, &s))
			ok = false;
		else if (k->words && slice_eq(s, slice_of(k->words)))
			out->word = true;
		else if (addr_parse(a, s, &out->v[out->n], &why))
			out->n++;
		else
			ok = value_error(r, k->name, item, "%s: %s", s.p, why);
	}
	if (out->word && out->n > 0)
		return value_error(r, k->name, v, "'%s' stands alone", k->words);
	return ok;
}

static bool
set_cidrs(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	struct cidrs *out = to;
	size_t n;
	const struct toml *item = list_first(v, &n);
	struct slice s;
	bool ok = true;

	*out = (struct cidrs){ arena_alloc(&r->conf->arena, n * sizeof *out->v), 0 };
	for (; n-- > 0; item = item->next) {
		if (!text_get(r, k, item, &s))
			ok = false;
		else if (cidr_parse(s, &out->v[out->n]))
			out->n++;
		else
			ok = value_error(r, k->name, item,
			    "expected a network such as 10.0.0.0/8 or an address, got \"%s\"", s.p);
	}
	return ok;
}

/* Fields whose change would break the framing or the connection. */
static bool
is_framing(struct slice name)
{
	static const enum field_id ids[] = { F_CONNECTION, F_CONTENT_LENGTH, F_HTTP2_SETTINGS,
		F_KEEP_ALIVE, F_PROXY_CONNECTION, F_TE, F_TRAILER, F_TRANSFER_ENCODING, F_UPGRADE };
	enum field_id id = field_id_of(name);

	for (size_t i = 0; i < LEN(ids); i++)
		if (ids[i] == id)
			return true;
	return false;
}

static bool
field_name_ok(struct reader *r, const struct key *k, const struct toml *v, struct slice name)
{
	if (!is_token(name))
		return value_error(r, k->name, v, "'%s' is no name of a header field", name.p);
	if (k->kind != K_MATCHES && is_framing(name))
		return value_error(r, k->name, v, "%s is warp's own to write", name.p);
	if (k->kind == K_NAMES && field_id_of(name) == F_HOST)
		return value_error(r, k->name, v, "a request without Host is none");
	return true;
}

static bool
set_names(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	struct slices *out = to;
	size_t n;
	const struct toml *item = list_first(v, &n);
	bool ok = set_texts(r, k, v, to);

	for (int i = 0; ok && i < out->n; i++, item = item->next)
		ok = field_name_ok(r, k, item, out->v[i]);
	return ok;
}

/* { name = "…", value = "…" } and nothing else. */
static bool
pair_get(struct reader *r, const struct key *k, const struct toml *v, struct pair *out)
{
	const struct toml *name, *value;

	if (v->kind != TOML_TABLE)
		return kind_error(r, k, v);
	for (const struct toml *c = v->first; c; c = c->next)
		if (!slice_eq(c->key, S("name")) && !slice_eq(c->key, S("value")))
			return value_error(r, k->name, c, "expected name and value, got '%.*s'",
			    (int)c->key.n, c->key.p);
	name = toml_get(v, "name");
	value = toml_get(v, "value");
	if (!name || !value)
		return value_error(r, k->name, v, "%s is missing", name ? "value" : "name");
	if (!text_get(r, k, name, &out->name) || !text_get(r, k, value, &out->value))
		return false;
	if (k->kind == K_PAIRS)
		return true;
	if (!field_name_ok(r, k, name, out->name))
		return false;
	return is_field_value(out->value) ||
	    value_error(r, k->name, value, "a header field cannot hold control characters");
}

static bool
set_pairs(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	struct pairs *out = to;
	size_t n;
	const struct toml *item = list_first(v, &n);
	bool ok = true;

	*out = (struct pairs){ arena_alloc(&r->conf->arena, n * sizeof *out->v), 0 };
	for (; n-- > 0; item = item->next)
		if (pair_get(r, k, item, &out->v[out->n]))
			out->n++;
		else
			ok = false;
	return ok;
}

/* A hash starts with `$` and is one that crypt(3) of musl knows. */
static bool
password_ok(struct reader *r, const struct key *k, const struct toml *v, struct slice secret)
{
	static const char *const hashes[] = { "$1$", "$2a$", "$2b$", "$2x$", "$2y$", "$5$", "$6$" };

	if (secret.n == 0)
		return value_error(r, k->name, v, "an empty password");
	if (secret.p[0] != '$') {
		if (secret.n == v->text.n && memcmp(secret.p, v->text.p, secret.n) == 0)
			diag_add(&r->conf->diags, DIAG_WARNING, v->vline, v->vcol,
			    "the password of %.*s is plain text, a hash is safer "
			    "(openssl passwd -6)", (int)v->key.n, v->key.p);
		return true;
	}
	for (size_t i = 0; i < LEN(hashes); i++)
		if (slice_starts(secret, slice_of(hashes[i])))
			return true;
	return value_error(r, k->name, v, "this kind of hash is not known; "
	    "use SHA-512 (openssl passwd -6) or bcrypt");
}

static bool
set_users(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	struct pairs *out = to;
	bool ok = true;

	if (v->kind != TOML_TABLE || v->count == 0)
		return kind_error(r, k, v);
	*out = (struct pairs){ arena_alloc(&r->conf->arena, v->count * sizeof *out->v), 0 };
	for (const struct toml *u = v->first; u; u = u->next) {
		struct pair *p = &out->v[out->n];
		p->name = u->key;
		if (u->key.n == 0 || memchr(u->key.p, ':', u->key.n))
			ok = value_error(r, k->name, u, "a user's name cannot hold a colon");
		else if (text_get(r, k, u, &p->value) && password_ok(r, k, u, p->value))
			out->n++;
		else
			ok = false;
	}
	return ok;
}

static bool
set_tables(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	size_t n;
	const struct toml *item = list_first(v, &n);

	(void)to; /* their reader goes through them itself */
	if (v->kind != TOML_ARRAY || n == 0)
		return kind_error(r, k, v);
	for (; n-- > 0; item = item->next)
		if (item->kind != TOML_TABLE)
			return kind_error(r, k, item);
	return true;
}

static bool (*const setters[KINDS])(struct reader *, const struct key *, const struct toml *,
    void *) = {
	[K_BOOL] = set_bool,
	[K_INT] = set_int,
	[K_BYTES] = set_int,
	[K_SECS] = set_secs,
	[K_MODE] = set_mode,
	[K_CHOICE] = set_choice,
	[K_SINK] = set_sink,
	[K_TEXT] = set_text,
	[K_SECRET] = set_text,
	[K_PATH] = set_text,
	[K_TEXTS] = set_texts,
	[K_ADDRS] = set_addrs,
	[K_CIDRS] = set_cidrs,
	[K_NAMES] = set_names,
	[K_FIELDS] = set_pairs,
	[K_MATCHES] = set_pairs,
	[K_PAIRS] = set_pairs,
	[K_USERS] = set_users,
	[K_TABLES] = set_tables,
};

/* ---- sections ---- */

/* The value a word of the environment (or a preset) stands for. It has no
 * place in the file: line 0. */
static const struct toml *
word_value(struct arena *a, enum key_words words, struct slice s)
{
	struct toml *v = arena_alloc(a, sizeof *v), *item;
	struct slice piece;
	char *end;

	v->kind = words == A_LIST ? TOML_ARRAY : TOML_STRING;
	v->text = arena_dup(a, s);
	while (words == A_LIST && slice_list_next(&s, &piece)) {
		item = arena_alloc(a, sizeof *item);
		item->text = arena_dup(a, piece);
		if (v->last)
			v->last->next = item;
		else
			v->first = item;
		v->last = item;
		v->count++;
	}
	if (words != ONE_VALUE || v->text.n == 0)
		return v;
	if (slice_eq(v->text, S("true")) || slice_eq(v->text, S("false"))) {
		v->kind = TOML_BOOLEAN;
		v->boolean = v->text.n == 4;
	} else if (strspn(v->text.p, "+-0123456789.eE") == v->text.n) {
		v->real = strtod(v->text.p, &end);
		v->kind = *end ? TOML_STRING : TOML_FLOAT;
		v->integer = strtoll(v->text.p, &end, 10);
		if (!*end && llabs(v->integer) < (long long)LIMIT_MAX)
			v->kind = TOML_INTEGER;
	}
	return v;
}

static bool
value_is_off(const struct toml *v)
{
	return (v->kind == TOML_BOOLEAN && !v->boolean) ||
	    (v->kind == TOML_INTEGER && v->integer == 0) ||
	    (v->kind == TOML_FLOAT && v->real == 0);
}

/* WARPDRIVE_<SECTION>_<KEY>, and for [server] WARPDRIVE_<KEY>; NULL: the
 * environment cannot say this key. */
static const char *
env_name(struct arena *a, enum section_id id, const struct key *k)
{
	char *name;

	if (!section_has_env(id) || kinds[k->kind].words == NO_WORDS)
		return NULL;
	name = id == SEC_SERVER ? arena_fmt(a, ENV_PREFIX "%s", k->name)
	                        : arena_fmt(a, ENV_PREFIX "%s_%s", sections[id].name, k->name);
	for (char *c = name; *c; c++)
		*c = (char)toupper((unsigned char)*c);
	return name;
}

/* A key that is not there: which one was meant, or where does it belong? */
static void
key_unknown(struct reader *r, enum section_id id, const struct toml *v)
{
	struct arena *a = &r->conf->arena;
	struct near near = { .word = v->key };
	const char *hint;

	for (size_t i = 0; i < sections[id].n; i++)
		near_offer(&near, slice_of(sections[id].keys[i].name));
	hint = near_text(a, &near);
	for (enum section_id s = SEC_SERVER; near.best.n == 0 && s < SECTIONS; s++)
		if (key_find(s, v->key)) {
			hint = arena_fmt(a, ", it belongs to [%s]", sections[s].name);
			break;
		}
	diag_add(&r->conf->diags, DIAG_ERROR, v->line, v->col, "unknown key '%.*s' in %s%s",
	    (int)v->key.n, v->key.p, r->where, hint);
}

/* Sections that are not supported yet: nothing in them may be asked for,
 * unless the key that switches them off does. */
static void
section_refuse(struct reader *r, enum section_id id, const struct toml *v)
{
	const struct section *s = &sections[id];
	const struct toml *off = s->off && v->kind == TOML_TABLE ? toml_get(v, s->off) : NULL;

	if ((off && value_is_off(off)) || (v->kind == TOML_TABLE && v->count == 0 && s->n > 0))
		return;
	diag_add(&r->conf->diags, DIAG_ERROR, v->line, v->col, "%s%s%.*s: not supported yet",
	    r->where, *r->where ? "." : "", (int)v->key.n, v->key.p);
}

static void
key_set(struct reader *r, const struct key *k, const struct toml *v, void *obj)
{
	if (k->when == NOW) {
		if (setters[k->kind])
			setters[k->kind](r, k, v, (char *)obj + k->at);
	} else if (k->kind == K_TABLE || k->kind == K_TABLES)
		section_refuse(r, k->sub, v);
	else if (k->when != LATER_OFF || !value_is_off(v))
		value_error(r, k->name, v, "not supported yet");
}

/* From the environment; else what the file says stays. */
static const struct toml *
key_from_env(struct reader *r, enum section_id id, const struct key *k, void *obj)
{
	const char *name = env_name(&r->conf->arena, id, k);
	const char *word = name ? getenv(name) : NULL;
	const struct toml *v;

	if (!word)
		return NULL;
	v = word_value(&r->conf->arena, kinds[k->kind].words, slice_of(word));
	r->env = name;
	key_set(r, k, v, obj);
	r->env = NULL;
	return v;
}

/* Fills obj with presets, what the table says (NULL: there is none), and what
 * the environment says. */
static void
section_read(struct reader *r, enum section_id id, const char *where, const struct toml *table,
    void *obj)
{
	const char *outer = r->where;
	const struct toml *v, *env;

	r->where = where;
	for (size_t i = 0; i < sections[id].n; i++) {
		const struct key *k = &sections[id].keys[i];
		if (k->when == NOW && k->preset)
			key_set(r, k, word_value(&r->conf->arena, kinds[k->kind].words,
			    slice_of(k->preset)), obj);
		if ((v = table ? toml_get(table, k->name) : NULL)) {
			key_set(r, k, v, obj);
			if (k->when == NOW && k->kind == K_TABLE && v->kind == TOML_TABLE)
				section_read(r, k->sub, arena_fmt(&r->conf->arena, "%s.%s", where,
				    k->name), v, obj);
			else if (k->when == NOW && k->kind == K_TABLE)
				kind_error(r, k, v);
		}
		if ((env = key_from_env(r, id, k, obj)))
			v = env;
		if (section_has_env(id) && kinds[k->kind].words != NO_WORDS)
			r->conf->origins[r->conf->n_origins++] = (struct origin){
				sections[id].name, k, env ? env_name(&r->conf->arena, id, k) : NULL, v };
	}
	for (v = table ? table->first : NULL; v; v = v->next)
		if (!key_find(id, v->key))
			key_unknown(r, id, v);
	r->where = outer;
}

