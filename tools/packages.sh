#!/usr/bin/env bash
# The Debian packages that Barcast needs, each with its reason, in one place.
#
#   tools/packages.sh install [build|all]   installs what is missing: of the build and its tests, or (default) of .ci/run too
#   tools/packages.sh list                  prints them
set -euo pipefail

build_packages=(
    build-essential  # gcc, libc headers
    cmake            # the build
    ninja-build      # what the CMake presets generate for
    pkg-config       # finds the libraries below
    git              # the commit in `barcast --version`
    libzmq3-dev      # sockets between scheduler, workers and subscribers
    libmsgpack-dev   # the messages' format
    libinih-dev      # config files
    libjson-c-dev    # checkpoints' config.json, ndjson feeds, --json
    libopenblas-dev  # matrix products of the CPU backend
    libcmocka-dev    # unit tests
    libck-dev        # Concurrency Kit: what `barcast bench ring` compares the ring with
    tzdata           # time zones of market hours
)
check_packages=(
    clang            # sanitizer and fuzz builds
    llvm             # names in the sanitizers' reports
    clang-format     # the format check
)

missing() {
    local package
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || echo "$package"
    done
}

install_missing() {
    local absent as_root=()
    mapfile -t absent < <(missing "$@")
    if [ ${#absent[@]} -eq 0 ]; then
        return
    fi
    if [ "$(id -u)" -ne 0 ]; then
        as_root=(sudo)
    fi
    echo "installing: ${absent[*]}"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${absent[@]}"
}

case "${1:-} ${2:-all}" in
"install build") install_missing "${build_packages[@]}" ;;
"install all") install_missing "${build_packages[@]}" "${check_packages[@]}" ;;
"list all") printf '%s\n' "${build_packages[@]}" "${check_packages[@]}" ;;
*)
    sed -n '2,5s/^# \?//p' "$0" >&2
    exit 2
    ;;
esac
