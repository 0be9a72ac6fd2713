/* Processes of the configuration: words, envfiles, presets, the start order,
 * instances, placeholders, and when a restart is needed. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

static char dir[] = "/tmp/warp-processes-XXXXXX";

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
}

static struct conf *
load(const char *text)
{
	char path[sizeof dir + 32];

	file_write("warp.toml", text);
	snprintf(path, sizeof path, "%s/warp.toml", dir);
	return conf_load(path);
}

static struct conf *
load_good(const char *text)
{
	struct conf *c = load(text);

	if (c->diags.errors > 0) {
		diags_print(&c->diags, stderr);
		fail_msg("not good: %s", text);
	}
	return c;
}

static const struct process *
process_named(const struct conf *c, const char *name)
{
	for (int i = 0; i < c->n_processes; i++)
		if (strcmp(c->processes[i]->name, name) == 0)
			return c->processes[i];
	fail_msg("no process %s", name);
	return NULL;
}

/* Its text; empty when env does not say it. */
static const char *
env_said(const struct pairs *env, const char *name)
{
	for (int i = 0; i < env->n; i++)
		if (slice_eq(env->v[i].name, slice_of(name)))
			return env->v[i].value.p;
	return "";
}

/* ---- words ---- */

static const struct {
	struct slice in;
	const char *words; /* [a][b]; or why not */
	size_t at;         /* of what is wrong; or of the word for a shell, from 1 */
	const char *why;
} splits[] = {
	{ T("a"), "[a]", 0, "one" },
	{ T("gunicorn -b 127.0.0.1:1  app"), "[gunicorn][-b][127.0.0.1:1][app]", 0, "blanks" },
	{ T(" \t a\n b \r\n"), "[a][b]", 0, "every kind of blank, at the ends as well" },
	{ T(""), "", 0, "nothing" },
	{ T("  "), "", 0, "only blanks" },
	{ T("a ''"), "[a][]", 0, "an empty word" },
	{ T("a \"\" b"), "[a][][b]", 0, "and in the other quotes" },
	{ T("sh -c 'echo a  b'"), "[sh][-c][echo a  b]", 0, "single quotes" },
	{ T("a\"b c\"'d e'f"), "[ab cd ef]", 0, "quotes inside a word" },
	{ T("'a\\b' \"a\\b\" a\\b"), "[a\\b][a\\b][ab]", 0, "a backslash by place" },
	{ T("\"\\\"\\\\\\$\\`\""), "[\"\\$`]", 0, "what it escapes in double quotes" },
	{ T("'it'\\''s'"), "[it's]", 0, "the usual dance" },
	{ T("a\\ b"), "[a b]", 0, "an escaped blank" },
	{ T("a \\\n b"), "[a][b]", 0, "a joined line" },
	{ T("a\\\nb"), "[ab]", 0, "in the middle of a word" },
	{ T("\"a\\\nb\""), "[ab]", 0, "in double quotes" },
	{ T("'a\\\nb'"), "[a\\\nb]", 0, "not in single quotes" },
	{ T("a {port} {index}"), "[a][{port}][{index}]", 0, "braces" },
	{ T("a # b"), "[a][#][b]", 0, "no comments" },
	{ T("a *.c ~ [x]"), "[a][*.c][~][[x]]", 0, "nothing is expanded" },
	{ T("a 'b"), "is never closed", 2, "a quote" },
	{ T("a \"b\\\""), "is never closed", 2, "a double quote" },
	{ T("a'"), "is never closed", 1, "a quote at the end" },
	{ T("ab\\"), "has nothing behind it", 2, "a backslash at the end" },
	{ T("a && b"), "[a][&&][b]", 2, "for a shell" },
	{ T("a b=$X"), "[a][b=$X]", 2, "for a shell: a variable" },
	{ T("a '$X' \"|\" \\; b"), "[a][$X][|][;][b]", 0, "meant as text" },
};

static void
test_words(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(splits); i++) {
		struct arena a = { NULL };
		struct words w;
		struct slice in = exact(splits[i].in);
		const char *why = words_split(&a, in, &w), *got = "";

		for (int k = 0; k < w.out.n && !why; k++) {
			got = arena_fmt(&a, "%s[%s]", got, w.out.v[k].p);
			row_int(splits[i].why, in, "length", (long long)strlen(w.out.v[k].p),
			    (long long)w.out.v[k].n);
		}
		row_slice(splits[i].why, in, "words", slice_of(why ? why : got),
		    slice_of(splits[i].words));
		if (why)
			row_int(splits[i].why, in, "place", (long long)(w.bad - in.p), (long long)splits[i].at);
		else
			row_int(splits[i].why, in, "for a shell", w.shell.p != NULL, splits[i].at > 0);
		arena_free(&a);
		exact_free(in);
	}
	rows_end();
}

