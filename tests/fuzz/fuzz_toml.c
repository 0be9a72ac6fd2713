/* Any text: every error is inside it, what was parsed can be walked; and the
 * configuration read from it, with all that is printed of one. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "fuzz.h"

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

static void
configure(const uint8_t *data, size_t n, bool bad)
{
	static FILE *null;
	struct conf *cf = conf_load(as_file(data, n));

	if (!null)
		null = fopen("/dev/null", "w");
	MUST(!bad || cf->diags.errors > 0);
	diags_print(&cf->diags, null);
	conf_print_json(cf, null);
	if (cf->diags.errors == 0)
		conf_print_check(cf, null);
	conf_free(cf);
}

static void
walk(const struct toml *t, unsigned lines)
{
	size_t n = 0;

	MUST(t->kind < TOML_KINDS && t->line <= lines && t->vline <= lines);
	if (t->kind == TOML_STRING)
		MUST(t->text.p[t->text.n] == '\0');
	for (const struct toml *c = t->first; c; c = c->next, n++) {
		walk(c, lines);
		if (t->kind == TOML_TABLE)
			MUST(c->key.p[c->key.n] == '\0');
	}
	if (t->kind == TOML_TABLE || t->kind == TOML_ARRAY)
		MUST(n == t->count);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice in = exact(data, size);
	struct arena arena = { NULL };
	struct diags diags = { .arena = &arena, .file = "x", .source = in };
	struct toml *root = toml_parse(&arena, in, &diags);
	unsigned lines = 1;

	for (size_t i = 0; i < size; i++)
		lines += data[i] == '\n';
	for (const struct diag *d = diags.first; d; d = d->next)
		MUST(d->line >= 1 && d->line <= lines && d->col >= 1 && d->col <= size + 1);
	exact_free(in); /* the tree does not point into the text */
	MUST(root->kind == TOML_TABLE);
	if (diags.errors == 0) /* else values may be half made */
		walk(root, lines);
	configure(data, size, diags.errors > 0);
	arena_free(&arena);
	return 0;
}
