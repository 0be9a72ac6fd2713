/* Mappers: real programs behind the real helper, asked as a worker asks. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

static struct conf cf;
static struct router_conf routers[2];
static struct aide *mapper = &aides[AIDE_MAPPER];
static int from_worker; /* what the worker tells the master */
static char dir[] = "/tmp/h-mapper.XXXXXX";

static const char python[] =
    "import time\n"
    "n=0\n"
    "def get(key):\n"
    "    global n\n"
    "    n+=1\n"
    "    print('asked for',key)\n"
    "    if key=='none': return None\n"
    "    if key=='empty': return ''\n"
    "    if key=='bytes': return b'/bytes'\n"
    "    if key=='wrong': raise KeyError(key)\n"
    "    if key=='number': return 5.5\n"
    "    if key=='line': return '/a\\n/b'\n"
    "    if key=='hang': time.sleep(60)\n"
    "    if key=='slow': time.sleep(0.3)\n"
    "    if key=='end': raise SystemExit\n"
    "    return '/%s/%d'%(key,n)\n";

/* ---- answers ---- */

struct heard {
	char text[NODE_ADDRESS_MAX + 1];
	int n; /* times */
};

static void
told(void *arg, struct slice address)
{
	struct heard *h = arg;

	snprintf(h->text, sizeof h->text, "%.*s", address.p ? (int)address.n : 1,
	    address.p ? address.p : "-");
	h->n++;
}

/* Does what the master does. */
static void
channel(void)
{
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	assert_true(fds_pass(mapper->life.fd, 0, &sv[1], 1));
	mapper_use(sv[0]);
	close(sv[1]);
}

static void
turns(const struct heard *h, int n, int ms)
{
	int64_t until;

	clock_turn();
	for (until = now_ms + ms; h->n < n && now_ms < until; )
		loop_turn(10);
}

/* The answer, waited for. */
static const char *
asked(const struct router_conf *rc, struct slice key)
{
	static struct heard h;

	h = (struct heard){ .n = 0 };
	assert_true(mapper_ask(rc, key, told, &h));
	turns(&h, 1, 20000);
	assert_int_equal(h.n, 1);
	return h.text;
}

static void
written(const char *name, const char *text)
{
	char path[100];
	FILE *f;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	assert_non_null(f = fopen(path, "w"));
	fputs(text, f);
	fclose(f);
}

static void
started(void)
{
	int keep[HELPER_KEEPS], fd = -1;

	mapper->pid = helper_start("mapper", mapping_run, &(struct worker_task){ &cf, NULL, 0 }, keep, 0,
	    &fd);
	assert_true(mapper->pid > 0);
	mapper->life.fd = fd;
}

