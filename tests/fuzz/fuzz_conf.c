/* Any text, from the file to the compiled routes: a text that is good is good
 * again and says the same, what is printed of it is JSON, requests are routed
 * as the conditions say, and no secret is among what is said.
 *
 * The host has no part in it but for what this file says it has: names of
 * files end in what they are, the others are not there. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONF_NAME "/fuzz/warp.toml"
/* The certificate and the key of contrib/examples, and what a secret is. */
#define PEM_FILE  "contrib/examples/snakeoil.pem"
#define KEY_FILE  "contrib/examples/snakeoil.key"
#define SECRET    "Zx9s3cr3t"

static struct passwd *
host_user(const char *name)
{
	static struct passwd root;

	root = (struct passwd){ .pw_name = (char *)(uintptr_t) "root", .pw_dir = (char *)(uintptr_t) "/" };
	return strcmp(name, "root") == 0 ? &root : NULL;
}

static struct group *
host_group(const char *name)
{
	static struct group root;

	root = (struct group){ .gr_name = (char *)(uintptr_t) "root" };
	return strcmp(name, "root") == 0 ? &root : NULL;
}

/* The descriptor of a memory file for what is asked for; -1: not there. */
static int host_file(const char *path);

#define HOST_PATH 32

/* Where it really is. */
static const char *
host_path(const char *path)
{
	static char real[HOST_PATH];
	int fd = host_file(path);

	if (fd < 0)
		return "/dev/null/none";
	snprintf(real, sizeof real, "/proc/self/fd/%d", fd);
	return real;
}

static int
host_open(const char *path, int flags, ...)
{
	return open(host_path(path), (flags & ~(O_NOFOLLOW | O_CREAT | O_EXCL | O_TRUNC)));
}

static int
host_openat(int dir, const char *path, int flags, ...)
{
	(void)dir;
	return host_open(path, flags);
}

static FILE *
host_fopen(const char *path, const char *mode)
{
	return fopen(host_path(path), mode);
}

static int
host_stat(const char *path, struct stat *st)
{
	return stat(host_path(path), st);
}

static int
host_access(const char *path, int mode)
{
	return access(host_path(path), mode);
}

static char *
host_realpath(const char *path, char *out)
{
	(void)out;
	return host_file(path) < 0 ? NULL : strdup(path);
}

/* Calls alone: there are types of these names. */
#define open(...)     host_open(__VA_ARGS__)
#define openat(...)   host_openat(__VA_ARGS__)
#define fopen(...)    host_fopen(__VA_ARGS__)
#define stat(...)     host_stat(__VA_ARGS__)
#define lstat(...)    host_stat(__VA_ARGS__)
#define access(...)   host_access(__VA_ARGS__)
#define realpath(...) host_realpath(__VA_ARGS__)
#define getpwnam(...) host_user(__VA_ARGS__)
#define getgrnam(...) host_group(__VA_ARGS__)

#define main static warp_main
#include "../../warp.c"
#undef main

#undef open
#undef openat
#undef fopen
#undef stat
#undef lstat
#undef access
#undef realpath

#include "fuzz.h"

static int conf_fd, pem_fd, secret_fd;

static int
memory(const char *name, const void *p, size_t n)
{
	int fd = memfd_create(name, 0);

	MUST(fd >= 0 && write(fd, p, n) == (ssize_t)n);
	return fd;
}

static int
host_file(const char *path)
{
	struct slice s = slice_of(path);

	if (strcmp(path, CONF_NAME) == 0)
		return conf_fd;
	if (slice_ends(s, S(".pem")))
		return pem_fd;
	return slice_ends(s, S("secret")) ? secret_fd : -1;
}

