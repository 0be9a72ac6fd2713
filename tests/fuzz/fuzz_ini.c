/* Any text as a file of uWSGI's: every error is inside it, the tree can be walked, and the
 * configuration read from it printed. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "fuzz.h"

static void
walk(const struct toml *t, unsigned lines)
{
	const struct toml *last = NULL;
	size_t n = 0;

	MUST(t->kind < TOML_KINDS && t->line <= lines && t->vline <= lines);
	if (t->kind == TOML_STRING)
		MUST(t->text.p[t->text.n] == '\0');
	for (const struct toml *c = t->first; c; last = c, c = c->next, n++) {
		MUST(n < t->count);
		walk(c, lines);
	}
	MUST(n == t->count && last == t->last);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static FILE *null;
	struct conf *c = conf_new();
	struct reader r = { .conf = c, .a = &c->arena };
	struct slice in = exact(data, size);
	unsigned lines = 1;

	if (!null)
		null = fopen("/dev/null", "w");
	for (size_t i = 0; i < size; i++)
		lines += data[i] == '\n';
	c->file = c->diags.file = "/etc/fuzz/x.ini";
	c->dir = "/etc/fuzz";
	c->diags.source = in;
	ini_is(size & 1 ? "x.ini" : "x", in);
	c->tree = ini_parse(&r, in, true);
	for (const struct diag *d = c->diags.first; d; d = d->next)
		MUST(d->line >= 1 && d->line <= lines && d->col >= 1 && d->col <= size + 1);
	walk(c->tree, lines);
	conf_whole(&r);
	diags_print(&c->diags, null);
	conf_print_json(c, null);
	if (c->diags.errors == 0)
		conf_print_check(c, null);
	conf_free(c);
	exact_free(in);
	return 0;
}
