//! A standby that is promoted, and copies of a server: the log ends there, and what the store never came to
//! is refused by name.

use reinstate_testkit::cluster::{ClusterOptions, Mode, PostgresCluster};

use crate::sandbox::{Run, Sandbox};

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

/// A server with a log of it, and how to follow it.
fn followed() -> (PostgresCluster, Sandbox) {
    followed_with(&ClusterOptions::fast())
}

fn followed_with(options: &ClusterOptions) -> (PostgresCluster, Sandbox) {
    let primary = PostgresCluster::start(options).unwrap();
    let tables = "CREATE TABLE notes (id serial PRIMARY KEY, account_id int, note text);
                  ALTER TABLE notes REPLICA IDENTITY FULL";
    primary.psql("postgres", tables).unwrap();
    let sandbox = Sandbox::empty();
    configure(&sandbox, &primary);
    sandbox.run(&["init"]).done(&[]);
    note(&primary, "a");
    follow(&sandbox).done(&["captured"]);
    (primary, sandbox)
}

fn follow(sandbox: &Sandbox) -> Run {
    sandbox.run(&["capture", "follow", "--once"])
}

/// The log ends here and says so, more than once; a new one begins behind a gap, and nobody goes back to what
/// was committed in it.
fn ends(sandbox: &Sandbox, cluster: &PostgresCluster, says: &[&str], in_the_gap: &str) {
    let rows = notes(cluster);
    for _ in 0..2 {
        let ended = follow(sandbox);
        ended.refused(7, &["ENDS here", "--new-base"]);
        ended.refused(7, says);
    }
    let begun = sandbox.run(&["capture", "follow", "--once", "--new-base"]);
    begun.done(&["captured"]);
    let restore =
        |at: &str| sandbox.run(&["restore", "account:1", "--at", at, "--confirm", "account:1"]);
    restore(in_the_gap).refused(7, &[]);
    assert_eq!(notes(cluster), rows);
    let then = note(cluster, "y");
    note(cluster, "z");
    follow(sandbox).done(&["sealed"]);
    restore(&then).done(&["restored"]);
    assert_eq!(notes(cluster), format!("{rows} y"));
    sandbox.run(&["window"]).done(&["gap"]);
    sandbox.run(&["verify"]).done(&["intact"]);
}

/// A promoted standby has the slot where somebody copied it along: its timeline tells.
#[test]
fn a_slot_that_was_carried_to_another_timeline_does_not_bridge_the_gap() {
    let (primary, sandbox) = followed();
    let options = ClusterOptions::fast();
    note(&primary, "b");
    follow(&sandbox).done(&["sealed"]);
    let mut standby = primary.standby(&options).unwrap();
    standby.stop(Mode::Fast).unwrap();
    standby.take_slots_of(&primary).unwrap();
    standby.restart().unwrap();
    standby.promote().unwrap();
    configure(&sandbox, &standby);
    let in_the_gap = note(&standby, "c");
    note(&standby, "d");
    let slots = "SELECT count(*) FROM pg_replication_slots";
    assert_eq!(standby.psql("postgres", slots).unwrap(), "1");
    ends(
        &sandbox,
        &standby,
        &["written on timeline 1", "on timeline 2 now"],
        &in_the_gap,
    );
}

/// A copy of a server's files has the same slot on the same timeline, and the same places of its log stand for
/// other transactions.
#[test]
fn a_slot_of_a_copy_that_went_on_by_itself_does_not_bridge_the_gap() {
    for acknowledged_behind in [false, true] {
        let (mut primary, sandbox) = followed();
        let options = ClusterOptions::fast();
        note(&primary, "b");
        follow(&sandbox).done(&["sealed"]);
        primary.stop(Mode::Fast).unwrap();
        let copy = primary.copy(&options).unwrap();
        primary.restart().unwrap();
        // The copy goes on as the server does, or by itself at once.
        note(&primary, "lost");
        if acknowledged_behind {
            note(&primary, "lost too");
        }
        follow(&sandbox).done(&["sealed"]);
        primary.kill_nine().unwrap();
        configure(&sandbox, &copy);
        let mut in_the_gap = String::new();
        for number in 0..60 {
            let then = note(&copy, &format!("c{number}"));
            if number == 40 {
                in_the_gap = then;
            }
        }
        ends(
            &sandbox,
            &copy,
            &["it is a copy of the server that was followed"],
            &in_the_gap,
        );
    }
}

/// One that was killed before it heard of what was written down is the same one all the same.
#[test]
fn a_server_that_forgot_an_acknowledgement_in_a_crash_is_followed_on() {
    let (mut primary, sandbox) = followed();
    for round in 0..3 {
        note(&primary, &format!("b{round}"));
        follow(&sandbox).done(&["sealed"]);
        primary.kill_nine().unwrap();
        primary.restart().unwrap();
    }
    let then = note(&primary, "c");
    note(&primary, "d");
    follow(&sandbox).done(&["sealed"]);
    let restore = [
        "restore",
        "account:1",
        "--at",
        &then,
        "--confirm",
        "account:1",
    ];
    sandbox.run(&restore).done(&["restored"]);
    assert_eq!(notes(&primary), "a b0 b1 b2 c");
    sandbox.run(&["status"]).done(&["published through"]);
}

/// A server that threw away log which was not read yet.
#[test]
fn a_slot_that_the_server_gave_up_is_said_and_ends_the_log() {
    let options = ClusterOptions::fast()
        .with("max_slot_wal_keep_size", "16MB")
        .with("min_wal_size", "32MB")
        .with("max_wal_size", "32MB")
        .with("wal_keep_size", "0");
    let (cluster, sandbox) = followed_with(&options);
    note(&cluster, "b");
    follow(&sandbox).done(&["sealed"]);
    sandbox.run(&["status"]).done(&["published through"]);
    let in_the_gap = note(&cluster, "c");
    let lost = "SELECT count(*) FROM pg_replication_slots WHERE wal_status = 'lost'";
    while cluster.psql("postgres", lost).unwrap() == "0" {
        let fill = "CREATE TABLE fill AS SELECT repeat('x', 1000) FROM generate_series(1, 9000);
                    DROP TABLE fill; SELECT pg_switch_wal(); CHECKPOINT";
        cluster.psql("postgres", fill).unwrap();
    }
    let status = sandbox.run(&["status"]);
    assert_eq!(status.code, 7, "{status:?}");
    assert!(status.stderr.contains("LOST"), "{status:?}");
    ends(&sandbox, &cluster, &["max_slot_wal_keep_size"], &in_the_gap);
    sandbox.run(&["status"]).done(&["published through"]);
}
