//! Addresses: that of the hub, and where a redirect leads.

use super::cache::repo;
use super::{HubId, HubSettings};
use crate::ModelError;

/// The address of the hub: as the settings say, or as the `hf-hub` crate knows it.
pub(super) fn endpoint(id: &HubId, settings: &HubSettings) -> Result<String, ModelError> {
    if let Some(endpoint) = &settings.endpoint {
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(id.error(format!(
                "HF_ENDPOINT: expected an address with http:// or https://, got `{endpoint}`"
            )));
        }
        return Ok(endpoint.clone());
    }
    let cache = hf_hub::Cache::new(settings.cache.clone());
    let api = hf_hub::api::sync::ApiBuilder::from_cache(cache).with_progress(false).build();
    let api = api.map_err(|error| id.error(format!("the hub's address is not known: {error}")))?;
    let url = api.repo(repo(id, "main")).url("");
    Ok(url.split_once(&format!("/{}/", id.id())).map(|(endpoint, _)| endpoint.to_string()).unwrap_or(url))
}

/// Scheme, host and port of an address.
pub(super) fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    &url[..end]
}

/// Where `to` leads from `at`.
pub(super) fn joined(at: &str, to: &str) -> String {
    let origin = origin(at);
    if to.contains("://") && !to.starts_with(['/', '?']) {
        return to.to_string();
    }
    if let Some(host) = to.strip_prefix("//") {
        let scheme = at.split("://").next().unwrap_or("https");
        return format!("{scheme}://{host}");
    }
    let (path, query) = to.split_once('?').map_or((to, None), |(path, query)| (path, Some(query)));
    let from = at[origin.len()..].split(['?', '#']).next().unwrap_or_default();
    let path = match path {
        "" => from.to_string(),
        path if path.starts_with('/') => path.to_string(),
        path => format!("{}/{path}", from.rsplit_once('/').map_or("", |(folder, _)| folder)),
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').skip(1) {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{origin}/{}{query}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_leads_where_it_says() {
        let at = "https://hub:8443/o/n/resolve/main/a.bin?download=true";
        for (to, expected) in [
            ("http://other:1/x?y=https://z", "http://other:1/x?y=https://z"),
            ("//cdn/x", "https://cdn/x"),
            ("/p/q?s=1", "https://hub:8443/p/q?s=1"),
            ("b.bin", "https://hub:8443/o/n/resolve/main/b.bin"),
            ("../../x/./y", "https://hub:8443/o/n/x/y"),
            ("../../../../../../x", "https://hub:8443/x"),
            ("?s=2", "https://hub:8443/o/n/resolve/main/a.bin?s=2"),
            ("/api?to=http://z", "https://hub:8443/api?to=http://z"),
        ] {
            assert_eq!(joined(at, to), expected, "{to}");
        }
        assert_eq!(origin("http://h"), "http://h");
        assert_ne!(origin("http://hub.evil/x"), origin("http://hub/x"));
    }
}