/* Any bytes but NUL: as many words as there is room for. */
static void
test_words_random(void **state)
{
	static const char set[] = "ab '\"\\\n$";

	(void)state;
	for (int i = 0; i < 20000; i++) {
		struct arena a = { NULL };
		struct words w;
		char b[12];
		struct slice in = { b, dice(sizeof b + 1) };

		for (size_t k = 0; k < in.n; k++)
			b[k] = set[dice(sizeof set - 1)];
		in = exact(in);
		words_split(&a, in, &w);
		if (w.bytes.full || (size_t)w.out.n > in.n / 2 + 1)
			row_bad("room", in, "%d words, %zu bytes", w.out.n, w.bytes.n);
		arena_free(&a);
		exact_free(in);
	}
	rows_end();
}

/* ---- envfiles ---- */

static const struct {
	struct slice in;
	const char *want; /* A=b;C=d; or LINE why not */
	const char *why;
} envfiles[] = {
	{ T(""), "", "empty" },
	{ T("\n \n\t\n"), "", "blank lines" },
	{ T("A=1"), "A=1;", "no line end" },
	{ T("A=1\nB=2\n"), "A=1;B=2;", "two" },
	{ T("A=1\r\nB=2\r\n"), "A=1;B=2;", "as an editor of Windows leaves it" },
	{ T("# c\n; c\n  # c = d\nA=1\n#"), "A=1;", "comments" },
	{ T("A=1 # 2\n"), "A=1 # 2;", "no comment behind a value" },
	{ T("A=\nB= \n"), "A=;B=;", "empty values" },
	{ T(" A = 1 2 \t\n"), "A=1 2;", "blanks around, not inside" },
	{ T("A=a=b\n"), "A=a=b;", "an equals sign" },
	{ T("A='a b '\nB=\"c d \"\n"), "A=a b ;B=c d ;", "quotes keep blanks" },
	{ T("A=\"a\nb\"\nB='c\nd'\n"), "A=a\nb;B=c\nd;", "and line ends" },
	{ T("A='a'\"b\"c\n"), "A=abc;", "pieces" },
	{ T("A=a\"b\"'c'\n"), "A=a\"b\"'c';", "quotes inside text are text" },
	{ T("A='a\\b'\nB=\"a\\b\"\nC=a\\b\n"), "A=a\\b;B=a\\b;C=ab;", "a backslash by place" },
	{ T("A=\"\\\"\\$\\`\\\\\"\n"), "A=\"$`\\;", "what it escapes in double quotes" },
	{ T("A=a\\\n  b\nB=1\n"), "A=a  b;B=1;", "a joined line" },
	{ T("A=a\\\r\nb\r\n"), "A=ab;", "with CRLF" },
	{ T("A=\"a\\\nb\"\n"), "A=ab;", "in double quotes" },
	{ T("A=a\\ \n"), "A=a ;", "an escaped blank at the end" },
	{ T("A=a\\"), "A=a;", "a backslash at the very end" },
	{ T("A=$B ${B}\n"), "A=$B ${B};", "nothing is expanded" },
	{ T("export A=1\nexport\tB=2\n"), "A=1;B=2;", "a file for shells" },
	{ T("A=1\nB=2\nA=3\n"), "A=3;B=2;", "the last one wins" },
	{ T("A=1\nB\n"), "A=1;2 expected NAME=value", "no value" },
	{ T("A\nB=1\nC\n"), "B=1;1 expected NAME=value", "the first of two bad lines" },
	{ T("A=1\n\n# x\n1B=2\n"), "A=1;4 expected a name of letters, digits and _ before the =",
	  "a digit in front" },
	{ T("A-B=1\n"), "1 expected a name of letters, digits and _ before the =", "a dash" },
	{ T("=1\n"), "1 expected a name of letters, digits and _ before the =", "no name" },
	{ T("export =1\n"), "export=1;", "a variable of that name" },
	{ T("export 1=1\n"), "1 expected a name of letters, digits and _ before the =", "no name" },
	{ T("A=1\nB='x\ny\n"), "2 a quote is never closed", "a quote" },
	{ T("A=1\nB=\"x\\\""), "2 a quote is never closed", "a double quote" },
	{ T("A=1\nB=a\0b\n"), "2 a NUL has no place here", "a NUL" },
};

