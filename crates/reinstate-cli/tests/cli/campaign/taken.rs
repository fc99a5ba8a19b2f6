//! Sites whose id somebody else has by now, and what is left of plans that were refused.

use std::fs;

use super::TWO;
use super::ground::{Contents, Ground, id_and_digest};
use super::postgres::{ESTATE, NOTES, TENANCY};
use crate::ground::Ground as Database;

/// What a store holds of an owner, by table, however it is called there.
fn of(contents: &Contents, owner: &str) -> Vec<(u32, u64)> {
    let rows = contents
        .iter()
        .filter(|((id, _), _)| id == owner.as_bytes());
    rows.map(|((_, table), content)| (*table, content.row_count()))
        .collect()
}

fn say_ids_if_taken(ground: &Ground) {
    let path = ground.sandbox.path("estate.toml");
    let text = fs::read_to_string(&path).unwrap();
    let ids = "name = \"orders\"\nids_if_taken = { template = \"r-{id}\" }";
    fs::write(&path, text.replace("name = \"orders\"", ids)).unwrap();
}

#[test]
fn a_site_whose_id_is_taken_gets_another_one_where_that_is_allowed_and_approved_by_two() {
    let ground = Ground::new(&TWO, "");
    let before = ground.contents();
    ground.destroy(&[3, 5]);
    ground.give_away_in("orders", 3, 4);
    let given_away = ground.contents();
    let plan = [
        "campaign",
        "plan",
        "account:3",
        "account:5",
        "--at",
        "latest",
    ];
    let plan = [&plan[..], &["--remap", "keys"]].concat();
    ground
        .run(&plan)
        .refused(2, &["the estate does not say which ids", "ids_if_taken"]);
    say_ids_if_taken(&ground);
    let run = ground.sandbox.json(&plan);
    run.done(&[]);
    let planned = run.record("campaign_planned");
    assert_eq!(planned["approvals_needed"], 2);
    let remapped = planned["remapped"].as_array().unwrap();
    assert_eq!(remapped.len(), 1, "only where an id is taken: {planned}");
    assert_eq!(remapped[0]["site"], "account:3");
    assert_eq!(remapped[0]["store"], "orders");
    assert_eq!(remapped[0]["id"], "account:r-3");
    assert_eq!(remapped[0]["instead_of"], "account:3");
    // This store keeps owners beside the keys, which stay as they are.
    let keys = fs::read_to_string(ground.sandbox.path("keys")).unwrap();
    assert!(
        keys.contains(planned["campaign"].as_str().unwrap()),
        "{keys}"
    );
    let (campaign, digest) = id_and_digest(&planned);
    for (people, actor) in [("1 of 2", "ada"), ("2 of 2", "grace")] {
        let words = [
            "campaign",
            "approve",
            &campaign,
            "--confirm-digest",
            &digest,
        ];
        ground
            .run(&[&words[..], &["--as", actor]].concat())
            .done(&[people]);
    }
    let run = ["campaign", "run", &campaign];
    ground.run(&run).done(&["2 handed back"]);
    let now = ground.contents();
    let names = |store: &str, owner: &str| of(&now[store], owner);
    assert_eq!(now["sites"], before["sites"], "its id is free there");
    assert_eq!(names("orders", "5"), of(&before["orders"], "5"));
    assert_eq!(names("orders", "3"), of(&given_away["orders"], "3"));
    assert_eq!(names("orders", "r-3"), of(&before["orders"], "3"));
    let says = "becomes account:r-3 in store orders: somebody else has account:3 by now";
    ground.run(&["campaign", "status", &campaign]).done(&[says]);
    let abort = ["campaign", "abort", &campaign, "--undo", "--confirm-digest"];
    ground.run(&[&abort[..], &[&digest]].concat()).done(&[]);
    assert_eq!(ground.contents(), given_away);
}

#[test]
fn a_site_whose_keys_are_taken_gets_other_keys_as_well() {
    let ground = Database::captured(NOTES, TENANCY);
    let estate = format!("{ESTATE}ids_if_taken = {{ template = \"9{{id}}\" }}\n");
    fs::write(ground.sandbox.path("estate.toml"), estate).unwrap();
    let bodies = |account: u32| {
        ground.psql(&format!(
            "SELECT body FROM notes WHERE account_id = {account} ORDER BY body"
        ))
    };
    let before = bodies(2);
    ground.psql("DELETE FROM notes WHERE account_id = 2; INSERT INTO notes VALUES (2, 1, 'taken')");
    let of_another = bodies(1);
    let plan = ["campaign", "plan", "--at", "latest", "account:2"];
    ground
        .sandbox
        .run(&plan)
        .refused(5, &["1 of its rows conflict", "no campaign was made"]);
    let planned = ground
        .sandbox
        .json(&[&plan[..], &["--remap", "keys"]].concat());
    planned.done(&[]);
    let record = planned.record("campaign_planned");
    assert_eq!(record["remapped"][0]["id"], "account:92");
    let (campaign, digest) = id_and_digest(&record);
    let keys = fs::read_to_string(ground.sandbox.path("keys")).unwrap();
    let site = "\"store\":\"main\",\"site\":\"account:2\"";
    let lines = keys.lines().filter(|line| line.contains(site));
    assert_eq!(lines.count(), 10, "{keys}");
    let approve = [
        "campaign",
        "approve",
        &campaign,
        "--confirm-digest",
        &digest,
    ];
    for actor in ["ada", "grace"] {
        let approve = [&approve[..], &["--as", actor]].concat();
        ground.sandbox.run(&approve).done(&["approved"]);
    }
    let run = ["campaign", "run", &campaign];
    ground.sandbox.run(&run).done(&["1 handed back"]);
    assert_eq!(bodies(92), before);
    assert_eq!((bodies(1), bodies(2)), (of_another.clone(), String::new()));
    let abort = ["campaign", "abort", &campaign, "--undo", "--confirm-digest"];
    let abort = [&abort[..], &[&digest]].concat();
    ground.sandbox.run(&abort).done(&[]);
    assert_eq!((bodies(1), bodies(92)), (of_another, String::new()));
}

#[test]
fn of_a_plan_that_is_refused_nothing_is_left() {
    let ground = Ground::new(&TWO, "");
    ground.destroy(&[3]);
    let objects = || {
        let names = ["sites", "orders"].map(|name| {
            let shards = ground.sandbox.path(&format!("{name}-repository/objects"));
            let shards = fs::read_dir(shards).unwrap();
            let count = shards.map(|shard| fs::read_dir(shard.unwrap().path()).unwrap().count());
            count.sum::<usize>()
        });
        names.iter().sum::<usize>()
    };
    let before = objects();
    // The second one is as it was; both were planned when that was found out.
    let plan = [
        "campaign",
        "plan",
        "account:3",
        "account:4",
        "--at",
        "latest",
    ];
    ground.run(&plan).refused(2, &["nothing to restore"]);
    assert_eq!(objects(), before);
    ground.plan(&[3], &[]);
    assert_eq!(objects(), before + 2);
}
