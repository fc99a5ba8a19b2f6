//! A standby that is promoted: the log ends there, and what the store never came to is refused by name.

use reinstate_testkit::cluster::{ClusterOptions, PostgresCluster};

use crate::sandbox::Sandbox;

fn configure(sandbox: &Sandbox, cluster: &PostgresCluster) {
    let url = cluster.url("postgres");
    let text = format!(
        "version = 1\n[repository]\nurl = \"file:repository\"\n\
         [store]\nname = \"main\"\nkind = \"postgres\"\nunguarded = true\nurl = {url:?}\n\
         [tenancy]\nkind = \"account\"\ncolumn = \"account_id\"\n"
    );
    std::fs::write(sandbox.path("reinstate.toml"), text).unwrap();
}

const ESTATE: &str = "version = 1\nname = \"shop\"\nkind = \"account\"\n\
    [repository]\nurl = \"file:campaigns\"\n\
    [[store]]\nname = \"main\"\nconfiguration = \"reinstate.toml\"\nphase = 1\n";

fn note(cluster: &PostgresCluster, note: &str) -> String {
    let sql = format!("INSERT INTO notes (account_id, note) VALUES (1, '{note}')");
    cluster.psql("postgres", &sql).unwrap();
    let position = cluster
        .psql("postgres", "SELECT pg_current_wal_insert_lsn()")
        .unwrap();
    format!("lsn:{position}")
}

fn notes(cluster: &PostgresCluster) -> String {
    let sql = "SELECT string_agg(note, ' ' ORDER BY note) FROM notes WHERE account_id = 1";
    cluster.psql("postgres", sql).unwrap()
}

#[test]
fn a_promoted_standby_ends_the_log_and_what_it_never_had_is_refused_by_name() {
    let options = ClusterOptions::fast();
    let mut primary = PostgresCluster::start(&options).unwrap();
    primary
        .psql(
            "postgres",
            "CREATE TABLE notes (id serial PRIMARY KEY, account_id int, note text);
             ALTER TABLE notes REPLICA IDENTITY FULL",
        )
        .unwrap();
    let sandbox = Sandbox::empty();
    configure(&sandbox, &primary);
    sandbox.run(&["init"]).done(&[]);
    note(&primary, "a");
    let follow = || sandbox.run(&["capture", "follow", "--once"]);
    follow().done(&["captured"]);
    let kept = note(&primary, "b");
    let standby = primary.standby(&options).unwrap();
    note(&primary, "c");
    let reached = primary
        .psql("postgres", "SELECT pg_current_wal_lsn()")
        .unwrap();
    let has_all = format!("SELECT pg_last_wal_replay_lsn() >= '{reached}'");
    while standby.psql("postgres", &has_all).unwrap() != "t" {}
    standby.promote().unwrap();
    // What the old server commits now is in the log, and in no other server.
    let lost = note(&primary, "lost");
    let then =
        "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    let time_of_lost = primary.psql("postgres", then).unwrap();
    note(&primary, "lost too");
    follow().done(&["sealed"]);
    let restore =
        |at: &str| sandbox.run(&["restore", "account:1", "--at", at, "--confirm", "account:1"]);
    restore(&lost).done(&["restored"]);
    primary.kill_nine().unwrap();

    configure(&sandbox, &standby);
    // It has gone on by more than the other one had.
    for number in 0..200 {
        note(&standby, &format!("d{number}"));
    }
    let before = notes(&standby);
    // Nothing goes on from the old log: a new one begins, behind a gap.
    let followed = follow();
    followed.done(&["captured"]);
    assert!(followed.stderr.contains("is in NO log"), "{followed:?}");
    restore(&lost).refused(
        7,
        &[
            "is of timeline 1",
            "left that timeline at lsn:",
            "before it: lsn:",
        ],
    );
    assert_eq!(notes(&standby), before);
    // A campaign names it by its time, and is refused as well.
    std::fs::write(sandbox.path("estate.toml"), ESTATE).unwrap();
    let plan = ["campaign", "plan", "--at", &time_of_lost, "account:1"];
    sandbox
        .run(&plan)
        .refused(7, &["store \"main\"", "is of timeline 1"]);
    // To be looked at it still is.
    let lost_rows = sandbox.run(&["export", &format!("account:1@{lost}")]);
    lost_rows.done(&["\"lost\""]);
    restore(&kept).done(&["restored"]);
    assert_eq!(notes(&standby), "a b");

    let then = note(&standby, "e");
    note(&standby, "f");
    follow().done(&["sealed"]);
    restore(&then).done(&["restored"]);
    assert_eq!(notes(&standby), "a b e");
    sandbox.run(&["window"]).done(&["gap"]);
    sandbox.run(&["verify"]).done(&[]);
}
