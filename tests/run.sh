#!/bin/sh
# Installs what is missing, builds, runs every test. Ends with "N passed, M failed[, K skipped]".
#
# BRINK_TESTS="unit asan valgrind fuzz integration" chooses parts; FUZZ_SECONDS is the time for each fuzz target.
set -u
cd "$(dirname "$0")/.." || exit 1
. etc/packages.sh
become_root "$@"

parts=${BRINK_TESTS:-unit asan valgrind fuzz integration}
fuzz_seconds=${FUZZ_SECONDS:-60}
passed=0 failed=0 skipped=0
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
trap 'exit 130' INT TERM

wanted() {
    case " $parts " in *" $1 "*) return 0 ;; *) return 1 ;; esac
}

say() {
    printf '\n== %s (%s s)\n' "$1" "$(($(date +%s) - started))"
}

give_up() {
    echo "$1" >&2
    printf '%s passed, %s failed, %s skipped\n' "$passed" "$((failed + 1))" "$skipped"
    exit 1
}

build() { # preset [target…]
    preset=$1 && shift
    cmake --preset "$preset" >"$logs/build" 2>&1 || { cat "$logs/build"; give_up "cmake --preset $preset failed"; }
    cmake --build --preset "$preset" ${1:+--target "$@"} >"$logs/build" 2>&1 || { tail -n 60 "$logs/build"; give_up "the $preset build failed"; }
}

# What ctest printed: "97% tests passed, 1 tests failed out of 30".
count_ctest() {
    line=$(grep -E 'tests passed, [0-9]+ tests failed out of' "$1" | tail -n 1)
    bad=$(echo "$line" | sed -E 's/.*passed, ([0-9]+) tests failed.*/\1/')
    all=$(echo "$line" | sed -E 's/.*out of ([0-9]+).*/\1/')
    if [ -z "$all" ] || [ "$all" -eq 0 ]; then
        failed=$((failed + 1))
        echo "ctest ran nothing"
    else
        failed=$((failed + bad))
        passed=$((passed + all - bad))
    fi
}

unit() { # build folder, further arguments of ctest
    folder=$1 && shift
    ctest --test-dir "$folder" --output-on-failure -j 2 "$@" >"$logs/ctest" 2>&1
    grep -vE '^ *[0-9]+/[0-9]+ .*Passed|^ *Start +[0-9]+' "$logs/ctest"
    count_ctest "$logs/ctest"
}

# Every unit test once more, under valgrind: leaks and bad accesses are failures.
memcheck() {
    # Not those that race processes against SIGKILL: under valgrind they test valgrind's speed.
    ctest --test-dir build -N -L '^unit$' -LE no-valgrind | sed -nE 's/^ *Test +#[0-9]+: +(.*)$/\1/p' >"$logs/units"
    [ -s "$logs/units" ] || give_up "no unit test was found"
    # shellcheck disable=SC2016
    xargs -P 2 -I '{}' sh -c 'timeout -s KILL 600 valgrind --quiet --leak-check=full --errors-for-leak-kinds=definite,indirect --error-exitcode=99 \
        --trace-children=no --child-silent-after-fork=yes "build/unit/$1" >"$2/$1.valgrind" 2>&1
        echo $? >"$2/$1.valgrind-status"' sh '{}' "$logs" <"$logs/units"
    while read -r name; do
        if [ "$(cat "$logs/$name.valgrind-status")" = 0 ]; then
            passed=$((passed + 1))
        else
            cat "$logs/$name.valgrind"
            echo "$name under valgrind: FAILED"
            failed=$((failed + 1))
        fi
    done <"$logs/units"
    echo "$(wc -l <"$logs/units") programs"
}

