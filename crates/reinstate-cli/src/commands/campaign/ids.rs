//! How a site's id becomes a tenant's id in a store.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use reinstate::SiteRequest;
use reinstate_core::{Tenant, TenantId};

use super::estate::OpenStore;
use crate::configuration::IdRule;
use crate::failure::Failure;

/// How long a look-up may take.
const LOOK_UP_MAX: Duration = Duration::from_secs(60);

/// The sites with their ids in each store.
///
/// # Errors
/// Usage if a look-up cannot be made; otherwise as the store reports it.
pub fn site_requests(sites: &[Tenant], stores: &[OpenStore]) -> anyhow::Result<Vec<SiteRequest>> {
    let mut requests: Vec<SiteRequest> = sites
        .iter()
        .map(|site| SiteRequest {
            site: site.id.clone(),
            ids: Vec::with_capacity(stores.len()),
        })
        .collect();
    for store in stores {
        let rule = Rule::open(&store.of.ids)?;
        for request in &mut requests {
            let id = rule.id_of(store, &request.site)?;
            request.ids.push(id);
        }
    }
    Ok(requests)
}

/// The ids that sites get in each store where somebody else has their own by now.
///
/// # Errors
/// As [`site_requests`]; Usage if the estate has no such ids in any store.
pub fn ids_if_taken(
    sites: &[Tenant],
    stores: &[OpenStore],
) -> anyhow::Result<BTreeMap<TenantId, Vec<Option<TenantId>>>> {
    if stores.iter().all(|store| store.of.ids_if_taken.is_none()) {
        let message = "--remap: the estate does not say which ids sites get where theirs are taken";
        return Err(Failure::usage(message)
            .next("say ids_if_taken = { template = \"r-{id}\" } or { file = \"...\" } at a store")
            .into());
    }
    let none = vec![None; stores.len()];
    let mut ids: BTreeMap<TenantId, Vec<Option<TenantId>>> = sites
        .iter()
        .map(|site| (site.id.clone(), none.clone()))
        .collect();
    for (place, store) in stores.iter().enumerate() {
        let Some(rule) = &store.of.ids_if_taken else {
            continue;
        };
        let rule = Rule::open(rule)?;
        for (site, ids) in &mut ids {
            ids[place] = rule.id_of(store, site)?;
        }
    }
    Ok(ids)
}

/// A rule that is ready to be used.
enum Rule<'s> {
    Same,
    Template(&'s str),
    Known(BTreeMap<TenantId, TenantId>),
    Sql(&'s str),
}

impl<'s> Rule<'s> {
    fn open(rule: &'s IdRule) -> Result<Self, Failure> {
        Ok(match rule {
            IdRule::Same => Self::Same,
            IdRule::Template(template) => Self::Template(template),
            IdRule::File(path) => Self::Known(read_map(path)?),
            IdRule::Sql(query) => Self::Sql(query),
        })
    }

    /// The id; none if a look-up knows none.
    fn id_of(&self, store: &OpenStore, site: &TenantId) -> anyhow::Result<Option<TenantId>> {
        let name = &store.of.name;
        match self {
            Self::Same => Ok(Some(site.clone())),
            Self::Template(template) => {
                let mut bytes = Vec::new();
                for (place, part) in template.split("{id}").enumerate() {
                    if place > 0 {
                        bytes.extend_from_slice(site.as_bytes());
                    }
                    bytes.extend_from_slice(part.as_bytes());
                }
                let id = TenantId::try_new(bytes);
                Ok(Some(id.map_err(|error| {
                    Failure::usage(format!("store {name:?}, ids.template: {error}"))
                })?))
            }
            Self::Known(known) => Ok(known.get(site).cloned()),
            Self::Sql(query) => {
                let Some(postgres) = &store.postgres else {
                    let message = format!("store {name:?}, ids.sql: it is no SQL database");
                    return Err(Failure::usage(message).next("use ids.file").into());
                };
                let answer = postgres.ask(query, site, LOOK_UP_MAX)?;
                if answer.is_empty() {
                    return Ok(None);
                }
                if answer.contains(['\n', '\t']) {
                    let message = format!(
                        "store {name:?}, ids.sql: more than one value for site {site}: the query has to \
                         answer with one"
                    );
                    return Err(Failure::usage(message).into());
                }
                Ok(Some(TenantId::try_new(answer)?))
            }
        }
    }
}

/// Reads lines of a site, a tab or a comma, and an id; `%XX` is a byte, as everywhere.
fn read_map(path: &Path) -> Result<BTreeMap<TenantId, TenantId>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!("read the ids in {}", path.display())).because(error)
    })?;
    let mut known = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        // A tab at the end of a line is a separator with no id behind it.
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let wrong = |fact: &str| {
            let message = format!("ids in {}, line {number}: {fact}", path.display());
            Failure::usage(message).next("a line has a site, a tab or a comma, and an id")
        };
        let (site, id) = line
            .split_once(['\t', ','])
            .ok_or_else(|| wrong("there is neither a tab nor a comma"))?;
        let parse = |text: &str| {
            text.trim()
                .parse()
                .map_err(|_| wrong("an id is empty or malformed"))
        };
        if known.insert(parse(site)?, parse(id)?).is_some() {
            return Err(wrong("the site was there before"));
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read_line_by_line_and_each_site_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ids.tsv");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_map(&path).map_err(|failure| failure.to_string())
        };
        let known = read("# site\tid\n7\tc-7\n8, c%2D8 \n\n").unwrap();
        let id = |text: &str| TenantId::try_new(text).unwrap();
        assert_eq!(known.get(&id("7")), Some(&id("c-7")));
        assert_eq!(known.get(&id("8")), Some(&id("c-8")));
        assert!(read("7\tc-7\n7\tc-8\n").unwrap_err().contains("line 2"));
        assert!(read("7 c-7\n").unwrap_err().contains("line 1"));
        assert!(read("7\t\n").unwrap_err().contains("empty"));
    }
}
