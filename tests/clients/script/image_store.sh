# What an engine that has its images in containerd is made to do. Sizes are those of packed blobs there, which two packers make differently: none is printed.

docker info --format '{{.Driver}} {{range .DriverStatus}}{{join . "="}} {{end}}' | sed 's/^[a-z]* /DRIVER /'

docker import small.tar small:1

docker run --network none --rm small:1 cat /data/2

docker run --network none --name work small:1 sh -euc '
    echo changed >>/data/1
    rm -r /data/3 /tmp
    mkdir /tmp && echo new >/tmp/new
    mkdir -p /opt/a/b/c && echo deep >/opt/a/b/c/file
    busybox ln -s ../a/b /opt/soft
    busybox chmod 0711 /data && chown 12:34 /etc/passwd
    touch "/opt/a name with spaces"
    exit 3'

docker diff work | sort

docker run --network none --stop-signal KILL --detach --name up small:1 sh -c 'echo started >/mark; exec sleep 1000'

until docker exec up cat /mark; do sleep 0.1; done

docker exec up sh -euc 'rm /data/4; mkdir -p /srv/inside; echo from-exec >/srv/inside/file; ls -A /srv'

docker cp up:/srv/inside copied && cat copied/file && docker cp up:/etc/passwd - | list

docker cp build/files up:/srv/ && docker exec up find /srv

docker cp single work:/opt/single && docker cp work:/opt/a/b/c/file fetched && cat fetched

docker diff up | sort

docker commit --message 'while it runs' up committed:running

docker commit --change 'CMD ["cat", "/opt/single"]' work committed:stopped

docker run --network none --rm committed:running cat /srv/inside/file /srv/files/a

docker run --network none --rm committed:stopped

docker build --network none --tag old:1 --file build/Dockerfile.small build

DOCKER_BUILDKIT=1 docker build --network none --quiet --tag kit:1 --file build/Dockerfile.small build

DOCKER_BUILDKIT=1 docker build --network none --quiet --tag kit:again --file build/Dockerfile.small build

for image in old:1 kit:1 kit:again; do docker run --network none --rm $image stat -c '%n %u:%g %a' /copied /copied/a /run-made; done

docker history --no-trunc --format '{{.CreatedBy}} {{.Comment}}' kit:1

docker history --no-trunc --format '{{.CreatedBy}} {{.Comment}}' old:1

docker export work | list | grep -vE '^(dev|proc|sys)'

# What a container's engine mounts over was copied up without a change: containerd's own differ compares each file and leaves it out, here it is in the layer.
# And it names what was below a directory that was made anew, where here the directory is opaque.

docker save --output all.tar old:1 kit:1 committed:running committed:stopped && saved all.tar | grep -vE '^(etc(/host(s|name)|/resolv.conf)?|tmp/.wh..wh..opq) '

empty docker load --input all.tar | sort

empty docker images --format '{{.Repository}}:{{.Tag}}' | sort

empty docker run --network none --rm kit:1 stat -c '%n %u:%g %a' /copied /copied/a /run-made /etc /data /data/2

empty docker run --network none --rm committed:stopped

empty docker save --output again.tar old:1 kit:1 committed:running committed:stopped && saved --digests all.tar >first && saved --digests again.tar >second && cmp first second

empty docker rmi old:1 kit:1 committed:running committed:stopped

docker rm work

docker kill up && docker wait up && docker rm up

docker rmi small:1 committed:running committed:stopped old:1 kit:1 kit:again

docker builder prune --force --all >pruned; grep -c Total pruned

docker images --all --format '{{.Repository}}:{{.Tag}}'
