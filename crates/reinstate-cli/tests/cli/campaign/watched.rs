//! Campaigns while they run, what refers across stores, and the journal itself.

use std::fs;
use std::process::{Child, Stdio};

use serde_json::Value;

use super::TWO;
use super::ground::Ground;
use crate::sandbox::finished;

#[test]
fn a_campaign_is_paused_from_outside_and_only_one_runs_at_a_time() {
    let tool = env!("CARGO_BIN_EXE_reinstate");
    // The second site's gate tries to run the campaign that it is part of, and then pauses it.
    let gate = format!(
        "if test {{site}} = 5 && ! test -e paused; then touch paused; c=$(cat campaign); \
         {tool} campaign run $c; echo $? > locked; {tool} campaign pause $c --as ops; fi"
    );
    let estate =
        format!("[[gate]]\nname = \"g\"\nphase = 1\ncommand = [\"sh\", \"-c\", '''{gate}''']\n");
    let ground = Ground::new(&TWO, &estate);
    let before = ground.contents();
    ground.destroy(&[3, 5, 7, 9, 11]);
    let campaign = ground.approved(&[3, 5, 7, 9, 11], &[]);
    fs::write(ground.sandbox.path("campaign"), &campaign).unwrap();
    let run = ground.run(&["campaign", "run", &campaign]);
    run.refused(75, &["was paused by somebody", "reinstate campaign resume"]);
    let locked = fs::read_to_string(ground.sandbox.path("locked")).unwrap();
    assert_eq!(locked.trim(), "11");
    let run = ["campaign", "run", &campaign];
    ground.run(&run).refused(6, &["it is paused"]);
    let status = ground.sandbox.json(&["campaign", "status"]);
    assert_eq!(status.record("campaign")["stage"], "paused");
    assert_ne!(ground.contents(), before);
    let resume = ["campaign", "resume", &campaign];
    ground.run(&resume).done(&["5 handed back"]);
    assert_eq!(ground.contents(), before);
    let pause = ["campaign", "pause", &campaign];
    ground.run(&pause).refused(6, &["it is over"]);
}

