/* Root opens files on ways that others have a say in: links, directories that
 * others own or may write to, files that are not theirs. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

#define BOB 1001
#define EVE 1002

static char base[] = "/tmp/warp-walk-XXXXXX";

/* What is there, each in the order made. to: of a link; dir: mode with S_IFDIR. */
static const struct {
	const char *name;
	uid_t who;
	mode_t mode;
	const char *to;
} things[] = {
	{ "secret", 0, S_IFREG | 0600, NULL },
	{ "root", 0, S_IFDIR | 0755, NULL },
	{ "root/f", 0, S_IFREG | 0644, NULL },
	{ "root/bobs", BOB, S_IFREG | 0644, NULL },
	{ "root/link", 0, S_IFLNK, "../secret" },
	{ "root/bobs-link", BOB, S_IFLNK, "../secret" },
	{ "root/hard", 0, S_IFREG | 0600, "secret" },
	{ "bob", BOB, S_IFDIR | 0755, NULL },
	{ "bob/own", BOB, S_IFREG | 0644, NULL },
	{ "bob/roots", 0, S_IFREG | 0644, NULL },
	{ "bob/hard", 0, S_IFREG | 0600, "secret" },
	{ "bob/eves", EVE, S_IFREG | 0644, NULL },
	{ "bob/own-link", BOB, S_IFLNK, "own" },
	{ "bob/to-roots", BOB, S_IFLNK, "roots" },
	{ "bob/absolute", BOB, S_IFLNK, "@/secret" },
	{ "bob/relative", BOB, S_IFLNK, "../secret" },
	{ "bob/twice", BOB, S_IFLNK, "relative" },
	{ "bob/roots-link", 0, S_IFLNK, "../root/f" },
	{ "bob/dir", BOB, S_IFLNK, "../root" },
	{ "bob/to-eve", BOB, S_IFLNK, "../eve/own" },
	{ "bob/new-own", BOB, S_IFLNK, "made-by-link" },
	{ "bob/new-root", BOB, S_IFLNK, "../root/made-by-link" },
	{ "bob/fifo", BOB, S_IFIFO | 0666, NULL },
	{ "bob/loop", BOB, S_IFLNK, "pool" },
	{ "bob/pool", BOB, S_IFLNK, "loop" },
	{ "bob/below", 0, S_IFDIR | 0755, NULL },
	{ "bob/below/f", 0, S_IFREG | 0644, NULL },
	{ "bob/eve", EVE, S_IFDIR | 0755, NULL },
	{ "bob/eve/bobs", BOB, S_IFREG | 0644, NULL },
	{ "bob/eve/eves", EVE, S_IFREG | 0644, NULL },
	{ "eve", EVE, S_IFDIR | 0755, NULL },
	{ "eve/own", EVE, S_IFREG | 0644, NULL },
	{ "open", 0, S_IFDIR | 0777, NULL },
	{ "open/f", 0, S_IFREG | 0644, NULL },
	{ "open/bobs", BOB, S_IFREG | 0644, NULL },
	{ "sticky", 0, S_IFDIR | S_ISVTX | 0777, NULL },
	{ "sticky/f", 0, S_IFREG | 0644, NULL },
	{ "sticky/bobs", BOB, S_IFREG | 0644, NULL },
	{ "sticky/to-secret", BOB, S_IFLNK, "../secret" },
	{ "sticky/to-bobs", BOB, S_IFLNK, "bobs" },
};

/* The path of that; four at a time. */
static char *
at(const char *name)
{
	static char bufs[4][PATH_MAX];
	static unsigned turn;
	char *b = bufs[turn++ % LEN(bufs)];

	snprintf(b, PATH_MAX, "%s/%s", base, *name == '@' ? name + 2 : name);
	return b;
}

static int
setup(void **state)
{
	(void)state;
	if (geteuid() != 0)
		return 0;
	umask(022);
	assert_non_null(mkdtemp(base));
	assert_int_equal(chmod(base, 0755), 0);
	for (size_t i = 0; i < LEN(things); i++) {
		const char *name = at(things[i].name), *to = things[i].to;
		mode_t kind = things[i].mode & S_IFMT, mode = things[i].mode & 07777;

		if (kind == S_IFLNK)
			assert_int_equal(symlink(to[0] == '@' ? at(to) : to, name), 0);
		else if (kind == S_IFREG && to)
			assert_int_equal(link(at(to), name), 0);
		else
			assert_int_equal(kind == S_IFDIR ? mkdir(name, mode) : mknod(name, things[i].mode, 0), 0);
		assert_int_equal(lchown(name, things[i].who, things[i].who), 0);
		if (kind != S_IFLNK)
			assert_int_equal(chmod(name, mode), 0);
	}
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	for (size_t i = LEN(things); geteuid() == 0 && i-- > 0;)
		remove(at(things[i].name));
	return geteuid() == 0 ? rmdir(base) : 0; /* nothing else was made */
}

