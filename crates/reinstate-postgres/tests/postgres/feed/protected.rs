//! The connection that replicates is protected as every other: by TLS and a password.

use std::process::Command;

use reinstate_core::{ErrorKind, FeedSource};
use reinstate_testkit::cluster::{ClusterOptions, Mode, PostgresCluster};

use super::{FULL, Follower, SNAPSHOT};
use crate::ground::open_store;

/// A free port, as far as one can know.
fn port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn a_feed_goes_over_tls_with_a_password() {
    let port = port();
    let options = ClusterOptions::fast()
        .with("listen_addresses", "127.0.0.1")
        .with("port", &port.to_string());
    let mut cluster = PostgresCluster::start(&options).unwrap();
    let run = |cluster: &PostgresCluster, sql: &str| {
        let mut command = cluster.command("psql").unwrap();
        command.env("PGPORT", port.to_string());
        let output = command
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-d",
                "postgres",
                "-c",
                sql,
            ])
            .output()
            .unwrap();
        assert!(output.status.success(), "{sql}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let data = cluster.socket_dir().join("data");
    let (key, certificate) = (data.join("server.key"), data.join("server.crt"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-new",
            "-x509",
            "-days",
            "2",
            "-nodes",
            "-subj",
            "/CN=localhost",
        ])
        .args(["-addext", "subjectAltName=DNS:localhost", "-newkey", "ec"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout"])
        .args([&key, std::path::Path::new("-out"), &certificate])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let owner = std::fs::metadata(&data).unwrap();
    std::os::unix::fs::chown(
        &key,
        Some(std::os::unix::fs::MetadataExt::uid(&owner)),
        None,
    )
    .unwrap();
    run(
        &cluster,
        "CREATE ROLE guest SUPERUSER LOGIN PASSWORD 'gu est'",
    );
    run(
        &cluster,
        "CREATE TABLE t (id int PRIMARY KEY, account_id int)",
    );
    run(&cluster, FULL);
    run(&cluster, "ALTER SYSTEM SET ssl = on");
    cluster.stop(Mode::Fast).unwrap();
    std::fs::write(
        data.join("pg_hba.conf"),
        "local all all trust\nhostssl all guest 127.0.0.1/32 scram-sha-256\n",
    )
    .unwrap();
    cluster.restart().unwrap();
    let url = |password: &str, mode: &str| {
        let root = certificate.to_string_lossy().into_owned();
        format!(
            "postgres://guest:{password}@localhost:{port}/postgres?sslmode={mode}&sslrootcert={root}"
        )
    };
    let store = open_store(&url("gu%20est", "verify-full"), |_| {});
    let mut follower = Follower::begin(&store);
    run(
        &cluster,
        "INSERT INTO t SELECT n, n % 3 FROM generate_series(1, 50000) n; DELETE FROM t WHERE id % 2 = 0",
    );
    follower.follow(&store).unwrap();
    follower.expect_live(&store);
    let through = "SELECT string_agg(DISTINCT ssl::text, '') FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)";
    let feed = follower.resume(&store);
    assert_eq!(run(&cluster, through).trim(), "true");
    drop(feed);
    store.end_feed(SNAPSHOT).unwrap();
    assert_eq!(
        store
            .resume_feed(SNAPSHOT, follower.at)
            .map(drop)
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
}
