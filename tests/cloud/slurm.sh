#!/bin/bash
# SLURM on the hosts of hosts.sh: host1 has slurmctld and slurmd, the others slurmd, each a munged.
#   slurm.sh start DIR N [CPUS]      then: hosts.sh run DIR host1 sinfo
set -eu
dir=$(realpath "$2"); hosts=$(dirname "$(realpath "$0")")/hosts.sh; cpus=${4:-2}

conf() {
    local n
    cat <<C
ClusterName=test
SlurmctldHost=host1(10.77.0.11)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
StateSaveLocation=/root/.slurm/ctld
SlurmdSpoolDir=/root/.slurm/d
SlurmctldLogFile=/root/.slurm/ctld.log
SlurmdLogFile=/root/.slurm/d.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=5,sched_interval=5,batch_sched_delay=1
ReturnToService=2
SlurmdTimeout=30
SlurmctldTimeout=10
InactiveLimit=0
KillWait=10
MinJobAge=600
OverTimeLimit=0
JobRequeue=1
C
    for n in $(seq "$1"); do
        echo "NodeName=host$n NodeAddr=10.77.0.$((10 + n)) CPUs=$cpus RealMemory=4000 State=UNKNOWN"
    done
    echo "PartitionName=all Nodes=ALL Default=YES MaxTime=60 State=UP OverSubscribe=NO"
}

node() {
    "$hosts" run "$dir" "$1" '
        mkdir -p ~/.slurm/ctld ~/.slurm/d /run/munge; chmod 755 /run/munge
        cp ~/.slurm.conf /srv/etc/slurm.conf; echo CgroupPlugin=cgroup/v1 > /srv/etc/cgroup.conf
        # `ip netns exec` mounts a new /sys without control groups, and slurmd ends without them.
        if ! mountpoint -q /sys/fs/cgroup; then
            mount -t tmpfs cgroup /sys/fs/cgroup
            for c in freezer cpuset memory devices cpuacct cpu; do mkdir /sys/fs/cgroup/$c; mount -t cgroup -o $c cgroup /sys/fs/cgroup/$c; done
        fi
        cp ~/.munge.key /srv/etc/munge.key; chown root:root /srv/etc/munge.key; chmod 400 /srv/etc/munge.key
        grep -q SLURM_CONF ~/.bashrc || echo export SLURM_CONF=/srv/etc/slurm.conf >> ~/.bashrc
        export SLURM_CONF=/srv/etc/slurm.conf
        munged --force --key-file=/srv/etc/munge.key --socket=/run/munge/munge.socket.2 --pid-file=/run/munge/munged.pid \
            --log-file=/root/.slurm/munged.log --seed-file=/root/.slurm/seed
        [ $(hostname) != host1 ] || slurmctld
        slurmd -N $(hostname)'
}

key=$(head -c 1024 /dev/urandom | base64 -w 0)
for n in $(seq "$3"); do
    printf %s "$key" > "$dir/host$n/root/.munge.key"
    conf "$3" > "$dir/host$n/root/.slurm.conf"
    node "host$n"
done
