//! The properties, each a function that returns the promise that was broken.

mod capture;
mod concurrency;
mod journal;
mod merge;
mod refusal;
mod view;

use crate::certification::{Fixture, Violation};

/// One promise that every live store keeps.
#[derive(Clone, Copy, Debug)]
pub struct Property {
    /// The promise as a sentence, which is also the name of its test.
    pub name: &'static str,
    /// Tries the promise on an empty store.
    pub run: fn(&dyn Fixture) -> Result<(), Violation>,
}

/// Tries one property on a new store of a fixture.
///
/// # Panics
/// If the promise is broken, or there is no property of that name.
pub fn check<F: Fixture>(name: &str) {
    let property = PROPERTIES.iter().find(|property| property.name == name);
    let property = property.expect("a property of that name");
    if let Err(violation) = (property.run)(&F::create()) {
        panic!("{name}: {violation}");
    }
}

/// Calls a macro with the names of all properties after its own arguments.
#[doc(hidden)]
#[macro_export]
macro_rules! with_properties {
    ($($then:tt)::+, $($arguments:tt)*) => {
        $($then)::+! {
            $($arguments)*
            capture::a_capture_holds_every_row_once_with_its_owner
            capture::a_capture_stays_at_its_position
            capture::captured_tables_can_be_read_at_the_same_time
            capture::a_capture_hands_out_bounded_batches
            capture::positions_advance_with_every_commit
            view::a_view_holds_exactly_the_rows_of_the_tenant
            view::a_view_stays_at_its_position
            view::rows_come_in_the_order_that_the_view_claims
            view::a_view_hands_out_bounded_batches
            view::a_fingerprint_changes_with_every_change_of_the_tenant
            view::a_fingerprint_does_not_change_with_other_tenants
            view::keys_held_by_others_are_named_and_no_others
            merge::a_merge_makes_exactly_its_changes
            merge::a_transaction_reads_its_own_changes_back
            merge::the_store_counts_what_really_happened
            merge::duplicates_are_counted_one_by_one
            merge::every_value_comes_back_as_it_was
            merge::a_merge_of_many_batches_is_made_whole
            merge::a_tenant_can_be_emptied_and_filled_again
            merge::counters_are_raised_and_never_lowered
            refusal::a_writer_that_is_dropped_leaves_nothing
            refusal::a_tenant_that_changed_is_refused
            refusal::tables_that_changed_are_refused
            refusal::a_taken_key_is_refused_or_counted_as_replaced
            refusal::a_row_of_a_neighbour_cannot_be_written
            journal::a_commit_is_found_in_the_journal_and_nothing_else_is
            journal::a_commit_is_read_back_as_it_was_answered
            journal::preparing_again_keeps_the_journal
            journal::rows_of_a_commit_carry_its_mark_and_no_others_do
            concurrency::a_second_run_on_the_same_tenant_is_locked_out
            concurrency::no_write_of_the_application_is_lost
        }
    };
}

macro_rules! property_table {
    ($($module:ident::$name:ident)*) => {
        /// Every property, in the order in which they are best read.
        pub const PROPERTIES: &[Property] = &[
            $(Property { name: stringify!($name), run: $module::$name },)*
        ];
    };
}

with_properties!(property_table,);

/// Makes one test of each property for a [`Fixture`](crate::certification::Fixture).
#[macro_export]
macro_rules! certify_live_store {
    ($fixture:ty) => {
        $crate::with_properties!($crate::certification_tests, $fixture;);
    };
}

/// The tests of [`certify_live_store`].
#[doc(hidden)]
#[macro_export]
macro_rules! certification_tests {
    ($fixture:ty; $($module:ident::$name:ident)*) => {
        $(
            #[test]
            fn $name() {
                $crate::certification::check::<$fixture>(stringify!($name));
            }
        )*
    };
}
