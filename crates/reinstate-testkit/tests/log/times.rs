//! Times resolve to positions as recovery does: everything up to the first commit of a later time.

use proptest::prelude::*;
use reinstate::Moment;
use reinstate_core::{Position, Timestamp};

use crate::ground::Ground;
use crate::model::{Model, PROJECTS, Step, schema, values};

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_time_means_everything_up_to_the_first_later_commit(
        times in proptest::collection::vec(0_i64..8, 1..12), at_once in 1_usize..5,
    ) {
        let transactions = times.iter().enumerate();
        let insert = |(number, _): (usize, &i64)| {
            vec![Step::Insert(PROJECTS, values(&[&number.to_string(), "a", "x"]))]
        };
        let transactions = transactions.map(insert).collect();
        let schema = schema();
        let mut ground = Ground::new(&schema, Model::new(&schema), transactions);
        for ((commit, _), time) in ground.script.transactions.iter_mut().zip(&times) {
            commit.time = Timestamp::from_micros(*time);
        }
        let mut follower = ground.follower(at_once, 1);
        while follower.step(Timestamp::from_micros(0)).unwrap().has_more {}
        let log = ground.log();
        let commits: Vec<_> = ground.script.transactions.iter().map(|(commit, _)| *commit).collect();
        for time in -1..9 {
            for exclusive in [false, true] {
                let is_later = |other: &i64| if exclusive { *other >= time } else { *other > time };
                let later = times.iter().position(is_later);
                let moment = Moment { time: Timestamp::from_micros(time), exclusive };
                let found = log.at(&ground.repository, moment).unwrap();
                let Some(later) = later else {
                    prop_assert_eq!(found, None);
                    continue;
                };
                let found = found.unwrap();
                let before = later.checked_sub(1).map(|place| commits[place]);
                prop_assert_eq!(found.before, before);
                prop_assert_eq!(found.after, Some(commits[later]));
                prop_assert_eq!(found.position, before.map_or(ground.base, |commit| commit.position));
            }
        }
        for (place, commit) in commits.iter().enumerate() {
            let around = |commit| {
                log.around(&ground.repository, Position { commit, ordinal: 0 }).unwrap()
            };
            let found = around(commit.position.commit).unwrap();
            prop_assert_eq!(found.before, Some(*commit));
            prop_assert_eq!(found.after, commits.get(place + 1).copied());
            let just_before = around(commit.position.commit - 1).unwrap();
            prop_assert_eq!(just_before.after, Some(*commit));
            prop_assert_eq!(just_before.before, place.checked_sub(1).map(|place| commits[place]));
        }
        let end = log.through();
        let beyond = Position { commit: end.commit + 1, ordinal: 0 };
        prop_assert_eq!(log.around(&ground.repository, beyond).unwrap(), None);
    }
}
