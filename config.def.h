/* config.def.h: what warp is compiled with. The first `make` copies it to
 * config.h; change that one. What an operator may want to change at run time
 * is a key of the configuration file instead (`warp -D`). */

#ifndef CONFIG_H
#define CONFIG_H

#define VERSION "0.1"

/* places */
#define CONFIG_PATH  "/etc/warp.toml" /* read when nothing else is said */
#define ADMIN_SOCKET "/run/warp.sock" /* preset of admin.listen */
#define SPOOL_DIR    "/tmp"           /* request bodies that outgrow memory */

/* memory: each is an upper bound, taken lazily */
#ifndef RELAY_BYTES
#define RELAY_BYTES 65536 /* moved per read and write of a body; 128K costs
                             more cache than it saves system calls */
#endif
#ifndef BLOCK_SMALL_BYTES
#define BLOCK_SMALL_BYTES 4096 /* an exchange with its head; a page */
#endif
#ifndef BLOCKS_KEPT_SMALL
#define BLOCKS_KEPT_SMALL 128 /* free blocks kept for the next request */
#endif
#ifndef BLOCKS_KEPT_LARGE
#define BLOCKS_KEPT_LARGE 8
#endif
#define SPLICE_PIPES     64     /* bodies spliced at once; others are copied */
#define SPLICE_BYTES     262144 /* of one pipe, in the kernel */
#define SPLICE_MIN       65536  /* what is left of a body that is worth it */
#define FIELDS_MAX       256   /* header lines in one head; 431 beyond */
#define TARGET_MAX       16384 /* bytes of a request target; 414 beyond */
#define HEAD_ADDED_MAX   4096  /* room for what warp adds to a head */
#define CHUNK_EXT_MAX    8192  /* bytes of chunk extensions that no content has paid
                                  for, or of trailers; then the body is refused */
#define CAUSE_MAX        96    /* text of why a request failed */
#define REQUEST_ID_MAX   64    /* of a trusted X-Request-Id; longer: made anew */
#define ERROR_PAGE_MAX   65536 /* bytes of one file in error_dir */
#define ERROR_PAGES_MAX  64    /* files of error_dir that are looked at */
#define CONFIG_FILE_MAX  4194304
#define TOML_DEPTH_MAX   64   /* tables, dotted keys and arrays in each other */
#define PATH_PAD         8     /* zero bytes before a normalised path */

/* board: fixed, so that it can be mapped before the first fork */
#define WORKERS_MAX      64   /* server.worker_threads */
#define INSTANCES_MAX    1024 /* of all upstreams */
#define INSTANCE_KEY_MAX 192  /* upstream name and address */
#define INSTANCE_ADDRS   4    /* addresses of one name, tried in order */
#define RATE_CELLS       4096 /* clients a rate limit remembers; power of 2 */
#define RATE_WAYS        4    /* cells looked at for one client */

/* bounds of time, ms */
#define LINGER_MS        2000  /* silence after an answer that ended early */
#define LINGER_ALL_MS    30000 /* and reading on at most this long */
#define DRAIN_IDLE_MS    3000  /* idle clients of a draining worker keep this */
#define ACCEPT_RETRY_MS  100   /* after EMFILE and its like */
#define RESPAWN_MS       500   /* before a worker that died young is replaced */
#define RESPAWN_YOUNG_MS 1000  /* this young */
#define RESOLVE_WAIT_MS  1000  /* start waits so long for the first names */
#define DNS_TTL_SECS     30    /* names are looked up again */
#define DNS_RETRY_SECS   2     /* a name that did not resolve */
#define READY_WAIT_MS    10000 /* new workers must accept within, or a reload
                                  is given up */
#define LOG_FLUSH_MS     500   /* access lines wait at most this long */

/* the loop */
#define ACCEPT_BATCH  16  /* new clients per turn and listener */
#define PARK_TURNS    32  /* quiet for so many turns: polling it has cost as much
                             as parking it and waking it will (measured: 35 ns a
                             turn, 1 us) */
#define UNPOLLED_MS   20    /* a waiting client that hangs up is noticed after */
#define PARKED_BATCH  64  /* parked or woken per turn */
#define LISTENERS_MAX 64 /* addresses of server and admin together */
#define FILES_SPARE   256 /* descriptors beside those of clients and upstreams */
#define LISTEN_BACKLOG 4096 /* the kernel cuts it to net.core.somaxconn */
#define LOG_LAST_TRIES 50 /* of 10 ms, for a slow reader, before a worker leaves */
#define LOG_BUFFER    65536 /* access lines of one turn; dropped beyond */
#define TIMER_LISTS   64    /* different durations in one configuration */
#define AUTH_CACHE    64    /* basic_auth passwords whose hash was checked */
#define INTERIM_MAX   10000 /* 1xx answers to one request; then 502 */
#define LATENCY_BUCKETS 12
#define LATENCY_MS { 1, 2, 5, 10, 25, 50, 100, 250, 1000, 2500, 10000, 60000 }

#endif
