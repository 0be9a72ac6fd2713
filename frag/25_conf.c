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
	} else if (!r->secret && !r->env && (k->kind == K_SECRET ||
	    (k->kind == K_USERS && !slice_starts(v->text, S("$")))))
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

/* ==== upstreams ==============================================================
 * Owns    nothing.
 * Offers  upstreams_read.
 * Calls   base, arena, diag, addr, balance, values. */

__attribute__((format(printf, 3, 4))) static bool
table_error(struct reader *r, const struct toml *at, const char *fmt, ...)
{
	struct conf *c = r->conf;
	const char *text;
	va_list ap;

	va_start(ap, fmt);
	text = arena_vfmt(&c->arena, fmt, ap);
	va_end(ap);
	diag_add(&c->diags, DIAG_ERROR, at->line, at->col, "%s%s%s", r->where,
	    *r->where ? ": " : "", text);
	return false;
}

/* The one way out of several that table takes; NULL after saying so. */
static const struct toml *
one_of(struct reader *r, const struct toml *table, const char *const *names, size_t n,
    const char *needs)
{
	const struct toml *found = NULL, *v;

	for (size_t i = 0; i < n; i++) {
		if (!(v = toml_get(table, names[i])))
			continue;
		if (found) {
			table_error(r, v, "%s and %s exclude each other", found->key.p, names[i]);
			return NULL;
		}
		found = v;
	}
	if (!found)
		table_error(r, table, "expected %s", needs);
	return found;
}

/* What an upstream can be reached at: not every address is one. */
static bool
addr_check(struct reader *r, const struct toml *at, struct addr *out)
{
	if (out->scheme == SCHEME_HTTPS || out->scheme == SCHEME_UWSGI)
		return table_error(r, at, "%s: %s not supported yet", out->text,
		    out->scheme == SCHEME_HTTPS ? "https and wss upstreams are"
		                                : "uwsgi upstreams are");
	if (out->kind == ADDR_FD)
		return table_error(r, at, "%s: a descriptor is no upstream", out->text);
	if (out->kind != ADDR_UNIX && out->kind != ADDR_ABSTRACT && out->port == 0)
		return table_error(r, at, "%s: a port from 1 to %d is needed", out->text, PORT_MAX);
	return true;
}

/* s as the address of a backend. */
static bool
addr_read(struct reader *r, const struct toml *at, struct slice s, struct addr *out)
{
	struct arena *a = &r->conf->arena;
	const char *why;

	if (slice_starts(s, S(":"))) /* every interface of this host: itself */
		s = slice_of(arena_fmt(a, "127.0.0.1%s", s.p));
	if (!addr_parse(a, s, out, &why))
		return table_error(r, at, "%s: %s", s.p, why);
	return addr_check(r, at, out);
}

/* A path, `@name`, or an address that says it is a unix socket. */
static bool
socket_read(struct reader *r, const struct toml *at, struct slice s, struct addr *out)
{
	bool whole = slice_starts(s, S("/")) || slice_starts(s, S("@")) ||
	    slice_starts(s, S("unix")) || slice_starts(s, S("\\0"));

	if (s.n == 0)
		return table_error(r, at, "a socket needs a path");
	if (!whole)
		s = slice_of(conf_path(r->conf, s));
	if (!addr_read(r, at, s, out))
		return false;
	return out->kind == ADDR_UNIX || out->kind == ADDR_ABSTRACT ||
	    table_error(r, at, "%s is no unix socket", s.p);
}

/* The address in table, whose texts are in p. */
static bool
place_read(struct reader *r, const struct toml *table, const struct place *p, struct addr *out)
{
	static const char *const ways[] = { "host", "socket", "url" };
	const struct toml *way, *port = toml_get(table, "port");
	bool v6;

	if (port && !toml_get(table, "host"))
		return table_error(r, port, "port needs host");
	if (!(way = one_of(r, table, ways, LEN(ways), "host and port, socket, or url")))
		return false;
	if (slice_eq(way->key, S("url")))
		return p->url.p && addr_read(r, way, p->url, out);
	if (slice_eq(way->key, S("socket")))
		return p->socket.p && socket_read(r, way, p->socket, out);
	if (!port)
		return table_error(r, way, "host needs port");
	if (!p->host.p || p->port == 0)
		return false; /* said already */
	if (p->host.n == 0 || strpbrk(p->host.p, "/@ "))
		return table_error(r, way, "'%s' is no host", p->host.p);
	v6 = p->host.p[0] != '[' && strchr(p->host.p, ':');
	return addr_read(r, way, slice_of(arena_fmt(&r->conf->arena, v6 ? "[%s]:%u" : "%s:%u",
	    p->host.p, p->port)), out);
}

/* The board knows an instance by this. */
static bool
instance_key_fits(struct reader *r, const struct toml *at, const struct instance *in)
{
	return strlen(in->up->name) + 1 + strlen(in->addr.text) < INSTANCE_KEY_MAX ||
	    table_error(r, at, "name and address together are longer than %d bytes",
	        INSTANCE_KEY_MAX - 2);
}

static void
instance_add(struct reader *r, struct upstream *up, const struct toml *table,
    const struct place *p)
{
	struct instance *in = &up->instances[up->n_instances];

	*in = (struct instance){ .up = up, .weight = p->weight ? p->weight : 1 };
	if (place_read(r, table, p, &in->addr) && instance_key_fits(r, table, in))
		up->n_instances++;
}

/* One address of its own, or instances. */
static void
instances_read(struct reader *r, struct upstream *up, const struct toml *table,
    const struct place *own)
{
	static const char *const ways[] = { "instances", "host", "socket", "url" };
	const struct toml *list = toml_get(table, "instances");
	struct place p;

	if (!list && !toml_get(table, "port") &&
	    !one_of(r, table, ways, LEN(ways), "host and port, socket, url, or instances"))
		return;
	if (list && toml_get(table, "port"))
		table_error(r, toml_get(table, "port"), "instances and port exclude each other");
	if (list && (list->kind != TOML_ARRAY || !one_of(r, table, ways, LEN(ways), "")))
		return;
	up->instances = arena_alloc(&r->conf->arena,
	    (list ? list->count : 1) * sizeof *up->instances);
	if (!list) {
		instance_add(r, up, table, own);
		return;
	}
	for (const struct toml *t = list->first; t; t = t->next) {
		p = (struct place){ 0 };
		if (t->kind != TOML_TABLE)
			continue; /* said already */
		section_read(r, SEC_INSTANCE, arena_fmt(&r->conf->arena, "%s.instances",
		    r->where), t, &p);
		instance_add(r, up, t, &p);
	}
}

