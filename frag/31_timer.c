/* ==== timer ==================================================================
 * Owns    the timer lists, one for each duration in use.
 * Offers  timer_set, timer_clear, timer_keep, timers_run, timers_next_ms.
 * Calls   base, clock. */

static struct timer_list timer_lists[TIMER_LISTS];
static int n_timer_lists;

/* The list of that duration. When all are taken, the one just above it: a
 * deadline may come late, never early; failing that the longest. */
static struct timer_list *
timer_list_of(uint32_t ms)
{
	struct timer_list *above = NULL, *longest = NULL, *l;

	for (int i = 0; i < n_timer_lists; i++) {
		l = &timer_lists[i];
		if (l->ms == ms)
			return l;
		if (l->ms > ms && (!above || l->ms < above->ms))
			above = l;
		if (!longest || l->ms > longest->ms)
			longest = l;
	}
	if (n_timer_lists == TIMER_LISTS)
		return above ? above : longest;
	l = &timer_lists[n_timer_lists++];
	l->ms = ms;
	l->head.prev = l->head.next = &l->head;
	return l;
}

static void
timer_clear(struct timer *t)
{
	if (!t->list)
		return;
	t->prev->next = t->next;
	t->next->prev = t->prev;
	t->list = NULL;
}

/* Fires ms from now; 0: never. */
static void
timer_set(struct timer *t, uint32_t ms)
{
	struct timer_list *l = t->list && t->list->ms == ms ? t->list : NULL;

	timer_clear(t);
	if (ms == 0)
		return;
	if (!l)
		l = timer_list_of(ms);
	t->list = l;
	t->due_ms = now_ms + l->ms;
	t->prev = l->head.prev;
	t->next = &l->head;
	t->prev->next = t;
	l->head.prev = t;
}

/* As timer_set, but one that already runs for ms goes on unchanged. */
static void
timer_keep(struct timer *t, uint32_t ms)
{
	if (!t->list || t->list->ms != ms)
		timer_set(t, ms);
}

static void
timers_run(void)
{
	for (int i = 0; i < n_timer_lists; i++) {
		struct timer *head = &timer_lists[i].head;
		while (head->next != head && head->next->due_ms <= now_ms) {
			struct timer *t = head->next;
			timer_clear(t);
			t->fire(t);
		}
	}
}

/* Milliseconds to the next deadline; -1: there is none. */
static int
timers_next_ms(void)
{
	int64_t next = INT64_MAX;

	for (int i = 0; i < n_timer_lists; i++) {
		const struct timer *head = &timer_lists[i].head;
		if (head->next != head)
			next = MIN(next, head->next->due_ms);
	}
	if (next == INT64_MAX)
		return -1;
	return (int)MIN(MAX(next - now_ms, 0), INT_MAX);
}

