//! Campaigns: many sites over many stores.

mod ground;
mod postgres;
mod statements;
mod taken;
mod watched;

use std::fs;
use std::process::Stdio;

use crate::sandbox::outcome;
use ground::{Ground, id_and_digest};

const TWO: [(&str, u8); 2] = [("sites", 1), ("orders", 2)];

#[test]
fn sites_come_back_in_every_store_and_nobody_else_is_touched() {
    let ground = Ground::new(&TWO, "");
    let before = ground.contents();
    ground.destroy(&[3, 5, 7]);
    let campaign = ground.approved(&[7, 3, 5], &[]);
    let run = ground.run(&["campaign", "run", &campaign]);
    run.done(&["finished", "3 handed back"]);
    assert_eq!(ground.contents(), before);
    // A finished campaign that is run again writes nothing.
    let positions = || {
        ["sites", "orders"].map(|name| {
            use reinstate_core::LiveStore;
            ground.store(name).read_view().unwrap().position()
        })
    };
    let (stand, again) = (positions(), ground.run(&["campaign", "run", &campaign]));
    again.done(&["finished"]);
    assert_eq!(positions(), stand);
    let status = ground.sandbox.json(&["campaign", "status", &campaign]);
    let sites: Vec<_> = status
        .records()
        .into_iter()
        .filter(|record| record["type"] == "site")
        .collect();
    let names: Vec<_> = sites
        .iter()
        .map(|site| site["site"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["account:7", "account:3", "account:5"]);
    for site in &sites {
        assert_eq!(site["state"], "handed_back", "{site}");
        for store in site["stores"].as_array().unwrap() {
            assert_eq!(store["state"], "verified", "{site}");
            assert_eq!(store["rows_changed"], store["rows_planned"], "{site}");
        }
    }
}

#[test]
fn what_cannot_be_restored_is_refused_named_and_written_down() {
    let ground = Ground::new(&TWO, "[campaign]\nsecond_approval_above = 3\n");
    ground.destroy(&[3, 5]);
    let plan =
        |more: &[&str]| ground.run(&[&["campaign", "plan", "--at", "latest"], more].concat());
    fs::write(ground.sandbox.path("none"), "# nobody\n\n").unwrap();
    plan(&["--tenants-from", "none"]).refused(2, &["the list of tenants is empty"]);
    plan(&["account:3", "app:5"]).refused(2, &["1 of 2 ids are not of kind \"account\"", "app:5"]);
    plan(&["account:3", "account:3"]).refused(2, &["account:3 is listed twice"]);
    plan(&["account:3", "account:4"]).refused(2, &["account:4", "nothing to restore"]);
    plan(&["account:3", "account:99"]).refused(8, &["account:99", "store sites"]);
    let commit = ["campaign", "plan", "--at", "commit:1", "account:3"];
    ground.run(&commit).refused(2, &["no positions in common"]);
    let early = ["campaign", "plan", "--at", "2020-01-01T00:00Z", "account:3"];
    ground.run(&early).refused(7, &["store \"sites\""]);
    // A time that one store can go back to and the other cannot, either way around.
    let taken_at = |store: &str| {
        let configuration = format!("{store}.toml");
        let list = ground
            .sandbox
            .json(&["--config", &configuration, "snapshots"]);
        list.record("snapshot")["taken_at"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (first, second) = (taken_at("sites"), taken_at("orders"));
    let at = |at: &str| ground.run(&["campaign", "plan", "--at", at, "account:3"]);
    at(&first).refused(
        7,
        &[
            "store \"orders\"",
            "--nearest-before; see what this one can",
        ],
    );
    at(&second).refused(7, &["store \"sites\""]);
    let nearest = [
        "campaign",
        "plan",
        "--at",
        &second,
        "--nearest-before",
        "account:3",
    ];
    let nearest = ground.sandbox.json(&nearest);
    let planned = nearest.record("campaign_planned");
    assert!(
        planned["spread_seconds"].as_f64().unwrap() > 0.0,
        "{planned}"
    );
    let abort = ["campaign", "abort", planned["campaign"].as_str().unwrap()];
    ground.run(&abort).done(&["aborted"]);
    fs::rename(
        ground.sandbox.path("orders.redb"),
        ground.sandbox.path("away.redb"),
    )
    .unwrap();
    plan(&["account:3"]).refused(2, &["open store \"orders\""]);
    fs::rename(
        ground.sandbox.path("away.redb"),
        ground.sandbox.path("orders.redb"),
    )
    .unwrap();
    let audit = ground.sandbox.json(&["campaign", "audit"]);
    let refused = audit
        .records()
        .iter()
        .filter(|entry| entry["event"] == "refused")
        .count();
    assert_eq!(refused, 10, "{audit:#?}");
    // A statement for a store that is no SQL database, found out before anything is written.
    let estate = fs::read_to_string(ground.sandbox.path("estate.toml")).unwrap();
    let open = format!("{estate}\n[open]\nstore = \"orders\"\nsql = \"SELECT 1\"\n");
    fs::write(ground.sandbox.path("estate.toml"), open).unwrap();
    plan(&["account:3"]).refused(2, &["open: store \"orders\" is no SQL database"]);
    fs::write(ground.sandbox.path("estate.toml"), estate).unwrap();
    // Two campaigns over the same site.
    let (campaign, _) = ground.plan(&[3], &[]);
    plan(&["account:5", "account:3"]).refused(11, &["account:3 is in campaign", &campaign]);
    ground
        .run(&["campaign", "abort", &campaign])
        .done(&["aborted"]);
    // A store that cannot be reached when it is to run.
    let campaign = ground.approved(&[5, 3], &[]);
    let (path, away) = ["orders.redb", "away.redb"]
        .map(|name| ground.sandbox.path(name))
        .into();
    fs::rename(&path, &away).unwrap();
    let run = ["campaign", "run", &campaign];
    ground.run(&run).refused(2, &["open store \"orders\""]);
    let audit = ground.run(&["campaign", "audit", &campaign]);
    audit.done(&["refused", "open store \"orders\""]);
    fs::rename(&away, &path).unwrap();
    ground.run(&run).done(&["2 handed back"]);
}

#[test]
fn nothing_runs_that_was_not_approved_by_enough_people() {
    let ground = Ground::new(&TWO, "[campaign]\nsecond_approval_above = 1\n");
    ground.destroy(&[3, 5]);
    let before = ground.contents();
    let (campaign, digest) = ground.plan(&[3, 5], &[]);
    let run = ["campaign", "run", &campaign];
    ground.run(&run).refused(6, &["0 of 2 approvals"]);
    let approve = |digest: &str, actor: &str| {
        let words = ["campaign", "approve", &campaign, "--confirm-digest", digest];
        ground.run(&[&words[..], &["--as", actor]].concat())
    };
    approve("b3:0123456789abcdef", "ada").refused(6, &["its digest is"]);
    approve(&digest, "ada").done(&["1 of 2"]);
    approve(&digest, "ada").done(&["1 of 2"]);
    ground.run(&run).refused(6, &["1 of 2 approvals"]);
    assert_eq!(ground.contents(), before);
    approve(&digest, "grace").done(&["2 of 2"]);
    ground.run(&run).done(&["2 handed back"]);
    let audit = ground.sandbox.json(&["campaign", "audit", &campaign]);
    let of = |event: &str| {
        let records = audit.records();
        let found = records.iter().filter(|entry| entry["event"] == event);
        found
            .map(|entry| entry["actor"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(of("approved"), ["ada", "grace"]);
    assert_eq!(of("refused").len(), 3);
}

#[test]
fn a_site_that_goes_wrong_is_parked_and_the_others_go_on() {
    let ground = Ground::new(&TWO, "");
    let before = ground.contents();
    ground.destroy(&[3, 5, 7]);
    let campaign = ground.approved(&[3, 5, 7], &[]);
    // Somebody writes to one of them after it was planned.
    ground.destroy_in("orders", &[5]);
    let run = ground.run(&["campaign", "run", &campaign]);
    run.refused(3, &["2 of 3 sites handed back, 1 parked"]);
    assert!(run.stdout.contains("store orders"), "{run:#?}");
    let now = ground.contents();
    for (store, contents) in &before {
        for (place, content) in contents {
            let is_parked = *store == "orders" && place.0 == b"5";
            assert_eq!(
                now[store].get(place) == Some(content),
                !is_parked,
                "{store} {place:?}"
            );
        }
    }
    let report = ["campaign", "report", &campaign, "-o", "report.html"];
    ground.run(&report).done(&["Finished, some parked"]);
    let html = fs::read_to_string(ground.sandbox.path("report.html")).unwrap();
    assert!(html.contains("Parked: account:5. "), "{html}");
    let one = [&report[..4], &["one.html", "--site", "account:3"]].concat();
    ground.run(&one).done(&["Handed back"]);
    let html = fs::read_to_string(ground.sandbox.path("one.html")).unwrap();
    assert!(!html.contains("account:5"), "{html}");
    // What made it stale is not undone by trying again.
    ground
        .run(&["campaign", "resume", &campaign, "--retry-parked"])
        .refused(3, &["1 parked"]);
}

#[test]
fn gates_are_passed_or_park_and_acceptance_waits() {
    let ground = Ground::new(
        &TWO,
        "[[gate]]\nname = \"metadata\"\nphase = 1\ncommand = [\"sh\", \"-c\", \"test {site} != 5 || { echo no; exit 1; }\"]\n\
         [[gate]]\nname = \"hangs\"\nphase = 1\ntimeout = \"1s\"\ncommand = [\"sh\", \"-c\", \"test {site} != 7 || sleep 60 & wait\"]\n\
         [[gate]]\nname = \"customer\"\nphase = 2\nacceptance = true\n\
         [close]\ncommand = [\"sh\", \"-c\", \"echo {site} >> closed\"]\n\
         [open]\ncommand = [\"sh\", \"-c\", \"echo {site} >> opened\"]\n",
    );
    ground.destroy(&[3, 5, 7]);
    let campaign = ground.approved(&[3, 5, 7], &[]);
    let run = ground.run(&["campaign", "run", &campaign]);
    run.refused(
        75,
        &["0 of 3 sites handed back, 2 parked, and 1 wait to be accepted"],
    );
    assert!(
        run.stdout
            .contains("gate metadata: sh ended with exit status: 1: no"),
        "{run:#?}"
    );
    assert!(
        run.stdout.contains("gate hangs: sh did not end within 1s"),
        "{run:#?}"
    );
    let accept =
        |site: &str| ground.run(&["campaign", "accept", &campaign, site, "--as", "customer"]);
    accept("account:5").refused(6, &["does not wait"]);
    accept("account:9").refused(8, &["does not have it"]);
    assert!(!ground.sandbox.path("opened").exists(), "a half-open site");
    accept("account:3").done(&["accepted account:3 at customer by customer"]);
    let resume = ground.run(&["campaign", "resume", &campaign]);
    resume.refused(3, &["1 of 3 sites handed back, 2 parked"]);
    let read = |name: &str| fs::read_to_string(ground.sandbox.path(name)).unwrap();
    assert_eq!(read("opened"), "3\n");
    let mut closed: Vec<_> = read("closed").lines().map(ToOwned::to_owned).collect();
    closed.sort();
    assert_eq!(closed, ["3", "5", "7"]);
}

#[test]
fn an_edited_campaign_or_plan_is_refused() {
    let ground = Ground::new(&TWO, "");
    ground.destroy(&[3]);
    let campaign = ground.approved(&[3], &[]);
    let before = ground.contents();
    let record = ground.sandbox.path("campaigns/records/campaign");
    let record = fs::read_dir(record)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let intact = fs::read(&record).unwrap();
    crate::sandbox::Sandbox::damage(&record, |bytes| bytes[200] ^= 1);
    ground
        .run(&["campaign", "run", &campaign])
        .refused(6, &["is not what was planned"]);
    crate::sandbox::Sandbox::damage(&record, |bytes| bytes.clone_from(&intact));
    // The plan of the second store: one flipped bit in the rows.
    let objects = ground.sandbox.path("orders-repository/objects");
    let mut plans = Vec::new();
    for shard in fs::read_dir(objects).unwrap() {
        plans.extend(
            fs::read_dir(shard.unwrap().path())
                .unwrap()
                .map(|file| file.unwrap().path()),
        );
    }
    plans.sort_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    let plan = plans.last().unwrap();
    crate::sandbox::Sandbox::damage(plan, |bytes| bytes[100] ^= 1);
    let run = ground.run(&["campaign", "run", &campaign]);
    run.refused(3, &["0 of 1 site handed back, 1 parked"]);
    assert!(
        run.stdout.contains("not the one that was approved"),
        "{run:#?}"
    );
    assert_eq!(ground.contents(), before);
}

#[test]
fn ids_follow_a_rule_or_a_file() {
    let ground = Ground::new(&TWO, "");
    let before = ground.contents();
    let estate = fs::read_to_string(ground.sandbox.path("estate.toml")).unwrap();
    let estate = estate
        .replace("kind = \"account\"", "kind = \"site\"")
        .replace(
            "name = \"orders\"",
            "name = \"orders\"\nids = { file = \"ids.tsv\" }",
        );
    fs::write(ground.sandbox.path("estate.toml"), estate).unwrap();
    // Site 3 is account 3 in one store and account 4 in the other.
    fs::write(ground.sandbox.path("ids.tsv"), "3\t4\n7\t99\n").unwrap();
    ground.destroy_in("sites", &[3]);
    ground.destroy_in("orders", &[4]);
    let plan = ["campaign", "plan", "--at", "latest", "site:3", "site:5"];
    ground
        .run(&plan)
        .refused(8, &["site:5: store orders: it has no id there"]);
    // One that the second store's snapshot does not have.
    let plan = ["campaign", "plan", "--at", "latest", "site:3", "site:7"];
    ground
        .run(&plan)
        .refused(8, &["site:7: store orders: ", "account:99"]);
    let run = ground
        .sandbox
        .json(&["campaign", "plan", "--at", "latest", "site:3"]);
    let planned = run.record("campaign_planned");
    let campaign = id_and_digest(&planned);
    ground.approve(&campaign);
    ground
        .run(&["campaign", "run", &campaign.0])
        .done(&["1 handed back"]);
    assert_eq!(ground.contents(), before);
}

#[test]
fn a_run_that_is_killed_anywhere_goes_on() {
    let ground = Ground::new(
        &[("sites", 1), ("orders", 2), ("apps", 3)],
        "[campaign]\nbatch = 4\n",
    );
    let before = ground.contents();
    let sites: Vec<u32> = (1..=10).collect();
    ground.destroy(&sites);
    let campaign = ground.approved(&sites, &[]);
    let records = || {
        let records = ground.sandbox.path("campaigns/records/campaign-log");
        fs::read_dir(records).unwrap().count()
    };
    let mut kills = 0;
    for round in 1..=12 {
        let mut child = ground
            .sandbox
            .command()
            .args(["campaign", "resume", &campaign])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Killed when it has written so many records more, wherever it is then.
        let until = records() + round;
        while child.try_wait().unwrap().is_none() {
            if records() >= until {
                child.kill().unwrap();
                kills += 1;
                break;
            }
        }
        child.wait().unwrap();
    }
    assert!(kills > 5, "only {kills} runs were killed");
    let mut command = ground.sandbox.command();
    let run = outcome(command.args(["campaign", "resume", &campaign]));
    run.done(&["10 handed back"]);
    assert_eq!(ground.contents(), before);
}

#[test]
fn an_aborted_campaign_is_taken_back_but_for_what_users_wrote_since() {
    let ground = Ground::new(
        &TWO,
        "[close]\ncommand = [\"sh\", \"-c\", \"echo {site} >> closed\"]\n",
    );
    ground.destroy(&[3, 5, 7]);
    let destroyed = ground.contents();
    let (campaign, digest) = ground.plan(&[3, 5, 7], &[]);
    ground.approve(&(campaign.clone(), digest.clone()));
    ground
        .run(&["campaign", "run", &campaign])
        .done(&["3 handed back"]);
    let abort = ["campaign", "abort", &campaign, "--undo", "--confirm-digest"];
    let abort = |digest: &str| ground.run(&[&abort[..], &[digest]].concat());
    abort("b3:0123456789abcdef").refused(6, &["its digest is"]);
    assert_ne!(ground.contents(), destroyed);
    // Users of one of them went on.
    let was = ground.edit_in("orders", 5);
    let run = abort(&digest);
    run.refused(
        3,
        &["2 of 3 sites are as they were before", "try those again"],
    );
    let now = ground.contents();
    let of = |contents: &ground::Contents, site: &str| {
        let rows = contents
            .iter()
            .filter(|((owner, _), _)| owner == site.as_bytes());
        rows.map(|(place, content)| (place.clone(), *content))
            .collect::<Vec<_>>()
    };
    for site in ["3", "7"] {
        for store in ["sites", "orders"] {
            assert_eq!(
                of(&now[store], site),
                of(&destroyed[store], site),
                "{site} in {store}"
            );
        }
    }
    // The one that was written to keeps what it has in every store from there on.
    assert!(!of(&now["sites"], "5").is_empty());
    let closed = fs::read_to_string(ground.sandbox.path("closed")).unwrap();
    assert_eq!(
        closed.lines().filter(|site| *site == "3").count(),
        2,
        "closed for the undo again"
    );
    // What was in the way is gone: the same command takes that one back as well, and the others stay.
    ground.put_in("orders", 5, &was);
    abort(&digest).done(&["3 undone"]);
    assert_eq!(ground.contents(), destroyed);
    ground
        .run(&["campaign", "run", &campaign])
        .refused(6, &["it was aborted"]);
}

#[test]
fn everyone_goes_into_new_stores_that_are_empty() {
    let ground = Ground::new(&TWO, "");
    let before = ground.contents();
    let plan = ["campaign", "plan", "--everyone", "--at", "latest"];
    ground.run(&plan).refused(8, &["store \"sites\""]);
    for name in ["sites", "orders"] {
        let lost = format!("{name}-lost.redb");
        let (path, lost) = (
            ground.sandbox.path(&format!("{name}.redb")),
            ground.sandbox.path(&lost),
        );
        fs::rename(path, &lost).unwrap();
    }
    ground.create_anew("sites", true);
    ground.create_anew("orders", false);
    ground
        .run(&plan)
        .refused(1, &["lacks the rows of everybody", "orders"]);
    ground.create_anew("orders", true);
    let run = ground.sandbox.json(&plan);
    run.done(&[]);
    let planned = run.record("campaign_planned");
    assert_eq!(planned["sites"], 12);
    let campaign = id_and_digest(&planned);
    ground.approve(&campaign);
    ground
        .run(&["campaign", "run", &campaign.0])
        .done(&["12 handed back"]);
    assert_eq!(ground.contents(), before);
    // They are not empty any more.
    ground.run(&plan).refused(5, &["should be new and empty"]);
}

#[test]
fn a_campaign_is_reported_for_all_sites_and_for_one() {
    let ground = Ground::new(&TWO, "");
    ground.destroy(&[3, 5]);
    let campaign = ground.approved(&[3, 5], &[]);
    let report = |more: &[&str]| {
        let all = [&["campaign", "report", &campaign, "--out"], more].concat();
        ground.sandbox.json(&all)
    };
    let before = report(&["before.html"]);
    assert_eq!(before.record("report")["outcome"], "Not begun");
    ground
        .run(&["campaign", "run", &campaign])
        .done(&["2 handed back"]);
    let after = report(&["after.html"]);
    assert_eq!(after.record("report")["outcome"], "Finished");
    let html = fs::read_to_string(ground.sandbox.path("after.html")).unwrap();
    for expected in [
        "2 of 2 sites are handed back",
        "account:3",
        "account:5",
        "Store sites, phase 1",
        "Store orders, phase 2",
        "read back",
        "Last digest of the journal",
        "references, phase 1",
        "Data loss window",
        "Nothing of it was still there",
    ] {
        assert!(html.contains(expected), "{expected:?} is not in {html}");
    }
    let one = report(&["one.html", "--site", "account:5"]);
    assert_eq!(one.record("report")["outcome"], "Handed back");
    let html = fs::read_to_string(ground.sandbox.path("one.html")).unwrap();
    assert!(html.contains("Restore of account:5") && !html.contains("account:3"));
    assert_eq!(report(&["x.html", "--site", "account:9"]).code, 8);
    assert_eq!(report(&["x.html", "--site", "app:5"]).code, 2);
    assert_eq!(report(&["one.html"]).code, 2);
}
