//! A proposal as a commented section of the configuration.

use std::fmt::Write;

use super::{Proposal, RowCount, TenancyProposal};
use crate::tenancy::{TableRule, Unowned};

/// How wide comments are.
const WIDTH_MAX: usize = 100;

/// Writing to a string cannot fail.
macro_rules! line {
    ($out:expr, $($format:tt)*) => {
        writeln!($out, $($format)*).expect("BUG: a string cannot be written to")
    };
}

/// See [`TenancyProposal::to_toml`].
pub(super) fn to_toml(proposal: &TenancyProposal) -> String {
    let mut out = String::new();
    head(&mut out, proposal);
    let sure = |wanted: &TableRule| {
        let tables = proposal.tables.iter();
        tables
            .filter(|table| !table.is_unsure && table.decision == *wanted)
            .collect::<Vec<_>>()
    };
    line!(out, "[tenancy]");
    line!(out, "kind = {}", text(proposal.kind.as_str()));
    line!(out, "column = {}", text(&proposal.column));
    for (key, names) in [
        ("allowed_triggers", &proposal.allowed_triggers),
        ("search_path", &proposal.search_path),
        ("silenced_triggers", &proposal.silenced_triggers),
        ("create_missing", &proposal.create_missing),
        ("crossing", &proposal.crossing),
        ("counters", &proposal.counters),
    ] {
        if !names.is_empty() {
            let names: Vec<String> = names.iter().map(|name| text(name)).collect();
            line!(out, "{key} = [{}]", names.join(", "));
        }
    }
    if !proposal.sequences.is_empty() {
        let pairs = proposal.sequences.iter();
        let pairs = pairs.map(|(name, column)| format!("{} = {}", text(name), text(column)));
        let pairs: Vec<String> = pairs.collect();
        line!(out, "sequences = {{ {} }}", pairs.join(", "));
    }
    list(&mut out, "shared", &sure(&TableRule::Shared));
    list(&mut out, "excluded", &sure(&TableRule::Excluded));
    let is_covered = |table: &&Proposal| is_covered(proposal, table);
    let covered: Vec<&Proposal> = proposal.tables.iter().filter(is_covered).collect();
    if !covered.is_empty() {
        out.push('\n');
        comment(&mut out, &format!("Covered by {}:", proposal.column));
        for table in covered {
            comment(&mut out, &format!("  {}", summary(table)));
        }
    }
    for table in &proposal.tables {
        let is_listed = matches!(table.decision, TableRule::Shared | TableRule::Excluded);
        if table.is_unsure {
            undecided(&mut out, table);
        } else if !is_listed && !is_covered(&table) {
            out.push('\n');
            comment(&mut out, &summary(table));
            line!(out, "[tenancy.table.{}]", key(&table.table));
            out.push_str(&rule(&table.decision));
        }
    }
    out
}

fn head(out: &mut String, proposal: &TenancyProposal) {
    let unsure = proposal.unsure().count();
    comment(
        out,
        &format!(
            "Whose rows {} tables hold, proposed by reinstate tenancy suggest. Review it, put it \
             in the place of [tenancy] in the configuration, then run: reinstate tenancy check",
            proposal.tables.len()
        ),
    );
    match unsure {
        0 => comment(out, "Nothing is to be decided."),
        1 => comment(
            out,
            "One table is marked \"decide:\". Until one of its lines is chosen, it belongs to \
             nobody, and the configuration is refused.",
        ),
        _ => comment(
            out,
            &format!(
                "{unsure} tables are marked \"decide:\". Until one of the lines of each is chosen, \
                 they belong to nobody, and the configuration is refused."
            ),
        ),
    }
    line!(out, "#");
    for note in &proposal.notes {
        comment(out, note);
    }
    out.push('\n');
}

/// Whether a table needs no rule beside `tenancy.column`.
fn is_covered(proposal: &TenancyProposal, table: &Proposal) -> bool {
    let by_column = TableRule::Direct {
        column: proposal.column.clone(),
    };
    !table.is_unsure && table.has_tenant_column && table.decision == by_column
}

fn list(out: &mut String, name: &str, tables: &[&Proposal]) {
    if tables.is_empty() {
        return;
    }
    line!(out, "{name} = [");
    for table in tables {
        let reason = format!("{}; {}", rows(table.rows), table.reason);
        line!(out, "    {}, # {}", text(&table.table), plain(&reason));
    }
    line!(out, "]");
}