static const char *
envfile_shown(struct arena *a, struct slice in)
{
	struct pairs out;
	unsigned line = 0;
	const char *text = "", *bad, *why = envfile_parse(a, in, &out, &line, &bad);

	if (why)
		return arena_fmt(a, "%u %s", line, why);
	for (int i = 0; i < out.n; i++) {
		assert_int_equal(strlen(out.v[i].value.p), out.v[i].value.n);
		text = arena_fmt(a, "%s%s=%s;", text, out.v[i].name.p, out.v[i].value.p);
	}
	if (bad) /* the first line that was left out */
		text = arena_fmt(a, "%s%u %s", text, line, bad);
	return text;
}

static void
test_envfile(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(envfiles); i++)
		for (size_t n = 0; n <= envfiles[i].in.n; n++) {
			struct arena a = { NULL };
			struct slice in = exact((struct slice){ envfiles[i].in.p, n });
			const char *got = envfile_shown(&a, in);

			if (n == envfiles[i].in.n)
				row_slice(envfiles[i].why, in, "file", slice_of(got),
				    slice_of(envfiles[i].want));
			arena_free(&a);
			exact_free(in);
		}
	rows_end();
}

static void
test_envfile_random(void **state)
{
	static const char set[] = "A_1=='\"\\\r\n #;$\0";

	(void)state;
	for (int i = 0; i < 20000; i++) {
		struct arena a = { NULL };
		char b[16];
		struct slice in = { b, dice(sizeof b + 1) };

		for (size_t k = 0; k < in.n; k++)
			b[k] = set[dice(sizeof set)];
		in = exact(in);
		envfile_shown(&a, in);
		arena_free(&a);
		exact_free(in);
	}
}

/* ---- presets and values ---- */

static void
test_presets(void **state)
{
	struct conf *c = load_good("[upstreams.web]\nprocess.command = \"sh -c x\"\n"
	                           "[upstreams.plain]\nsocket = \"/x\"\n[[routes]]\nupstream = \"web\"\n");
	const struct process *p = process_named(c, "web");
	const struct upstream *up = &c->upstreams[0];

	(void)state;
	assert_int_equal(c->n_processes, 1);
	assert_ptr_equal(p->up, up);
	assert_ptr_equal(up->process, p);
	assert_null(c->upstreams[1].process);
	assert_int_equal(c->upstreams[1].instances[0].replica, -1);
	assert_int_equal(c->upstreams[1].hold_ms, 10000); /* a process may serve it */
	assert_int_equal(up->hold_ms, 10000);
	assert_int_equal(p->line, 2);
	assert_string_equal(p->argv[0], "sh");
	assert_string_equal(p->argv[2], "x");
	assert_null(p->argv[3]);
	assert_string_equal(p->dir, dir);
	assert_true(!p->envfile && !p->user && !p->group && !p->log_path);
	assert_int_equal(p->replicas, 1);
	assert_int_equal(p->n_after, 0);
	assert_int_equal(p->restart, RESTART_ALWAYS);
	assert_int_equal(p->backoff_ms, 500);
	assert_int_equal(p->backoff_max_ms, 30000);
	assert_int_equal(p->stop_signal, SIGTERM);
	assert_int_equal(p->stop_ms, 10000);
	assert_int_equal(p->ready, READY_LISTEN);
	assert_int_equal(p->ready_ms, 60000);
	assert_int_equal(p->sink, CHILD_PREFIX);
	assert_true(p->nofile == -1 && p->as_bytes == -1 && p->core == -1);
	assert_false(p->oneshot || p->wrapped || p->names_socket);
	assert_int_equal(p->start_on, START_BOOT);
	assert_int_equal(p->idle_stop_ms, 0);
	assert_int_equal(up->n_instances, 1);
	assert_int_equal(up->instances[0].addr.kind, ADDR_NONE);
	assert_string_equal(up->instances[0].addr.text, "#0");
	assert_true(p->names_port); /* as PORT */
	assert_string_equal(env_said(&p->env, "PORT"), "{port}");
	conf_free(c);
}

