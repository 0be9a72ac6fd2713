/* uWSGI's own spelling: files with a section [uwsgi], and options of the command line, and
 * what they become. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

static char dir[] = "/tmp/warp-ini-XXXXXX";
static char file[sizeof dir + 16];

static struct conf *
load(const char *text)
{
	return conf_from(file, text);
}

static char *
printed(const struct conf *c)
{
	char *text = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n);

	assert_non_null(f);
	if (c->diags.errors > 0)
		diags_print(&c->diags, f);
	else {
		diags_print(&c->diags, f);
		conf_print_check(c, f);
	}
	fclose(f);
	return text;
}

#define U "[uwsgi]\n"
#define FR U "fastrouter = 127.0.0.1:3017\n"

static const struct {
	const char *ini, *want, *why;
	bool error;
} files[] = {
	/* the seed's own, as they stand */
	{ "[uwsgi]\n;create a shared socket (the webserver will connect to it)\nshared-socket = 127.0.0.1:3031\n\n"
	  "; bind the fastrouter to the shared socket\nfastrouter = =0\n; bind an instance to the same socket\nsocket = =0\n\n"
	  "; having a master is always a good thing...\nmaster = true\n; our subscription server\n"
	  "fastrouter-subscription-server = 192.168.0.100:4040\n; our app\nwsgi-file = /var/www/myheavyapp.wsgi\n"
	  "; a bunch of processes\nprocesses = 4\n; and put the fastrouter in cheap mode\nfastrouter-cheap = true\n",
	  "uwsgi --plugin=python3 --socket=fd://{fd0} --master --wsgi-file=/var/www/myheavyapp.wsgi --processes=4 --die-on-term",
	  "S1-40, S1-41", false },
	{ "[uwsgi]\nfastrouter = 127.0.0.1:3031\nfastrouter-to = /var/run/app.socket\nfastrouter-post-buffering = 8192\n",
	  "127.0.0.1:3031: timeout 60 s, post_buffering 8192\n    to unix:/var/run/app.socket\n", "S1-44, S1-45", false },
	/* the grammar */
	{ "# a\n;b\n\n [uwsgi] \r\n  fastrouter=127.0.0.1:1\r\nfastrouter-cheap\r\nfastrouter-subscription-server = :2\n",
	  "127.0.0.1:1: timeout 60 s, cheap", "comments, blanks, CR LF, an option alone", false },
	{ FR "[other]\nnonsense = 1\n[uwsgi]\nfastrouter-to = 127.0.0.1:5\n", "to 127.0.0.1:5", "other sections", false },
	{ "fastrouter = 1\n", "1:1: error: expected [uwsgi] before the first option", "no section", true },
	{ "[uwsgi\n", "1:1: error: expected ] at the end", "no end of it", true },
	{ FR "fastrouter-to = a ; b\n", "/a ; b\n", "no comment behind a value", false },
	{ FR "fastrouter-to = a=b\n", "/a=b\n", "an = in a value", false },
	/* names */
	{ FR "fastrouter-use-patern = /%s\n", "3:1: error: unknown option 'fastrouter-use-patern', did you mean 'fastrouter-use-pattern'?", "S1-51", true },
	{ FR "proceses = 4\n", "3:1: error: unknown option 'proceses', did you mean 'processes'?", "an instance's", true },
	{ FR "subscription-tolerence = 4\n", "did you mean 'subscription-tolerance'?", "the server's", true },
	{ FR "shared-sockets = 4\n", "did you mean 'shared-socket'?", "shared sockets", true },
	{ FR "zzzzzzzzzz = 4\n", "3:1: error: unknown option 'zzzzzzzzzz'\n", "nothing is near", true },
	{ FR "fastrouter-listen = x\n", "unknown option 'fastrouter-listen'", "a name of ours", true },
	{ FR "fastrouter-cache = x\n", "unknown option 'fastrouter-cache'", "a table", true },
	{ FR "daemonize = /x\n", "3:1: error: daemonize: warp -d goes into the background", "warp's own", true },
	{ U "subscription-tolerance = 5\n", "2:1: error: subscription-tolerance: there is no fastrouter", "alone", true },
	/* values */
	{ FR "fastrouter-timeout = soon\n", "3:22: error: fastrouter.timeout: expected a number of seconds", "no number", true },
	{ FR "fastrouter-cheap = maybe\n", "3:20: error: fastrouter.cheap: expected true or false, got the text \"maybe\"", "no truth", true },
	{ FR "fastrouter-cheap = no\nfastrouter-quiet = 1\nfastrouter-subscription-server = :5\n", "timeout 60 s\n", "off", false },
	{ FR "fastrouter-gracetime = 2.5\nfastrouter-to = x\nfastrouter-to = 127.0.0.1:5,9\n",
	  "/x, 127.0.0.1:5 modifier1 9\n", "several, with a comma", false },
	{ FR "fastrouter-timeout = 5\nfastrouter-timeout = 6\nfastrouter-to=x\n", "timeout 6 s", "the last counts", false },
	{ FR "fastrouter-use-cache\n", "map default: 0 entries", "without a name", false },
	{ FR "fastrouter-use-cache = m\ncache2 = name=m,items=7\n", "map m: 0 entries, at most 7\n", "with a name and a bound", false },
	{ FR "fastrouter-to = x\nno-fd-passing = true\n", "no fd_passing", "S1-50", false },
	{ FR "fastrouter-to = x\nfastrouter-events = 100\n", "warning: fastrouter.events: changes nothing", "S1-48", false },
	{ FR "fastrouter-use-socket\nsocket = 127.0.0.1:5\n", "to 127.0.0.1:5\n", "the first socket", false },
	{ FR "fastrouter-use-socket = 1\nsocket = 127.0.0.1:5\nsocket = /x\n", "to unix:/x\n", "the second", false },
	{ FR "fastrouter-use-socket = 2\nsocket = 127.0.0.1:5\n", "3:1: error: fastrouter-use-socket: there is no such socket", "none", true },
	{ FR "fastrouter-to = x\nchmod-socket\nsocket = /y\n", "--chmod-socket --socket=/y", "of both", false },
	/* the instance */
	{ FR "master = true\nprocesses = 4\n", "routes nothing", "no reason to run one", false },
	{ FR "socket = =0\n", "processes.uwsgi.shared_sockets: 0: expected numbers of [[shared_sockets]]", "no such shared socket", true },
	{ FR "socket = :1\nmaster = no\nvacuum\nplugin = x\nmodule = m\n", "uwsgi --plugin=x --socket=:1 --vacuum --module=m --die-on-term\n", "plugins first", false },
	{ FR "http-to = x\n", "3:1: error: http-to: there is neither http nor a program", "nothing to do with it", true },
	{ FR "http = :9\nhttp-to = x\n", "uwsgi --http=:9 --http-to=x --die-on-term\n", "with http", false },
	{ FR "socket = :1\nmaster = perhaps\n", "4:1: error: master: expected true or false, got perhaps", "a flag", true },
	{ FR "psgi = x.pl\n", "uwsgi --psgi=x.pl --socket=127.0.0.1:0 --die-on-term\n", "it needs a socket", false },
	{ FR "fastrouter-use-cache = true\ncache = 100\nfile = foobar.py\n",
	  "uwsgi --plugin=python3 --cache=100 --file=foobar.py --cache-udp-node=127.0.0.1:3017 --socket=127.0.0.1:0 --die-on-term\n", "S1-30", false },
	{ U "fastrouter = /x\nfastrouter-use-cache = true\ncache = 100\nfile = foobar.py\n", "--cache-udp-node=127.0.0.1:3017 ", "no port of its own", false },
	/* variables */
	{ U "base = /srv\nname = app\nfastrouter = %(base)/fr.sock\nfastrouter-to = %(base)/%(name).sock\n", "to unix:/srv/app.sock\n", "names of one's own", false },
	{ FR "fastrouter-to = %(none)\n", "/%(none)\n", "an unknown one stays", false },
	{ FR "fastrouter-to = %()\n", "/%()\n", "an empty one too", false },
	{ FR "fastrouter-to = %(\n", "/%(\n", "and an open one", false },
	{ FR "fastrouter-to = a$b$\n", "/a$b$\n", "a dollar", false },
	{ FR "fastrouter-to = %n.%%.sock\n", "/warp.%.sock\n", "the file's name", false },
	{ FR "fastrouter-to = %z\n", "3:1: error: fastrouter-to: %z: expected one of %d", "an unknown letter", true },
	{ FR "fastrouter-to = $(WARP_TEST_INI)/x\n", "to unix:/env/x\n", "the environment", false },
	{ FR "fastrouter-use-pattern = /run/%s/%n\n", "pattern /run/%s/warp\n", "the key stays", false },
	{ FR "fastrouter-use-pattern = /run/%%s\n", "pattern /run/%s\n", "as uWSGI wants it", false },
};

