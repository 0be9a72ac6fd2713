/* Any text: every error is inside it, and what was parsed can be walked. */

#define main warp_main
#include "../../warp.c"
#undef main

#include "fuzz.h"

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
	char *text;
	size_t n;
	FILE *f;

	for (size_t i = 0; i < size; i++)
		lines += data[i] == '\n';
	for (const struct diag *d = diags.first; d; d = d->next)
		MUST(d->line >= 1 && d->line <= lines && d->col >= 1 && d->col <= size + 1);
	if (diags.errors > 0 && (f = open_memstream(&text, &n))) {
		diags_print(&diags, f);
		fclose(f);
		free(text);
	}
	exact_free(in); /* the tree does not point into the text */
	MUST(root->kind == TOML_TABLE);
	walk(root, lines);
	arena_free(&arena);
	return 0;
}
