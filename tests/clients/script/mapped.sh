# What an engine with a map of user ids is made to do.

docker import small.tar small:1

docker run --network none --rm small:1 sh -c 'id -u; cat /proc/self/uid_map'

docker run --network none --name work small:1 sh -euc '
    echo mine >/mine; echo yours >/yours
    chown 1000:1001 /yours; rm /data/1; mkdir -p /d/e; chown 65535:65535 /d
    rm -r /tmp; mkdir -m 1777 /tmp; echo new >/tmp/new
    stat -c "%n %u:%g %a" / /mine /yours /d /d/e /tmp /tmp/new /data /data/2 /bin/busybox'

docker diff work | sort

docker export work | list | grep -vE '^(dev|proc|sys)'

docker cp single work:/tmp/ && docker cp work:/yours - | list

docker commit work mapped:1

docker build --network none --tag built:1 --file build/Dockerfile.small build

docker run --network none --rm built:1 stat -c '%n %u:%g %a' /copied /copied/a /run-made

docker save --output mapped.tar mapped:1 built:1 && saved mapped.tar

empty docker load --input mapped.tar | sort

empty docker run --network none --rm mapped:1 stat -c '%n %u:%g %a' / /mine /yours /d /d/e /etc /data /data/2

empty docker save --output again.tar mapped:1 built:1 && saved --digests mapped.tar >first && saved --digests again.tar >second && cmp first second

docker system df

docker rm work

docker image prune --all --force