static void
strategy_read(struct reader *r, struct upstream_read *u, const struct toml *table)
{
	const struct toml *v = toml_get(table, "strategy");
	struct near near = { .word = u->strategy };

	u->out.balance = balance_find(u->strategy);
	if (u->out.balance && !u->out.balance->pick)
		value_error(r, "strategy", v, "%s: not supported yet", u->strategy.p);
	for (size_t i = 0; !u->out.balance && i < LEN(balances); i++) {
		near_offer(&near, slice_of(balances[i].name));
		if (balances[i].alias)
			near_offer(&near, slice_of(balances[i].alias));
	}
	if (!u->out.balance)
		value_error(r, "strategy", v, "unknown strategy '%s'%s", u->strategy.p,
		    near_text(&r->conf->arena, &near));
}

static void
host_header_read(struct reader *r, struct upstream_read *u, const struct toml *table)
{
	struct upstream *up = &u->out;

	up->host_header = slice_eq(u->host_header, S("preserve")) ? HOST_PRESERVE
	    : slice_eq(u->host_header, S("upstream")) ? HOST_UPSTREAM : HOST_TEXT;
	up->host_text = u->host_header;
	if (u->host_header.n == 0 || strpbrk(u->host_header.p, " \t/,@") ||
	    !is_field_value(u->host_header))
		value_error(r, "host_header", toml_get(table, "host_header"), "'%s' is no host",
		    u->host_header.p);
}

static void
upstream_read(struct reader *r, struct upstream *out, const struct toml *table)
{
	struct upstream_read u = { .out = { .index = out->index, .line = table->line } };

	u.out.name = table->key.p;
	r->where = arena_fmt(&r->conf->arena, "upstreams.%s", u.out.name);
	if (table->kind != TOML_TABLE) {
		table_error(r, table, "expected a table, got %s",
		    value_text(&r->conf->arena, table));
		return;
	}
	if (table->key.n == 0 || strcspn(table->key.p, " /\t\r\n\"") != table->key.n)
		table_error(r, table, "a name cannot be empty or hold blanks, quotes or slashes");
	section_read(r, SEC_UPSTREAM, r->where, table, &u);
	if (u.protocol > 0)
		value_error(r, "protocol", toml_get(table, "protocol"), "not supported yet");
	strategy_read(r, &u, table);
	host_header_read(r, &u, table);
	*out = u.out;
	instances_read(r, out, table, &u.place);
}

static void
upstreams_read(struct reader *r, const struct toml *tables)
{
	struct conf *c = r->conf;
	int all = 0;

	if (!tables)
		return;
	if (tables->kind != TOML_TABLE) {
		diag_add(&c->diags, DIAG_ERROR, tables->line, tables->col,
		    "expected [upstreams.NAME], got %s", value_text(&c->arena, tables));
		return;
	}
	c->upstreams = arena_alloc(&c->arena, tables->count * sizeof *c->upstreams);
	for (const struct toml *t = tables->first; t; t = t->next) {
		struct upstream *up = &c->upstreams[c->n_upstreams];
		up->index = c->n_upstreams++;
		up->name = t->key.p;
		upstream_read(r, up, t);
		all += up->n_instances;
	}
	r->where = "";
	if (all > INSTANCES_MAX)
		diag_add(&c->diags, DIAG_ERROR, tables->line, tables->col,
		    "%d instances, at most %d fit", all, INSTANCES_MAX);
}

/* ==== routes =================================================================
 * Owns    the compiled expressions, until conf_free.
 * Offers  routes_read.
 * Calls   base, arena, diag, http, path, addr, route, values, upstreams. */

#define REGEX_WHY 128 /* bytes of what regerror says */

/* `*.example.com` becomes `.example.com`; `*` is every host. */
static void
route_host(struct reader *r, struct route_read *rr, const struct toml *t)
{
	const struct toml *v = toml_get(t, "host");
	struct route *out = &rr->out;
	struct slice host;

	if (!v || !rr->host.p || slice_eq(rr->host, S("*")))
		return;
	host = host_normal(rr->host);
	out->host_kind = slice_starts(host, S("*.")) ? HOST_WILD : HOST_EXACT;
	out->host = arena_dup(&r->conf->arena, slice_from(host, out->host_kind == HOST_WILD));
	if (out->host.n < 1 + (size_t)(out->host_kind == HOST_WILD) ||
	    strcspn(out->host.p, "*/ \t,@\"") != out->host.n)
		value_error(r, "host", v, "expected a host such as example.com or *.example.com, "
		    "got %s", value_text(&r->conf->arena, v));
}

/* The text of path_prefix or path_exact, as requests are seen. */
static void
route_path_text(struct reader *r, struct route *out, const struct toml *v, struct slice s)
{
	struct arena *a = &r->conf->arena;
	struct path_view view;

	out->path = S("/"); /* whatever is wrong with it */
	if (out->path_kind == PATH_PREFIX && slice_ends(s, S("*")))
		s = arena_dup(a, (struct slice){ s.p, s.n - 1 }); /* as nginx and Caddy write it */
	if (!slice_starts(s, S("/"))) {
		value_error(r, v->key.p, v, "a path starts with '/', got %s", value_text(a, v));
	} else if (s.n > TARGET_MAX || strpbrk(s.p, "?#")) {
		value_error(r, v->key.p, v, s.n > TARGET_MAX ? "the path is too long"
		    : "a path holds no '?' or '#'; see query");
	} else if (path_normalise(s, &view) < 0) {
		value_error(r, v->key.p, v, "%s is no path a request can have", value_text(a, v));
	} else {
		out->path = arena_dup(a, view.path);
		if (!slice_eq(s, out->path))
			diag_add(&r->conf->diags, DIAG_WARNING, v->vline, v->vcol,
			    "paths are compared in normal form: taken as \"%s\"", out->path.p);
	}
}

static void
route_regex(struct reader *r, struct route *out, const struct toml *v, struct slice s)
{
	char why[REGEX_WHY];
	int err = regcomp(&out->regex, s.p, REG_EXTENDED);

	out->path = s;
	if (err == 0)
		return;
	regerror(err, &out->regex, why, sizeof why);
	out->path_kind = PATH_ANY; /* nothing to free */
	value_error(r, v->key.p, v, "not a POSIX extended regular expression: %s", why);
}

static void
route_path(struct reader *r, struct route_read *rr, const struct toml *t)
{
	const struct { const char *name; enum path_kind kind; struct slice text; } ways[] = {
		{ "path_prefix", PATH_PREFIX, rr->path_prefix },
		{ "path_exact", PATH_EXACT, rr->path_exact },
		{ "path_regex", PATH_REGEX, rr->path_regex },
	};
	struct route *out = &rr->out;
	const struct toml *v, *said = NULL;

	for (size_t i = 0; i < LEN(ways); i++) {
		if (!(v = toml_get(t, ways[i].name)) || !ways[i].text.p)
			continue;
		if (said) {
			table_error(r, v, "%s and %s exclude each other", said->key.p, ways[i].name);
			continue;
		}
		said = v;
		out->path_kind = ways[i].kind;
		if (ways[i].kind == PATH_REGEX)
			route_regex(r, out, v, ways[i].text);
		else
			route_path_text(r, out, v, ways[i].text);
	}
}