static void
test_files(void **state)
{
	(void)state;
	setenv("WARP_TEST_INI", "/env", 1);
	for (size_t i = 0; i < LEN(files); i++) {
		struct conf *c = load(files[i].ini);
		char *said = printed(c);
		if (!strstr(said, files[i].want) || (c->diags.errors > 0) != files[i].error)
			row_bad(files[i].why, slice_of(files[i].ini), "expected %s\nsaid: %s", files[i].want, said);
		free(said);
		conf_free(c);
	}
	rows_end();
}

static void
test_identity(void **state)
{
	struct conf *c = load(U "uid = 0\ngid = root\nfastrouter = :1\nfastrouter-to = x\n");

	(void)state;
	assert_int_equal(c->diags.errors, 0);
	assert_string_equal(c->server.user, "0");
	assert_string_equal(c->server.group, "root");
	conf_free(c);
}

/* Every file, cut short at every byte: no crash. */
static void
test_cut_short(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(files); i++)
		for (size_t n = 0; n < strlen(files[i].ini); n += 3) {
			char *text = strndup(files[i].ini, n);
			conf_free(load(text));
			free(text);
		}
}

/* ---- the command line ---- */

static const struct {
	const char *words, *want, *why; /* want NULL: a usage error */
} lines[] = {
	{ "--fastrouter 127.0.0.1:3017 --fastrouter /tmp/uwsgi.sock --fastrouter @foobar",
	  "127.0.0.1:3017, unix:/tmp/uwsgi.sock, @foobar, \\0foobar\\0: ", "S1-23" },
	{ "--fastrouter 127.0.0.1:3017 --fastrouter-use-base /tmp/sockets/", "base /tmp/sockets/\n", "S1-25" },
	{ "--fastrouter 127.0.0.1:3017 --fastrouter-use-pattern /tmp/sockets/%s/uwsgi.sock", "pattern /tmp/sockets/%s/uwsgi.sock\n", "S1-26" },
	{ "--fastrouter 127.0.0.1:3017 --fastrouter-use-cache --cache 100 --file foobar.py", "--file=foobar.py", "S1-27" },
	{ "--fastrouter 127.0.0.1:3017 --fastrouter-subscription-server 192.168.0.100:7000", "subscription server 192.168.0.100:7000", "S1-31" },
	{ "--fastrouter 127.0.0.1:3017 --fastrouter-use-code-string 0:mapper.py:get", "function get of ", "S1-37" },
	{ "--fastrouter=127.0.0.1:3017 --fastrouter-to=x -t", "/x\n", "with =, and an option of ours" },
	{ "--fastrouter 127.0.0.1:3017 --fastrouter-use-cache=m", "map m:", "a value that may be there" },
	{ "--fastrouter 127.0.0.1:3017 --fastrouter-cheap --fastrouter-subscription-server :5", "cheap\n", "one without" },
	{ "--fastrouter 127.0.0.1:3017 --socket =0 --shared-socket 127.0.0.1:5 --wsgi-file a", "--socket=fd://{fd0} --wsgi-file=a", "an instance" },
	{ "--fastrouter", NULL, "no value" },
	{ "--fastrouter-use-bas x", NULL, "no such option" },
	{ "--fastrouter :1 -u :2", NULL, "and a target" },
};