static void
test_values(void **state)
{
	struct conf *c = load_good(
	    "[upstreams.web]\nhold_secs = 0\nhost = \"127.0.0.1\"\nport = 3000\nhealth = {}\n"
	    "[upstreams.web.process]\ncommand = \"a b\"\nargs = [\"c d\", \"\"]\ndir = \"sub\"\n"
	    "env = { A = \"x\", B = 5, C = true, D = 1.10, E = 2.0, F = 1e300, PORT = \"1\" }\n"
	    "envfile = \"e\"\nuser = \"root\"\ngroup = \"root\"\nrestart = \"on_failure\"\n"
	    "backoff_secs = 60\nstop_signal = \"SIGQUIT\"\nstop_timeout_secs = 1.5\n"
	    "ready = \"health\"\nready_timeout_secs = 5\nlog = \"logs/web\"\n"
	    "limits = { nofile = 100, as_bytes = 9007199254740992, core = 0 }\n"
	    "start_on = \"request\"\nidle_stop_secs = 30\n");
	const struct process *p = process_named(c, "web");
	char path[sizeof dir + 16];

	(void)state;
	assert_int_equal(c->upstreams[0].hold_ms, 0);
	assert_string_equal(p->argv[0], "a b");
	assert_string_equal(p->argv[1], "c d");
	assert_string_equal(p->argv[2], "");
	assert_null(p->argv[3]);
	assert_int_equal(p->env.n, 7);
	assert_string_equal(env_said(&p->env, "A"), "x");
	assert_string_equal(env_said(&p->env, "B"), "5");
	assert_string_equal(env_said(&p->env, "C"), "true");
	assert_string_equal(env_said(&p->env, "D"), "1.1");
	assert_string_equal(env_said(&p->env, "E"), "2.0");
	assert_string_equal(env_said(&p->env, "F"), "1e+300");
	snprintf(path, sizeof path, "%s/sub", dir);
	assert_string_equal(p->dir, path);
	snprintf(path, sizeof path, "%s/e", dir);
	assert_string_equal(p->envfile, path);
	assert_string_equal(p->user, "root");
	assert_int_equal(p->restart, RESTART_ON_FAILURE);
	assert_int_equal(p->backoff_ms, 60000);
	assert_int_equal(p->backoff_max_ms, 60000);
	assert_int_equal(p->stop_signal, SIGQUIT);
	assert_int_equal(p->stop_ms, 1500);
	assert_int_equal(p->ready, READY_HEALTH);
	assert_int_equal(p->ready_ms, 5000);
	assert_int_equal(p->sink, CHILD_FILE);
	snprintf(path, sizeof path, "%s/logs/web", dir);
	assert_string_equal(p->log_path, path);
	assert_true(p->nofile == 100 && p->as_bytes == 9007199254740992 && p->core == 0);
	assert_int_equal(p->start_on, START_REQUEST);
	assert_int_equal(p->idle_stop_ms, 30000);
	assert_false(p->names_port || p->names_socket);
	conf_free(c);
}

/* One process with that line; what it comes to. */
static const struct {
	const char *toml;
	int number;
} stop_signals[] = {
	{ "\"TERM\"", SIGTERM }, { "\"SIGTERM\"", SIGTERM }, { "\"INT\"", SIGINT },
	{ "\"HUP\"", SIGHUP }, { "\"USR1\"", SIGUSR1 }, { "\"USR2\"", SIGUSR2 },
	{ "\"KILL\"", SIGKILL }, { "\"WINCH\"", SIGWINCH }, { "15", 15 }, { "\"9\"", 9 },
	{ "34", 34 },
};

static void
test_stop_signal(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(stop_signals); i++) {
		char text[128];
		struct conf *c;

		snprintf(text, sizeof text, "[processes.a]\ncommand = \"x\"\nstop_signal = %s\n",
		    stop_signals[i].toml);
		c = load_good(text);
		assert_int_equal(c->processes[0]->stop_signal, stop_signals[i].number);
		conf_free(c);
	}
}

static void
test_alone(void **state)
{
	struct conf *c = load_good("[processes]\na = { command = \"x\", ready = \"listen\" }\n"
	    "b = { command = \"x\", oneshot = true }\n"
	    "c = { command = \"x\", oneshot = true, restart = \"never\", log = \"syslog\" }\n");

	(void)state;
	assert_int_equal(process_named(c, "a")->ready, READY_EXEC);
	assert_null(process_named(c, "a")->up);
	assert_int_equal(process_named(c, "a")->env.n, 0);
	assert_int_equal(process_named(c, "b")->restart, RESTART_ON_FAILURE);
	assert_int_equal(process_named(c, "c")->restart, RESTART_NEVER);
	assert_int_equal(process_named(c, "c")->sink, CHILD_SYSLOG);
	conf_free(c);
}

/* ---- order ---- */