/* Methods are case-sensitive (RFC 9110 9.1); known ones in the wrong case are
 * surely meant. */
static void
route_methods(struct reader *r, struct route_read *rr, const struct toml *t)
{
	const struct toml *v = toml_get(t, "methods");
	struct arena *a = &r->conf->arena;
	struct slices *other = &rr->out.methods_other;

	if (v && v->kind == TOML_ARRAY && v->count == 0)
		value_error(r, "methods", v, "expected at least one method");
	other->v = arena_alloc(a, (size_t)rr->methods.n * sizeof *other->v);
	for (int i = 0; i < rr->methods.n; i++) {
		struct slice s = rr->methods.v[i], upper = arena_dup(a, s);
		for (char *c = (char *)(uintptr_t)upper.p; *c; c++)
			*c = (char)toupper((unsigned char)*c);
		if (!is_token(s))
			value_error(r, "methods", v, "'%s' is no method", s.p);
		else if (method_of(upper) == M_OTHER)
			other->v[other->n++] = s;
		else
			rr->out.methods |= 1u << method_of(upper);
	}
	if (rr->out.methods >> M_GET & 1)
		rr->out.methods |= 1u << M_HEAD;
}

/* ---- actions ---- */

static void
route_upstream(struct reader *r, struct route_read *rr, const struct toml *v)
{
	struct conf *c = r->conf;
	struct near near = { .word = rr->upstream };

	rr->out.action = ACT_UPSTREAM;
	for (int i = 0; i < c->n_upstreams; i++) {
		struct slice name = slice_of(c->upstreams[i].name);
		near_offer(&near, name);
		if (slice_eq(name, rr->upstream))
			rr->out.upstream = &c->upstreams[i];
	}
	if (!rr->out.upstream)
		value_error(r, "upstream", v, "there is no [upstreams.%s]%s", rr->upstream.p,
		    near_text(&c->arena, &near));
}

static void
route_redirect(struct reader *r, struct route_read *rr, const struct toml *v)
{
	static const char *const names[] = { "{host}", "{uri}", "{path}" };
	static const int statuses[] = { 301, 302, 303, 307, 308 };
	struct slice rest = rr->out.redirect;
	bool ok = false;

	rr->out.action = ACT_REDIRECT;
	for (size_t i = 0; i < LEN(statuses); i++)
		ok |= rr->out.status == statuses[i];
	if (!ok)
		value_error(r, "status", v, "expected 301, 302, 303, 307 or 308");
	if (rest.n == 0 || strpbrk(rest.p, " \t") || !is_field_value(rest))
		value_error(r, "redirect", v, "expected a URL without blanks");
	for (const char *p = rest.p; (p = strchr(p, '{')); p++) {
		ok = false;
		for (size_t i = 0; i < LEN(names); i++)
			ok |= strncmp(p, names[i], strlen(names[i])) == 0;
		if (!ok)
			value_error(r, "redirect", v, "expected {host}, {uri} or {path}, got %.*s",
			    (int)strcspn(p, "} ") + 1, p);
	}
}

static void
route_respond(struct reader *r, struct route_read *rr, const struct toml *v)
{
	struct route *out = &rr->out;

	out->action = ACT_RESPOND;
	out->status = rr->respond_status;
	if ((out->status == 204 || out->status == 304) && out->body.n > 0)
		value_error(r, "respond", v, "an answer with status %d has no body", out->status);
	if (!is_field_value(out->content_type))
		value_error(r, "respond", v, "content_type cannot hold control characters");
	if (out->body.n == 0 && !toml_get(v, "content_type"))
		out->content_type = S("");
}

static void
route_action(struct reader *r, struct route_read *rr, const struct toml *t)
{
	static const char *const names[] = { "upstream", "redirect", "respond", "static_dir" };
	const struct toml *v = one_of(r, t, names, LEN(names), "an action: upstream, redirect or "
	    "respond"), *status = toml_get(t, "status");

	if (!v)
		return;
	if (slice_eq(v->key, S("upstream")) && rr->upstream.p)
		route_upstream(r, rr, v);
	if (slice_eq(v->key, S("redirect")) && rr->out.redirect.p)
		route_redirect(r, rr, status ? status : v);
	else if (status)
		table_error(r, status, "status belongs to redirect%s",
		    slice_eq(v->key, S("respond")) ? "; write it into respond" : "");
	if (slice_eq(v->key, S("respond")) && v->kind == TOML_TABLE)
		route_respond(r, rr, v);
}

/* ---- what happens on the way ---- */

/* `$1`: only what the expression has. */
static void
route_groups(struct reader *r, const struct route *out, const struct toml *v)
{
	for (const char *p = out->rewrite.p; (p = strchr(p, '$')); p++) {
		if (!isdigit((unsigned char)p[1]))
			continue;
		if (out->path_kind != PATH_REGEX)
			value_error(r, "rewrite", v, "$%c needs path_regex", p[1]);
		else if ((size_t)(p[1] - '0') > out->regex.re_nsub)
			value_error(r, "rewrite", v, "$%c: path_regex has %zu group%s", p[1],
			    out->regex.re_nsub, out->regex.re_nsub == 1 ? "" : "s");
	}
}

static void
route_rewrite(struct reader *r, struct route_read *rr, const struct toml *t)
{
	const struct toml *rewrite = toml_get(t, "rewrite"), *strip = toml_get(t, "strip_prefix");
	struct route *out = &rr->out;

	out->has_rewrite = rewrite && out->rewrite.p;
	if (out->strip_prefix && rewrite)
		table_error(r, rewrite, "strip_prefix and rewrite exclude each other");
	if (out->strip_prefix && !toml_get(t, "path_prefix") && !toml_get(t, "path_exact") &&
	    !toml_get(t, "path_regex"))
		table_error(r, strip, "strip_prefix needs path_prefix");
	if (!out->has_rewrite)
		return;
	if (strpbrk(out->rewrite.p, "?#") || !is_field_value(out->rewrite))
		value_error(r, "rewrite", rewrite, "expected a path, without query");
	route_groups(r, out, rewrite);
}

static void
route_limits(struct reader *r, struct route_read *rr, const struct toml *t)
{
	const struct toml *rate = toml_get(t, "rate_limit");
	struct route *out = &rr->out;

	if (!toml_get(t, "buffer_request"))
		out->buffer_request = -1;
	out->has_max_body = toml_get(t, "max_body_bytes");
	if (rate && rate->kind == TOML_TABLE && !toml_get(rate, "requests"))
		table_error(r, rate, "rate_limit needs requests");
	if (out->rate.burst == 0)
		out->rate.burst = out->rate.requests;
	if (out->require_auth && r->conf->server.admin_token.n == 0)
		diag_add(&r->conf->diags, DIAG_WARNING, t->line, t->col,
		    "require_auth without server.admin_token: every request gets 401");
}