# What node --test printed: "# pass 12" or "ℹ pass 12".
count_node() {
    pass=$(sed -nE 's/^(#|ℹ) pass ([0-9]+)$/\2/p' "$1" | tail -n 1)
    fail=$(sed -nE 's/^(#|ℹ) fail ([0-9]+)$/\2/p' "$1" | tail -n 1)
    cancel=$(sed -nE 's/^(#|ℹ) cancelled ([0-9]+)$/\2/p' "$1" | tail -n 1)
    skip=$(sed -nE 's/^(#|ℹ) skipped ([0-9]+)$/\2/p' "$1" | tail -n 1)
    if [ -z "$pass" ] || [ $((pass + fail + cancel)) -eq 0 ]; then
        failed=$((failed + 1))
        echo "node ran no test"
    else
        passed=$((passed + pass))
        failed=$((failed + fail + cancel))
        skipped=$((skipped + skip))
    fi
}

# One target for a while, from its seeds and into a corpus that is thrown away.
fuzz_one() { # target
    name=$(basename "$1")
    mkdir -p "$logs/$name"
    seeds=tests/fuzz/${name#fuzz-}
    [ -d "$seeds" ] || seeds=
    # shellcheck disable=SC2086
    "$1" -max_total_time="$fuzz_seconds" -timeout=10 -rss_limit_mb=1024 -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="$logs/$name-" "$logs/$name" $seeds >"$logs/$name.log" 2>&1
    echo $? >"$logs/$name.status"
}

fuzz() {
    find build-fuzz/fuzz -maxdepth 1 -type f -name 'fuzz-*' | sort >"$logs/targets"
    [ -s "$logs/targets" ] || give_up "no fuzz target was built"
    while read -r first; do
        read -r second || second=
        fuzz_one "$first" &
        [ -z "$second" ] || fuzz_one "$second" &
        wait
    done <"$logs/targets"
    while read -r target; do
        name=$(basename "$target")
        runs=$(sed -nE 's/^stat::number_of_executed_units: *([0-9]+)$/\1/p' "$logs/$name.log")
        if [ "$(cat "$logs/$name.status")" = 0 ] && [ "${runs:-0}" -gt 0 ]; then
            echo "$name: $runs runs, no finding"
            passed=$((passed + 1))
        else
            tail -n 40 "$logs/$name.log"
            for artifact in "$logs/$name"-*; do
                [ -f "$artifact" ] && { echo "$(basename "$artifact"):"; base64 "$artifact" | head -n 20; }
            done
            echo "$name: FAILED"
            failed=$((failed + 1))
        fi
    done <"$logs/targets"
}

integration() {
    (cd tests && npm ci --no-audit --no-fund --loglevel=error) >"$logs/npm" 2>&1 ||
        { cat "$logs/npm"; give_up "npm ci failed in tests"; }
    BRINK_BUILD=$PWD/build
    export BRINK_BUILD
    find tests/integration tests/fault -name '*.test.mjs' -not -path '*/node_modules/*' | sort >"$logs/files"
    # One after the other: each has an edge and a hub of its own, and two cores are not many.
    while read -r file; do
        echo "-- $file"
        node --test --test-reporter=spec "$file" </dev/null >"$logs/node" 2>&1
        cat "$logs/node"
        count_node "$logs/node"
    done <"$logs/files"
}

started=$(date +%s)
# shellcheck disable=SC2086
install_packages $build_packages $test_packages || give_up "cannot install what the tests need"

say "build: release"
build release
if wanted unit; then
    say "unit tests"
    unit build
fi
if wanted asan; then
    say "unit tests under address and undefined behaviour sanitizers"
    build asan
    unit build-asan
fi
if wanted valgrind; then
    say "unit tests under valgrind"
    memcheck
fi
if wanted integration; then
    say "integration with the official SDKs, and faults"
    integration
fi
if wanted fuzz; then
    say "fuzz targets, $fuzz_seconds s each"
    build fuzz
    fuzz
fi

say "done"
if [ "$skipped" -gt 0 ]; then
    printf '%s passed, %s failed, %s skipped\n' "$passed" "$failed" "$skipped"
else
    printf '%s passed, %s failed\n' "$passed" "$failed"
fi
[ "$failed" -eq 0 ]
