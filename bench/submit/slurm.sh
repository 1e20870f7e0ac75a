#!/bin/bash
# Times whole `sbatch` commands against a private Slurm on this machine: slurm.sh RESULT.json
# Takes slurmctld, slurmd, slurm-client and munge (Debian packages); says so and fails where they are not there.
set -eu
for program in sbatch slurmctld slurmd munged; do
  PATH=$PATH:/usr/sbin command -v $program > /dev/null || { echo "$program is not installed (apt-get install slurmctld slurmd slurm-client munge)"; exit 3; }
done
export PATH=$PATH:/usr/sbin
result=$1
dir=$(mktemp -d /tmp/th-slurm-XXXXXX)
pids=()
finish() { kill "${pids[@]}" 2> /dev/null || true; wait; rm -rf "$dir"; }
trap finish EXIT
chmod 755 "$dir"; mkdir -m 755 "$dir/munge" "$dir/state" "$dir/spool"
head -c 1024 /dev/urandom > "$dir/munge.key"; chmod 600 "$dir/munge.key"
munged -F --key-file="$dir/munge.key" --socket="$dir/munge/socket" --pid-file="$dir/munge/pid" --log-file="$dir/munge/log" \
  --seed-file="$dir/munge/seed" --force --num-threads=2 > "$dir/munged.out" 2>&1 & pids+=($!)
port=$((20000 + RANDOM % 10000))
cat > "$dir/slurm.conf" << CONF
ClusterName=bench
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$dir/munge/socket
SlurmctldPort=$port
SlurmdPort=$((port + 1))
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 CPUs=8 RealMemory=65536 State=UNKNOWN
PartitionName=p Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$dir/slurm.conf
for _ in $(seq 50); do [ -S "$dir/munge/socket" ] && break; sleep 0.1; done
slurmctld -D > "$dir/ctld.out" 2>&1 & pids+=($!)
for _ in $(seq 100); do scontrol ping 2> /dev/null | grep -q UP && break; sleep 0.2; done
printf '#!/bin/bash\ntrue\n' > "$dir/true.sh"
# The node is not started: jobs queue, as they do beside it.
n=200
begin=$(date +%s%N)
for _ in $(seq $n); do sbatch -Q -o /dev/null -n1 "$dir/true.sh" > /dev/null; done
end=$(date +%s%N)
awk -v n=$n -v ns=$((end - begin)) -v version="$(sbatch --version)" \
  'BEGIN { printf "{\"version\":\"%s\",\"sbatch_command_ms\":%.2f,\"sbatch_per_s\":%.1f}\n", version, ns / n / 1e6, n / (ns / 1e9) }' > "$result"
