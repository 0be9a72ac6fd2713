/* Paths below a directory: beneath_walk, for kernels without openat2, beside openat2 in random trees. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

enum { TREES = 200, NAMES = 24, PATHS = 400 };

static char base[] = "/tmp/warp-files-XXXXXX";
static uint64_t seed = 1;

static unsigned
roll(unsigned n)
{
	seed = mix64(seed + 1);
	return (unsigned)(seed >> 32) % n;
}

/* Up to five parts of names, dots and slashes; absolute ones begin with `base`/root. */
static void
path_random(char *to, size_t n, bool absolute)
{
	static const char *const parts[] = { "a", "b", "c", "d", "l", "m", ".", "..", "..", "/", "" };
	struct text t = { to, 0, n - 1, false };

	if (absolute && roll(4) == 0)
		text_str(&t, roll(4) ? base : "");
	if (t.n > 0)
		text_str(&t, roll(5) ? "/root/" : "/");
	else if (absolute && roll(8) == 0)
		text_char(&t, '/');
	for (unsigned i = 1 + roll(5); i > 0; i--) {
		text_str(&t, parts[roll(LEN(parts))]);
		text_str(&t, i > 1 || roll(6) == 0 ? "/" : "");
	}
	to[t.n] = '\0';
}

/* Files, directories and links with these names, some of them outside. */
static void
tree_make(bool absolute)
{
	char path[256], to[256];
	int dir, fd;

	snprintf(path, sizeof path, "rm -rf %s/* && mkdir %s/root && echo x >%s/a", base, base, base);
	assert_int_equal(system(path), 0);
	snprintf(path, sizeof path, "%s/root", base);
	dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	assert_true(dir >= 0);
	for (int i = 0; i < NAMES; i++) {
		path_random(path, sizeof path, false);
		path_random(to, sizeof to, absolute);
		if (*path == '/' || strstr(path, ".."))
			continue;
		switch (roll(4)) {
		case 0:
			if ((fd = openat(dir, path, O_CREAT | O_WRONLY, 0644)) >= 0)
				close(fd);
			break;
		case 1:
			if (*to)
				assert_true(symlinkat(to, dir, path) == 0 || errno != EINVAL);
			break;
		default:
			mkdirat(dir, path, 0755);
		}
	}
	close(dir);
}

/* Whether fd lies below root, by the names that the kernel has for both. */
static bool
is_below(int fd, const char *root)
{
	char link[64], name[PATH_MAX];
	ssize_t n;

	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	n = readlink(link, name, sizeof name - 1);
	assert_true(n > 0);
	name[n] = '\0';
	return strncmp(name, root, strlen(root)) == 0 && (!name[strlen(root)] || name[strlen(root)] == '/');
}

static void
walk_is_openat2(void **state)
{
	const struct { uint64_t flags, mode, resolve; } how = { FILE_FLAGS, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS };
	int found = 0;

	(void)state;
	for (int tree = 0; tree < TREES; tree++) {
		char root[64], path[256];
		int dir;

		tree_make(tree % 2);
		snprintf(root, sizeof root, "%s/root", base);
		dir = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
		for (int i = 0; i < PATHS; i++) {
			struct stat a = { .st_ino = 0 }, b = { .st_ino = 0 };
			int want, got, want_err, got_err;

			path_random(path, sizeof path, false);
			if (!*path)
				continue;
			want = (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
			want_err = want < 0 ? errno : fstat(want, &a);
			if (want_err == ENOSYS)
				skip();
			got = beneath_walk(dir, root, path);
			got_err = got < 0 ? errno : fstat(got, &b);
			if (got >= 0)
				assert_true(is_below(got, root));
			found += want >= 0;
			if (want_err != EXDEV && (want_err != got_err || a.st_ino != b.st_ino)) /* absolute ones may do */
				row_bad("as openat2", slice_of(path), "tree %d: %s, not %s", tree,
				    got < 0 ? strerror(got_err) : "found", want < 0 ? strerror(want_err) : "that");
			if (want >= 0)
				close(want);
			if (got >= 0)
				close(got);
		}
		close(dir);
	}
	rows_end();
	assert_true(found > TREES * PATHS / 50);
}

static int
base_make(void **state)
{
	(void)state;
	return mkdtemp(base) ? 0 : -1;
}

static int
base_remove(void **state)
{
	char cmd[64];

	(void)state;
	snprintf(cmd, sizeof cmd, "rm -rf %s", base);
	return system(cmd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(walk_is_openat2),
	};

	return cmocka_run_group_tests(tests, base_make, base_remove);
}