static void
route_read(struct reader *r, struct route *out, const struct toml *t)
{
	struct route_read rr = { .out = { .line = t->line } };

	if (t->kind != TOML_TABLE) {
		table_error(r, t, "expected [[routes]], got %s", value_text(&r->conf->arena, t));
		return;
	}
	section_read(r, SEC_ROUTE, "routes", t, &rr);
	route_host(r, &rr, t);
	route_path(r, &rr, t);
	route_methods(r, &rr, t);
	route_action(r, &rr, t);
	route_rewrite(r, &rr, t);
	route_limits(r, &rr, t);
	*out = rr.out;
}

/* One upstream and no routes: it takes everything. */
static void
route_only(struct conf *c)
{
	c->table.routes = arena_alloc(&c->arena, sizeof *c->table.routes);
	c->table.n = 1;
	c->table.routes[0] = (struct route){
		.line = c->upstreams[0].line,
		.action = ACT_UPSTREAM,
		.upstream = &c->upstreams[0],
		.buffer_request = -1,
		.websocket = true,
	};
}

static void
routes_read(struct reader *r, const struct toml *list)
{
	struct conf *c = r->conf;

	r->where = "routes";
	if (list && list->kind != TOML_ARRAY) {
		table_error(r, list, "expected [[routes]], got %s", value_text(&c->arena, list));
		return;
	}
	if (list) {
		c->table.routes = arena_alloc(&c->arena, list->count * sizeof *c->table.routes);
		for (const struct toml *t = list->first; t; t = t->next)
			route_read(r, &c->table.routes[c->table.n++], t);
	}
	if (c->table.n == 0 && c->n_upstreams == 1)
		route_only(c);
	else if (c->table.n == 0 && c->diags.errors == 0)
		diag_add(&c->diags, DIAG_ERROR, 0, 0, c->n_upstreams == 0
		    ? "nothing to do: no [[routes]] and no [upstreams.NAME]"
		    : "nothing to do: several upstreams and no [[routes]] to choose from them");
	r->where = "";
}

/* ==== conf ===================================================================
 * Owns    nothing: a configuration is its loader's.
 * Offers  conf_load, conf_simple, conf_free, conf_memory_bound.
 * Calls   base, arena, diag, toml, addr, route, values, upstreams, routes. */

extern char **environ;

/* Who said the key, when the preset did not; NULL. */
static const struct origin *
conf_said(const struct conf *c, const char *section, const char *key)
{
	for (int i = 0; i < c->n_origins; i++) {
		const struct origin *o = &c->origins[i];
		if (o->value && strcmp(o->section, section) == 0 && strcmp(o->key->name, key) == 0)
			return o;
	}
	return NULL;
}

/* A complaint about a key that somebody said: at its place in the file. */
__attribute__((format(printf, 5, 6))) static void
said_note(struct conf *c, enum diag_level level, const char *section, const char *key,
    const char *fmt, ...)
{
	const struct origin *o = conf_said(c, section, key);
	const char *text;
	va_list ap;

	va_start(ap, fmt);
	text = arena_vfmt(&c->arena, fmt, ap);
	va_end(ap);
	if (o && !o->env)
		diag_add(&c->diags, level, o->value->vline, o->value->vcol, "%s.%s: %s", section,
		    key, text);
	else
		diag_add(&c->diags, level, 0, 0, "%s%s%s: %s", o ? o->env : section,
		    o ? "" : ".", o ? "" : key, text);
}

/* ---- [server] ---- */

/* Adds a to the listeners, once. */
static void
listen_add(struct conf *c, const struct addr *a)
{
	struct server_conf *s = &c->server;

	for (int i = 0; i < s->n_listens; i++)
		if (strcmp(s->listens[i].text, a->text) == 0)
			return;
	if (a->scheme == SCHEME_HTTPS || a->scheme == SCHEME_UWSGI) {
		said_note(c, DIAG_ERROR, "server", "listen", "%s: not supported yet", a->text);
		return;
	}
	s->listens[s->n_listens++] = *a;
}

/* http_port and listen become one list; forced is -l's address. */
static void
listens_lower(struct conf *c, const struct server_read *sr, const char *forced)
{
	uint32_t port = sr->http_port;
	const char *why, *text = forced;
	struct addr a;

	c->server.listens = arena_alloc(&c->arena,
	    ((size_t)sr->listen.n + 1) * sizeof *c->server.listens);
	if (!forced && port == 0 && sr->listen.n == 0)
		port = PORT_PRESET;
	if (!forced && port > 0)
		text = arena_fmt(&c->arena, ":%u", port);
	if (text && addr_parse(&c->arena, slice_of(text), &a, &why))
		listen_add(c, &a);
	else if (text)
		diag_add(&c->diags, DIAG_ERROR, 0, 0, "cannot listen on %s: %s", text, why);
	for (int i = 0; !forced && i < sr->listen.n; i++)
		listen_add(c, &sr->listen.v[i]);
}

static void
server_read(struct reader *r, const struct toml *table, const char *forced)
{
	struct conf *c = r->conf;
	struct server_read sr = { 0 };

	section_read(r, SEC_SERVER, "server", table, &sr);
	c->server = sr.out;
	listens_lower(c, &sr, forced);
	if (sr.https_port > 0)
		said_note(c, DIAG_WARNING, "server", "https_port",
		    "not bound, as TLS is not enabled (it is not supported yet)");
	if (c->server.user && !getpwnam(c->server.user))
		said_note(c, DIAG_WARNING, "server", "user", "this host has no user %s",
		    c->server.user);
	if (c->server.group && !getgrnam(c->server.group))
		said_note(c, DIAG_WARNING, "server", "group", "this host has no group %s",
		    c->server.group);
	if (!c->server.user && geteuid() == 0)
		diag_add(&c->diags, DIAG_WARNING, 0, 0, "workers run as root; set server.user");
}

/* ---- [log] ---- */

/* The variable at p, behind its `$`: known to the access log? */
static bool
log_variable_ok(struct conf *c, struct slice name)
{
	static const char *const names[] = { "client", "method", "uri", "host", "status", "bytes",
		"secs", "upstream", "instance", "upstream_secs", "request_id", "referer",
		"user_agent", "protocol", "time", "route" };
	struct near near = { .word = name };

	if (slice_starts(name, S("http_")) && name.n > 5)
		return true;
	for (size_t i = 0; i < LEN(names); i++) {
		if (slice_eq(name, slice_of(names[i])))
			return true;
		near_offer(&near, slice_of(names[i]));
	}
	said_note(c, DIAG_ERROR, "log", "format", "unknown variable '$%.*s'%s", (int)name.n, name.p,
	    near_text(&c->arena, &near));
	return false;
}

