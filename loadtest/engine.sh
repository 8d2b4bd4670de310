# Sourced by the benchmarks: one engine at a time, each on a database of its own on the throw-away PostgreSQL server.
# Whoever sources it has set `edge` to the program, and calls `end_edge` and removes `edge_home` before it ends.

http_port=${HTTP_PORT:-3099} mqtt_port=${MQTT_PORT:-1899}
server=${FARMIQ_TEST_DATABASE_URL% dbname=*}
edge_pid='' edge_home=$(mktemp -d)
edge=(env -u FARMIQ_TEST_DATABASE_URL "$edge") # the engine refuses variables that it does not know
export FARMIQ_MQTT__MODE=embedded FARMIQ_BROKER__LISTEN=127.0.0.1:$mqtt_port FARMIQ_BROKER__ALLOW_ANONYMOUS=true
export FARMIQ_HTTP__LISTEN=127.0.0.1:$http_port FARMIQ_METRICS__STATSD_ADDRESS='' FARMIQ_LOG__LEVEL=warn
export FARMIQ_EDGE__DATA_DIR=$edge_home

make_database() { # NAME: with its tables; engines use it from now on
    psql -q "$FARMIQ_TEST_DATABASE_URL" -c "CREATE DATABASE $1"
    export FARMIQ_DATABASE__URL="$server dbname=$1"
    "${edge[@]}" migrate >"$edge_home/log" 2>&1 || fail_edge
}
start_edge() { # and wait until it is ready
    "${edge[@]}" run >"$edge_home/log" 2>&1 &
    edge_pid=$!
    until curl -fs -o /dev/null "http://127.0.0.1:$http_port/api/ready"; do
        kill -0 "$edge_pid" 2>/dev/null || fail_edge
        sleep 0.1
    done
}
end_edge() {
    [ -n "$edge_pid" ] || return 0
    kill -TERM "$edge_pid" 2>/dev/null || true
    wait "$edge_pid" || true
    edge_pid=''
}
fail_edge() {
    cat "$edge_home/log" >&2
    exit 1
}