/* clang-format off */
static const struct {
	struct slice name;
	int err; /* 0: it opens */
	const char *why;
} ways[] = {
	{ T("root/f"), 0, "root's own" },
	{ T("root//./f"), 0, "slashes and dots" },
	{ T("root/../root/f"), 0, "up and down" },
	{ T("root/bobs"), 0, "where root has put it" },
	{ T("root/link"), 0, "root's link" },
	{ T("root/hard"), 0, "root's second name" },
	{ T("root/bobs-link"), EPERM, "a link of bob's to what is not his" },
	{ T("root"), EISDIR, "a directory" },
	{ T("root/none"), ENOENT, "nothing" },
	{ T("none/f"), ENOENT, "nothing on the way" },
	{ T("root/f/x"), ENOTDIR, "a file on the way" },
	{ T("bob/own"), 0, "bob's own" },
	{ T("bob/roots"), 0, "what root made there before" },
	{ T("bob/hard"), EPERM, "a second name of root's file" },
	{ T("bob/eves"), EPERM, "a third one's" },
	{ T("bob/own-link"), 0, "bob's link to his own" },
	{ T("bob/to-roots"), EPERM, "bob's link to what is root's, if beside it" },
	{ T("bob/absolute"), EPERM, "an absolute link" },
	{ T("bob/relative"), EPERM, "a link upwards" },
	{ T("bob/twice"), EPERM, "a link to a link" },
	{ T("bob/roots-link"), 0, "root's link" },
	{ T("bob/dir/f"), EPERM, "a link on the way" },
	{ T("bob/dir/bobs"), 0, "to bob's own" },
	{ T("bob/to-eve"), EPERM, "from one to another" },
	{ T("bob/loop"), ELOOP, "links in a circle" },
	{ T("bob/below/f"), 0, "root's directory in bob's" },
	{ T("bob/eve/bobs"), EPERM, "two have a say" },
	{ T("bob/eve/eves"), EPERM, "two have a say, whosever it is" },
	{ T("open/f"), 0, "everybody has a say, but the file is root's alone" },
	{ T("open/bobs"), EPERM, "everybody has a say, whosever it is" },
	{ T("sticky/f"), 0, "as in /tmp" },
	{ T("sticky/bobs"), 0, "what bob put there" },
	{ T("sticky/to-secret"), EPERM, "a link in /tmp" },
	{ T("sticky/to-bobs"), 0, "a link in /tmp to its maker's own" },
};
/* clang-format on */

/* Reading and writing alike; without O_CREAT nothing is made. */
static void
test_ways(void **state)
{
	static const int flags[] = { O_RDONLY, O_WRONLY | O_APPEND };

	(void)state;
	if (geteuid() != 0)
		skip();
	for (size_t i = 0; i < 2 * LEN(ways); i++) {
		size_t k = i / 2;
		struct walk w;
		int fd = walk_open(&w, at(ways[k].name.p), flags[i % 2], 0);
		int got = fd < 0 ? errno : 0, want = ways[k].err;

		if (want == EISDIR && flags[i % 2] == O_RDONLY)
			want = 0; /* as open() */
		row_int(ways[k].why, ways[k].name, i % 2 ? "writing" : "reading", got, want);
		row_int(ways[k].why, ways[k].name, "made", w.made, false);
		fd_close(fd);
	}
	rows_end();
}

/* clang-format off */
static const struct {
	const char *name;
	int err;
	const char *made; /* what is there then; NULL: nothing is */
	uid_t who;
	const char *why;
} creations[] = {
	{ "root/new", 0, "root/new", 0, "in root's directory" },
	{ "sticky/new", 0, "sticky/new", 0, "as in /tmp" },
	{ "bob/new", 0, "bob/new", 0, "in bob's: root's, as it has always been" },
	{ "bob/new-own", 0, "bob/made-by-link", BOB, "by bob's link in his directory: his" },
	{ "bob/new-root", EPERM, NULL, 0, "by bob's link in root's directory" },
	{ "bob/below/new", 0, "bob/below/new", 0, "in a directory that bob can move but not write to" },
	{ "bob/eve/new", 0, "bob/eve/new", 0, "where two have a say" },
	{ "open/new", 0, "open/new", 0, "where everybody has a say" },
	{ "none/new", ENOENT, NULL, 0, "no directory" },
};
/* clang-format on */

static void
test_creation(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip();
	for (size_t i = 0; i < LEN(creations); i++) {
		struct slice name = slice_of(creations[i].name);
		const char *why = creations[i].why;
		struct stat st = { .st_mode = 0 };
		struct walk w;

		for (int again = 0; again < 2; again++) { /* the second time it is there */
			int fd = walk_open(&w, at(name.p), O_WRONLY | O_APPEND | O_CREAT, 0);

			row_int(why, name, again ? "again" : "errno", fd < 0 ? errno : 0, creations[i].err);
			row_int(why, name, "made", w.made, fd >= 0 && !again);
			fd_close(fd);
		}
		if (!creations[i].made) {
			row_int(why, name, "is there", stat(at(name.p), &st), -1);
			continue;
		}
		row_int(why, name, "stat", lstat(at(creations[i].made), &st), 0);
		row_int(why, name, "owner", st.st_uid, creations[i].who);
		row_int(why, name, "mode", st.st_mode, S_IFREG | WALK_MODE);
		unlink(at(creations[i].made));
	}
	rows_end();
}

