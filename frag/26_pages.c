/* ==== pages ==================================================================
 * Owns    nothing: the pages are their configuration's.
 * Offers  pages_load.
 * Calls   base, arena, diag. NNN.html and NNN.json of server.error_dir are read
 *         with the configuration: workers may not be allowed to later. */

/* The page's bytes; false: said as a warning. */
static bool
page_read(struct conf *cf, const char *path, struct slice *body)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	ssize_t got = -1;
	char *p;

	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= ERROR_PAGE_MAX) {
		p = arena_alloc(&cf->arena, (size_t)st.st_size + 1);
		got = read(fd, p, (size_t)st.st_size);
		*body = (struct slice){ p, got > 0 ? (size_t)got : 0 };
	}
	if (got < 0)
		diag_add(&cf->diags, DIAG_WARNING, 0, 0,
		    "error_dir: %s is not a readable file of at most %d bytes", path,
		    ERROR_PAGE_MAX);
	if (fd >= 0)
		close(fd);
	return got >= 0;
}

/* Status of `NNN.html` or `NNN.json`; 0: another file. */
static int
page_name(const char *name, bool *json)
{
	struct slice s = slice_of(name);
	int64_t status = s.n > 3 ? slice_uint((struct slice){ s.p, 3 }, 599) : -1;

	*json = slice_eq(slice_from(s, MIN(s.n, 3)), S(".json"));
	if (status < 400 || (!*json && !slice_eq(slice_from(s, 3), S(".html"))))
		return 0;
	return (int)status;
}

/* Reads them all; a page that cannot be read is a warning. */
static void
pages_load(struct conf *cf)
{
	const char *dir = cf->server.error_dir;
	DIR *d = dir ? opendir(dir) : NULL;
	struct error_page page;
	struct dirent *e;

	if (dir && !d)
		diag_add(&cf->diags, DIAG_WARNING, 0, 0, "error_dir %s: %s", dir, strerror(errno));
	cf->pages = d ? arena_alloc(&cf->arena, ERROR_PAGES_MAX * sizeof *cf->pages) : NULL;
	while (d && cf->n_pages < ERROR_PAGES_MAX && (e = readdir(d)))
		if ((page.status = page_name(e->d_name, &page.json)) &&
		    page_read(cf, arena_fmt(&cf->arena, "%s/%s", dir, e->d_name), &page.body))
			cf->pages[cf->n_pages++] = page;
	if (d)
		closedir(d);
}