static void
log_format_check(struct conf *c)
{
	static const char *const names[] = { "common", "combined", "json" };
	struct slice format = slice_of(c->log.format), name;
	struct near near = { .word = format };

	for (size_t i = 0; i < LEN(names); i++) {
		near_offer(&near, slice_of(names[i]));
		if (slice_eq(format, slice_of(names[i])))
			return;
	}
	if (!strchr(c->log.format, '$'))
		said_note(c, DIAG_ERROR, "log", "format", "expected common, combined, json or a "
		    "pattern with $variables%s", near_text(&c->arena, &near));
	for (const char *p = c->log.format; (p = strchr(p, '$')); p++) {
		name = (struct slice){ p + 1, strspn(p + 1, "abcdefghijklmnopqrstuvwxyz"
		    "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") };
		if (!log_variable_ok(c, name))
			return; /* one is enough */
	}
}

static void
log_read(struct reader *r, const struct toml *table)
{
	struct conf *c = r->conf;

	section_read(r, SEC_LOG, "log", table, &c->log);
	log_format_check(c);
	if (c->middleware.log_requests && !conf_said(c, "log", "access"))
		c->log.access.sink = SINK_STDOUT;
}

/* ---- [admin] ---- */

static void
admin_read(struct reader *r, const struct toml *table)
{
	struct conf *c = r->conf;
	struct admin_read ar = { 0 };

	section_read(r, SEC_ADMIN, "admin", table, &ar);
	c->admin = (struct admin_conf){ ar.listen.v, ar.listen.n,
		!conf_said(c, "admin", "listen"), ar.listen.word, ar.token };
	for (int i = 0; i < ar.listen.n && ar.token.n == 0; i++)
		if (ar.listen.v[i].kind == ADDR_INET || ar.listen.v[i].kind == ADDR_NAME) {
			said_note(c, DIAG_WARNING, "admin", "listen",
			    "without admin.token anybody who reaches %s commands warp",
			    ar.listen.v[i].text);
			return;
		}
}

/* ---- the whole ---- */

/* The section a top-level key opens; SECTIONS: none. */
static enum section_id
section_find(struct slice word)
{
	for (enum section_id id = SEC_SERVER; id < SECTIONS; id++)
		if (section_is_top(id) && slice_eq(word, section_word(id)))
			return id;
	return SECTIONS;
}

static void
root_unknown(struct reader *r, const struct toml *v)
{
	struct near near = { .word = v->key };

	for (enum section_id id = SEC_SERVER; id < SECTIONS; id++)
		if (section_is_top(id))
			near_offer(&near, section_word(id));
	for (size_t i = 0; i < LEN(root_keys); i++)
		near_offer(&near, slice_of(root_keys[i].name));
	diag_add(&r->conf->diags, DIAG_ERROR, v->line, v->col, "unknown %s '%.*s'%s",
	    v->kind == TOML_TABLE || v->kind == TOML_ARRAY ? "section" : "key", (int)v->key.n,
	    v->key.p, near_text(&r->conf->arena, &near));
}

/* Unknown names and what is not supported yet. */
static void
root_check(struct reader *r, const struct toml *root)
{
	for (const struct toml *v = root->first; v; v = v->next) {
		enum section_id id = section_find(v->key);
		const struct key *k = key_find(SEC_ROOT, v->key);

		if (k)
			key_set(r, k, v, NULL);
		else if (id == SECTIONS)
			root_unknown(r, v);
		else if (sections[id].when != NOW)
			section_refuse(r, id, v);
		else if (v->kind != TOML_TABLE && v->kind != TOML_ARRAY)
			table_error(r, v, "expected a section [%s]", sections[id].name);
	}
}

/* The table of a section; NULL: it is not there, or no table. */
static const struct toml *
root_table(struct reader *r, const struct toml *root, enum section_id id)
{
	const struct toml *t = toml_get(root, sections[id].name);

	if (t && t->kind == TOML_ARRAY)
		table_error(r, t, "expected one [%s], got a list", sections[id].name);
	return t && t->kind == TOML_TABLE ? t : NULL;
}

/* Variables that look like warp's and are not. */
static void
environ_check(struct conf *c)
{
	static const char *const others[] = { ENV_PREFIX "CONFIG", ENV_PREFIX "TARGET_HOST",
		ENV_PREFIX "TARGET_PORT" };

	for (char **e = environ; *e; e++) {
		struct near near = { .word = { *e, strcspn(*e, "=") } };
		if (!slice_starts(near.word, S(ENV_PREFIX)))
			continue;
		for (size_t i = 0; i < LEN(others); i++)
			near_offer(&near, slice_of(others[i]));
		for (enum section_id id = SEC_SERVER; id < SECTIONS; id++)
			for (size_t i = 0; i < sections[id].n; i++) {
				const char *name = env_name(&c->arena, id, &sections[id].keys[i]);
				if (name)
					near_offer(&near, slice_of(name));
			}
		if (near.best.n == 0 || near.distance > 0)
			diag_add(&c->diags, DIAG_WARNING, 0, 0, "unknown variable %.*s%s",
			    (int)near.word.n, near.word.p, near_text(&c->arena, &near));
	}
}

static bool
upstream_is_used(const struct conf *c, const struct upstream *up)
{
	for (int i = 0; i < c->table.n; i++)
		if (c->table.routes[i].upstream == up)
			return true;
	return false;
}

/* What is no error, yet hardly meant. */
static void
conf_warn(struct reader *r)
{
	struct conf *c = r->conf;
	const struct route *rs = c->table.routes;
	struct stat st;

	for (int i = 0; i < c->n_upstreams; i++)
		if (!upstream_is_used(c, &c->upstreams[i]))
			diag_add(&c->diags, DIAG_WARNING, c->upstreams[i].line, 1,
			    "no route uses upstream %s", c->upstreams[i].name);
	for (int i = 1; i < c->table.n; i++)
		for (int k = 0; k < i; k++)
			if (route_shadowed(&rs[i], &rs[k])) {
				diag_add(&c->diags, DIAG_WARNING, rs[i].line, 1,
				    "this route is never reached: the one at line %u takes "
				    "all that it could", rs[k].line);
				break;
			}
	if (r->secret && c->file && stat(c->file, &st) == 0 && (st.st_mode & S_IROTH))
		diag_add(&c->diags, DIAG_WARNING, r->secret->vline, r->secret->vcol,
		    "everybody on this host can read this secret; chmod 640, or use "
		    "env:NAME or file:/path");
}

/* By line; what is in no line first; else in the order found. */
static void
diags_sort(struct diags *ds)
{
	struct diag *rest = ds->first, *d, **at;

	ds->first = NULL;
	while ((d = rest)) {
		rest = d->next;
		for (at = &ds->first; *at && ((*at)->line < d->line ||
		    ((*at)->line == d->line && (*at)->col <= d->col)); )
			at = &(*at)->next;
		d->next = *at;
		*at = d;
	}
	for (ds->last = ds->first; ds->last && ds->last->next; )
		ds->last = ds->last->next;
}

