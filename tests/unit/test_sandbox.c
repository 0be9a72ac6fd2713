/* What is left to a worker and to a helper once they have given up the rest: each row is
 * called in a process of its own that has done so. */

#define main static warp_main
#define syscall old_kernel
#include "../../warp.c"
#undef main
#undef syscall

#include <sys/ptrace.h>

#include "unit.h"

#ifndef SYS_io_uring_setup
#define SYS_io_uring_setup 425
#endif

static int landlock_told; /* the version of Landlock; 0: this kernel's */

long syscall(long nr, ...);

/* Calls the kernel, which says that it is older than it is. */
long
old_kernel(long nr, ...)
{
	long v[5];
	va_list ap;

	va_start(ap, nr);
	for (int i = 0; i < 5; i++)
		v[i] = va_arg(ap, long);
	va_end(ap);
	if (nr == SYS_landlock_create_ruleset && (unsigned)v[2] == LANDLOCK_VERSION && landlock_told > 0)
		return landlock_told;
	return syscall(nr, v[0], v[1], v[2], v[3], v[4]);
}

static char page[4096] __attribute__((aligned(4096)));

static const struct row {
	enum sandbox_role role;
	long nr, a, b, c, d;
	int err; /* 0: it works */
	const char *why;
} rows[] = {
	{ SANDBOX_WORKER, SYS_getpid, 0, 0, 0, 0, 0, "itself" },
	{ SANDBOX_WORKER, SYS_execve, 0, 0, 0, 0, ENOSYS, "no program" },
	{ SANDBOX_NAMES, SYS_execve, 0, 0, 0, 0, ENOSYS, "nor by a helper" },
	{ SANDBOX_CLERK, SYS_execveat, 0, 0, 0, 0, ENOSYS, "nor by the clerk" },
	{ SANDBOX_WORKER, SYS_clone, SIGCHLD, 0, 0, 0, ENOSYS, "no child" },
	{ SANDBOX_WORKER, SYS_ptrace, PTRACE_TRACEME, 0, 0, 0, ENOSYS, "no debugger" },
	{ SANDBOX_WORKER, SYS_kill, 1, 0, 0, 0, ENOSYS, "no signal" },
	{ SANDBOX_WORKER, SYS_setuid, 0, 0, 0, 0, ENOSYS, "no other user" },
	{ SANDBOX_WORKER, SYS_prctl, PR_GET_NAME, (long)page, 0, 0, ENOSYS, "no prctl" },
	{ SANDBOX_WORKER, SYS_mount, 0, 0, 0, 0, ENOSYS, "no mount" },
	{ SANDBOX_WORKER, SYS_io_uring_setup, 1, (long)page, 0, 0, ENOSYS, "no calls by way of a ring" },
	{ SANDBOX_WORKER, SYS_socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0, 0, 0, "to upstreams" },
	{ SANDBOX_WORKER, SYS_socket, AF_INET6, SOCK_DGRAM, 0, 0, 0, "IPv6" },
	{ SANDBOX_WORKER, SYS_socket, AF_UNIX, SOCK_DGRAM, 0, 0, 0, "syslog" },
	{ SANDBOX_WORKER, SYS_socket, AF_INET, SOCK_RAW, IPPROTO_TCP, 0, EPERM, "no packets" },
	{ SANDBOX_WORKER, SYS_socket, AF_PACKET, SOCK_DGRAM, 0, 0, EPERM, "nor those of others" },
	{ SANDBOX_NAMES, SYS_socket, AF_NETLINK, SOCK_DGRAM, 0, 0, EPERM, "no netlink" },
	{ SANDBOX_WORKER, SYS_bind, -1, 0, 0, 0, ENOSYS, "no port of its own" },
	{ SANDBOX_NAMES, SYS_bind, -1, 0, 0, 0, EBADF, "DNS binds" },
	{ SANDBOX_WORKER, SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, 0, "memory" },
	{ SANDBOX_WORKER, SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, EPERM, "no code" },
	{ SANDBOX_WORKER, SYS_mprotect, (long)page, 4096, PROT_READ | PROT_EXEC, 0, EPERM, "nor of data" },
	{ SANDBOX_WORKER, SYS_mprotect, (long)page, 4096, PROT_READ | PROT_WRITE, 0, 0, "other rights" },
	{ SANDBOX_WORKER, SYS_ioctl, 0, TIOCSTI, (long)"x", 0, EPERM, "no typing" },
	{ SANDBOX_WORKER, SYS_ioctl, -1, TIOCGWINSZ, (long)page, 0, EBADF, "isatty" },
	{ SANDBOX_NAMES, SYS_ioctl, -1, SIOCGIFINDEX, (long)page, 0, EBADF, "nameserver fe80::1%eth0 in resolv.conf" },
	{ SANDBOX_NAMES, SYS_ioctl, -1, TIOCSTI, (long)"x", 0, EPERM, "no typing" },
	{ SANDBOX_NAMES, SYS_ioctl, -1, SIOCGIFCONF, (long)page, 0, EPERM, "no list of interfaces" },
	{ SANDBOX_CLERK, SYS_openat, AT_FDCWD, (long)"/dev/null", O_RDONLY | O_CLOEXEC, 0, 0, "files of keys" },
	{ SANDBOX_CLERK, SYS_openat, AT_FDCWD, (long)"/dev/null", O_WRONLY, 0, EPERM, "no writing" },
	{ SANDBOX_NAMES, SYS_openat, AT_FDCWD, (long)"/tmp/x", O_CREAT, 0600, EPERM, "no new file" },
	{ SANDBOX_NAMES, SYS_accept4, -1, 0, 0, 0, ENOSYS, "helpers do not serve" },
#ifdef __x86_64__
	{ SANDBOX_WORKER, SYS_open, (long)"/dev/null", O_RDWR, 0, 0, EPERM, "not by the old call" },
	{ SANDBOX_WORKER, 0x40000000 | SYS_getpid, 0, 0, 0, 0, ENOSYS, "no call of x32" },
#endif
};