static void
setup(void)
{
	struct arena a = { NULL };
	struct slice cert = S(""), key = S(""), both;

	if (conf_fd > 0)
		return;
	for (int i = 0; i < 2; i++) {
		FILE *f = fopen(i == 0 ? PEM_FILE : KEY_FILE, "re");
		char *p = arena_alloc(&a, 65536);
		MUST(f != NULL); /* started in another directory */
		*(i == 0 ? &cert : &key) = (struct slice){ p, fread(p, 1, 65536, f) };
		fclose(f);
	}
	both = slice_of(arena_fmt(&a, "%.*s%.*s", (int)cert.n, cert.p, (int)key.n, key.p));
	pem_fd = memory("pem", both.p, both.n);
	secret_fd = memory("secret", SECRET "\n", sizeof SECRET);
	conf_fd = memory("warp.toml", "", 0);
	setenv("SECRET", SECRET, 1);
	arena_free(&a);
}

/* All that is printed of a configuration, as one text. */
static struct slice
printed(const struct conf *c, void (*print)(const struct conf *, FILE *))
{
	char *p = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&p, &n);

	MUST(f != NULL);
	print(c, f);
	fclose(f);
	return (struct slice){ p, n };
}

static void
print_said(const struct conf *c, FILE *to)
{
	diags_print(&c->diags, to);
}

static void
print_check(const struct conf *c, FILE *to)
{
	if (c->diags.errors == 0)
		conf_print_check(c, to);
}

/* The first route that takes a request, by the scan and by asking each. */
static void
routed(const struct conf *c, const char *request)
{
	static struct head h;
	struct ip client = { { 0 } };
	struct path_view view;
	char host[HOST_MAX + 1];
	struct slice name;
	const struct route *got, *want = NULL;

	MUST(request_parse(&h, slice_of(request)) > 0 && path_normalise(h.path, &view) == 0);
	MUST(ip_parse(S("10.1.2.3"), &client));
	got = route_find(&c->table, &h, view.path, &client, 8080);
	name = host_normal(h.host);
	if (name.n > 0)
		memcpy(host, name.p, name.n);
	name.p = host;
	for (int i = 0; i < c->table.n && !want; i++)
		if (!route_why(&c->table.routes[i], &h, name, view.path, &client, 8080))
			want = &c->table.routes[i];
	MUST(got == want);
}

static void
same(struct slice a, struct slice b)
{
	MUST(slice_eq(a, b));
	free((void *)(uintptr_t)a.p);
	free((void *)(uintptr_t)b.p);
}

/* What is good is so in native sections too, and says as much. */
static void
native_too(const struct conf *c)
{
	struct slice toml = printed(c, conf_print_toml);
	struct conf *again;

	MUST(ftruncate(conf_fd, 0) == 0 && pwrite(conf_fd, toml.p, toml.n, 0) == (ssize_t)toml.n);
	again = conf_load(CONF_NAME);
	MUST(again->diags.errors == 0);
	MUST(again->table.n == c->table.n && again->n_upstreams == c->n_upstreams &&
	    again->n_processes == c->n_processes &&
	    again->server.n_listens == c->server.n_listens);
	conf_free(again);
	free((void *)(uintptr_t)toml.p);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const prints[])(const struct conf *, FILE *) = { print_said, conf_print_json,
		print_check };
	struct arena a = { NULL };
	struct conf *c, *again;
	struct slice json;

	setup();
	MUST(ftruncate(conf_fd, 0) == 0 && pwrite(conf_fd, data, size, 0) == (ssize_t)size);
	c = conf_load(CONF_NAME);
	again = conf_load(CONF_NAME);
	for (const struct diag *d = c->diags.first; d; d = d->next)
		MUST(d->text && d->text[0]);
	for (size_t i = 0; i < LEN(prints); i++)
		same(printed(c, prints[i]), printed(again, prints[i]));
	conf_free(again);
	if (c->diags.errors == 0) {
		json = printed(c, conf_print_json);
		MUST(json_parse(&a, json) != NULL);
		MUST(memmem(data, size, SECRET, sizeof SECRET - 1) ||
		    !memmem(json.p, json.n, SECRET, sizeof SECRET - 1));
		free((void *)(uintptr_t)json.p);
		routed(c, "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
		routed(c, "POST /api/v1/x?q=1 HTTP/1.1\r\nHost: www.example.com:8080\r\nX-A: 1\r\n\r\n");
		MUST(conf_memory(c).all > 0);
		native_too(c);
	}
	conf_free(c);
	arena_free(&a);
	return 0;
}