static struct conf *
conf_new(void)
{
	struct conf *c = xcalloc(1, sizeof *c);
	size_t n = 0;

	c->diags.arena = &c->arena;
	for (enum section_id id = SEC_SERVER; id < SECTIONS; id++)
		n += section_has_env(id) ? sections[id].n : 0;
	c->origins = arena_alloc(&c->arena, n * sizeof *c->origins);
	return c;
}

/* From the tree to the structs. */
static void
conf_read(struct reader *r, const char *forced_listen)
{
	const struct toml *root = r->conf->tree;

	r->where = "";
	root_check(r, root);
	server_read(r, root_table(r, root, SEC_SERVER), forced_listen);
	section_read(r, SEC_MIDDLEWARE, "middleware", root_table(r, root, SEC_MIDDLEWARE),
	    &r->conf->middleware);
	log_read(r, root_table(r, root, SEC_LOG));
	admin_read(r, root_table(r, root, SEC_ADMIN));
	for (enum section_id id = SEC_SERVER; id < SECTIONS; id++)
		if (sections[id].when != NOW && section_has_env(id))
			section_read(r, id, sections[id].name, NULL, NULL);
	environ_check(r->conf);
}

/* Sorts out what was found, and packs the routes when nothing was. */
static struct conf *
conf_finish(struct reader *r)
{
	struct conf *c = r->conf;

	if (c->diags.errors == 0) {
		conf_warn(r);
		route_table_build(&c->arena, &c->table);
	}
	diags_sort(&c->diags);
	return c;
}

/* The directory of an absolute path. */
static const char *
path_dir(struct arena *a, const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash && slash != path ? arena_dup(a, (struct slice){ path,
	    (size_t)(slash - path) }).p : "/";
}

/* Never NULL: look at ->diags.errors. */
static struct conf *
conf_load(const char *file)
{
	struct conf *c = conf_new();
	struct reader r = { .conf = c };
	struct arena *a = &c->arena;
	char *real = realpath(file, NULL);
	const char *why;

	c->diags.file = arena_dup(a, slice_of(file)).p;
	c->file = arena_dup(a, slice_of(real ? real : file)).p;
	free(real);
	c->dir = path_dir(a, c->file);
	if ((why = file_read(a, file, CONFIG_FILE_MAX, &c->diags.source))) {
		diag_add(&c->diags, DIAG_ERROR, 0, 0, "cannot read it: %s", why);
		return c;
	}
	c->tree = toml_parse(a, c->diags.source, &c->diags);
	if (c->diags.errors > 0) {
		diags_sort(&c->diags);
		return c;
	}
	conf_read(&r, NULL);
	upstreams_read(&r, toml_get(c->tree, "upstreams"));
	routes_read(&r, toml_get(c->tree, "routes"));
	return conf_finish(&r);
}

/* Without a file: everything goes to target. listen NULL: the environment's
 * or the preset. Never NULL: look at ->diags.errors. */
static struct conf *
conf_simple(const char *listen, const char *target)
{
	struct conf *c = conf_new();
	struct reader r = { .conf = c };
	struct toml none = { .kind = TOML_TABLE };
	char *cwd = getcwd(NULL, 0);
	struct upstream_read u = { 0 };

	c->dir = cwd ? arena_dup(&c->arena, slice_of(cwd)).p : "/";
	free(cwd);
	c->tree = toml_parse(&c->arena, S(""), &c->diags);
	conf_read(&r, listen);
	section_read(&r, SEC_UPSTREAM, "target", NULL, &u);
	strategy_read(&r, &u, &none);
	c->upstreams = arena_alloc(&c->arena, sizeof *c->upstreams);
	c->n_upstreams = 1;
	u.out.name = "target";
	c->upstreams[0] = u.out;
	c->upstreams[0].instances = arena_alloc(&c->arena, sizeof(struct instance));
	r.where = "target";
	c->upstreams[0].instances[0] = (struct instance){ .up = &c->upstreams[0], .weight = 1 };
	if (addr_read(&r, &none, slice_of(target), &c->upstreams[0].instances[0].addr))
		c->upstreams[0].n_instances = 1;
	routes_read(&r, NULL);
	return conf_finish(&r);
}

static void
conf_free(struct conf *c)
{
	if (!c)
		return;
	for (int i = 0; i < c->table.n; i++)
		if (c->table.routes[i].path_kind == PATH_REGEX)
			regfree(&c->table.routes[i].regex);
	arena_free(&c->arena);
	free(c);
}

/* ==== conf out ===============================================================
 * Owns    nothing.
 * Offers  conf_print_keys, conf_print_man, conf_print_check, conf_print_json,
 *         conf_memory_bound.
 * Calls   base, http, keys, values, conf. */

/* ---- -D and the manual ---- */

static const char *
key_preset(const struct key *k)
{
	return k->preset && *k->preset ? k->preset : k->preset ? "\"\"" : "none";
}

static void
key_print(FILE *to, struct arena *a, enum section_id id, const struct key *k)
{
	const char *env = env_name(a, id, k);
	const char *name = *sections[id].name
	    ? arena_fmt(a, "%s.%s", sections[id].name, k->name) : k->name;

	fprintf(to, "%-42s  %-38s  %-12s  %s%s\n        %s\n", name, kind_text(a, k),
	    key_preset(k), env ? env : "-", k->when == NOW ? "" : "  (later)", k->help);
}

/* Every key with type and range, preset, variable, and help. */
static void
conf_print_keys(FILE *to)
{
	for (enum section_id id = SEC_ROOT; id < SECTIONS; id++) {
		struct arena a = { NULL };
		if (sections[id].n == 0)
			fprintf(to, "[%s]  (later)\n        %s\n", sections[id].name,
			    sections[id].help);
		for (size_t i = 0; i < sections[id].n; i++)
			key_print(to, &a, id, &sections[id].keys[i]);
		arena_free(&a);
	}
}

/* A text in man(7): nothing in it is a request or an escape. */
static void
man_text(FILE *to, const char *s)
{
	if (*s == '.' || *s == '\'')
		fputs("\\&", to);
	for (; *s; s++)
		fputs(*s == '\\' ? "\\e" : *s == '-' ? "\\-" : (char[]){ *s, '\0' }, to);
}

static void
man_key(FILE *to, struct arena *a, enum section_id id, const struct key *k)
{
	const char *env = env_name(a, id, k);

	fputs(".TP\n.B ", to);
	man_text(to, k->name);
	fputs("\n", to);
	man_text(to, k->help);
	fputs("\n.br\n", to);
	man_text(to, arena_fmt(a, "%c%s; default: %s%s%s%s", toupper((unsigned char)
	    *kind_text(a, k)), kind_text(a, k) + 1, key_preset(k), env ? "; " : "",
	    env ? env : "", k->when == NOW ? "." : ". Not supported yet."));
	fputs("\n", to);
}

