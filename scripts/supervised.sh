# Sourced first by the scripts: the rest runs in a process group of its own, which ends with this process. Ctrl-C,
# SIGTERM and SIGHUP are one line and the status 130, 143 and 129. What runs reads nothing from the terminal.
if [ "${SUPERVISED_BY-}" != "$PPID" ]; then
    within=${SUPERVISED_BY-} # a script that says the line itself
    group= came=
    stop() {
        came=${came:-$1}
        [ "$group" ] || return 0
        trap '' HUP INT TERM
        [ "$within" ] || echo "$0 was stopped: the same command goes on, or begins again" >&2
        exec 2>/dev/null
        set +e
        kill -s TERM -- "-$group"
        for _ in {1..50}; do kill -0 -- "-$group" && sleep 0.1 || break; done
        kill -s KILL -- "-$group"
        exit "$((128 + came))"
    }
    trap 'stop 1' HUP
    trap 'stop 2' INT
    trap 'stop 15' TERM
    set -m
    SUPERVISED_BY=$$ "$BASH" "$0" "$@" </dev/null &
    group=$!
    set +m
    [ -z "$came" ] || stop "$came"
    # The pipe to this process ends when this one does, if only by SIGKILL.
    exec 3> >(exec >/dev/null 2>&1; trap '' HUP INT TERM; cat; kill -s TERM -- "-$group")
    status=0
    wait "$group" || status=$?
    exit "$status"
fi