static int
opened(void **state)
{
	static char file[100];
	static char *argv[] = { (char *)(uintptr_t)"sed", (char *)(uintptr_t)"-u",
		(char *)(uintptr_t)"s,^,127.0.0.1:,", NULL };
	int sv[2];

	(void)state;
	board_open();
	log_level = getenv("V") ? LOG_LVL_DEBUG : LOG_LVL_ERROR;
	signal(SIGPIPE, SIG_IGN);
	if (!mkdtemp(dir) || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
		return -1;
	written("mapper.py", python);
	snprintf(file, sizeof file, "%s/mapper.py", dir);
	routers[0] = (struct router_conf){ .code_modifier = CODE_PYTHON, .code_file = file,
		.code_function = "get", .timeout_ms = 1000 };
	routers[1] = (struct router_conf){ .code_modifier = -1, .program = argv, .timeout_ms = 60000 };
	routers[0].subscription_server = (struct addrs){ &(struct addr){ .text = "a" }, 1 };
	routers[1].subscription_server = (struct addrs){ &(struct addr){ .text = "b" }, 1 };
	cf = (struct conf){ .routers = routers, .n_routers = 2, .n_servers = 2 };
	clock_turn();
	nodes_attach(&cf);
	loop_open(10);
	ctl_fd = sv[0];
	from_worker = sv[1];
	started();
	mapper_open(&cf);
	return 0;
}

static int
closed(void **state)
{
	char text[100];

	(void)state;
	close(mapper->life.fd);
	close(map_channel.fd);
	waitpid(mapper->pid, NULL, 0); /* it leaves by itself */
	snprintf(text, sizeof text, "rm -r %s", dir);
	return system(text);
}

/* What the worker has told the master. */
static char
master_hears(void)
{
	char b[CTL_MAX];

	return recv(from_worker, b, sizeof b, MSG_DONTWAIT) > 0 ? b[0] : '\0';
}

/* ---- tests ---- */

/* Questions wait for the channel. */
static void
test_channel(void **state)
{
	struct heard h = { .n = 0 };

	(void)state;
	assert_int_equal(master_hears(), CTL_MAP);
	assert_true(mapper_ask(&routers[0], S("first"), told, &h));
	loop_turn(10);
	assert_int_equal(h.n, 0);
	channel();
	turns(&h, 1, 20000);
	assert_string_equal(h.text, "/first/1");
}

static void
test_python(void **state)
{
	(void)state;
	assert_string_equal(asked(&routers[0], S("a")), "/a/2"); /* it has kept its state */
	assert_string_equal(asked(&routers[0], S("none")), "");
	assert_string_equal(asked(&routers[0], S("empty")), "");
	assert_string_equal(asked(&routers[0], S("bytes")), "/bytes");
	assert_string_equal(asked(&routers[0], S("wrong")), "");
	assert_string_equal(asked(&routers[0], S("number")), "");
	assert_string_equal(asked(&routers[0], S("line")), "/a/b");
	assert_string_equal(asked(&routers[0], S("\xc3\xa4\xff%s")), "/\xc3\xa4\xff%s/9");
}

static void
test_program(void **state)
{
	(void)state;
	assert_string_equal(asked(&routers[1], S("80")), "127.0.0.1:80");
	assert_string_equal(asked(&routers[1], S("x y")), "127.0.0.1:x y");
}

/* Many at once, to both; each gets its own. */
static void
test_many(void **state)
{
	static struct heard h[MAPPER_ASKS];
	char key[16], want[40];
	int n;

	(void)state;
	memset(h, 0, sizeof h);
	for (int i = 0; i < MAPPER_ASKS; i++) {
		n = snprintf(key, sizeof key, "%d", i);
		assert_true(mapper_ask(&routers[i % 2], (struct slice){ key, (size_t)n }, told, &h[i]));
	}
	assert_false(mapper_ask(&routers[0], S("more"), told, &h[0]));
	for (int i = 0; i < MAPPER_ASKS; i++) {
		turns(&h[i], 1, 20000);
		snprintf(want, sizeof want, i % 2 ? "127.0.0.1:%d" : "/%d/", i);
		assert_memory_equal(h[i].text, want, strlen(want));
		assert_int_equal(h[i].n, 1);
	}
}

static void
test_keys(void **state)
{
	struct heard h = { .n = 0 };

	(void)state;
	assert_false(mapper_ask(&routers[0], S("a\nb"), told, &h));
	assert_false(mapper_ask(&routers[0], S(""), told, &h));
	assert_true(mapper_ask(&routers[0], S("forgotten"), told, &h));
	mapper_forget(&h);
	assert_memory_equal(asked(&routers[0], S("next")), "/next/", 6);
	assert_int_equal(h.n, 0);
	routers[0].scope++; /* a router that the helper does not have */
	assert_string_equal(asked(&routers[0], S("a")), "-");
	routers[0].scope--;
}

/* A mapper that hangs is killed: those that wait get what it said of late, or nothing. The
 * other router does not wait. */
static void
test_hang(void **state)
{
	struct heard hang = { .n = 0 }, known = hang, strange = hang;
	char was[NODE_ADDRESS_MAX + 1];
	int64_t began;

	(void)state;
	snprintf(was, sizeof was, "%s", asked(&routers[0], S("known")));
	assert_true(mapper_ask(&routers[0], S("hang"), told, &hang));
	assert_true(mapper_ask(&routers[0], S("known"), told, &known));
	assert_true(mapper_ask(&routers[0], S("strange"), told, &strange));
	began = now_ms;
	assert_string_equal(asked(&routers[1], S("80")), "127.0.0.1:80");
	assert_true(now_ms - began < 900);
	turns(&strange, 1, 5000);
	assert_string_equal(hang.text, "-"); /* p NULL: the fallback is due */
	assert_string_equal(known.text, was);
	assert_string_equal(strange.text, "-");
	assert_string_equal(asked(&routers[0], S("known")), was); /* it does not run yet */
	for (int i = 0; i < 100 && strcmp(asked(&routers[0], S("new")), "-") == 0; i++)
		poll(NULL, 0, 50);
	assert_memory_equal(asked(&routers[0], S("new")), "/new/", 5);
}

static void
test_end(void **state)
{
	(void)state;
	assert_string_equal(asked(&routers[0], S("end")), "-");
	for (int i = 0; i < 200 && strcmp(asked(&routers[0], S("after")), "-") == 0; i++)
		poll(NULL, 0, 50);
	assert_string_equal(asked(&routers[0], S("after")), "/after/2");
}

/* Another helper takes over; questions that were not answered are asked again. */
static void
test_helper_killed(void **state)
{
	struct heard h = { .n = 0 };

	(void)state;
	assert_true(mapper_ask(&routers[0], S("slow"), told, &h));
	loop_turn(10);
	kill(mapper->pid, SIGKILL);
	waitpid(mapper->pid, NULL, 0);
	for (int i = 0; i < 10 && map_channel.fd >= 0; i++)
		loop_turn(100);
	assert_int_equal(master_hears(), CTL_MAP);
	close(mapper->life.fd);
	started();
	mapper_use(-1); /* it is there */
	assert_int_equal(master_hears(), CTL_MAP);
	channel();
	turns(&h, 1, 20000);
	assert_string_equal(h.text, "/slow/1");
	assert_int_equal(h.n, 1);
}

/* A reload: the old helper goes on for those who have a channel to it. */
static void
test_helper_old(void **state)
{
	pid_t was = mapper->pid;

	(void)state;
	close(mapper->life.fd);
	started();
	assert_memory_equal(asked(&routers[0], S("old")), "/old/", 5);
	assert_int_equal(waitpid(was, NULL, WNOHANG), 0);
	map_close();
	assert_int_equal(master_hears(), CTL_MAP);
	assert_int_equal(waitpid(was, NULL, 0), was); /* nobody needs it */
	channel();
	assert_string_equal(asked(&routers[0], S("new")), "/new/1");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_channel), cmocka_unit_test(test_python),
		cmocka_unit_test(test_program), cmocka_unit_test(test_many),
		cmocka_unit_test(test_keys), cmocka_unit_test(test_hang),
		cmocka_unit_test(test_end), cmocka_unit_test(test_helper_killed),
		cmocka_unit_test(test_helper_old),
	};

	return cmocka_run_group_tests(tests, opened, closed);
}
