/* TOML, and the configuration read from it: errors and their places, then all
 * that is printed of a good one. */

#include "fuzz.h"

#include <sys/mman.h>

/* The reader wants a file. */
static const char *
as_file(const uint8_t *data, size_t n)
{
	static char path[32];
	static int fd = -1;

	if (fd < 0)
		fd = memfd_create("warp.toml", 0);
	MUST(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, data, n, 0) == (ssize_t)n);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	return path;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static FILE *null;
	struct arena arena = { 0 };
	struct diags ds = { .arena = &arena, .file = "fuzz",
		.source = { (const char *)data, n } };
	struct conf *cf;

	if (!null)
		null = fopen("/dev/null", "w");
	MUST(toml_parse(&arena, ds.source, &ds)->kind == TOML_TABLE);
	cf = conf_load(as_file(data, n));
	MUST(ds.errors == 0 || cf->diags.errors > 0);
	diags_print(&cf->diags, null);
	conf_print_json(cf, null);
	if (cf->diags.errors == 0)
		conf_print_check(cf, null);
	conf_free(cf);
	arena_free(&arena);
	return 0;
}
