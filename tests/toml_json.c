/* toml_json: TOML on stdin, the tagged JSON of the toml-test suite on stdout.
 * Exit status 1 when it is not TOML. */

#define main static warp_main
#include "../warp.c"
#undef main

static void
put_text(struct slice s)
{
	putchar('"');
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];
		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < ' ' || c == 0x7f)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

static void
put_scalar(const struct toml *v)
{
	static const char *const types[TOML_KINDS] = { "string", "integer", "float", "bool",
		"datetime", "datetime-local", "date-local", "time-local" };

	printf("{\"type\":\"%s\",\"value\":", types[v->kind]);
	if (v->kind == TOML_INTEGER)
		printf("\"%lld\"", (long long)v->integer);
	else if (v->kind == TOML_FLOAT)
		printf("\"%.17g\"", v->real);
	else if (v->kind == TOML_BOOLEAN)
		printf("\"%s\"", v->boolean ? "true" : "false");
	else
		put_text(v->text);
	putchar('}');
}

static void
put(const struct toml *v)
{
	bool table = v->kind == TOML_TABLE;

	if (!table && v->kind != TOML_ARRAY) {
		put_scalar(v);
		return;
	}
	putchar(table ? '{' : '[');
	for (const struct toml *k = v->first; k; k = k->next) {
		if (table) {
			put_text(k->key);
			putchar(':');
		}
		put(k);
		if (k->next)
			putchar(',');
	}
	putchar(table ? '}' : ']');
}

int
main(void)
{
	static char text[CONFIG_FILE_MAX];
	struct arena arena = { 0 };
	struct diags ds = { .arena = &arena, .file = "stdin" };
	const struct toml *root;

	ds.source = (struct slice){ text, fread(text, 1, sizeof text, stdin) };
	root = toml_parse(&arena, ds.source, &ds);
	diags_print(&ds, stderr);
	if (ds.errors == 0) {
		put(root);
		putchar('\n');
	}
	arena_free(&arena);
	return ds.errors > 0;
}