static const struct {
	const char *toml, *order; /* or what the error says */
	const char *why;
} orders[] = {
	{ "a = {command=\"x\"}\nb = {command=\"x\"}\nc = {command=\"x\"}\n", "a b c", "as in the file" },
	{ "a = {command=\"x\", depends_on=[\"b\"]}\nb = {command=\"x\"}\n", "b a", "one before another" },
	{ "a = {command=\"x\", depends_on=[\"c\"]}\nb = {command=\"x\"}\nc = {command=\"x\", depends_on=[\"b\"]}\n",
	  "b c a", "a chain" },
	{ "a = {command=\"x\", depends_on=[\"c\",\"b\"]}\nb = {command=\"x\", depends_on=[\"d\"]}\n"
	  "c = {command=\"x\", depends_on=[\"d\"]}\nd = {command=\"x\"}\n", "d c b a", "a diamond" },
	{ "a = {command=\"x\", depends_on=[\"b\",\"b\"]}\nb = {command=\"x\"}\n", "b a", "said twice" },
	{ "a = {command=\"x\", depends_on=[\"a\"]}\n", "a cycle: a -> a", "itself" },
	{ "a = {command=\"x\", depends_on=[\"b\"]}\nb = {command=\"x\", depends_on=[\"a\"]}\n",
	  "a cycle: a -> b -> a", "two" },
	{ "x = {command=\"x\", depends_on=[\"a\"]}\na = {command=\"x\", depends_on=[\"b\"]}\n"
	  "b = {command=\"x\", depends_on=[\"c\"]}\nc = {command=\"x\", depends_on=[\"a\"]}\n",
	  "a cycle: a -> b -> c -> a", "only the cycle, not the way to it" },
	{ "a = {command=\"x\", depends_on=[\"wbe\"]}\nweb = {command=\"x\"}\n",
	  "there is no process 'wbe', did you mean 'web'?", "misspelt" },
	{ "a = {command=\"x\"}\n[upstreams.up]\nsocket=\"/x\"\n[upstreams.b]\nprocess.command=\"x\"\n"
	  "process.depends_on=[\"a\"]\n[processes.c]\ncommand=\"x\"\ndepends_on=[\"b\"]\n[[routes]]\nupstream=\"b\"\n",
	  "a b c", "through an upstream" },
	{ "a = {command=\"x\", depends_on=[\"up\"]}\n[upstreams.up]\nsocket=\"/x\"\n",
	  "upstream up has no process", "an upstream without one" },
	{ "a = {command=\"x\", depends_on=[\"b\"]}\n[upstreams.b.process]\ncommand=\"x\"\nstart_on=\"request\"\n",
	  "b is started by a request", "would never start" },
};

static void
test_order(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(orders); i++) {
		struct arena a = { NULL };
		struct conf *c = load(arena_fmt(&a, "[processes]\n%s", orders[i].toml));
		const char *got = "";

		for (int k = 0; k < c->n_processes; k++)
			got = arena_fmt(&a, "%s%s%s", got, k ? " " : "", c->processes[k]->name);
		for (const struct diag *d = c->diags.first; d; d = d->next)
			if (d->level == DIAG_ERROR)
				got = strstr(d->text, orders[i].order) ? orders[i].order : d->text;
		row_slice(orders[i].why, slice_of(orders[i].toml), "order", slice_of(got),
		    slice_of(orders[i].order));
		conf_free(c);
		arena_free(&a);
	}
	rows_end();
}

/* Deep chains need no more than their number of steps. */
static void
test_order_long(void **state)
{
	struct arena a = { NULL };
	const char *text = "[processes]\n";
	struct conf *c;

	(void)state;
	for (int i = 0; i < PROCS_MAX; i++)
		text = arena_fmt(&a, i + 1 < PROCS_MAX ? "%sp%d = {command=\"x\", depends_on=[\"p%d\"]}\n"
		    : "%sp%d = {command=\"x\"}\n", text, i, i + 1);
	c = load_good(text);
	assert_int_equal(c->n_processes, PROCS_MAX);
	for (int i = 0; i < PROCS_MAX; i++)
		assert_string_equal(c->processes[i]->name,
		    arena_fmt(&a, "p%d", PROCS_MAX - 1 - i));
	conf_free(c);
	arena_free(&a);
}

/* ---- instances ---- */

