# What `.ci/run` and `.ci/full` share: steps that are timed and counted, the lists of what the
# workspace holds, and a Rust 1.85 beside the installed toolchains. Sourced by both, never run.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TERM_COLOR=never RUST_BACKTRACE=1
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
# CI has no standard input; a program that waits for some must not hang at a desk either.
exec </dev/null

readonly MSRV=1.85
readonly AARCH64=aarch64-unknown-linux-gnu
readonly SKIPPED=77
passed=() failed=() skipped=()
# Words given to the script: only the steps whose names contain one of them are run.
wanted=("$@")

# step NAME COMMAND...: runs COMMAND, which may be a function, and notes how it ended.
# The subshell stands in no condition, so that `set -e` holds inside of it.
step() {
    local name=$1 began=$SECONDS status
    shift
    is_wanted "$name" || return 0
    printf '\n=== %s\n' "$name"
    set +e
    (set -euo pipefail; "$@")
    status=$?
    set -e
    case $status in
        0) passed+=("$name") ;;
        "$SKIPPED") skipped+=("$name") ;;
        *) failed+=("$name (exit $status)") ;;
    esac
    printf -- '--- %s: %s after %d s\n' "$name" "$(verdict $status)" $((SECONDS - began))
}

is_wanted() {
    ((${#wanted[@]} > 0)) || return 0
    local word
    for word in "${wanted[@]}"; do [[ $1 != *"$word"* ]] || return 0; done
    return 1
}

verdict() {
    case $1 in 0) echo passed ;; "$SKIPPED") echo skipped ;; *) echo "FAILED with exit $1" ;; esac
}

# skip REASON: ends the step that it is called in.
skip() {
    printf 'skipped: %s\n' "$*"
    exit "$SKIPPED"
}

# The closing lines, and the script's exit.
finish() {
    printf '\n=== after %d min %d s\n' $((SECONDS / 60)) $((SECONDS % 60))
    ((${#skipped[@]} == 0)) || printf 'skipped: %s\n' "${skipped[@]}"
    ((${#failed[@]} == 0)) || printf 'FAILED: %s\n' "${failed[@]}"
    printf '%d passed, %d failed, %d skipped\n' ${#passed[@]} ${#failed[@]} ${#skipped[@]}
    ((${#failed[@]} == 0 && ${#passed[@]} > 0)) || exit 1
    exit 0
}

# need PROGRAM PACKAGE: installs Debian's PACKAGE where PROGRAM is missing.
need() {
    command -v "$1" >/dev/null && return
    command -v apt-get >/dev/null || { echo "error: $1 is missing; install it and run this again"; return 1; }
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$2" >/dev/null
    command -v "$1" >/dev/null || { echo "error: package $2 brought no $1"; return 1; }
}

# bounded SECONDS COMMAND...: ends COMMAND and all it started when the time is over (exit 124).
bounded() {
    timeout --kill-after=10 "$@"
}

# counted COMMAND...: runs a test command, and fails if it ran no test at all: a wrong filter or a
# target that went missing would pass otherwise.
counted() {
    local log ran
    log=$(mktemp)
    "$@" 2>&1 | tee "$log"
    ran=$(sed -n 's/^test result: .* \([0-9]*\) passed; .*/\1/p' "$log" | paste -sd+ | bc)
    rm -f "$log"
    echo "ran ${ran:-0} tests"
    ((${ran:-0} > 0)) || { echo "error: no test was run"; return 1; }
}

# targets KIND [PACKAGE]: "package name features" of each target of that kind in the workspace.
targets() {
    cargo metadata --no-deps --format-version 1 | python3 -c '
import json, sys
kind, only = sys.argv[1], sys.argv[2:]
for package in json.load(sys.stdin)["packages"]:
    for target in package["targets"]:
        if kind in target["kind"] and (not only or package["name"] in only):
            features = ",".join(target.get("required-features", []))
            print(package["name"], target["name"], features)
' "$@"
}

# Puts a Rust of version $MSRV in front: rustup's where it is installed, else Debian's packages,
# unpacked into the target directory, because installing them would displace rustup. Ends the step as
# skipped where neither is to be had. With an argument, adds the standard library of aarch64.
use_msrv() {
    local version=1.85.0+dfsg3-1~deb12u3 root="$CARGO_TARGET_DIR/rust-$MSRV"
    if rustup run "$MSRV" rustc --version 2>/dev/null && [[ $# == 0 ]]; then
        export RUSTUP_TOOLCHAIN=$MSRV
        return
    fi
    [[ $(uname -m) == x86_64 ]] && command -v apt-get >/dev/null ||
        skip "no Rust $MSRV here; 'rustup toolchain install $MSRV' brings it"
    if [[ ! -e $root/done ]]; then
        unpack "$root" amd64 "rustc-web=$version" "cargo-web=$version" "libstd-rust-web-dev=$version" \
            "libstd-rust-web-$MSRV=$version" libllvm19 libpcre3 libhttp-parser2.9 ||
            skip "the package registry has no Rust $version"
        touch "$root/done"
    fi
    if [[ $# != 0 && ! -e $root/done-arm64 ]]; then
        unpack "$root" arm64 "libstd-rust-web-dev:arm64=$version" ||
            skip "the package registry has no standard library $version for arm64"
        touch "$root/done-arm64"
    fi
    export PATH="$root/usr/bin:$PATH" RUSTC="$root/usr/bin/rustc"
    export LD_LIBRARY_PATH="$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu"
    rustc --version
    cargo --version
}

# unpack ROOT ARCH PACKAGE...: Debian packages into a directory, with package lists of its own, so
# that the system's apt never hears of a foreign architecture.
unpack() {
    local root=$1 arch=$2 lists deb
    shift 2
    lists=$(mktemp -d)
    mkdir -p "$root" "$lists/partial" "$lists/debs"
    local options=(-qq -o "Dir::State::Lists=$lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
        -o APT::Architectures::=amd64 -o "APT::Architectures::=$arch" -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update && (cd "$lists/debs" && apt-get "${options[@]}" download "$@") || return 1
    for deb in "$lists"/debs/*.deb; do dpkg -x "$deb" "$root" || return 1; done
    rm -rf "$lists"
}

tools() {
    need python3 python3
    need bc bc
    rustc --version
    cargo --version
    # Fails if Cargo.lock does not fit the manifests, before anything can quietly rewrite it.
    cargo metadata --locked --format-version 1 >/dev/null
}