#[test]
fn how_fast_a_store_may_be_written_to_is_changed_while_a_campaign_runs() {
    let ground = Ground::new(&TWO, "");
    let path = ground.sandbox.path("estate.toml");
    let text = fs::read_to_string(&path).unwrap();
    let limited = "name = \"orders\"\nrows_per_second = 1000000";
    fs::write(&path, text.replace("name = \"orders\"", limited)).unwrap();
    ground.destroy(&[3, 5, 7, 9, 11]);
    let campaign = ground.approved(&[3, 5, 7, 9, 11], &[]);
    let pace = |more: &[&str]| ground.run(&[&["campaign", "pace", &campaign], more].concat());
    pace(&[]).done(&["sites  as fast as it can", "orders  1,000,000 rows/s"]);
    let cap = ["--rows-per-second", "1"];
    pace(&[&["--store", "nowhere"], &cap[..]].concat())
        .refused(2, &["no store \"nowhere\"", "sites, orders"]);
    pace(&[&["--store", "sites"], &cap[..]].concat()).done(&["sites  1 rows/s"]);
    // At a row a second this would take minutes.
    let run = ["--json", "campaign", "run", &campaign];
    let run = [&run[..], &["--latency-max", "1h"]].concat();
    let mut killed = begin(&ground, &run);
    let at_work = |child: &Child| {
        loop {
            let status = ground.sandbox.json(&["campaign", "status", &campaign]);
            let progress = status.record("progress");
            // It gives signs of life a little before its journal says that it began.
            if progress["process"] == child.id() && progress["stage"] == "running" {
                return progress;
            }
        }
    };
    let progress = at_work(&killed);
    assert_eq!(progress["stores"][0]["rows_per_second_max"], 1);
    assert_eq!(progress["silent_seconds"], Value::Null);
    killed.kill().unwrap();
    killed.wait().unwrap();
    // What it left says nothing of the present for long.
    let signs = ground.sandbox.path("campaigns/running");
    let signs = fs::read_dir(signs).unwrap().next().unwrap().unwrap().path();
    let mut left: Value = serde_json::from_slice(&fs::read(&signs).unwrap()).unwrap();
    left["at"] = 0.into();
    fs::write(&signs, left.to_string()).unwrap();
    let status = ground.run(&["campaign", "status", &campaign]);
    status.done(&["NOT HEARD OF FOR", "reinstate campaign resume"]);
    let child = begin(&ground, &run);
    at_work(&child);
    pace(&["--store", "sites", "--rows-per-second", "none"]).done(&["sites  slower above"]);
    let watched = ground.run(&["campaign", "status", "--watch"]);
    watched.done(&["finished: 5 of 5 handed back; rows "]);
    let run = finished(child);
    run.done(&[]);
    assert!(!signs.exists(), "signs of life of nobody");
    let status = ground.sandbox.json(&["campaign", "status", &campaign]);
    let progress = status.record("progress");
    for what in ["rows", "bytes"] {
        let (done, planned) = (format!("{what}_done"), format!("{what}_planned"));
        assert_eq!(progress[&done], progress[&planned]);
        assert_ne!(progress[&done], 0);
    }
    let mut paces = run.records();
    paces.retain(|record| record["type"] == "pace");
    assert_eq!(paces.len(), 2, "{paces:#?}");
    assert_eq!(paces[0]["store"], "sites");
    // What was waited is less than the limit that was lifted would have asked for.
    let (rows, waited) = (&paces[0]["rows"], &paces[0]["waited_seconds"]);
    let limited = rows.as_f64().unwrap() * 0.8 - 100.0;
    assert!(waited.as_f64().unwrap() < limited, "{paces:#?}");
    assert!(paces[1]["probes"].as_u64().unwrap() > 0, "{paces:#?}");
    let mut said = ground
        .sandbox
        .json(&["campaign", "audit", &campaign])
        .records();
    said.retain(|entry| entry["event"] == "paced");
    let said: Vec<_> = said
        .iter()
        .map(|entry| entry["detail"].as_str().unwrap())
        .collect();
    let expected = [
        "rows_per_second=1",
        "rows_per_second=1 latency_max_us=3600000000",
        "rows_per_second=1000000 latency_max_us=3600000000",
        "latency_max_us=3600000000",
    ];
    assert_eq!(said, expected);
    pace(&cap).refused(6, &["it is over"]);
}