static const struct {
	const char *place, *process;
	const char *want; /* REPLICA=ADDRESS ...; or what the error says */
} places[] = {
	{ "host=\"h\"\nport=80\n", "", "0=h:80" },
	{ "host=\"h\"\nport=80\n", "replicas=3\n", "0=h:80 1=h:81 2=h:82" },
	{ "host=\"::1\"\nport=80\n", "replicas=2\n", "0=[::1]:80 1=[::1]:81" },
	{ "host=\"127.0.0.1\"\nport=65534\n", "replicas=2\n", "0=127.0.0.1:65534 1=127.0.0.1:65535" },
	{ "host=\"127.0.0.1\"\nport=65534\n", "replicas=3\n",
	  "upstreams.a: 3 replicas from port 65534 on: the last port is 65535" },
	{ "socket=\"/s\"\n", "", "0=unix:/s" },
	{ "socket=\"/s.{index}\"\n", "", "0=unix:/s.0" },
	{ "socket=\"/s.{index}.{index}\"\n", "replicas=2\n", "0=unix:/s.0.0 1=unix:/s.1.1" },
	{ "socket=\"@s{index}\"\n", "replicas=2\n", "0=@s0 1=@s1" },
	{ "socket=\"/s\"\n", "replicas=2\n", "replicas: 2 replicas cannot share one socket; put {index}" },
	{ "url=\"http://h:80\"\n", "", "0=h:80" },
	{ "url=\"http://h:80\"\n", "replicas=2\n", "replicas: 2 replicas cannot share one url" },
	{ "", "", "0=#0" },
	{ "", "replicas=3\n", "0=#0 1=#1 2=#2" },
	{ "instances=[{socket=\"/a\"},{socket=\"/b\"}]\n", "", "0=unix:/a 0=unix:/b" },
	{ "instances=[{socket=\"/a\"},{host=\"h\",port=1}]\n", "replicas=2\n", "0=unix:/a 1=h:1" },
	{ "instances=[{socket=\"/a\"},{socket=\"/b\"}]\n", "replicas=3\n",
	  "3 replicas and 2 instances: say as many instances as replicas" },
	{ "port=80\n", "", "port needs host" },
	{ "host=\"h\"\n", "replicas=2\n", "host needs port" },
};

static void
test_places(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(places); i++) {
		struct arena a = { NULL };
		struct conf *c = load(arena_fmt(&a, "[upstreams.a]\n%s[upstreams.a.process]\n"
		    "command=\"x\"\n%s", places[i].place, places[i].process));
		const struct upstream *up = &c->upstreams[0];
		const char *got = "";

		for (int k = 0; k < up->n_instances; k++) {
			got = arena_fmt(&a, "%s%s%d=%s", got, k ? " " : "", up->instances[k].replica,
			    up->instances[k].addr.text);
			assert_ptr_equal(up->instances[k].up, up);
			assert_int_equal(up->instances[k].weight, 1);
		}
		for (const struct diag *d = c->diags.first; d; d = d->next)
			if (d->level == DIAG_ERROR)
				got = strstr(d->text, places[i].want) ? places[i].want : d->text;
		row_slice(places[i].place, slice_of(places[i].process), "instances", slice_of(got),
		    slice_of(places[i].want));
		conf_free(c);
		arena_free(&a);
	}
	rows_end();
}

/* The socket behind a filled-in text is the one that is connected to. */
static void
test_places_socket(void **state)
{
	struct conf *c = load_good("[upstreams.a]\nsocket=\"/run/s.{index}\"\n"
	    "[upstreams.a.process]\ncommand=\"x\"\nreplicas=2\n"
	    "[upstreams.b]\nhost=\"127.0.0.1\"\nport=80\n"
	    "[upstreams.b.process]\ncommand=\"x\"\nreplicas=2\n[[routes]]\nupstream=\"a\"\n");

	(void)state;
	assert_string_equal(c->upstreams[0].instances[1].addr.sock.un.sun_path, "/run/s.1");
	assert_int_equal(ntohs(c->upstreams[1].instances[1].addr.sock.in.sin_port), 81);
	assert_int_equal(c->upstreams[1].instances[1].addr.port, 81);
	conf_free(c);
}

/* ---- placeholders ---- */

enum { P = 1, K = 2, E = 4 }; /* names_port, names_socket, PORT is told */

