#!/bin/sh
# Process 1 of a VM (tools/vm_image): address, shared folders, clock, th-node. What it needs to know and is no secret stands on the
# kernel's command line, as th.KEY=VALUE; node.json, with the node's token, is the first disk. docs/libvirt.md tells more.
export PATH=/usr/lib/thunderhead:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
exec </dev/null >/dev/console 2>&1

give_up() {
  echo "thunderhead: failed: $1"
  poweroff -f
}

while read -r module; do insmod "/lib/modules/$module" || give_up "module $module"; done </lib/modules/order

address= gateway= name=vm
for word in $(cat /proc/cmdline); do
  case $word in
    th.address=*) address=${word#*=} ;;
    th.gateway=*) gateway=${word#*=} ;;
    th.name=*) name=${word#*=} ;;
  esac
done

if [ "$name" = probe ]; then
  echo "thunderhead: up"
  poweroff -f
fi

hwclock -s -u
hostname "$name"
ip link set lo up
ip link set eth0 up && ip addr add "$address" dev eth0 || give_up "address $address on eth0"
if [ -n "$gateway" ]; then ip route add default via "$gateway" || give_up "route by $gateway"; fi

# th.mount=TAG:FOLDER: the same path as on the other side, so that a path means the same file everywhere.
for word in $(cat /proc/cmdline); do
  case $word in
    th.mount=*)
      mount=${word#*=} tag=${mount%%:*} folder=${mount#*:}
      mkdir -p "$folder" && mount -t virtiofs "$tag" "$folder" || give_up "shared folder $folder"
      ;;
  esac
done

th-node --version >/dev/null || give_up "th-node does not run; the image is damaged"
umask 077
mkdir -p /run/thunderhead
tr -d '\0' </dev/vda >/run/thunderhead/node.json || give_up "the disk with node.json"
umask 022
echo "thunderhead: up"

# A node that ended of itself was told to: the VM goes with it. One that failed is started again; its controller sees a new node.
for attempt in 1 2 3 4 5; do
  th-node --config /run/thunderhead/node.json && break
  echo "thunderhead: th-node ended with $?"
  sleep 1
done
poweroff -f
