/* Any bytes as JSON: a tree that holds together, of texts that are UTF-8 and
 * end in a NUL; its depth is bounded. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "fuzz.h"

static void
text_is_good(struct slice s)
{
	const unsigned char *p = (const unsigned char *)s.p, *end = p + s.n;
	size_t n;

	MUST(s.p[s.n] == '\0');
	for (; p < end; p += n) {
		n = utf8_length(p, end);
		MUST(n > 0);
	}
}

static void
tree_is_good(const struct json *v, int depth)
{
	const struct json *last = NULL;
	bool nests = v->kind == JSON_OBJECT || v->kind == JSON_ARRAY;

	MUST(!nests || depth <= JSON_DEPTH_MAX);
	MUST(nests || !v->first);
	if (v->kind == JSON_STRING || v->kind == JSON_NUMBER)
		text_is_good(v->text);
	for (const struct json *k = v->first; k; last = k, k = k->next) {
		if (v->kind == JSON_OBJECT)
			text_is_good(k->name);
		tree_is_good(k, depth + 1);
	}
	MUST(v->last == last);
	if (last && v->kind == JSON_OBJECT && !memchr(last->name.p, '\0', last->name.n))
		MUST(json_get(v, last->name.p) == last);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice in = exact(data, size);
	struct arena a = { NULL };
	struct json *v = json_parse(&a, in);

	exact_free(in);
	if (v)
		tree_is_good(v, 1);
	arena_free(&a);
	return 0;
}