static const struct {
	const char *place, *process;
	int want;         /* bits; or an error */
	const char *error;
} placeholders[] = {
	{ "", "command=\"x\"\n", P | E, NULL },
	{ "", "command=\"x {port}\"\n", P | E, NULL },
	{ "", "command=\"x {socket}\"\n", K, NULL },
	{ "", "command=\"x\"\nargs=[\"--bind={socket}\"]\n", K, NULL },
	{ "", "command=\"x\"\nenv={ADDR=\"127.0.0.1:{port}\"}\n", P | E, NULL },
	{ "", "command=\"x\"\nenv={PORT=\"7{index}\"}\n", 0, NULL },
	{ "", "command=\"x\"\nenvfile=\"with_port\"\n", 0, NULL },
	{ "", "command=\"x\"\nenvfile=\"without_port\"\n", P | E, NULL },
	{ "", "command=\"x {socket} {port}\"\n", 0, "a.process.command: {port}: with {socket} warp chooses a unix socket" },
	{ "host=\"h\"\nport=1\n", "command=\"x {port}\"\n", P, NULL },
	{ "host=\"h\"\nport=1\n", "command=\"x\"\n", 0, NULL },
	{ "host=\"h\"\nport=1\n", "command=\"x {socket}\"\n", 0, "a.process.command: {socket}: its instance is h:1, {port} is its port" },
	{ "socket=\"/s\"\n", "command=\"x {socket}\"\n", K, NULL },
	{ "socket=\"/s\"\n", "command=\"x\"\nargs=[\"{port}\"]\n", 0, "a.process.args: {port}: its instance is the unix socket unix:/s, {socket} is its path" },
	{ "socket=\"/s\"\n", "command=\"x\"\nenv={A=\"{port}\"}\n", 0, "a.process.env: {port}: its instance is the unix socket" },
	{ "socket=\"/s\"\n", "command=\"x {word} {} {Port} { port }\"\n", 0, NULL },
	{ "instances=[{socket=\"/a\"},{socket=\"/b\"}]\n", "command=\"x {socket}\"\n", 0, "{socket}: its upstream has 2 instances" },
	{ "instances=[{socket=\"/a\"},{socket=\"/b\"}]\n", "command=\"x {socket}\"\nreplicas=2\n", K, NULL },
	{ "instances=[{socket=\"/a\"},{host=\"h\",port=1}]\n", "command=\"x {socket}\"\nreplicas=2\n", 0, "{socket}: its instance is h:1" },
};

static void
test_placeholders(void **state)
{
	(void)state;
	file_write("with_port", "PORT=5\n");
	file_write("without_port", "# PORT=5\n");
	for (size_t i = 0; i < LEN(placeholders); i++) {
		struct arena a = { NULL };
		struct conf *c = load(arena_fmt(&a, "[upstreams.a]\n%s[upstreams.a.process]\n%s",
		    placeholders[i].place, placeholders[i].process));
		const struct process *p = c->upstreams[0].process;
		const char *got = "", *want = placeholders[i].error ? placeholders[i].error : "";

		for (const struct diag *d = c->diags.first; d; d = d->next)
			if (d->level == DIAG_ERROR)
				got = strstr(d->text, want) && *want ? want : d->text;
		row_slice(placeholders[i].place, slice_of(placeholders[i].process), "error", slice_of(got),
		    slice_of(want));
		if (!*want)
			row_int(placeholders[i].place, slice_of(placeholders[i].process), "names",
			    p->names_port * P + p->names_socket * K +
			    (strcmp(env_said(&p->env, "PORT"), "{port}") == 0) * E, placeholders[i].want);
		conf_free(c);
		arena_free(&a);
	}
	rows_end();
}

/* ---- print ---- */

static uint64_t
print_made(const char *lines)
{
	struct arena a = { NULL };
	struct conf *c = load_good(arena_fmt(&a, "[upstreams.a]\n[upstreams.a.process]\n%s", lines));
	uint64_t print = c->processes[0]->print;

	conf_free(c);
	arena_free(&a);
	return print;
}

#define BASE "command=\"x y\"\nenvfile=\"print\"\n"

static void
test_print(void **state)
{
	static const char *const same[] = { BASE, "command='x  \"y\"'\nenvfile=\"print\"\n",
		BASE "restart=\"never\"\nbackoff_secs=1\nstop_signal=\"INT\"\nstop_timeout_secs=1\n",
		BASE "replicas=4\n", BASE "ready=\"exec\"\n", BASE "ready_timeout_secs=1\n" };
	static const char *const differ[] = { "command=\"x yz\"\nenvfile=\"print\"\n",
		"command=\"x\"\nargs=[\"y\",\"\"]\nenvfile=\"print\"\n", "command=\"xy\"\nenvfile=\"print\"\n",
		BASE "env={A=\"1\"}\n", BASE "env={A=\"2\"}\n", BASE "env={A=\"\",B=\"\"}\n",
		BASE "dir=\"/\"\n", BASE "user=\"root\"\n", BASE "group=\"root\"\n",
		BASE "limits={nofile=5}\n", BASE "limits={core=5}\n", "command=\"x y\"\n" };
	uint64_t base, seen[LEN(differ)];

	(void)state;
	file_write("print", "A=1\n");
	base = print_made(BASE);
	for (size_t i = 0; i < LEN(same); i++)
		if (print_made(same[i]) != base)
			fail_msg("needs no restart: %s", same[i]);
	for (size_t i = 0; i < LEN(differ); i++) {
		seen[i] = print_made(differ[i]);
		for (size_t k = 0; k < i; k++)
			if (seen[k] == seen[i])
				fail_msg("alike: %s and %s", differ[i], differ[k]);
		if (seen[i] == base)
			fail_msg("needs a restart: %s", differ[i]);
	}
	file_write("print", "A=2\n");
	assert_true(print_made(BASE) != base);
}