/* The reference part of warp.toml(5). */
static void
conf_print_man(FILE *to)
{
	for (enum section_id id = SEC_ROOT; id < SECTIONS; id++) {
		const struct section *s = &sections[id];
		struct arena a = { NULL };

		fputs(".SS ", to);
		man_text(to, *s->name ? arena_fmt(&a, "\"[%s]\"", s->name) : "\"Before any section\"");
		fputs("\n", to);
		man_text(to, *s->help ? s->help : "Not supported yet.");
		fputs(*s->help && s->when != NOW ? "\nNot supported yet.\n" : "\n", to);
		for (size_t i = 0; i < s->n; i++)
			man_key(to, &a, id, &s->keys[i]);
		arena_free(&a);
	}
}

/* ---- memory ---- */

/* One large block; see blocks_open, whose head and tail room this rounds up. */
static uint64_t
memory_large(const struct conf *c)
{
	enum { ROOM = 64 };
	uint64_t head = c->server.max_header_bytes;

	return sizeof(struct block) + ROOM + MAX((uint64_t)RELAY_BYTES, head) + head +
	    HEAD_ADDED_MAX;
}

/* A client that says nothing, with its share of the upstream connections and
 * of the poll array. */
static uint64_t
memory_idle(void)
{
	return sizeof(struct conn) + 2 * sizeof(struct upconn) +
	    3 * (sizeof(struct pollfd) + sizeof(struct watch *));
}

/* What a client's request can hold on top: the exchange and two blocks of
 * trailers; a long head; both directions waiting at both ends; and what
 * buffer_request keeps in memory. */
static uint64_t
memory_busy(const struct conf *c)
{
	enum { SMALL = 3, LARGE = 5 };
	uint64_t spool = 0;

	for (int i = 0; i < c->table.n; i++)
		if (c->table.routes[i].buffer_request > 0)
			spool = MAX(spool, (uint64_t)c->table.routes[i].buffer_request);
	return SMALL * (uint64_t)BLOCK_SMALL_BYTES + LARGE * memory_large(c) + spool;
}

/* What a worker has before its first client. */
static uint64_t
memory_worker(const struct conf *c)
{
	return memory_large(c) + c->server.max_header_bytes + HEAD_ADDED_MAX + LOG_BUFFER +
	    2 * sizeof(struct head) + BLOCKS_KEPT_SMALL * (uint64_t)BLOCK_SMALL_BYTES +
	    BLOCKS_KEPT_LARGE * memory_large(c);
}

/* Bytes that all workers together can need while every client is busy and no
 * peer reads; program text and the kernel's socket buffers are not in it. */
static uint64_t
conf_memory_bound(const struct conf *c)
{
	uint64_t workers = (uint64_t)c->server.workers;
	uint64_t share = (c->server.max_connections + workers - 1) / workers;

	return sizeof(struct board) + workers * (memory_worker(c) +
	    share * (memory_idle() + memory_busy(c)));
}

/* ---- -t ---- */

static void
print_methods(FILE *to, const struct route *r)
{
	const char *sep = "";

	if (r->methods == 0 && r->methods_other.n == 0)
		return;
	fputs(" methods=", to);
	for (int m = M_GET; m < METHODS; m++)
		if (r->methods >> m & 1) {
			fprintf(to, "%s%.*s", sep, (int)method_names[m].n, method_names[m].p);
			sep = ",";
		}
	for (int i = 0; i < r->methods_other.n; i++, sep = ",")
		fprintf(to, "%s%s", sep, r->methods_other.v[i].p);
}

static void
print_pairs(FILE *to, const char *what, const struct pairs *p)
{
	for (int i = 0; i < p->n; i++)
		fprintf(to, " %s %s=%s", what, p->v[i].name.p, p->v[i].value.p);
}

static void
print_conditions(FILE *to, const struct route *r)
{
	static const char *const kinds_of_path[] = { "", "path_prefix", "path_exact",
		"path_regex" };

	if (r->host_kind != HOST_ANY)
		fprintf(to, " host=%s%s", r->host_kind == HOST_WILD ? "*" : "", r->host.p);
	if (r->path_kind != PATH_ANY)
		fprintf(to, " %s=%s", kinds_of_path[r->path_kind], r->path.p);
	print_methods(to, r);
	print_pairs(to, "header", &r->headers);
	print_pairs(to, "query", &r->queries);
	if (r->clients.n > 0)
		fprintf(to, " client in %d network%s", r->clients.n, r->clients.n == 1 ? "" : "s");
	if (r->host_kind == HOST_ANY && r->path_kind == PATH_ANY && r->methods == 0 &&
	    r->methods_other.n + r->headers.n + r->queries.n + r->clients.n == 0)
		fputs(" everything", to);
}

static void
print_action(FILE *to, const struct route *r)
{
	if (r->action == ACT_UPSTREAM)
		fprintf(to, " -> upstream %s", r->upstream->name);
	else if (r->action == ACT_REDIRECT)
		fprintf(to, " -> %d %s", r->status, r->redirect.p);
	else
		fprintf(to, " -> %d, %zu bytes", r->status, r->body.n);
	if (r->strip_prefix)
		fputs(", strip_prefix", to);
	if (r->has_rewrite)
		fprintf(to, ", rewrite %s", r->rewrite.p);
	if (r->require_auth)
		fputs(", require_auth", to);
	if (r->basic_auth.n > 0)
		fprintf(to, ", basic_auth of %d", r->basic_auth.n);
	if (r->rate.requests > 0)
		fprintf(to, ", %u requests in %g s (burst %u)", r->rate.requests,
		    r->rate.per_ms / (double)SECOND_MS, r->rate.burst);
	if (r->buffer_request >= 0)
		fprintf(to, ", buffer_request %lld", (long long)r->buffer_request);
	if (!r->websocket)
		fputs(", no websocket", to);
	if (r->description.n > 0)
		fprintf(to, "  # %s", r->description.p);
	fputs("\n", to);
}

static void
print_upstream(FILE *to, const struct upstream *up)
{
	fprintf(to, "upstream %s: %s, connect %g s, read %g s, write %g s, %u retries, "
	    "%u idle connections for %g s\n", up->name, up->balance->name,
	    up->connect_ms / (double)SECOND_MS, up->read_ms / (double)SECOND_MS,
	    up->write_ms / (double)SECOND_MS, up->retries, up->keepalive,
	    up->keepalive_ms / (double)SECOND_MS);
	for (int i = 0; i < up->n_instances; i++)
		fprintf(to, "    %-32s weight %u\n", up->instances[i].addr.text,
		    up->instances[i].weight);
}

static void
print_memory(FILE *to, const struct conf *c)
{
	const uint64_t mb = 1024 * 1024;

	fprintf(to, "memory: at most %llu MB: %u clients x %llu KB, if all are busy and no peer "
	    "reads (%llu bytes each while idle); %d worker%s x %llu KB; shared %llu KB\n",
	    (unsigned long long)((conf_memory_bound(c) + mb - 1) / mb), c->server.max_connections,
	    (unsigned long long)((memory_idle() + memory_busy(c)) / 1024),
	    (unsigned long long)memory_idle(), c->server.workers,
	    c->server.workers == 1 ? "" : "s", (unsigned long long)(memory_worker(c) / 1024),
	    (unsigned long long)(sizeof(struct board) / 1024));
}

