//! The section `[into]`: what becomes of columns when a tenant is copied under another id.

use std::collections::{BTreeMap, BTreeSet};

use reinstate::{ColumnRule, CopyReference, CopyRules, TableCopyRules};
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Into {
    #[serde(default)]
    left_out: BTreeSet<String>,
    #[serde(default)]
    columns: BTreeMap<String, Column>,
    #[serde(default)]
    table: BTreeMap<String, TableInto>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TableInto {
    #[serde(default)]
    columns: BTreeMap<String, Column>,
    #[serde(default)]
    references: Vec<Reference>,
    #[serde(default)]
    json: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"new\", \"keep\", \"null\", \"prefix\", \"suffix\", { prefix = \"...\" } or { suffix = \"...\" }"
)]
enum Column {
    Word(Word),
    Text(Affix),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    New,
    Keep,
    Null,
    Prefix,
    Suffix,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Affix {
    Prefix(String),
    Suffix(String),
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"column -> parent.column\" or { when = \"column = value\", via = \"...\" }"
)]
enum Reference {
    Always(String),
    Sometimes(Sometimes),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sometimes {
    when: Option<String>,
    via: String,
}

impl From<Into> for CopyRules {
    fn from(into: Into) -> Self {
        let columns = into.columns.into_iter();
        let rules = |(name, table): (String, TableInto)| {
            let columns = table.columns.into_iter();
            let references = table.references.into_iter();
            let rules = TableCopyRules {
                columns: columns.map(|(name, rule)| (name, rule.into())).collect(),
                references: references.map(CopyReference::from).collect(),
                json: table.json,
            };
            (name, rules)
        };
        Self {
            left_out: into.left_out,
            columns: columns.map(|(name, rule)| (name, rule.into())).collect(),
            tables: into.table.into_iter().map(rules).collect(),
        }
    }
}

impl From<Column> for ColumnRule {
    fn from(column: Column) -> Self {
        match column {
            Column::Word(Word::New) => Self::New,
            Column::Word(Word::Keep) => Self::Keep,
            Column::Word(Word::Null) => Self::Null,
            Column::Word(Word::Prefix) => Self::Prefix(None),
            Column::Word(Word::Suffix) => Self::Suffix(None),
            Column::Text(Affix::Prefix(text)) => Self::Prefix(Some(text)),
            Column::Text(Affix::Suffix(text)) => Self::Suffix(Some(text)),
        }
    }
}

impl From<Reference> for CopyReference {
    fn from(reference: Reference) -> Self {
        let (when, via) = match reference {
            Reference::Always(via) => (None, via),
            Reference::Sometimes(Sometimes { when, via }) => (when, via),
        };
        Self { when, via }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<CopyRules, String> {
        let into: Result<Into, _> = toml::from_str(text);
        into.map(CopyRules::from)
            .map_err(|error| error.message().to_owned())
    }

    #[test]
    fn the_section_of_the_manual_is_understood() {
        let rules = parse(
            r#"
            left_out = ["sessions"]
            columns = { slug = "suffix" }
            [table.users]
            columns = { email = "prefix", slug = { suffix = "-copy" }, api_key = "null" }
            [table.events]
            references = ["order_id -> orders.id", { when = "type = Order", via = "id -> orders.id" }]
            json = { payload = ["$.account_id -> tenant", "$.order_ids[*] -> orders.id"] }
            "#,
        )
        .unwrap();
        assert!(rules.left_out.contains("sessions"));
        assert_eq!(rules.columns["slug"], ColumnRule::Suffix(None));
        let users = &rules.tables["users"];
        assert_eq!(users.columns["email"], ColumnRule::Prefix(None));
        let suffix = ColumnRule::Suffix(Some("-copy".to_owned()));
        assert_eq!(users.columns["slug"], suffix);
        assert_eq!(users.columns["api_key"], ColumnRule::Null);
        let events = &rules.tables["events"];
        assert_eq!(events.json["payload"].len(), 2);
        assert_eq!(events.references[0].via, "order_id -> orders.id");
        assert_eq!(events.references[1].when.as_deref(), Some("type = Order"));
    }

    #[test]
    fn what_it_does_not_know_is_refused() {
        for (text, says) in [
            ("[table.users]\ncolumn = {}", "column"),
            ("[table.users]\ncolumns = { a = \"other\" }", "expected"),
            (
                "[table.users]\ncolumns = { a = { infix = \"x\" } }",
                "expected",
            ),
            (
                "[table.users]\nreferences = [{ when = \"a = b\" }]",
                "expected",
            ),
            ("[tables.users]", "tables"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(says), "{message}");
        }
    }
}
