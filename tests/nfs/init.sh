#!/bin/bash
# The first process of the machine that has NFS (machine.py). The kernel's command line gives
# KF_FOLDER (of the results), KF_ROOT (of the repository), KF_PYTHON, and
# KF_CHECKS (with commas; none: all).
#
# Its root is the root of the machine outside, so whatever is written here is written there: file
# systems in memory lie over each place that the programs below write to.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/mnt PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc
mount -t sysfs sys /sys
for place in /run /mnt /dev/shm /var/lib/nfs; do
    mount -t tmpfs memory "$place"
done
ip link set lo up

mkdir -p /mnt/kernel/lib/modules /mnt/served
ln -s "/usr/lib/uml/modules/$(uname -r)" "/mnt/kernel/lib/modules/$(uname -r)"
for module in nfsv3 nfsv4 nfsd; do
    modprobe -d /mnt/kernel "$module"
done

mount -t tmpfs -o size=64m served /mnt/served
mkdir -p /var/lib/nfs/{sm,sm.bak,rpc_pipefs,v4recovery,nfsdcltrack} /run/rpcbind
touch /var/lib/nfs/{etab,rmtab,xtab,state}
mount -t rpc_pipefs pipes /var/lib/nfs/rpc_pipefs
mount -t nfsd nfsd /proc/fs/nfsd
rpcbind -w
exportfs -o rw,no_root_squash,fsid=0,insecure,no_subtree_check,sync '*:/mnt/served'
rpc.statd --no-notify
rpc.mountd
rpc.nfsd 4
echo Y >/proc/fs/nfsd/v4_end_grace # nobody had a lock before

cd "$KF_ROOT" && PYTHONPATH=$KF_ROOT "$KF_PYTHON" -m tests.nfs.inside "$KF_FOLDER" ${KF_CHECKS//,/ }
halt -f
