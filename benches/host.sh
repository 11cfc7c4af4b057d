#!/bin/sh
# host.sh FIM_BIN - a check of this host's own /usr and /etc beside hashing the same files.
#
# Prints, for ROUNDS rounds (3) with a warm page cache, the wall time of
#   fim check                                             all metadata compared, too
#   find /usr /etc -xdev -type f -print0 | xargs -0 -P2 b3sum --no-mmap
# and the ratio of each round; then the peak memory of init and check.
set -eu
export LC_ALL=C
[ $# -eq 1 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
fim=$(realpath "$1")
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
cat >"$T/policy.toml" <<P
version = 1
[[rule]]
name = "host"
paths = ["/usr", "/etc"]
profile = "binary"
severity = "high"
one-file-system = true
P
run() { "$fim" --state "$T/state" --policy "$T/policy.toml" "$@"; }
hash_all() { find /usr /etc -xdev -type f -print0 | xargs -0 -P2 b3sum --no-mmap >/dev/null; }
now() { date +%s%N; }
/usr/bin/time -f '%M' -o "$T/init" "$fim" --state "$T/state" --policy "$T/policy.toml" init --no-passphrase >/dev/null
hash_all
round=1
while [ "$round" -le "${ROUNDS:-3}" ]; do
    a=$(now)
    run check --no-store --verbosity 0 >"$T/verdict"
    b=$(now)
    hash_all
    c=$(now)
    awk -v r="$round" -v f="$((b - a))" -v h="$((c - b))" \
        'BEGIN { printf "round %d: check %.2f s, xargs b3sum %.2f s, ratio %.2f\n", r, f / 1e9, h / 1e9, f / h }'
    round=$((round + 1))
done
/usr/bin/time -f '%M' -o "$T/check" "$fim" --state "$T/state" --policy "$T/policy.toml" check --no-store --verbosity 0
echo "peak memory: init $(($(cat "$T/init") / 1024)) MiB, check $(($(cat "$T/check") / 1024)) MiB"
