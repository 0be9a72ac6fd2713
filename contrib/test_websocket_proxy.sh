#!/bin/sh
# Starts two WebSocket servers and warp, and shows who is talked to. From a terminal it then
# waits, so that http://localhost:8080/ can be tried with a browser.
# WARP=path says which warp; the ports 3001, 3002 and 8080 must be free.
# shellcheck disable=SC2317 # await calls them
cd "$(dirname "$0")" || exit 1
failed=0

ok() { echo "ok      $*"; }
bad() { echo "FAILED  $*"; failed=1; }
talk() { python3 test_backend.py talk 8080 "$1" ws.example.com "$2"; }
# until it succeeds, for ten seconds
await() {
	tries=0
	until "$@"; do
		tries=$((tries + 1))
		[ $tries -lt 100 ] || { bad "not within ten seconds: $*"; return 1; }
		sleep 0.1
	done
}
answers() { curl -s -m 10 -o /dev/null "$1"; }

python3 test_backend.py 3001 3002 & backends=$!
WARPDRIVE_ADMIN_LISTEN=off "${WARP:-../warp}" --config test_websocket_proxy.toml & warp=$!
trap 'kill $backends $warp 2>/dev/null; wait' EXIT
for p in 3001 3002; do await answers localhost:$p/ || exit 1; done
await answers localhost:8080/api/health || exit 1

# The server sees the path without /ws/chat, but with /ws/notifications.
for row in "/ws/chat /" "/ws/notifications /ws/notifications"; do
	path=${row% *} seen=${row#* }
	got=$(talk "$path" 6)
	for p in 3001 3002; do
		n=$(echo "$got" | grep -c "^$p $seen: hello\$")
		if [ "$n" -eq 3 ]; then
			ok "$path: $n of 6 connections reach server $p, as $seen"
		else
			bad "$path: $n of 6 connections reach server $p, as $seen:" "$got"
		fi
	done
done
got=$(talk /plain 1)
if [ "$got" = 426 ]; then
	ok "/plain: without websocket = true an upgrade gets 426"
else
	bad "/plain: $got instead of 426"
fi

if [ -t 0 ] && [ $failed -eq 0 ]; then
	echo "http://localhost:8080/ has a page for it; Enter ends this."
	read -r _
fi
exit $failed