/// A table without a rule, and the rules that it could have, as comments. A table with the tenant
/// column would be covered all the same: an empty rule keeps it from that, and is an error.
fn undecided(out: &mut String, table: &Proposal) {
    out.push('\n');
    comment(out, &format!("decide: {}", summary(table)));
    let header = format!("[tenancy.table.{}]", key(&table.table));
    if table.has_tenant_column {
        line!(out, "{header}");
    } else {
        line!(out, "# {header}");
    }
    let decisions = [&table.decision].into_iter().chain(&table.alternatives);
    for (place, decision) in decisions.enumerate() {
        if place > 0 {
            line!(out, "#   or");
        }
        for words in rule(decision).lines() {
            line!(out, "# {words}");
        }
    }
}

/// See [`TableRule::to_toml`].
pub(super) fn rule(decision: &TableRule) -> String {
    let mut out = String::new();
    let unowned = match decision {
        TableRule::Direct { column } => {
            line!(out, "column = {}", text(column));
            return out;
        }
        TableRule::Shared => {
            line!(out, "shared = true");
            return out;
        }
        TableRule::Excluded => {
            line!(out, "excluded = true");
            return out;
        }
        TableRule::Via { reference, unowned } => {
            line!(out, "via = {}", text(reference));
            *unowned
        }
        TableRule::OneOf { routes, unowned } => {
            line!(out, "one_of = [");
            for route in routes {
                let via = text(&route.via);
                match &route.when {
                    Some(when) => line!(out, "    {{ when = {}, via = {via} }},", text(when)),
                    None => line!(out, "    {{ via = {via} }},"),
                }
            }
            line!(out, "]");
            *unowned
        }
    };
    if unowned == Unowned::Shared {
        line!(out, "unowned = \"shared\"");
    }
    out
}

fn summary(table: &Proposal) -> String {
    format!("{}: {}; {}", table.table, rows(table.rows), table.reason)
}

fn rows(count: RowCount) -> String {
    let (about, number) = match count {
        RowCount::Unknown => return "rows not counted".to_owned(),
        RowCount::Exact(number) => ("", number),
        RowCount::About(number) => ("about ", number),
    };
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let noun = if number == 1 { "row" } else { "rows" };
    format!("{about}{grouped} {noun}")
}

/// A comment, over several lines if need be; what goes on stands two further in.
fn comment(out: &mut String, words: &str) {
    let indent = words.len() - words.trim_start().len();
    let mut current = format!("#{}", " ".repeat(indent));
    let mut has_words = false;
    for word in plain(words).split_whitespace() {
        if has_words && current.len() + 1 + word.len() > WIDTH_MAX {
            line!(out, "{current}");
            current = format!("#{}", " ".repeat(indent + 2));
        }
        current.push(' ');
        current.push_str(word);
        has_words = true;
    }
    line!(out, "{current}");
}

/// A text that cannot end a comment.
fn plain(words: &str) -> String {
    words.replace(char::is_control, "?")
}

/// A table's name as a key.
fn key(name: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !name.is_empty() && name.bytes().all(is_bare) {
        name.to_owned()
    } else {
        text(name)
    }
}

/// A string in quotes.
fn text(value: &str) -> String {
    let mut out = String::from("\"");
    for character in value.chars() {
        match character {
            '"' | '\\' => {
                out.push('\\');
                out.push(character);
            }
            _ if character.is_control() => {
                write!(out, "\\u{:04X}", u32::from(character))
                    .expect("BUG: a string cannot be written to");
            }
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_quotes() {
        assert_eq!(key("orders"), "orders");
        assert_eq!(key("billing.lines"), "\"billing.lines\"");
        assert_eq!(text("a\"b\\c\nd"), "\"a\\\"b\\\\c\\u000Ad\"");
        assert_eq!(plain("a\nb"), "a?b");
    }

    #[test]
    fn large_numbers_can_be_read() {
        assert_eq!(rows(RowCount::Exact(1)), "1 row");
        assert_eq!(rows(RowCount::About(1_234_567)), "about 1,234,567 rows");
        assert_eq!(rows(RowCount::Exact(999)), "999 rows");
        assert_eq!(rows(RowCount::Unknown), "rows not counted");
    }
}