/* What a good configuration comes to, for `-t`. */
static void
conf_print_check(const struct conf *c, FILE *to)
{
	const struct server_conf *s = &c->server;

	for (int i = 0; i < s->n_listens; i++)
		fprintf(to, "listen %s\n", s->listens[i].text);
	for (int i = 0; i < c->admin.n_listens; i++)
		fprintf(to, "admin %s\n", c->admin.listens[i].text);
	fprintf(to, "workers %d, clients %u; head %g s, body %g s, keepalive %g s, write %g s, "
	    "tunnel %g s, shutdown %g s\n", s->workers, s->max_connections,
	    s->header_ms / (double)SECOND_MS, s->body_ms / (double)SECOND_MS,
	    s->keepalive_ms / (double)SECOND_MS, s->write_ms / (double)SECOND_MS,
	    s->tunnel_ms / (double)SECOND_MS, s->shutdown_ms / (double)SECOND_MS);
	for (int i = 0; i < c->table.n; i++) {
		fprintf(to, "route %d (line %u):", i + 1, c->table.routes[i].line);
		print_conditions(to, &c->table.routes[i]);
		print_action(to, &c->table.routes[i]);
	}
	for (int i = 0; i < c->n_upstreams; i++)
		print_upstream(to, &c->upstreams[i]);
	print_memory(to, c);
}

/* ---- /config ---- */

static void
json_text(FILE *to, struct slice s)
{
	fputc('"', to);
	for (size_t i = 0; i < s.n; i++) {
		unsigned char ch = (unsigned char)s.p[i];
		if (ch < ' ' || ch == 0x7f)
			fprintf(to, "\\u%04x", ch);
		else
			fprintf(to, "%s%c", ch == '"' || ch == '\\' ? "\\" : "", ch);
	}
	fputc('"', to);
}

/* Is that the name of a key whose value is never shown? */
static bool
key_is_secret(struct slice name)
{
	for (enum section_id id = SEC_SERVER; id < SECTIONS; id++) {
		const struct key *k = key_find(id, name);
		if (k && k->when == NOW && (k->kind == K_SECRET || k->kind == K_USERS))
			return true;
	}
	return false;
}

/* { name = "Authorization", value = … } is as secret as a password. */
static bool
pair_is_secret(const struct toml *table)
{
	const struct toml *name = toml_get(table, "name");
	enum field_id id = name && name->kind == TOML_STRING ? field_id_of(name->text) : F_OTHER;

	return id == F_AUTHORIZATION || id == F_COOKIE || id == F_X_ADMIN_TOKEN;
}

static void
json_scalar(FILE *to, const struct toml *v)
{
	if (v->kind == TOML_BOOLEAN)
		fputs(v->boolean ? "true" : "false", to);
	else if (v->kind == TOML_INTEGER)
		fprintf(to, "%lld", (long long)v->integer);
	else if (v->kind == TOML_FLOAT && isfinite(v->real))
		fprintf(to, "%.15g", v->real);
	else
		json_text(to, v->text);
}

/* v with all below it. A configuration that loaded is never deep. */
static void
json_value(FILE *to, const struct toml *v, bool secret)
{
	bool table = v->kind == TOML_TABLE;
	bool pair = table && pair_is_secret(v);

	if (!table && v->kind != TOML_ARRAY) {
		if (secret)
			fputs("\"***\"", to);
		else
			json_scalar(to, v);
		return;
	}
	fputc(table ? '{' : '[', to);
	for (const struct toml *c = v->first; c; c = c->next) {
		if (table) {
			json_text(to, c->key);
			fputs(": ", to);
		}
		json_value(to, c, secret || (table && key_is_secret(c->key)) ||
		    (pair && slice_eq(c->key, S("value"))));
		fputs(c->next ? ", " : "", to);
	}
	fputc(table ? '}' : ']', to);
}

/* A preset as JSON: numbers and true or false as they are. */
static void
json_preset(FILE *to, const struct key *k)
{
	if (!k->preset)
		fputs("null", to);
	else if (kinds[k->kind].words == ONE_VALUE)
		fputs(k->preset, to);
	else
		json_text(to, slice_of(k->preset));
}

/* "server": { "http_port": { "value": 80, "from": "file:2" }, … */
static void
json_origins(FILE *to, const struct conf *c)
{
	const char *section = NULL;

	for (int i = 0; i < c->n_origins; i++) {
		const struct origin *o = &c->origins[i];
		if (o->key->when != NOW)
			continue;
		if (!section || strcmp(section, o->section) != 0)
			fprintf(to, "%s  \"%s\": {", section ? "\n  },\n" : "", o->section);
		else
			fputc(',', to);
		section = o->section;
		fprintf(to, "\n    \"%s\": { \"value\": ", o->key->name);
		if (o->value)
			json_value(to, o->value, o->key->kind == K_SECRET);
		else
			json_preset(to, o->key);
		if (o->env)
			fprintf(to, ", \"from\": \"env:%s\" }", o->env);
		else if (o->value)
			fprintf(to, ", \"from\": \"file:%u\" }", o->value->vline);
		else
			fputs(", \"from\": \"preset\" }", to);
	}
	fputs(section ? "\n  },\n" : "", to);
}

static void
json_instances(FILE *to, const struct upstream *up)
{
	fputs("    ", to);
	json_text(to, slice_of(up->name));
	fputs(": [", to);
	for (int i = 0; i < up->n_instances; i++) {
		json_text(to, slice_of(up->instances[i].addr.text));
		fputs(i + 1 < up->n_instances ? ", " : "", to);
	}
	fputc(']', to);
}

/* The configuration in force, secrets masked, for /config. */
static void
conf_print_json(const struct conf *c, FILE *to)
{
	static const char *const trees[] = { "upstreams", "routes" };
	const struct toml *v;

	fputs("{\n  \"file\": ", to);
	if (c->file)
		json_text(to, slice_of(c->file));
	else
		fputs("null", to);
	fputs(",\n", to);
	json_origins(to, c);
	for (size_t i = 0; i < LEN(trees); i++) {
		if (!(v = toml_get(c->tree, trees[i])))
			continue;
		fprintf(to, "  \"%s\": ", trees[i]);
		json_value(to, v, false);
		fputs(",\n", to);
	}
	fputs("  \"instances\": {\n", to);
	for (int i = 0; i < c->n_upstreams; i++) {
		json_instances(to, &c->upstreams[i]);
		fputs(i + 1 < c->n_upstreams ? ",\n" : "\n", to);
	}
	fputs("  }\n}\n", to);
}