fn begin(ground: &Ground, arguments: &[&str]) -> Child {
    let mut command = ground.sandbox.command();
    command.args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn references_across_stores_are_followed() {
    let link = |column: &str| {
        format!(
            "[[link]]\nfrom = {{ store = \"orders\", table = \"issues\", column = \"{column}\" }}\n\
             to = {{ store = \"orders\", table = \"projects\", column = \"id\" }}\n"
        )
    };
    let ground = Ground::new(&TWO, &link("project_id"));
    ground.destroy(&[3]);
    let campaign = ground.approved(&[3], &[]);
    let run = ["campaign", "run", &campaign];
    ground.run(&run).done(&["1 handed back"]);
    let audit = ground.sandbox.json(&["campaign", "audit", &campaign]);
    let records = audit.records();
    let mut gates = records
        .iter()
        .filter(|entry| entry["gate"] == "references, phase 2");
    let detail = gates.next().unwrap()["detail"].as_str().unwrap();
    assert!(detail.ends_with("1 across"), "{detail}");
    assert!(!detail.starts_with('0'), "{detail}");
    // Not every issue has the id of a project.
    let ground = Ground::new(&TWO, &link("id"));
    ground.destroy(&[3]);
    let campaign = ground.approved(&[3], &[]);
    let run = ground.run(&["campaign", "run", &campaign]);
    run.refused(3, &["1 parked"]);
    let says = "gate references, phase 2: issues.id of store orders refers to rows of projects in \
                store orders that are not there";
    assert!(run.stdout.contains(says), "{run:#?}");
}

#[test]
fn a_record_that_was_taken_out_of_the_journal_is_missed() {
    let ground = Ground::new(&TWO, "");
    ground.destroy(&[3]);
    let campaign = ground.approved(&[3], &[]);
    let run = ["campaign", "run", &campaign];
    ground.run(&run).done(&[]);
    let audit = ["campaign", "audit", &campaign];
    ground.run(&audit).done(&["head b3:"]);
    let records = ground.sandbox.path("campaigns/records/campaign-log");
    let records = fs::read_dir(records).unwrap();
    let mut paths: Vec<_> = records.map(|file| file.unwrap().path()).collect();
    paths.sort_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    // Who approved it.
    fs::remove_file(&paths[1]).unwrap();
    let says = ["follow nothing that is here"];
    ground.run(&audit).refused(4, &says);
    ground.run(&run).refused(4, &says);
}

#[test]
fn what_another_campaign_has_by_now_is_not_gone_on_with() {
    let gate =
        "[[gate]]\nname = \"checked\"\nphase = 1\ncommand = [\"test\", \"-e\", \"checked\"]\n";
    let ground = Ground::new(&TWO, gate);
    let before = ground.contents();
    ground.destroy(&[3]);
    let (campaign, digest) = ground.plan(&[3], &[]);
    ground.approve(&(campaign.clone(), digest.clone()));
    ground
        .run(&["campaign", "run", &campaign])
        .refused(3, &["1 parked"]);
    let (other, _) = ground.plan(&[3], &[]);
    let half = ground.contents();
    let is_there = format!("account:3 is in campaign {other}, which is not over");
    let resume = ["campaign", "resume", &campaign, "--retry-parked"];
    ground.run(&resume).refused(11, &[&is_there]);
    let undo = ["campaign", "abort", &campaign, "--undo"];
    let undo = [&undo[..], &["--confirm-digest", &digest]].concat();
    ground.run(&undo).refused(11, &[&is_there]);
    assert_eq!(ground.contents(), half);
    ground
        .run(&["campaign", "abort", &other])
        .done(&["aborted"]);
    fs::write(ground.sandbox.path("checked"), "").unwrap();
    ground.run(&resume).done(&["1 handed back"]);
    assert_eq!(ground.contents(), before);
}

#[test]
fn a_program_that_leaves_another_behind_is_not_waited_for() {
    // In a session of its own, and with the output of the gate still open.
    let left = "for _ in $(seq 600); do test -e over && exit; sleep 0.1; done; touch waited";
    let gate = format!("setsid sh -c '{left}' & echo said; exit 0");
    let estate = format!(
        "[[gate]]\nname = \"g\"\nphase = 1\ncommand = [\"sh\", \"-c\", \"\"\"{gate}\"\"\"]\n"
    );
    let ground = Ground::new(&TWO, &estate);
    ground.destroy(&[3]);
    let campaign = ground.approved(&[3], &[]);
    let run = ground.run(&["campaign", "run", &campaign]);
    fs::write(ground.sandbox.path("over"), "").unwrap();
    run.done(&["1 handed back"]);
    assert!(!ground.sandbox.path("waited").exists());
    let audit = ground.sandbox.json(&["campaign", "audit", &campaign]);
    let records = audit.records();
    let mut gates = records.iter().filter(|entry| entry["gate"] == "g");
    assert_eq!(gates.next().unwrap()["detail"], "said");
}

#[test]
fn a_site_that_is_accepted_while_others_are_opened_is_opened_as_well() {
    let tool = env!("CARGO_BIN_EXE_reinstate");
    let accept = format!(
        "test {{site}} != 5 || {tool} campaign accept $(cat campaign) account:3 --as customer"
    );
    let estate = format!(
        "[[gate]]\nname = \"customer\"\nphase = 1\nacceptance = true\n\
         [open]\ncommand = [\"sh\", \"-c\", '''{accept}''']\n"
    );
    let ground = Ground::new(&TWO, &estate);
    let before = ground.contents();
    ground.destroy(&[3, 5]);
    let campaign = ground.approved(&[3, 5], &[]);
    fs::write(ground.sandbox.path("campaign"), &campaign).unwrap();
    let run = ground.run(&["campaign", "run", &campaign]);
    run.refused(75, &["0 of 2 sites handed back, 0 parked, and 2 wait"]);
    let accept = [
        "campaign",
        "accept",
        &campaign,
        "account:5",
        "--as",
        "customer",
    ];
    ground.run(&accept).done(&["accepted"]);
    let resume = ["campaign", "resume", &campaign];
    ground.run(&resume).done(&["2 handed back"]);
    assert_eq!(ground.contents(), before);
}
