//! Going back to moments of a database that is followed while everybody writes to it.

use reinstate_testkit::cluster::PostgresCluster;

use super::{Running, Shell};

/// Starts to follow the database; returns once there is a snapshot to go on from.
pub fn follow(shell: &Shell) -> Running {
    let follower = shell.spawn(
        "reinstate capture follow --every 1 & echo $! > follower; wait $! || test $? -eq 130",
    );
    shell.run("until reinstate snapshots --json | grep -q taken_at; do sleep 0.2; done");
    follower
}

/// Stops it, as a terminal would.
pub fn stop(shell: &Shell, follower: Running) {
    shell.run("kill -s INT $(cat follower)");
    follower.wait();
}

/// Lets a second and a half pass, and returns the time one second before that ended: what was
/// committed before the call lies before it.
pub fn one_second_before(cluster: &PostgresCluster, database: &str) -> String {
    let sql = "SELECT pg_sleep(1.5);
               SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC' - interval '1 second',
                              'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    let moment = cluster.psql(database, sql).expect("the time");
    moment.trim().to_owned()
}

/// Restores a tenant to a time. Until the log has that time, this is refused by name.
#[track_caller]
pub fn restore_to_time(shell: &Shell, tenant: &str, time: &str) -> String {
    shell.run(&format!(
        "for i in $(seq 100); do \
           if reinstate restore {tenant} --at {time} --confirm {tenant} > said 2>&1; then break; \
           else code=$?; test $code -eq 7 || {{ cat said; exit $code; }}; sleep 0.3; fi; \
         done; cat said"
    ))
}

/// Restores a tenant to just before the last transaction that wrote to it, once the log has come to
/// that: the one that removed its rows, as many as have so many digits. Others remove a few.
#[track_caller]
pub fn restore_to_before_removal(shell: &Shell, tenant: &str, digits: usize) -> String {
    shell.run(&format!(
        "for i in $(seq 100); do \
           position=$(reinstate diff {tenant}@latest live --json \
             | grep '\"type\":\"transaction\"' | tail -1 \
             | grep -E '\"removed\":[0-9]{{{digits}}}' | sed 's/.*\"position\":\"\\([^\"]*\\)\".*/\\1/' || true); \
           if test -n \"$position\"; then break; fi; sleep 0.3; \
         done; \
         reinstate restore {tenant} --at \"$position\" --exclusive --confirm {tenant}"
    ))
}
