#!/usr/bin/env bash
# Records how real programs use up a volume: statvfs(3) once a second, as CSV.
#
#   sudo MIRROR=http://deb.debian.org/debian ./record.sh WORK_DIR NAME...
#
# Each NAME is a function `record_NAME` below. It gets a new loop-mounted volume and runs real
# software on it. WORK_DIR holds the volume and the result, NAME.csv. Servers listen on a Unix socket or on
# loopback, with their data on the volume, and are ended by their pid.
#
# Not all of them are among the traces: vacuum-full and sqlite-vacuum run out of space between two
# samples, so that the moment is not known.
#
# Needs: restic borgbackup rocksdb-tools ffmpeg prometheus mariadb-server postgresql logrotate
# debootstrap btrfs-progs xfsprogs sqlite3 ccache squashfs-tools git npm cargo gcc, on Debian 12.
set -u
# Not `set -e`: most programs here end because the volume is full.

work=$1
shift
mirror=${MIRROR:-http://deb.debian.org/debian}
repository=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$work"

# One row a second until killed: time, total, used and available bytes.
sample() {
    local at block total free avail start
    start=$EPOCHREALTIME
    echo "time_s,total_bytes,used_bytes,avail_bytes"
    while read -r block total free avail < <(stat -f -c '%S %b %f %a' "$1"); do
        at=$(((${EPOCHREALTIME/./} - ${start/./}) / 10000))
        printf '%d.%02d,%d,%d,%d\n' $((at / 100)) $((at % 100)) \
            $((total * block)) $(((total - free) * block)) $((avail * block))
        sleep $(((100 - at % 100) / 100)).$(printf %02d $(((100 - at % 100) % 100)))
    done
}

# Bytes available on the volume.
avail() { stat -f -c '%a * %S' "$v" | { read -r sum; echo $((sum)); }; }
# Whether less than 1 MiB is left.
is_full() { [ "$(avail)" -lt 1048576 ]; }
# Whether the recording has lasted for this many seconds.
lasted() { [ $((SECONDS - began)) -ge "$1" ]; }
# Starts a background program that `record` ends.
serve() {
    "$@" >"$work/server.log" 2>&1 &
    servers+=($!)
}
# Waits until a command succeeds, for at most a minute.
await() { for _ in $(seq 120); do "$@" >/dev/null 2>&1 && return; sleep 0.5; done; }

# record NAME SIZE FILESYSTEM
record() {
    v=$work/volume
    servers=()
    mkdir -p "$v"
    truncate -s "$2" "$work/image"
    "mkfs.$3" -q "$work/image"
    mount -o loop "$work/image" "$v"
    # Where `lost+found` is in the way of a server, it uses a folder below.
    sample "$v" >"$work/$1.csv" &
    local sampler=$!
    began=$SECONDS
    "record_${1//-/_}" >"$work/$1.log" 2>&1
    sleep 10
    kill "$sampler"
    [ ${#servers[@]} -eq 0 ] || kill "${servers[@]}"
    wait 2>/dev/null
    await umount "$v"
    rm -f "$work/image"
    echo "$1: $(wc -l <"$work/$1.csv") rows, $(tail -1 "$work/$1.csv")"
}

# Package lists, downloaded anew three times with rests between.
record_apt_index() {
    mkdir -p "$v/lists/partial" "$v/cache/archives/partial"
    for _ in 1 2 3 4; do
        sleep 75
        apt-get update -o Dir::State::lists="$v/lists" -o Dir::Cache="$v/cache"
        sleep 15
        rm -rf "$v"/lists/* && mkdir -p "$v/lists/partial"
    done
}

# A minimal Debian, then one large package after another until the volume is full.
record_debootstrap() {
    sleep 40
    debootstrap --variant=minbase bookworm "$v/root" "$mirror"
    sleep 20
    for package in gcc g++ git python3-numpy openjdk-17-jre-headless llvm-14 golang-go texlive-base; do
        is_full && break
        chroot "$v/root" apt-get install -y --no-install-recommends "$package"
        sleep 8
    done
}

# The same packages again and again: unpack, replace, remove the old files.
record_dpkg_reinstall() {
    mkdir -p "$v/root" "$v/debs"
    (cd "$v/debs" && apt-get download git perl-modules-5.36 libperl5.36 vim-runtime python3.11-minimal)
    for _ in 1 2 3 4 5 6; do
        sleep 25
        for deb in "$v"/debs/*.deb; do dpkg --root="$v/root" --force-all --unpack "$deb"; done
    done
}

# Layers of an image: unpack, change, archive, compress, remove what is intermediate.
record_image_build() {
    sleep 30
    debootstrap --variant=minbase bookworm "$v/base" "$mirror"
    for n in $(seq 12); do
        is_full && break
        sleep 12
        cp -a "$v/base" "$v/layer" || break
        head -c $((n * 4000000)) /dev/urandom >"$v/layer/app"
        tar -C "$v/layer" -cf "$v/layer.tar" . || break
        mksquashfs "$v/layer" "$v/image-$n.sqfs" -comp lz4 -processors 1 -quiet || break
        rm -rf "$v/layer" "$v/layer.tar"
    done
}

# Backups of data of which a part changes, without ever forgetting one.
record_restic() {
    export RESTIC_PASSWORD=x RESTIC_CACHE_DIR=$work/restic-cache
    mkdir -p "$work/source"
    head -c 150000000 /dev/urandom >"$work/source/0"
    restic -q init -r "$v/repo"
    for n in $(seq 40); do
        is_full && break
        restic -q backup -r "$v/repo" "$work/source" || break
        head -c $((20000000 + n % 5 * 9000000)) /dev/urandom >"$work/source/$((n % 6))"
        sleep 14
    done
    rm -rf "$work/source" "$RESTIC_CACHE_DIR"
}

# Backups that are pruned, so that the repository reaches a plateau.
record_borg() {
    export BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes BORG_BASE_DIR=$work/borg
    mkdir -p "$work/source"
    borg init -e none "$v/repo"
    for n in $(seq 22); do
        head -c $((30000000 + n % 4 * 10000000)) /dev/urandom >"$work/source/$((n % 3))"
        borg create "$v/repo::$n" "$work/source"
        borg prune --keep-last 3 "$v/repo" && borg compact "$v/repo"
        sleep 12
    done
    rm -rf "$work/source" "$BORG_BASE_DIR"
}

# Commits of changed files, and a full repack after every sixth.
record_git_gc() {
    git init -q "$v/repo"
    cd "$v/repo" || return
    git config user.name x && git config user.email x && git config gc.auto 0
    sleep 20
    for n in $(seq 200); do
        { is_full || lasted 600; } && break
        for f in 1 2 3; do head -c $((3000000 + n * 20000)) /dev/urandom | base64 >"file$((n % 9))-$f"; done
        git add -A && git commit -qm "$n" || break
        [ $((n % 6)) -eq 0 ] && git repack -adfq --window=2
        sleep 2.5
    done
    cd /
}

postgres_start() {
    install -d -o postgres "$v/pg"
    local bin=/usr/lib/postgresql/15/bin
    setpriv --reuid=postgres --regid=postgres --clear-groups "$bin/initdb" -D "$v/pg" -A trust
    serve setpriv --reuid=postgres --regid=postgres --clear-groups "$bin/postgres" -D "$v/pg" \
        -c listen_addresses= -c unix_socket_directories=/tmp -c port=54399 \
        -c max_wal_size=96MB -c min_wal_size=32MB -c autovacuum=off
    sql() { psql -h /tmp -p 54399 -U postgres -qc "$1" postgres; }
    await sql "select 1"
}

# A table that swells by updates, rewritten by VACUUM FULL until there is no room for the copy.
record_vacuum_full() {
    postgres_start
    sleep 20
    sql "create table t as select g, repeat(md5(g::text), 8) s from generate_series(1, 150000) g"
    for n in $(seq 60); do
        { is_full || lasted 900; } && break
        sql "update t set s = s where g % 4 = $n % 4" || break
        sql "insert into t select g, repeat(md5(g::text), 8) from generate_series(1, 9000) g"
        sleep 5
        [ $((n % 8)) -ne 0 ] || sql "vacuum full t" || break
    done
}

# Inserts and deletes: the table stays the same, its binary logs grow; they are purged, later no more.
record_mariadb_binlog() {
    mariadb-install-db --no-defaults --user=mysql --datadir="$v/my" --auth-root-authentication-method=normal
    serve mariadbd --no-defaults --user=mysql --datadir="$v/my" --socket=/tmp/record.sock \
        --pid-file="$work/my.pid" --skip-networking --log-bin=bin --max-binlog-size=16M \
        --innodb-log-file-size=16M
    sql() { mariadb --no-defaults -u root -S /tmp/record.sock -e "$1"; }
    await sql "select 1"
    sql "create database d; create table d.t (k int auto_increment primary key, s longblob)"
    for n in $(seq 900); do
        is_full && break
        sql "insert into d.t (s) values (repeat(md5(rand()), 40000)), (repeat(md5(rand()), 30000)); delete from d.t where k % 3 = 0" || break
        [ $((n % 60)) -ne 0 ] || [ "$n" -gt 200 ] || sql "flush binary logs; purge binary logs before now()"
        sleep 0.6
    done
}

# Prometheus scraping itself often, with blocks of two minutes: a write-ahead log, heads and compactions.
record_prometheus() {
    {
        echo "global: {scrape_interval: 1s}"
        echo "scrape_configs:"
        for n in $(seq 120); do
            echo "- {job_name: j$n, static_configs: [{targets: ['127.0.0.1:59390']}]}"
        done
    } >"$work/prometheus.yml"
    serve prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$v/data" \
        --web.listen-address=127.0.0.1:59390 --storage.tsdb.min-block-duration=1m \
        --storage.tsdb.max-block-duration=9m --storage.tsdb.wal-segment-size=10MB
    until lasted 780 || is_full; do sleep 2; done
}

# Encoding in real time: a nearly constant bit rate.
record_ffmpeg() {
    sleep 45
    ffmpeg -v error -re -f lavfi -i "testsrc2=s=640x360:r=25,noise=c0s=60:c0f=t:c1s=60:c1f=t:c2s=60:c2f=t" -c:v mjpeg -q:v 3 "$v/out.avi"
}

# A service that logs, and logrotate that compresses and keeps three.
record_logrotate() {
    mkdir -p "$v/log"
    echo "$v/log/a.log { size 20M
        rotate 3
        compress
        nocreate
        copytruncate
    }" >"$work/rotate.conf"
    until lasted 420; do
        for n in 1 2 3 4 5; do
            head -c $((400000 + RANDOM * 20)) /dev/urandom | base64 >>"$v/log/a.log"
            sleep 0.9
        done
        logrotate -s "$work/rotate.state" "$work/rotate.conf"
    done
}

# Debug builds of this workspace's model, each with other flags, so that nothing is reused.
record_cargo_target() {
    sleep 30
    for n in 0 1 2; do
        { is_full || lasted 600; } && break
        (cd "$repository" && RUSTFLAGS="-C opt-level=$n" CARGO_TARGET_DIR=$v/target-$n \
            cargo test -j1 --no-run -p tracer-model) || break
        sleep 30
    done
}

# Packages for a few projects, with npm's cache beside them.
record_npm() {
    export npm_config_cache=$v/cache
    sleep 30
    for package in typescript webpack eslint next @angular/cli gatsby; do
        is_full && break
        mkdir -p "$v/$package"
        (cd "$v/$package" && npm install --no-audit --no-fund --ignore-scripts "$package")
        sleep 20
    done
}

# RocksDB with universal compaction at a limited rate.
record_rocksdb_universal() {
    sleep 25
    db_bench --benchmarks=overwrite --db="$v/db" --num=3000000 --value_size=400 --compaction_style=1 \
        --benchmark_write_rate_limit=4000000 --write_buffer_size=8000000 --compression_type=none --duration=700
}

# RocksDB that keeps all its write-ahead logs, and overwrites few keys.
record_rocksdb_wal() {
    sleep 25
    db_bench --benchmarks=overwrite --db="$v/db" --num=60000 --value_size=1000 --wal_ttl_seconds=100000 \
        --benchmark_write_rate_limit=3000000 --write_buffer_size=16000000 --compression_type=none --duration=700
}

# Inserts into SQLite, deletions of half the rows, VACUUM through a temporary copy on the volume.
record_sqlite_vacuum() {
    export SQLITE_TMPDIR=$v
    sqlite3 "$v/db" "pragma journal_mode=wal; create table t (k integer primary key, s blob)"
    for n in $(seq 200); do
        { is_full || lasted 700; } && break
        sqlite3 "$v/db" "insert into t (s) select randomblob(1000) from generate_series(1, 6000)" || break
        if [ $((n % 25)) -eq 0 ]; then sqlite3 "$v/db" "delete from t where k % 3 = 0; vacuum" || break; fi
        sleep 1.5
    done
}

# A compiler's cache up to its cap.
record_ccache() {
    export CCACHE_DIR=$v/cache
    ccache -M 60M
    for n in $(seq 1500); do
        lasted 420 && break
        { echo "static const unsigned char data[] = {"; od -An -v -tu1 -w20 -N 40000 /dev/urandom | sed 's/ \+/,/g; s/^,//; s/$/,/'
          echo "}; int f$n(int i) { return data[i]; }"; } >"$work/a.c"
        ccache gcc -c -O1 "$work/a.c" -o "$work/a.o"
        sleep 0.15
    done
}

# An archive of a tree every 40 s, none removed.
record_tar_schedule() {
    for n in $(seq 100); do
        sleep $((40 - (SECONDS - began) % 40))
        is_full && break
        tar -C /usr -cf "$v/$n.tar" include share/perl share/i18n || break
    done
}

declare -A size=(
    [apt-index]="2G ext4" [debootstrap]="1500M ext4" [dpkg-reinstall]="1G xfs" [image-build]="2G ext4"
    [restic]="1G xfs" [borg]="800M ext4" [git-gc]="900M ext4" [vacuum-full]="900M ext4"
    [mariadb-binlog]="900M xfs" [prometheus]="300M ext4" [ffmpeg]="400M ext4" [logrotate]="600M ext4"
    [cargo-target]="1500M btrfs" [npm]="900M ext4" [rocksdb-universal]="1G xfs"
    [rocksdb-wal]="800M ext4" [sqlite-vacuum]="500M ext4" [ccache]="400M btrfs" [tar-schedule]="1G btrfs"
)
for name in "$@"; do
    # shellcheck disable=SC2086 # two words
    record "$name" ${size[$name]}
done