static void
test_options(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(lines); i++) {
		char text[256], *argv[20] = { (char *)(uintptr_t)"warp" };
		struct options o = { .s = { .notify_fd = -1 } };
		struct slice in = slice_of(lines[i].words);
		int argc = 1, done;
		FILE *err = stderr;

		snprintf(text, sizeof text, "%s", lines[i].words);
		for (char *w = strtok(text, " "); w; w = strtok(NULL, " "))
			argv[argc++] = w;
		optind = 1;
		stderr = lines[i].want ? err : fopen("/dev/null", "w");
		done = options_read(&o, argc, argv);
		if (stderr != err)
			fclose(stderr);
		stderr = err;
		row_int(lines[i].why, in, "status", done, lines[i].want ? -1 : EXIT_USAGE);
		if (done == -1 && lines[i].want) {
			struct conf *c = start_load(&o.s);
			char *said = printed(c);
			if (!strstr(said, lines[i].want) || c->diags.errors > 0)
				row_bad(lines[i].why, in, "expected %s\nsaid: %s", lines[i].want, said);
			free(said);
			conf_free(c);
		}
		free((void *)(uintptr_t)o.s.options);
		free(o.words);
	}
	rows_end();
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_cut_short),
		cmocka_unit_test(test_options),
	};
	int failed;

	if (!mkdtemp(dir))
		return 1;
	snprintf(file, sizeof file, "%s/warp.ini", dir);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(file);
	rmdir(dir);
	return failed;
}
