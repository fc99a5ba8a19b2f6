//! Campaigns while they run, what refers across stores, and the journal itself.

use std::fs;

use super::TWO;
use super::ground::Ground;

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