/* A pipe nobody reads from or writes to holds nobody up. */
static void
test_pipes(void **state)
{
	struct arena a = { NULL };
	struct slice text;
	struct walk w;
	char name[64];
	const char *why;
	int ends[2], fd;

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(walk_open(&w, at("bob/fifo"), O_WRONLY, 0), -1);
	assert_string_equal(walk_error(), "nobody reads this pipe");
	why = walk_read(&a, at("bob/fifo"), 100, 0, &text);
	assert_string_equal(why, "it is not a regular file");
	assert_string_equal(file_read(&a, at("bob/fifo"), 100, &text), "it is not a regular file");
	assert_string_equal(walk_read(&a, at("bob"), 100, 0, &text), "it is a directory");
	why = walk_read(&a, at("bob/relative"), 100, 0, &text);
	assert_non_null(strstr(why, "another user can change this path"));
	assert_int_equal(pipe(ends), 0); /* as /dev/stdout */
	for (int i = 0; i < 2; i++) {
		snprintf(name, sizeof name, "%s/%d", i ? "/dev/fd" : "/proc/self/fd", ends[1]);
		fd = walk_open(&w, name, O_WRONLY | O_APPEND | O_CREAT, 0);
		assert_true(fd >= 0);
		assert_false(w.made);
		assert_int_equal(write(fd, "x", 1), 1);
		close(fd);
	}
	close(ends[0]);
	close(ends[1]);
	fd = walk_open(&w, "/dev/null", O_WRONLY | O_APPEND | O_CREAT, 0);
	assert_true(fd >= 0 && !w.made);
	close(fd);
	arena_free(&a);
}

/* The whole file or why not; a NUL stands behind it. */
static void
test_read(void **state)
{
	struct arena a = { NULL };
	static char big[9000];
	struct slice text;
	FILE *f;

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_null(walk_read(&a, at("bob/own"), 0, 0, &text));
	assert_int_equal(text.n, 0);
	memset(big, 'x', sizeof big);
	assert_non_null(f = fopen(at("bob/own"), "w"));
	assert_int_equal(fwrite(big, 1, sizeof big, f), sizeof big);
	fclose(f);
	assert_null(walk_read(&a, at("bob/own"), sizeof big, 0, &text));
	assert_int_equal(text.n, sizeof big);
	assert_memory_equal(text.p, big, sizeof big);
	assert_int_equal(text.p[text.n], '\0');
	assert_string_equal(walk_read(&a, at("bob/own"), sizeof big - 1, 0, &text),
	    "the file is too long");
	arena_free(&a);
}

/* Names as long as they can be, and longer. */
static void
test_long_names(void **state)
{
	static char path[2 * PATH_MAX];
	struct walk w;
	char name[NAME_MAX + 2];

	(void)state;
	if (geteuid() != 0)
		skip();
	memset(name, 'n', sizeof name - 1);
	name[NAME_MAX + 1] = '\0';
	snprintf(path, sizeof path, "%s/root/%s", base, name);
	assert_int_equal(walk_open(&w, path, O_RDONLY, 0), -1);
	assert_int_equal(errno, ENAMETOOLONG);
	name[NAME_MAX] = '\0';
	snprintf(path, sizeof path, "%s/root/%s", base, name);
	assert_int_equal(walk_open(&w, path, O_RDONLY, 0), -1);
	assert_int_equal(errno, ENOENT);
	snprintf(path, sizeof path, "%s/root", base);
	while (strlen(path) < PATH_MAX)
		strcat(path, "/./././.");
	strcat(path, "/f");
	assert_int_equal(walk_open(&w, path, O_RDONLY, 0), -1);
	assert_int_equal(errno, ENAMETOOLONG);
	assert_int_equal(walk_open(&w, "", O_RDONLY, 0), -1);
}

/* What was opened is closed, also when it is refused. */
static void
test_descriptors(void **state)
{
	int before, after;
	struct walk w;

	(void)state;
	if (geteuid() != 0)
		skip();
	close(before = dup(0));
	for (size_t i = 0; i < LEN(ways); i++)
		fd_close(walk_open(&w, at(ways[i].name.p), O_RDONLY, 0));
	close(after = dup(0));
	assert_int_equal(after, before);
	assert_true(walk_dir(&w, at("bob/own-link")));
	assert_string_equal(w.name, "own");
	assert_int_equal(w.who, BOB);
	assert_true(w.linked);
	close(w.dir);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ways),
		cmocka_unit_test(test_creation),
		cmocka_unit_test(test_pipes),
		cmocka_unit_test(test_read),
		cmocka_unit_test(test_long_names),
		cmocka_unit_test(test_descriptors),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
