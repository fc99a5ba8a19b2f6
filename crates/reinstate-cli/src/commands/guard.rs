//! `guard`: what in the database stops a restore at another tenant's row.

use reinstate_postgres::{GuardState, GuardedTable};
use serde::Serialize;

use crate::arguments::Guard;
use crate::exit::Exit;
use crate::postgres;
use crate::render::{counted, grid};
use crate::session::Session;

#[derive(Serialize)]
struct TableRecord<'a> {
    #[serde(rename = "type")]
    record: &'static str,
    table: &'a str,
    triggers: &'static str,
    fence: &'static str,
    row_security: bool,
}

/// `guard`.
pub fn run(arguments: &Guard, session: &Session<'_>) -> anyhow::Result<Exit> {
    let what = "an embedded store guards itself: no transaction of a restore can name another \
                tenant's row";
    let store = postgres::needed(session, what)?;
    let console = session.console;
    match arguments {
        Guard::Install { fence } => {
            let mut tables = store.install_guard()?;
            if *fence {
                tables = store.install_fence()?;
            }
            show(session, &tables);
            console.note(format_args!(
                "{} guarded. After a change of the tables or of [tenancy]: reinstate guard install",
                counted(tables.len() as u64, "table", "tables")
            ));
        }
        Guard::Remove => {
            let removed = store.remove_guard()?;
            console.line(format_args!(
                "{} no longer guarded",
                counted(removed, "table is", "tables are")
            ));
        }
        Guard::Status => {
            let tables = store.guard_status()?;
            show(session, &tables);
            let is_open =
                |table: &&GuardedTable| table.state != GuardState::Armed && !table.is_confined;
            let open = tables.iter().filter(is_open).count();
            if open > 0 {
                console.note(format_args!(
                    "{} open. next: reinstate guard install, or reinstate guard role NAME",
                    counted(open as u64, "table is", "tables are")
                ));
            }
        }
        Guard::Role { name } => console.line(store.role_script(name)?.trim_end()),
    }
    Ok(Exit::Done)
}

fn show(session: &Session<'_>, tables: &[GuardedTable]) {
    let console = session.console;
    for table in tables {
        console.record(&TableRecord {
            record: "guard",
            table: table.table.as_str(),
            triggers: triggers(table.state),
            fence: triggers(table.fence),
            row_security: table.is_confined,
        });
    }
    let rows = tables.iter().map(|table| {
        let confined = if table.is_confined {
            "confines this role"
        } else {
            "-"
        };
        vec![
            table.table.to_string(),
            triggers(table.state).to_owned(),
            triggers(table.fence).to_owned(),
            confined.to_owned(),
        ]
    });
    let lines = grid(&["table", "triggers", "fence", "row-level security"], rows);
    lines.into_iter().for_each(|line| console.line(line));
}

const fn triggers(state: GuardState) -> &'static str {
    match state {
        GuardState::Armed => "armed",
        GuardState::Outdated => "outdated",
        GuardState::Absent => "none",
    }
}
