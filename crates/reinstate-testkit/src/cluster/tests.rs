//! The harness keeps its promises, a killed test process included.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::*;

/// Set in the process that `a_killed_test_process_leaves_nothing_behind` starts and kills.
const ROLE: &str = "REINSTATE_CLUSTER_TEST_ROLE";

#[track_caller]
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn server_process(directory: &Path) -> String {
    let status = std::fs::read_to_string(directory.join("data/postmaster.pid")).unwrap();
    status.lines().next().unwrap().to_owned()
}

fn is_running(process: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.contains("(postgres)") && !stat.contains(") Z ")
}

#[test]
fn two_clusters_run_side_by_side_and_leave_nothing_behind() {
    let first = PostgresCluster::start(&ClusterOptions::fast()).unwrap();
    let second = PostgresCluster::start(&ClusterOptions::fast().with("work_mem", "5MB")).unwrap();
    first.create_database("it's \"mine\"").unwrap();
    first
        .psql(
            "it's \"mine\"",
            "CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2)",
        )
        .unwrap();
    let rows = first.psql("it's \"mine\"", "SELECT a, NULL, 'x' FROM t ORDER BY a");
    assert_eq!(rows.unwrap(), "1||x\n2||x");
    let setting = |name: &str| second.psql("postgres", &format!("SHOW {name}")).unwrap();
    assert_eq!(setting("wal_level"), "logical");
    assert_eq!(setting("listen_addresses"), "");
    assert_eq!(setting("server_encoding"), "UTF8");
    assert_eq!(setting("lc_collate"), "C.UTF-8");
    assert_eq!(setting("work_mem"), "5MB");
    let version = second.run("pgbench", &["--version"]).unwrap();
    assert!(version.starts_with("pgbench"), "{version}");

    let directories = [&first, &second].map(|cluster| cluster.socket_dir().to_path_buf());
    let processes = directories
        .clone()
        .map(|directory| server_process(&directory));
    for directory in &directories {
        assert_ne!(directory.metadata().unwrap().uid(), 0);
    }
    assert!(processes.iter().all(|process| is_running(process)));
    drop(first);
    let _ = std::panic::catch_unwind(move || {
        let _second = second;
        std::panic::resume_unwind(Box::new("a test that fails"));
    });
    assert!(!processes.iter().any(|process| is_running(process)));
    assert!(!directories.iter().any(|directory| directory.exists()));
}

#[test]
fn committed_rows_survive_kill_nine_and_the_address_stays() {
    let mut cluster = PostgresCluster::start(&ClusterOptions::default()).unwrap();
    let url = cluster.url("postgres");
    assert_eq!(cluster.psql("postgres", "SHOW fsync").unwrap(), "on");
    type Stop = fn(&mut PostgresCluster) -> Result<(), ClusterError>;
    let stops: [Stop; 3] = [
        PostgresCluster::kill_nine,
        |cluster| cluster.stop(Mode::Immediate),
        |cluster| cluster.stop(Mode::Fast),
    ];
    for (number, stop) in stops.into_iter().enumerate() {
        let sql = format!("CREATE TABLE t_{number} AS SELECT 1");
        cluster.psql("postgres", &sql).unwrap();
        let process = server_process(cluster.socket_dir());
        stop(&mut cluster).unwrap();
        assert!(!is_running(&process));
        assert!(cluster.psql("postgres", "SELECT 1").is_err());
        cluster.restart().unwrap();
        let sql = format!("SELECT * FROM t_{number}");
        assert_eq!(cluster.psql("postgres", &sql).unwrap(), "1");
    }
    assert_eq!(cluster.url("postgres"), url);
    assert!(cluster.log().unwrap().contains("redo starts at"));
}

#[test]
fn a_killed_test_process_leaves_nothing_behind() {
    if std::env::var_os(ROLE).is_some() {
        let cluster = shared_cluster().unwrap();
        println!("\ndirectory {}", cluster.socket_dir().display());
        thread::sleep(Duration::from_secs(600));
        unreachable!("the other process kills this one");
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("cluster::tests::a_killed_test_process_leaves_nothing_behind")
        .env(ROLE, "victim")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let directory = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("directory ").map(str::to_owned))
        .unwrap();
    let process = server_process(Path::new(&directory));
    assert!(is_running(&process));
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the server is gone", || !is_running(&process));
    eventually("its files are gone", || !Path::new(&directory).exists());
}

#[test]
fn every_test_has_a_database_of_its_own() {
    let cluster = shared_cluster().unwrap();
    let first = cluster.fresh_database().unwrap();
    let second = cluster.fresh_database().unwrap();
    assert_ne!(first.name(), second.name());
    first.psql("CREATE TABLE only_here ()").unwrap();
    let error = second.psql("SELECT * FROM only_here").unwrap_err();
    assert!(error.to_string().contains("does not exist"), "{error}");
    let name = first.name().to_owned();
    drop(first);
    let count = cluster.psql(
        "postgres",
        &format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'"),
    );
    assert_eq!(count.unwrap(), "0");
}

#[test]
fn a_server_that_will_not_start_says_why() {
    let options = ClusterOptions::fast().with("shared_buffers", "a lot");
    let error = PostgresCluster::start(&options).unwrap_err();
    assert!(error.to_string().contains("shared_buffers"), "{error}");
}

#[test]
fn versions_are_read_from_what_the_server_prints() {
    let major = installation::major_version;
    assert_eq!(
        major("postgres (PostgreSQL) 15.18 (Debian 15.18-0)"),
        Some(15)
    );
    assert_eq!(major("postgres (PostgreSQL) 18beta1"), Some(18));
    assert_eq!(major("something else"), None);
}
