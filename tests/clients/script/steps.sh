# What an engine is made to do, a step a paragraph, each run by a shell of its own. `empty CMD` is CMD with the second engine, which knows no image.
# `sort` is where the engine itself has no order, and `exec 2>&1` inside a container where its two streams would race.

docker import minbase.tar base:1

docker images | sort

docker run --network none --rm base:1 cat /etc/debian_version /etc/hostname

docker run --network none --rm base:1 find / -xdev -not -path '/proc*' -not -path '/sys*' -not -path '/dev*' -printf '%p %y %m %U:%G %n %l\n' |
    LC_ALL=C sort | sha256sum | cut -c 1-16

docker run --network none --name work base:1 sh -euc '
    echo changed >>/etc/issue
    rm -r /usr/share/man /etc/fstab
    mkdir -p /opt/a/b/c && echo deep >/opt/a/b/c/file
    ln /opt/a/b/c/file /opt/a/hard && ln -s ../a/b /opt/soft
    chmod 0711 /var/lib/dpkg && chown 12:34 /etc/passwd
    rm -r /etc/pam.d && mkdir /etc/pam.d && echo again >/etc/pam.d/login
    touch "/opt/a name with spaces" && chmod 2755 /usr/bin/id
    mv /etc/skel /etc/skeleton
    touch /tmp/gone && rm /tmp/gone
    mknod /opt/null c 1 3 && mkfifo /opt/fifo
    exit 3'

docker diff work | sort

docker ps -a --size --format '{{.Names}} {{.Image}} {{.Command}} {{.Status}} {{.Size}}'

docker run --network none --stop-signal KILL --detach --name up base:1 sh -c 'echo started >/run/mark; exec sleep 1000'

until docker exec up test -e /run/mark; do sleep 0.1; done

docker exec up sh -euc 'cat /run/mark; rm /etc/shells; echo $$ >/dev/null; mkdir /srv/inside; echo from-exec >/srv/inside/file; ls -A /srv'

docker exec --user 1000:1000 up sh -c 'exec 2>&1; id; touch /etc/forbidden; touch /tmp/allowed; stat -c "%n %u:%g %a" /tmp/allowed'

docker cp up:/srv/inside copied && cat copied/file && docker cp up:/etc/passwd - | list

docker cp build/files up:/srv/ && docker exec up find /srv -printf '%p %y %m %U:%G\n' | LC_ALL=C sort

docker cp single work:/opt/single && docker cp work:/opt/a/hard fetched && cat fetched

docker diff up | sort

docker diff work | sort

docker commit --message 'while it runs' up committed:running

docker commit --change 'CMD ["cat", "/opt/single"]' work committed:stopped

docker run --network none --rm committed:running cat /srv/inside/file /srv/files/a

docker run --network none --rm committed:stopped

docker build --network none --tag app:1 build

docker build --network none --tag app:again build

DOCKER_BUILDKIT=1 docker build --network none --quiet --tag kit:1 build

docker history --no-trunc --format '{{.CreatedBy}} {{.Size}} {{.Comment}}' app:1

docker history --no-trunc --format '{{.CreatedBy}} {{.Size}} {{.Comment}}' kit:1

docker save kit:1 --output kit.tar && saved kit.tar

docker history --no-trunc --format '{{.CreatedBy}} {{.Size}} {{.Comment}}' committed:running

docker run --network none --rm app:1 sh -c 'exec 2>&1; ls -A /etc/alternatives /srv /srv/files; ls /usr/share/doc /etc/motd; stat -c "%n %F %a %u:%g %h" /srv/* /srv/files/* /etc/cron.d /usr/bin /usr/bin/id'

docker export work >work.tar && list --digest <work.tar && list <work.tar | grep -E '^(opt|etc/(issue|passwd|pam.d|skel))'

docker export up | list --digest

docker save --output app.tar app:1 committed:running committed:stopped && saved app.tar

docker system df

docker system df --verbose --format '
    {{range .Images}}{{.Repository}}:{{.Tag}} {{.Size}} {{.SharedSize}} {{.UniqueSize}} {{.Containers}}{{println}}{{end}}
    {{range .Containers}}{{.Names}} {{.Image}} {{.Command}} {{.LocalVolumes}} {{.Size}} {{.Status}}{{println}}{{end}}' | sed 's/^ *//' | sort

empty docker load --input app.tar | sort

empty docker images | sort

empty docker run --network none --rm app:1 sh -c 'exec 2>&1; ls -A /etc/alternatives /srv/files; stat -c "%n %F %a %u:%g %h" /srv/* /srv/files/* /usr/bin/id'

empty docker run --network none --rm committed:stopped

empty docker history --no-trunc --format '{{.CreatedBy}} {{.Size}} {{.Comment}}' app:1

empty docker save --output again.tar app:1 committed:running committed:stopped && saved --digests app.tar >first && saved --digests again.tar >second && cmp first second

empty docker system df

empty docker rmi app:1 committed:running committed:stopped

empty docker load --quiet --input again.tar | sort

docker rm work

docker rm up

docker kill up && docker wait up && docker rm up

docker rmi base:1

docker rmi committed:running

docker rmi app:1 app:again

docker rmi kit:1

docker builder prune --force --all | grep -c .

docker run --network none --name last committed:stopped

docker rmi committed:stopped

docker container prune --force

docker image prune --force --all

docker images --all

docker system df
