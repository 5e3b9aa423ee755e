#!/bin/bash
# Hosts of a cluster on one machine: each is a network, PID, mount and UTS namespace with an sshd, a home,
# a /tmp and a /dev/shm of its own, on a switch that is reachable from nowhere else.
#   hosts.sh up DIR N            the switch, `laptop` (10.77.0.100) and host1..hostN (10.77.0.11, ...); the laptop's key opens ssh to all as root
#   hosts.sh run DIR NAME CMD    runs a shell command on a host, in its home
#   hosts.sh off DIR NAME        power cut: link down, then every process of it dies by SIGKILL
#   hosts.sh on DIR NAME         power on again: processes and /tmp are gone, the disk (home) is kept
#   hosts.sh down DIR            all away
# For `up` and `on`: BASE=/path/of/.venv lies read-only at /srv/base of every host, SHARE=/some/dir at /srv/shared.
# Needs root, iproute2, openssh-server, util-linux.
set -eu
here=$(realpath "$0"); verb=$1; dir=$(realpath -m "$2"); tag=$(echo -n "$dir" | md5sum | head -c 6)
ns() { echo "oc$tag-$1"; }
ip_of() { case $1 in laptop) echo 10.77.0.100 ;; host*) echo "10.77.0.$((10 + ${1#host}))" ;; esac; }

inside() {  # runs as the host's process 1
    local name=$1 h=$dir/$1
    mount --make-rprivate /
    hostname "$name"
    mkdir -p "$h"/{root,tmp,etc} /srv
    chmod 1777 "$h/tmp"; chmod 700 "$h/root"
    mount -t tmpfs -o size=1g tmpfs /dev/shm
    mount -t tmpfs -o size=64m tmpfs /run
    mkdir -p /run/sshd
    mount -t tmpfs tmpfs /srv
    if [ -n "${BASE:-}" ]; then mkdir /srv/base; mount --bind "$BASE" /srv/base; mount -o remount,bind,ro /srv/base; fi
    if [ -n "${SHARE:-}" ]; then mkdir /srv/shared; mount --bind "$SHARE" /srv/shared; fi
    # A Python under the user's home is seen by the hosts too.
    local python; python=$(python3 -c 'import sys; print(sys.base_prefix)')
    case $python in "$HOME"/*) mkdir -p "$h$python"; mount --bind "$python" "$h$python" ;; esac
    cp "$dir/key.pub" "$h/etc/authorized_keys"
    cp "$dir/hostkey" "$h/etc/hostkey"
    [ -f "$h/root/.bashrc" ] || echo "export PATH=$python/bin:\$PATH" > "$h/root/.bashrc"
    if [ "$name" = laptop ]; then
        mkdir -p "$h/root/.ssh"; cp "$dir/key" "$h/root/.ssh/id_ed25519"; chmod 600 "$h/root/.ssh/id_ed25519"
    fi
    mkdir /srv/etc; cp "$h/etc/"* /srv/etc/; chmod 600 /srv/etc/*
    mount --rbind "$h/root" /root
    mount --bind "$h/tmp" /tmp
    cd /root
    env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
        /usr/sbin/sshd -D -e -f /dev/null -h /srv/etc/hostkey -o AuthorizedKeysFile=/srv/etc/authorized_keys -o StrictModes=no \
        -o UsePAM=no -o PermitRootLogin=yes -o PidFile=none -o MaxStartups=100 -o MaxSessions=100 -o PrintLastLog=no 2> /srv/sshd.log &
    while true; do wait -n || sleep 0.2; done     # reaps, as an init does
}

start() {
    local name=$1 n; n=$(ns "$name")
    rm -rf "$dir/$name/tmp"
    if ! ip netns list | grep -qw "$n"; then
        ip netns add "$n"
        ip -n "$(ns sw)" link add "p-$name" type veth peer name eth0 netns "$n"
        ip -n "$(ns sw)" link set "p-$name" master br0 up
        ip -n "$n" addr add "$(ip_of "$name")/24" dev eth0
        ip -n "$n" link set lo up
        ip -n "$n" link set eth0 up
        ip -n "$n" route add default via 10.77.0.1
    fi
    ip -n "$(ns sw)" link set "p-$name" up
    nohup ip netns exec "$n" unshare --pid --mount --uts --ipc --fork --kill-child --mount-proc \
        "$here" inside "$dir" "$name" > "$dir/$name.log" 2>&1 < /dev/null &
    echo $! > "$dir/$name.pid"
    for _ in $(seq 300); do
        ip netns exec "$n" bash -c "exec 3<> /dev/tcp/$(ip_of "$name")/22" 2> /dev/null && return
        sleep 0.1
    done
    echo "$name did not come up: $(tail -n 3 "$dir/$name.log")" >&2; return 1
}

init_of() {  # the host's process 1 as seen from outside
    pgrep -P "$(cat "$dir/$1.pid")" 2> /dev/null | head -n 1
}

stop() {
    local pid; pid=$(cat "$dir/$1.pid" 2> /dev/null) || return 0
    kill -9 "$pid" 2> /dev/null || true
    for _ in $(seq 50); do kill -0 "$pid" 2> /dev/null || break; sleep 0.1; done
    rm -f "$dir/$1.pid"
}

case $verb in
up)
    mkdir -p "$dir"
    [ -f "$dir/key" ] || ssh-keygen -q -t ed25519 -N '' -f "$dir/key"
    [ -f "$dir/hostkey" ] || ssh-keygen -q -t ed25519 -N '' -f "$dir/hostkey"
    ip netns add "$(ns sw)"
    ip -n "$(ns sw)" link set lo up
    ip -n "$(ns sw)" link add br0 type bridge
    ip -n "$(ns sw)" addr add 10.77.0.1/24 dev br0
    ip -n "$(ns sw)" link set br0 up
    for name in laptop $(seq -f host%g 1 "$3"); do
        mkdir -p "$dir/$name"; echo "$name" >> "$dir/names"; start "$name"
    done ;;
inside) inside "$3" ;;
run)
    name=$3; shift 3
    exec nsenter -t "$(init_of "$name")" -m -p -u -i -n env -i HOME=/root USER=root LANG=C.UTF-8 TERM=dumb \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin bash -c "cd; . ~/.bashrc; $*" ;;
off) ip -n "$(ns sw)" link set "p-$3" down; stop "$3" ;;
on) start "$3" ;;
down)
    for name in $(cat "$dir/names" 2> /dev/null); do stop "$name"; ip netns del "$(ns "$name")" 2> /dev/null || true; done
    ip netns del "$(ns sw)" 2> /dev/null || true
    rm -f "$dir/names" ;;
esac