/* ---- wrap ---- */

static void
test_wrap(void **state)
{
	static char *const argv[] = { "prog", "--port={port}", "a b", NULL };
	static char *const by_socket[] = { "prog", "{socket}", NULL };
	struct conf *c = conf_simple(":81", NULL, (char **)(uintptr_t)argv);
	const struct process *p = c->processes[0];

	(void)state;
	assert_int_equal(c->diags.errors, 0);
	assert_int_equal(c->n_processes, 1);
	assert_string_equal(p->name, "app");
	assert_string_equal(c->upstreams[0].name, "app");
	assert_true(p->wrapped && p->names_port);
	assert_int_equal(p->restart, RESTART_ALWAYS);
	assert_int_equal(p->ready, READY_LISTEN);
	assert_string_equal(p->argv[2], "a b");
	assert_int_equal(c->upstreams[0].n_instances, 1);
	assert_int_equal(c->upstreams[0].instances[0].addr.kind, ADDR_NONE);
	assert_int_equal(c->upstreams[0].instances[0].replica, 0);
	assert_int_equal(c->upstreams[0].hold_ms, 10000);
	assert_string_equal(env_said(&p->env, "PORT"), "{port}");
	assert_string_equal(c->server.listens[0].text, ":81");
	assert_ptr_equal(c->table.routes[0].upstream, &c->upstreams[0]);
	conf_free(c);
	c = conf_simple(NULL, "127.0.0.1:3000", (char **)(uintptr_t)argv);
	assert_int_equal(c->diags.errors, 0);
	assert_int_equal(c->upstreams[0].instances[0].addr.port, 3000);
	assert_string_equal(env_said(&c->processes[0]->env, "PORT"), "{port}");
	conf_free(c);
	c = conf_simple(NULL, "/s.sock", (char **)(uintptr_t)by_socket);
	assert_int_equal(c->diags.errors, 0);
	assert_string_equal(env_said(&c->processes[0]->env, "PORT"), "");
	conf_free(c);
	c = conf_simple(NULL, "/s.sock", (char **)(uintptr_t)argv);
	assert_int_equal(c->diags.errors, 1);
	conf_free(c);
	c = conf_simple(NULL, "no address", (char **)(uintptr_t)argv);
	assert_int_equal(c->diags.errors, 1);
	conf_free(c);
	c = conf_simple(":81", "127.0.0.1:1", NULL);
	assert_int_equal(c->diags.errors, 0);
	assert_int_equal(c->n_processes, 0);
	assert_int_equal(c->upstreams[0].instances[0].replica, -1);
	conf_free(c);
}

/* ---- what is printed ---- */

static void
test_json(void **state)
{
	struct conf *c = load_good("[upstreams.env]\nprocess.command = \"seen\"\n"
	    "process.env = { A = \"hidden1\", B = 77712 }\n[processes.w]\ncommand = \"seen2\"\n"
	    "env.TOKEN = \"hidden2\"\n");
	char *text = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n);

	(void)state;
	assert_non_null(f);
	conf_print_json(c, f);
	fclose(f);
	assert_non_null(strstr(text, "seen\""));
	assert_non_null(strstr(text, "seen2"));
	assert_non_null(strstr(text, "\"TOKEN\": \"***\""));
	assert_null(strstr(text, "hidden"));
	assert_null(strstr(text, "77712"));
	free(text);
	conf_free(c);
}

/* Who cannot look removes nothing. */
static void
test_held(void **state)
{
	struct rlimit had, none;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &had), 0);
	none = (struct rlimit){ 0, had.rlim_max };
	assert_false(run_dir_is_held(dir));
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_true(run_dir_is_held(dir));
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &had), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_words_random),
		cmocka_unit_test(test_envfile),
		cmocka_unit_test(test_envfile_random),
		cmocka_unit_test(test_presets),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_stop_signal),
		cmocka_unit_test(test_alone),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_order_long),
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_places_socket),
		cmocka_unit_test(test_placeholders),
		cmocka_unit_test(test_print),
		cmocka_unit_test(test_wrap),
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_held),
	};
	static const char *const files[] = { "warp.toml", "with_port", "without_port", "print" };
	char path[sizeof dir + 16];
	int bad;

	if (!mkdtemp(dir))
		return 1;
	bad = cmocka_run_group_tests(tests, NULL, NULL);
	for (size_t i = 0; i < LEN(files); i++) {
		snprintf(path, sizeof path, "%s/%s", dir, files[i]);
		unlink(path);
	}
	rmdir(dir);
	return bad;
}
