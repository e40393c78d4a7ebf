#!/usr/bin/env bash
# Runs a command on a clean copy of HEAD in a fresh Debian root that holds only git, make and the
# package manager:
#
#   tests/fresh-root.sh trixie|bookworm [--offline] COMMAND...     (as root; debootstrap installed)
#
# The bare root is kept as build/fresh/SUITE.tar, unpacked anew into build/fresh/SUITE each time, unless
# --offline: then the one of the run before is used again, with no network at all. The process, mount and
# device spaces are its own, so whatever the command leaves running ends with it. CAs that this machine
# trusts beyond Debian's are taken along. Exit 77, and why: this machine does not allow it.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=$1
shift
offline=
if [ "$1" = --offline ]; then
    offline=--net
    shift
fi
store=$PWD/build/fresh root=$PWD/build/fresh/$suite
mirror=$({ cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null || true; } |
         sed -nE '/^ *#/d; s#.*(https?://[^ ]+/debian)/?( .*|$)#\1#p' | sed -n 1p)

impossible() {
    echo "no fresh root on this machine: $*"
    exit 77
}

# What debootstrap and the root need, tried in small.
allowed() {
    local probe=$store/probe
    rm -rf --one-file-system "$probe"
    mkdir -p "$probe" && mknod -m 666 "$probe/null" c 1 3 && echo >"$probe/null" &&
        unshare --mount --pid --fork --kill-child mount -t tmpfs tmpfs "$probe"
    local code=$?
    rm -rf --one-file-system "$probe"
    return $code
}

[ "$(id -u)" = 0 ] || impossible "it takes root"
command -v debootstrap >/dev/null || impossible "debootstrap is not installed"
mkdir -p "$store"
reason=$(allowed 2>&1) || impossible "it refuses device nodes or mounts: $reason"

if [ ! -f "$store/$suite.tar" ]; then
    rm -rf --one-file-system "$store/new"
    mkdir -m 755 "$store/new"
    debootstrap --variant=minbase --include=git,make,ca-certificates "$suite" "$store/new" "${mirror:-}" >"$store/$suite.log"
    tar -C "$store/new" -cf "$store/$suite.tar" .
    rm -rf --one-file-system "$store/new"
fi
if [ -z "$offline" ]; then
    rm -rf --one-file-system "$root"
    mkdir -m 755 "$root"
    tar -C "$root" -xf "$store/$suite.tar"
    cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/" 2>/dev/null || true
    chroot "$root" update-ca-certificates >/dev/null 2>&1
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    echo "127.0.0.1 localhost" >"$root/etc/hosts"
    mkdir "$root/project"
    git archive HEAD | tar -C "$root/project" -xf -
fi

# shellcheck disable=SC2016 # expanded inside
exec unshare --mount --pid --fork --kill-child ${offline:+"$offline"} bash -c '
root=$1 offline=$2
shift 2
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev"
for node in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 "$root/dev/${node%:*}" c 1 "${node#*:}"; done
mknod -m 666 "$root/dev/tty" c 5 0
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs tmpfs "$root/run"
[ -z "$offline" ] || ip link set lo up
exec chroot "$root" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb HOME=/root \
    sh -c "cd /project && exec \"\$@\"" sh "$@"' bash "$root" "$offline" "$@"