static bool
no_new_privs(void)
{
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}

/* The errno of a call made by a process that has given up the rest. */
static int
fate(const struct row *r)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		if (!no_new_privs() || !filter_set(r->role))
			_exit(255);
		syscall(SYS_exit_group, syscall(r->nr, r->a, r->b, r->c, r->d, 0, 0) < 0 ? errno : 0);
	}
	assert_true(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void
test_calls(void **state)
{
	(void)state;
	for (const struct row *r = rows; r < rows + LEN(rows); r++) {
		int err = fate(r);
		if (err != r->err)
			fail_msg("%s: call %ld: %s instead of %s", r->why, r->nr, strerror(err), strerror(r->err));
	}
}

/* Each name of the table that this machine has is a number, and all of it fits. */
static void
test_table(void **state)
{
	static struct filter f;
	struct slice rest = slice_of(calls_allowed), row, rule, number;
	int known = 0;

	(void)state;
	while (slice_cut(&rest, ';', &row) && slice_cut(&row, ':', &rule))
		while (slice_word(&row, &number))
			known += slice_uint(number, INT32_MAX) >= 0;
	assert_true(known > 70);
	for (enum sandbox_role role = 0; role < SANDBOX_NOT; role++) {
		filter_make(&f, role);
		assert_true(f.n < FILTER_MAX && f.ops[f.n - 1].code == FILTER_END);
	}
}

#ifdef __x86_64__
/* The calls of a 32-bit program have other numbers: 20 is getpid there, writev here. */
static void
test_other_machine(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		long got = 20;
		signal(SIGSEGV, SIG_DFL); /* not a sanitizer's */
		if (!no_new_privs() || !filter_set(SANDBOX_WORKER))
			_exit(255);
		__asm__ volatile("int $0x80" : "+a"(got) : : "memory");
		syscall(SYS_exit_group, got == -ENOSYS ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV)
		skip(); /* this kernel has no such calls */
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
#endif

/* Tries to open name in dir, made for the sandbox's child. */
static int
opens(const char *dir, const char *name, int flags)
{
	char path[128];
	int fd;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	fd = open(path, flags | O_CLOEXEC, 0600);
	return fd < 0 ? errno : close(fd);
}

static void
files_child(const char *served, const char *spool, const char *other)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM, 0), bound = landlock_version() >= 4 ? EACCES : 0;

	sandbox_reach(open(served, O_PATH), false);
	sandbox_reach(open(spool, O_PATH), true);
	sandbox_reach(-1, false);
	if (!no_new_privs() || !landlock_set(SANDBOX_WORKER))
		_exit(1);
	if (opens(served, "f", O_RDONLY) != 0 || opens(served, "f", O_RDWR) != EACCES)
		_exit(2);
	if (opens(spool, "new", O_RDWR | O_CREAT | O_EXCL) != 0 || opens(spool, ".", O_TMPFILE | O_RDWR) != 0)
		_exit(3);
	if (opens(other, "f", O_RDONLY) != EACCES || opens("/etc", "passwd", O_RDONLY) != EACCES ||
	    opens(served, "../other/f", O_RDONLY) != EACCES)
		_exit(4);
	if (bind(fd, (struct sockaddr *)&in, sizeof in) == 0 ? bound : errno != bound)
		_exit(5);
	_exit(0);
}

static void
test_files(void **state)
{
	static const char *const names[] = { "served", "spool", "other" };
	char base[] = "/tmp/warp-test-XXXXXX", dirs[3][64], file[80];
	int status, fd, version = landlock_version();
	pid_t pid;

	(void)state;
	if (version <= 0)
		skip();
	assert_non_null(mkdtemp(base));
	for (int i = 0; i < 3; i++) {
		snprintf(dirs[i], sizeof dirs[i], "%s/%s", base, names[i]);
		snprintf(file, sizeof file, "%s/f", dirs[i]);
		assert_int_equal(mkdir(dirs[i], 0700), 0);
		assert_true((fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)) >= 0);
		close(fd);
	}
	for (status = 0; version > 0 && status == 0; version--) { /* this kernel's, and all before */
		landlock_told = version;
		if ((pid = fork()) == 0)
			files_child(dirs[0], dirs[1], dirs[2]);
		assert_true(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
		snprintf(file, sizeof file, "%s/new", dirs[1]);
		unlink(file);
	}
	landlock_told = 0;
	for (int i = 0; i < 3; i++) {
		snprintf(file, sizeof file, "%s/f", dirs[i]);
		unlink(file);
		rmdir(dirs[i]);
	}
	rmdir(base);
	if (status != 0)
		fail_msg("Landlock %d: step %d", version + 1, WEXITSTATUS(status));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_calls),
#ifdef __x86_64__
		cmocka_unit_test(test_other_machine),
#endif
		cmocka_unit_test(test_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
